//! Distributed traces. An order's trace is that of the request that placed it: its context goes
//! with the order through the outbox and the headers of every record. Spans are made for requests
//! here, for records sent and processed by the bus, and exported by OTLP; with no address to export
//! to there are none, and a client's context is carried along as it came.
//!
//! Names and attributes: OpenTelemetry's conventions for HTTP.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    Link, Span as _, SpanKind, Status, TraceContextExt, TraceId, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span as SdkSpan,
};
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode};
use sagabus::cloud_event;
use sagabus::trace::{Consumers, remote, traceparent};

use crate::config::{TraceConfig, TraceConsumers};

/// How long the last spans may take to leave when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);

static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    tracer: SdkTracer,
    consumers: Consumers,
}

/// How the bus makes its spans, if they are exported.
pub(crate) fn of_bus() -> Option<sagabus::trace::Traces> {
    TRACES.get().map(|traces| sagabus::trace::Traces {
        tracer: traces.tracer.clone(),
        consumers: traces.consumers,
        // By which the spans of an order are found.
        key_attribute: "ordersaga.order.id",
    })
}

/// Exports spans until it is dropped, then what is left of them.
pub(crate) struct Exporting(Option<SdkTracerProvider>);

impl Drop for Exporting {
    fn drop(&mut self) {
        let ended = self.0.take().map(|provider| provider.shutdown_with_timeout(LAST_SPANS));
        if let Some(Err(error)) = ended {
            tracing::warn!(%error, "the last spans are lost");
        }
    }
}

/// Starts tracing, if there is an address to export to. Not to be called on a runtime's thread:
/// the exporter has threads of its own, which it starts and waits for.
pub(crate) fn init(service: &'static str, config: &TraceConfig) -> anyhow::Result<Exporting> {
    if config.endpoint.is_empty() {
        return Ok(Exporting(None));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", config.endpoint.trim_end_matches('/')))
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by the SDK and go before this name.
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name(service) };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Following::ratio(config.ratio))
        .with_resource(resource.build())
        .build();
    let consumers = match config.consumers {
        TraceConsumers::Link => Consumers::Link,
        TraceConsumers::Parent => Consumers::Parent,
    };
    let traces = Traces { tracer: provider.tracer("ordersaga"), consumers };
    TRACES.set(traces).ok().context("tracing was started twice")?;
    Ok(Exporting(Some(provider)))
}

/// Takes away what is no context, whatever its bytes, or more than one: as the W3C has it, a
/// malformed header counts as none, and of two contexts neither is to be believed.
pub(crate) fn ignore_malformed(headers: &mut HeaderMap) {
    let mut contexts = headers.get_all(cloud_event::TRACEPARENT).iter();
    let context = contexts.next().and_then(|value| value.to_str().ok());
    let good = context.is_some_and(cloud_event::is_traceparent) && contexts.next().is_none();
    if !good {
        headers.remove(cloud_event::TRACEPARENT);
    }
}

/// The handling of a request, from its first byte read to its answer.
pub(crate) struct Request(SdkSpan);

impl Request {
    /// Begins a span, in the client's trace if it names one; `None` if this request is not traced.
    pub(crate) fn begin(method: &Method, route: &str, headers: &HeaderMap) -> Option<Self> {
        let traces = TRACES.get()?;
        let context = headers.get(cloud_event::TRACEPARENT);
        let context = context.and_then(|value| value.to_str().ok()).and_then(remote);
        let attributes = [
            KeyValue::new("http.request.method", method.to_string()),
            KeyValue::new("http.route", route.to_owned()),
        ];
        let span = traces
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let parent =
            context.map_or_else(Context::new, |c| Context::new().with_remote_span_context(c));
        let span = traces.tracer.build_with_context(span, &parent);
        span.is_recording().then_some(Self(span))
    }

    /// The context of what the request causes.
    pub(crate) fn traceparent(&self) -> HeaderValue {
        HeaderValue::try_from(traceparent(self.0.span_context())).expect("hexadecimal digits")
    }

    /// Says whose request it is.
    pub(crate) fn is_of(&mut self, principal: &str) {
        self.0.set_attribute(KeyValue::new("enduser.id", principal.to_owned()));
    }

    /// Ends the span with the status of the answer.
    pub(crate) fn end(mut self, status: StatusCode) {
        let code = i64::from(status.as_u16());
        self.0.set_attribute(KeyValue::new("http.response.status_code", code));
        if status.is_server_error() {
            self.0.set_attribute(KeyValue::new("error.type", code.to_string()));
            self.0.set_status(Status::error(""));
        }
    }
}

/// Traces this part of the requests, and everything that follows from a traced one: also what is
/// only linked to it.
#[derive(Clone, Debug)]
struct Following(Sampler);

impl Following {
    fn ratio(ratio: f64) -> Self {
        Self(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
    }
}

impl ShouldSample for Following {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if links.iter().any(|link| link.span_context.is_sampled()) {
            &Sampler::AlwaysOn
        } else {
            &self.0
        };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_context_counts_as_none() {
        let good: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (values, kept) in [
            (&[good][..], 1),
            (&[], 0),
            (&[good, good], 0),
            (&[good, b"nonsense"], 0),
            (&[b"nonsense"], 0),
            (&[b"\xff"], 0),
            (&[b""], 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static("1"));
            for value in values {
                let value = HeaderValue::from_bytes(value).unwrap();
                headers.append(cloud_event::TRACEPARENT, value);
            }
            ignore_malformed(&mut headers);
            let left = headers.get_all(cloud_event::TRACEPARENT).iter().count();
            assert_eq!((left, headers.len()), (kept, kept + 1), "{values:?}");
        }
    }
}
