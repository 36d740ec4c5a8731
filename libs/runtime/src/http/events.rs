//! Streams of events (Server-Sent Events): an answer that goes on until its client has gone, it has
//! lived for long enough, or the service stops.

use std::{future::ready, io, sync::Arc, sync::LazyLock, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use poem::{Body, Request, Response, http::header};
use prometheus::{IntCounter, IntGauge, register_int_counter, register_int_gauge};
use serde::Serialize;

use super::{
    auth::Principal,
    connections::{Connection, peer_of},
    limits::{Kind, Limits, Place},
    problem::Failure,
};
use crate::clock;

/// After so much silence a comment is sent: proxies cut what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a stream lives, to within a fifth: after a rolling update clients are spread again.
const LIFE: Duration = Duration::from_mins(15);
/// When a client may come back, in milliseconds. Not all at once.
const RETRY: std::ops::Range<u32> = 1_000..5_000;

static OPEN: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("http_server_streams", "Streams of events that are open.")
        .expect("registered once")
});

static FRAMES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "http_server_stream_frames_total",
        "Events handed to connections, of all streams."
    )
    .expect("registered once")
});

/// Opens a stream: the events that a request asks for, each as [`event`] writes it.
pub(super) type Opener =
    Box<dyn Fn(&Request) -> Result<BoxStream<'static, Bytes>, Failure> + Send + Sync>;

/// An event as it is sent. Its data is JSON, which has no line ends; `id` must have none either.
pub fn event(name: &str, id: Option<&str>, data: &impl Serialize) -> serde_json::Result<Bytes> {
    let data = serde_json::to_string(data)?;
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Ok(format!("event: {name}\n{id}data: {data}\n\n").into())
}

/// How long a stream lives: no longer than what its client has shown is good for.
fn life_of(principal: Option<&Principal>) -> Duration {
    let life = LIFE.mul_f64(0.8 + 0.4 * fastrand::f64());
    let until = principal.and_then(Principal::until);
    let left = until.map(|until| (until - clock::now()).to_std().unwrap_or_default());
    left.map_or(life, |left| left.min(life))
}

/// A stream that is open.
struct Open {
    events: BoxStream<'static, Bytes>,
    connection: Option<Arc<Connection>>,
    _place: Place,
}

/// Answers with a stream, if there is room for one more.
pub(super) fn answer(
    request: &Request,
    limits: &Arc<Limits>,
    open: &Opener,
) -> Result<Response, Failure> {
    let place = limits.enter(Kind::Stream, peer_of(request))?;
    let life = tokio::time::sleep(life_of(request.data()));
    let bye = format!("event: bye\nretry: {}\ndata: {{}}\n\n", fastrand::u32(RETRY));
    let events = open(request)?.take_until(life).chain(stream::once(ready(Bytes::from(bye))));
    let connection = request.data::<Arc<Connection>>().cloned();
    let open = Open::new(events.boxed(), connection, place);
    Ok(Response::builder()
        .content_type("text/event-stream; charset=utf-8")
        .header(header::CACHE_CONTROL, "no-store, no-transform")
        // nginx would collect events until it has a few KiB of them.
        .header("x-accel-buffering", "no")
        .body(Body::from_bytes_stream(stream::unfold(open, Open::next))))
}

impl Open {
    fn new(
        events: BoxStream<'static, Bytes>,
        connection: Option<Arc<Connection>>,
        place: Place,
    ) -> Self {
        OPEN.inc();
        Self { events, connection, _place: place }
    }

    /// The next event. Whoever does not read does not ask for it, and his connection goes the way of
    /// those that are of no use.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let next = tokio::time::timeout(KEEP_ALIVE, self.events.next()).await;
        let event = next.unwrap_or(Some(Bytes::from_static(b":\n\n")))?;
        FRAMES.inc();
        if let Some(connection) = &self.connection {
            connection.was_used();
        }
        Some((Ok(event), self))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.dec();
    }
}
