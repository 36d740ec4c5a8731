//! What the HTTP server tells Prometheus, labelled by route pattern and never by URL.

use std::{
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use poem::{
    Response,
    http::{Method, StatusCode, header},
};
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounterVec, IntGauge, TextEncoder, histogram_opts,
    register_histogram_vec, register_int_counter_vec, register_int_gauge,
};

static DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let options = histogram_opts!(
        "http_server_request_duration_seconds",
        "Time from the request's head to its response.",
        vec![
            0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            30.0
        ]
    );
    register_histogram_vec!(options, &["method", "route", "status"]).expect("registered once")
});

static ACTIVE: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("http_server_active_requests", "Requests being handled now.")
        .expect("registered once")
});

static SHED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let shed = register_int_counter_vec!(
        "http_server_requests_shed_total",
        "Requests turned away before anything was done for them.",
        &["reason"]
    )
    .expect("registered once");
    // A counter that is first seen at 1 has not risen, to whoever watches it.
    for reason in Shed::ALL {
        shed.with_label_values(&[reason.label()]);
    }
    shed
});

/// How long after one rendering of the page for clients the next one begins.
const RENDERING: Duration = Duration::from_secs(1);

/// Why a request is turned away at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// 429: as many requests are in hand as may be.
    Concurrency,
    /// 429: as many requests wait for the database as may.
    Queue,
    /// 429: as many requests wait for news as may.
    LongPolls,
    /// 429: as many pages are being sent as may.
    Pages,
    /// 429: as many streams of events are open as may be.
    Streams,
    /// 429: the client's address has its share.
    Address,
    /// 429: the client asks too often.
    Rate,
    /// 429: the client sends more requests than one may.
    Client,
    /// 429: too many credentials of the client's address were refused.
    Refusals,
    /// 503: as much waits to be published as may.
    Outbox,
    /// 503: as many idempotency keys are remembered as may be.
    Keys,
    /// 503: as much is stored as may be.
    Rows,
}

impl Shed {
    const ALL: [Self; 12] = [
        Self::Concurrency,
        Self::Queue,
        Self::LongPolls,
        Self::Pages,
        Self::Streams,
        Self::Address,
        Self::Rate,
        Self::Client,
        Self::Refusals,
        Self::Outbox,
        Self::Keys,
        Self::Rows,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Queue => "queue",
            Self::LongPolls => "long_polls",
            Self::Pages => "pages",
            Self::Streams => "streams",
            Self::Address => "address",
            Self::Rate => "rate",
            Self::Client => "client",
            Self::Refusals => "refusals",
            Self::Outbox => "outbox",
            Self::Keys => "keys",
            Self::Rows => "rows",
        }
    }
}

pub(super) fn shed(reason: Shed) {
    SHED.with_label_values(&[reason.label()]).inc();
}

/// The statuses whose histogram a route looks up once and keeps.
const USUAL: [u16; 12] = [200, 201, 202, 307, 400, 401, 403, 404, 422, 429, 500, 503];

/// The metrics of one method of one route.
pub(super) struct RouteMetrics {
    method: &'static str,
    route: String,
    usual: [OnceLock<Histogram>; USUAL.len()],
}

impl RouteMetrics {
    pub(super) fn new(method: &Method, route: impl Into<String>) -> Self {
        LazyLock::force(&ACTIVE);
        LazyLock::force(&SHED);
        Self { method: label(method), route: route.into(), usual: Default::default() }
    }

    pub(super) fn observe(&self, status: StatusCode, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        let usual = USUAL.iter().position(|usual| *usual == status.as_u16());
        match usual {
            Some(at) => self.usual[at].get_or_init(|| self.resolve(status)).observe(seconds),
            None => self.resolve(status).observe(seconds),
        }
    }

    fn resolve(&self, status: StatusCode) -> Histogram {
        DURATION.with_label_values(&[self.method, &self.route, status.as_str()])
    }
}

/// Counts a request as active for as long as it lives.
pub(super) struct Active<'a>(&'a IntGauge);

impl Active<'static> {
    pub(super) fn enter() -> Self {
        Self::count(&ACTIVE)
    }
}

impl<'a> Active<'a> {
    fn count(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Clients can invent methods, and each label value is kept for ever.
fn label(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

/// The `/metrics` page: everything registered in this process.
pub(super) fn page() -> Result<Response, super::Failure> {
    render().map(respond)
}

/// The same at most once a second. Who comes within a second of the last rendering waits for the
/// next, with all others who came meanwhile: no page is older than its request, and a flood of
/// requests costs one rendering a second.
pub(super) async fn page_in_turn() -> Result<Response, super::Failure> {
    static LAST: tokio::sync::Mutex<Option<(Instant, Bytes)>> = tokio::sync::Mutex::const_new(None);
    let came = Instant::now();
    let mut last = LAST.lock().await;
    if let Some((rendered, text)) = &*last {
        if *rendered > came {
            return Ok(respond(text.clone()));
        }
        tokio::time::sleep_until((*rendered + RENDERING).into()).await;
    }
    let (now, text) = (Instant::now(), render()?);
    *last = Some((now, text.clone()));
    Ok(respond(text))
}

fn render() -> Result<Bytes, super::Failure> {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&prometheus::gather(), &mut text)
        .map_err(super::Failure::internal)?;
    Ok(text.into())
}

fn respond(text: Bytes) -> Response {
    Response::builder().header(header::CONTENT_TYPE, prometheus::TEXT_FORMAT).body(text)
}

/// Calls `log` at most once a second, with how many calls were left out before.
pub(super) fn log_sparingly(log: impl FnOnce(u64)) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
    let next = NEXT.load(Ordering::Relaxed);
    let pause = u64::try_from(Duration::from_secs(1).as_millis()).unwrap_or(u64::MAX);
    let mine = now >= next
        && NEXT.compare_exchange(next, now + pause, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if mine {
        log(SUPPRESSED.swap(0, Ordering::Relaxed));
    } else {
        SUPPRESSED.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_share_one_label() {
        assert_eq!(label(&Method::POST), "POST");
        assert_eq!(label(&Method::from_bytes(b"BREW").unwrap()), "OTHER");
        assert_eq!(label(&Method::from_bytes(b"get").unwrap()), "OTHER");
    }

    #[test]
    fn a_request_is_active_as_long_as_it_lives() {
        let gauge = IntGauge::new("active", "active").unwrap();
        let (one, two) = (Active::count(&gauge), Active::count(&gauge));
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(two);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn log_lines_are_limited() {
        let mut lines = 0;
        for _ in 0..1000 {
            log_sparingly(|_| lines += 1);
        }
        assert!(lines <= 2, "{lines} lines at once");
    }
}
