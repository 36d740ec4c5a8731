//! What happens around every operation, in one layer: request id, limits, strict parameters,
//! deadline, panics, errors as problems, metrics.

use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use ordersaga_contract::cloud_event;
use poem::{
    Endpoint, Request, Response, Result,
    http::{HeaderMap, HeaderName, HeaderValue, Method},
};
use tracing::Instrument;

use super::{
    auth::Guard,
    body,
    connections::peer_of,
    limits::{Kind, Limits, RequestPlace},
    metrics::{Active, RouteMetrics},
    problem::Failure,
    problem_type::ProblemType,
    request_id::{self, RequestId},
};
use crate::{cpu::Meter, lifecycle::panic_message, trace};

/// Browsers say by it how they ask; programs do not send it.
const FETCH_MODE: &str = "sec-fetch-mode";
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What of a request an operation declares.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) query: Vec<String>,
    pub(super) headers: Vec<String>,
    /// Without one, a body that comes is not read, whatever its length.
    pub(super) body: bool,
}

/// What an operation of the API, unlike the pages beside it, has to keep to.
pub(super) struct Rules {
    pub(super) limits: Arc<Limits>,
    pub(super) body_bytes: usize,
    /// What its bodies may have instead.
    pub(super) large_body: Option<usize>,
    pub(super) declared: Declared,
    pub(super) timeout: Duration,
}

/// An endpoint with everything around it. It never returns an error.
pub(super) struct Operation<E> {
    inner: E,
    method: Method,
    route: String,
    metrics: RouteMetrics,
    guard: Guard,
    rules: Option<Rules>,
}

impl<E: Endpoint<Output = Response>> Operation<E> {
    pub(super) fn new(
        inner: E,
        method: &Method,
        route: &str,
        guard: Guard,
        rules: Option<Rules>,
    ) -> Self {
        let metrics = RouteMetrics::new(method, route);
        Self { inner, method: method.clone(), route: route.to_owned(), metrics, guard, rules }
    }

    /// Answers a client that may ask, and lets the spans know who it is.
    async fn admit(
        &self,
        mut request: Request,
        trace: Option<&mut trace::Request>,
    ) -> Result<Response, Failure> {
        let principal = self.guard.admit(&request).await?;
        if let Some(name) = principal.name() {
            tracing::Span::current().record("principal", name);
            if let Some(trace) = trace {
                trace.is_of(name);
            }
        }
        request.set_data(principal);
        self.answer(request).await
    }

    async fn answer(&self, mut request: Request) -> Result<Response, Failure> {
        let Some(rules) = &self.rules else {
            return self.handle(request).await;
        };
        rules.declared.check(&request)?;
        let enter = |kind, request: &Request| rules.limits.enter(kind, peer_of(request));
        let _large = rules.large_body.map(|_| enter(Kind::LargeBody, &request)).transpose()?;
        if rules.declared.body {
            let (most, time) = match rules.large_body {
                Some(bytes) => (bytes, rules.timeout),
                None => (rules.body_bytes, body::LIMIT.min(rules.timeout)),
            };
            body::receive(&mut request, most, &rules.limits, time).await?;
        } else {
            // Kept, what it has received would count against all of its connection's requests.
            drop(request.take_body());
        }
        // Taken when all of the request is there, and kept as long as it is at work.
        let place = RequestPlace::new(enter(Kind::Request, &request)?);
        request.set_data(place.clone());
        let handling = self.handle(request);
        tokio::time::timeout(rules.timeout, handling).await.unwrap_or_else(|_| {
            let detail = "the request was given up; it may or may not have had an effect";
            Err(Failure::new(ProblemType::Timeout, detail))
        })
    }

    /// Begins a span, whose context takes the place of the client's; the pages beside the API are
    /// not traced. A context that is malformed is gone before parameters are checked.
    fn trace(&self, request: &mut Request) -> Option<trace::Request> {
        self.rules.as_ref()?;
        trace::ignore_malformed(request.headers_mut());
        let trace = trace::Request::begin(&self.method, &self.route, request.headers())?;
        request.headers_mut().insert(cloud_event::TRACEPARENT, trace.traceparent());
        Some(trace)
    }

    async fn handle(&self, request: Request) -> Result<Response, Failure> {
        match AssertUnwindSafe(self.inner.call(request)).catch_unwind().await {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(panic) => {
                let message = panic_message(&*panic);
                Err(Failure::internal(anyhow::anyhow!("the handler panicked: {message}")))
            }
        }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Operation<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let started = Instant::now();
        let _active = Active::enter();
        let id = RequestId::of(&request);
        let mut trace = self.trace(&mut request);
        let principal = tracing::field::Empty;
        let span = tracing::debug_span!("request", id = id.as_str(), principal);
        // Pages show what they cost; who does not look does not pay for measuring it.
        let meter = request.headers().contains_key(FETCH_MODE).then(Meter::default);
        let answer = self.admit(request, trace.as_mut()).instrument(span);
        let outcome = match &meter {
            Some(meter) => metered(meter, answer).await,
            None => answer.await,
        };
        let mut response = outcome.unwrap_or_else(|failure| failure.respond(Some(&id)));
        response.headers_mut().insert(request_id::HEADER, id.into_header());
        if let Some(spent) = meter.and_then(|meter| server_timing(&meter)) {
            response.headers_mut().insert(SERVER_TIMING, spent);
        }
        self.metrics.observe(response.status(), started);
        if let Some(trace) = trace {
            trace.end(response.status());
        }
        Ok(response)
    }
}

/// Awaits something, and measures the CPU time that it takes.
async fn metered<F: Future>(meter: &Meter, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| meter.measure(|| future.as_mut().poll(context))).await
}

/// The CPU time that an answer took, in milliseconds.
fn server_timing(meter: &Meter) -> Option<HeaderValue> {
    let milliseconds = meter.spent().as_secs_f64() * 1_000.0;
    HeaderValue::try_from(format!("cpu;dur={milliseconds:.3}")).ok()
}

impl Declared {
    /// Refuses what poem-openapi would silently ignore: parameters nobody declared, the second of
    /// two values, and header values that are not text.
    fn check(&self, request: &Request) -> Result<(), Failure> {
        if let Some(query) = request.uri().query() {
            self.check_query(query)?;
        }
        self.headers.iter().try_for_each(|name| check_header(request.headers(), name))
    }

    fn check_query(&self, query: &str) -> Result<(), Failure> {
        let mut seen = 0_u64;
        for name in names(query) {
            let Some(at) = self.query.iter().position(|known| known == name) else {
                return Err(Failure::unknown_parameter(name));
            };
            if seen & (1 << at) != 0 {
                return Err(Failure::invalid_parameter(name.to_owned(), "it is given twice"));
            }
            seen |= 1 << at;
        }
        Ok(())
    }
}

fn names(query: &str) -> impl Iterator<Item = &str> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
}

fn check_header(headers: &HeaderMap, name: &str) -> Result<(), Failure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Failure::invalid_parameter(name.to_owned(), "it is given twice"));
    }
    if first.is_some_and(|value| value.to_str().is_err()) {
        return Err(Failure::invalid_parameter(name.to_owned(), "visible ASCII is expected"));
    }
    Ok(())
}
