//! Distributed traces: a span for each record sent and for what is processed. A message's context
//! goes with it through the outbox and the headers of its record.
//!
//! Names and attributes: OpenTelemetry's conventions for messaging,
//! <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>.

use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

use crate::{Message, Record, cloud_event};

/// Links of one span, at the most: OpenTelemetry's own limit.
const LINKS: usize = 128;

/// Where spans go, and how they belong together: see [`Builder::traces`](crate::Builder::traces).
#[derive(Clone)]
pub struct Traces {
    /// Makes the spans.
    pub tracer: SdkTracer,
    /// How consumers' spans belong to the traces of what they consume.
    pub consumers: Consumers,
    /// The attribute that has a record's key, besides `messaging.kafka.message.key`.
    pub key_attribute: &'static str,
}

/// How a consumer's spans belong to the traces of what it consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumers {
    /// One span per batch, in a trace of its own, linked to the records' traces.
    Link,
    /// One span per record, in the record's trace; what it causes follows from it.
    Parent,
}

/// A record on its way to the broker; ends with its acknowledgement.
pub(crate) struct Sending(SdkSpan);

impl Sending {
    /// Begins a span in the trace that the message came with; `None` if that is not traced.
    pub(crate) fn begin(
        traces: Option<&Traces>,
        topic: &str,
        key: &str,
        parent: Option<&str>,
    ) -> Option<Self> {
        let traces = traces?;
        let parent = sampled(parent?)?;
        Some(Self(traces.child("send", SpanKind::Producer, topic, key, parent)))
    }

    /// The context that goes into the record's headers.
    pub(crate) fn traceparent(&self) -> String {
        traceparent(self.0.span_context())
    }

    /// The broker did not take the record.
    pub(crate) fn fail(&mut self, error: &str) {
        self.0.set_status(Status::error(error.to_owned()));
    }
}

/// The spans of a batch of records, from when it is taken to its commit, repetitions included.
pub(crate) struct Processing(Vec<SdkSpan>);

impl Processing {
    /// Begins the spans of the records that are traced. With [`Consumers::Parent`] what is made of a
    /// record goes on from its span.
    pub(crate) fn begin<M: Message>(
        traces: Option<&Traces>,
        group: &str,
        records: &mut [Record<M>],
    ) -> Self {
        let Some(traces) = traces else { return Self(Vec::new()) };
        let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
        let followed = records.iter_mut().filter_map(|record| {
            let context = sampled(record.traceparent.as_deref()?)?;
            Some((record, context))
        });
        let mut spans = match traces.consumers {
            Consumers::Parent => followed
                .map(|(record, parent)| {
                    let (topic, key) = (record.message.topic(), record.message.key());
                    let span = traces.child("process", SpanKind::Consumer, topic, &key, parent);
                    record.traceparent = Some(traceparent(span.span_context()));
                    span
                })
                .collect(),
            Consumers::Link => {
                let links = followed.take(LINKS).map(|(record, context)| {
                    Link::new(context, vec![traces.key(&record.message.key())], 0)
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

impl Traces {
    fn child(
        &self,
        operation: &'static str,
        kind: SpanKind,
        topic: &str,
        key: &str,
        parent: SpanContext,
    ) -> SdkSpan {
        let span = self
            .tracer
            .span_builder(format!("{operation} {topic}"))
            .with_kind(kind)
            .with_attributes(messaging(operation).into_iter().chain([
                KeyValue::new("messaging.destination.name", topic.to_owned()),
                KeyValue::new("messaging.kafka.message.key", key.to_owned()),
                self.key(key),
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

    fn key(&self, key: &str) -> KeyValue {
        let value = key.parse().map_or_else(|_| Value::from(key.to_owned()), Value::I64);
        KeyValue::new(self.key_attribute, value)
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
pub fn traceparent(context: &SpanContext) -> String {
    let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
    format!("00-{trace}-{span}-{flags:02x}")
}

/// The context that a `traceparent` tells of; `None` if it is none.
pub fn remote(traceparent: &str) -> Option<SpanContext> {
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
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn a_context_is_read_as_it_is_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let provider = SdkTracerProvider::builder().build();
        let tracer = provider.tracer("test");
        let parent = Context::new().with_remote_span_context(remote(text).unwrap());
        let child = tracer.build_with_context(tracer.span_builder("x"), &parent);
        let written = traceparent(child.span_context());
        assert!(cloud_event::is_traceparent(&written), "{written}");
        assert_eq!((&written[..36], &written[52..]), (&text[..36], &text[52..]));
        assert_ne!(written[36..52], text[36..52]);
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
