//! Distributed traces. An order's trace is that of the request that placed it: its context goes
//! with the order through the outbox and the headers of every record. Spans are made for requests,
//! for records sent and for records processed, and exported by OTLP; with no address to export to
//! there are none, and a client's context is carried along as it came.
//!
//! Names and attributes: OpenTelemetry's conventions for HTTP and for messaging,
//! <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span as SdkSpan,
};
use ordersaga_contract::{OrderId, cloud_event};
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::config::{TraceConfig, TraceConsumers};
use crate::consumer::Record;

/// Links of one span, at the most: OpenTelemetry's own limit.
const LINKS: usize = 128;
/// How long the last spans may take to leave when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);

static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    tracer: SdkTracer,
    consumers: TraceConsumers,
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
    let traces = Traces { tracer: provider.tracer("ordersaga"), consumers: config.consumers };
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
        HeaderValue::try_from(traceparent(&self.0)).expect("hexadecimal digits")
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

/// A record on its way to the broker; ends with its acknowledgement.
pub(crate) struct Sending(SdkSpan);

impl Sending {
    /// Begins a span in the trace that the event came with; `None` if that is not traced.
    pub(crate) fn begin(topic: &str, order: OrderId, parent: Option<&str>) -> Option<Self> {
        let traces = TRACES.get()?;
        let parent = sampled(parent?)?;
        Some(Self(traces.child("send", SpanKind::Producer, topic, order, parent)))
    }

    /// The context that goes into the record's headers.
    pub(crate) fn traceparent(&self) -> String {
        traceparent(&self.0)
    }

    /// The broker did not take the record.
    pub(crate) fn fail(&mut self, error: &str) {
        self.0.set_status(Status::error(error.to_owned()));
    }
}

/// The spans of a batch of records, from when it is taken to its commit, repetitions included.
pub(crate) struct Processing(Vec<SdkSpan>);

impl Processing {
    /// Begins the spans of the records that are traced. With [`TraceConsumers::Parent`] each gets
    /// one in its own trace, and what is made of it goes on from there; with
    /// [`TraceConsumers::Link`] the batch gets one, linked to all of them.
    pub(crate) fn begin(group: &str, records: &mut [Record]) -> Self {
        let Some(traces) = TRACES.get() else { return Self(Vec::new()) };
        let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
        let followed = records.iter_mut().filter_map(|record| {
            let context = sampled(record.traceparent.as_deref()?)?;
            Some((record, context))
        });
        let mut spans = match traces.consumers {
            TraceConsumers::Parent => followed
                .map(|(record, parent)| {
                    let topic = record.event.kind.fact().topic().name();
                    let order = record.event.order.order_id;
                    let span = traces.child("process", SpanKind::Consumer, topic, order, parent);
                    record.traceparent = Some(traceparent(&span));
                    span
                })
                .collect(),
            TraceConsumers::Link => {
                let links = followed.take(LINKS).map(|(record, context)| {
                    let order = KeyValue::new(ORDER, record.event.order.order_id.get());
                    Link::new(context, vec![order], 0)
                });
                let links: Vec<_> = links.collect();
                if links.is_empty() { Vec::new() } else { vec![traces.linked(links)] }
            }
        };
        for span in &mut spans {
            span.set_attribute(KeyValue::new("messaging.consumer.group.name", group.to_owned()));
            span.set_attribute(KeyValue::new("messaging.batch.message_count", count));
        }
        Self(spans)
    }

    /// Notes that the batch failed and is tried again.
    pub(crate) fn retried(&mut self, error: &str) {
        for span in &mut self.0 {
            span.add_event("retry", vec![KeyValue::new("error.message", error.to_owned())]);
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

/// By which the spans of an order are found.
const ORDER: &str = "ordersaga.order.id";

impl Traces {
    fn child(
        &self,
        operation: &'static str,
        kind: SpanKind,
        topic: &str,
        order: OrderId,
        parent: SpanContext,
    ) -> SdkSpan {
        let span = self
            .tracer
            .span_builder(format!("{operation} {topic}"))
            .with_kind(kind)
            .with_attributes(messaging(operation).into_iter().chain([
                KeyValue::new("messaging.destination.name", topic.to_owned()),
                KeyValue::new("messaging.kafka.message.key", order.to_string()),
                KeyValue::new(ORDER, order.get()),
            ]));
        let parent = Context::new().with_remote_span_context(parent);
        self.tracer.build_with_context(span, &parent)
    }

    /// In a trace of its own.
    fn linked(&self, links: Vec<Link>) -> SdkSpan {
        let span = self
            .tracer
            .span_builder("process")
            .with_kind(SpanKind::Consumer)
            .with_attributes(messaging("process"))
            .with_links(links);
        self.tracer.build_with_context(span, &Context::new())
    }
}

fn messaging(operation: &'static str) -> [KeyValue; 3] {
    [
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
    ]
}

/// The context as it stands in a `traceparent`, <https://www.w3.org/TR/trace-context/>.
fn traceparent(span: &SdkSpan) -> String {
    let context = span.span_context();
    let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
    format!("00-{trace}-{span}-{flags:02x}")
}

fn remote(traceparent: &str) -> Option<SpanContext> {
    if !cloud_event::is_traceparent(traceparent) {
        return None;
    }
    let trace = TraceId::from_hex(&traceparent[3..35]).ok()?;
    let span = SpanId::from_hex(&traceparent[36..52]).ok()?;
    let flags = u8::from_str_radix(&traceparent[53..55], 16).ok()?;
    Some(SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE))
}

/// The context, if its trace is being recorded.
fn sampled(traceparent: &str) -> Option<SpanContext> {
    remote(traceparent).filter(SpanContext::is_sampled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_as_it_is_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let provider = SdkTracerProvider::builder().build();
        let tracer = provider.tracer("test");
        let parent = Context::new().with_remote_span_context(remote(text).unwrap());
        let child = tracer.build_with_context(tracer.span_builder("x"), &parent);
        let written = traceparent(&child);
        assert!(cloud_event::is_traceparent(&written), "{written}");
        assert_eq!((&written[..36], &written[52..]), (&text[..36], &text[52..]));
        assert_ne!(written[36..52], text[36..52]);
    }

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

    #[test]
    fn only_a_sampled_context_is_followed() {
        let context =
            |flags| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        assert!(sampled(&context("01")).is_some());
        assert!(sampled(&context("03")).is_some());
        assert!(sampled(&context("00")).is_none());
        assert!(sampled("no context").is_none());
    }
}
