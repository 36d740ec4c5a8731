//! Bodies on their way: a request is handled when its body is there, and an answer that is large
//! goes out piece by piece.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use hyper::body::{Frame, SizeHint};
use poem::{Body, Request, error::ReadBodyError, http::header};

use super::{
    connections::{Connection, peer_of},
    limits::{Kind, Limits},
    problem::Failure,
    problem_type::ProblemType,
};

/// A client that is slower with a body of a few KiB is stuck, or means to keep us busy.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Most bodies come with their head or right behind it; they need no place.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Of an answer that is large, what is handed to the connection at one time.
const PIECE: usize = 32 * 1_024;

/// An answer's body with what is held until all of it is sent, or its client has gone.
pub(super) struct Held<B, H> {
    body: B,
    _held: H,
}

impl<B, H> Held<B, H> {
    pub(super) fn new(body: B, held: H) -> Self {
        Self { body, _held: held }
    }
}

impl<B: hyper::body::Body + Unpin, H: Unpin> hyper::body::Body for Held<B, H> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a request's body, of at most so many bytes and in at most so much time, and puts it back in
/// one piece.
pub(super) async fn receive(
    request: &mut Request,
    most: usize,
    limits: &Arc<Limits>,
    time: Duration,
) -> Result<(), Failure> {
    check_length(request, most)?;
    let is_announced = request.headers().contains_key(header::CONTENT_LENGTH);
    let body = request.take_body();
    let mut reading = std::pin::pin!(read(body, most, is_announced));
    let read = if let Ok(read) = tokio::time::timeout(AT_ONCE.min(time), &mut reading).await {
        read
    } else {
        let _place = limits.enter(Kind::Body, peer_of(request))?;
        tokio::time::timeout(time, reading).await.map_err(|_| {
            Failure::new(ProblemType::RequestTimeout, "the body did not arrive in time")
        })?
    };
    let body = read.map_err(|error| match error {
        ReadBodyError::PayloadTooLarge => too_large(most),
        _ => Failure::new(ProblemType::BadRequest, "the body could not be read"),
    })?;
    request.set_body(body);
    Ok(())
}

fn check_length(request: &Request, most: usize) -> Result<(), Failure> {
    let Some(length) = request.headers().get(header::CONTENT_LENGTH) else { return Ok(()) };
    let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
    // hyper has refused lengths that are no number; what cannot be read is too much.
    if length.is_none_or(|length| length > most as u64) { Err(too_large(most)) } else { Ok(()) }
}

fn too_large(most: usize) -> Failure {
    let detail = format!("at most {most} bytes are accepted");
    Failure::new(ProblemType::PayloadTooLarge, detail)
}

async fn read(body: Body, most: usize, is_announced: bool) -> Result<Bytes, ReadBodyError> {
    if is_announced {
        // The length was checked, and hyper reads no more than that.
        body.into_bytes().await
    } else {
        // Boxed: it has a buffer in it.
        Box::pin(body.into_bytes_limit(most)).await
    }
}

/// An answer's body by which `connection` is in use whenever its client has read a piece.
pub(super) fn in_pieces(content: Bytes, connection: Option<Arc<Connection>>) -> Body {
    let pieces = stream::unfold(content, move |mut rest| {
        let connection = connection.clone();
        async move {
            if rest.is_empty() {
                return None;
            }
            if let Some(connection) = connection {
                connection.was_used();
            }
            let piece = rest.split_to(PIECE.min(rest.len()));
            Some((Ok::<_, std::io::Error>(piece), rest))
        }
    });
    Body::from_bytes_stream(pieces)
}
