//! Traces: the spans of one order, as a collector in this process gets them.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use ordersaga_devstack::Service;
use parking_lot::Mutex;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{Body, EndpointExt, Route, Server, handler, post, web::Data};
use prost::Message;

use crate::bed::{Bed, Plan, until};
use crate::client::order_for;
use crate::invariants;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// A span, with the service that sent it.
struct Seen {
    service: String,
    span: Span,
}

type Spans = Arc<Mutex<Vec<Seen>>>;

/// Gets spans as a real collector does: OTLP over HTTP, protobuf.
struct Collector {
    url: String,
    spans: Spans,
    server: tokio::task::JoinHandle<()>,
}

#[handler]
async fn take(body: Body, Data(spans): Data<&Spans>) -> poem::Result<()> {
    let body = body.into_bytes().await?;
    let request = ExportTraceServiceRequest::decode(body).map_err(poem::error::BadRequest)?;
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap_or_default().attributes;
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let Some(Value::StringValue(service)) = name.and_then(|n| n.value?.value) else {
            return Err(poem::http::StatusCode::BAD_REQUEST.into());
        };
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.lock().push(Seen { service: service.clone(), span });
        }
    }
    Ok(())
}

impl Collector {
    async fn start() -> Result<Self> {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await?;
        let addresses = acceptor.local_addr();
        let address = addresses[0].as_socket_addr().context("no socket")?;
        let url = format!("http://{address}");
        let spans = Spans::default();
        let routes = Route::new().at("/v1/traces", post(take)).data(spans.clone());
        let server = tokio::spawn(async move {
            let _ = Server::new_with_acceptor(acceptor).run(routes).await;
        });
        Ok(Self { url, spans, server })
    }

    /// Every span so far, as `service: name <- where it hangs`: a parent's or a linked span's name,
    /// `client`, or `nothing`. Sorted.
    fn told(&self, prefix: &str) -> Vec<String> {
        let spans = self.spans.lock();
        let hangs_on = |id: &[u8]| {
            if id == hex(CLIENT) {
                return "client".to_owned();
            }
            let found = spans.iter().find(|seen| seen.span.span_id == id);
            found.map_or("an unknown span".to_owned(), |seen| seen.span.name.replace(prefix, ""))
        };
        let mut told = Vec::new();
        for Seen { service, span } in spans.iter() {
            let name = span.name.replace(prefix, "");
            let links =
                span.links.iter().map(|link| format!("linked to {}", hangs_on(&link.span_id)));
            let mut on: Vec<_> = links.collect();
            if !span.parent_span_id.is_empty() {
                on.push(hangs_on(&span.parent_span_id));
            }
            told.extend(on.iter().map(|on| format!("{service}: {name} <- {on}")));
            if on.is_empty() {
                told.push(format!("{service}: {name} <- nothing"));
            }
        }
        told.sort();
        told.dedup();
        told
    }

    async fn gets(&self, bed: &Bed, expected: &[&str]) -> Result<()> {
        let all = until("all spans", async || Ok(self.told(&bed.prefix) == expected)).await;
        all.with_context(|| format!("expected {expected:#?}, got {:#?}", self.told(&bed.prefix)))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| {
        u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or_default()
    });
    digits.collect()
}

fn traced(url: &str, consumers: &str, ratio: &str) -> Plan {
    Service::ALL.into_iter().fold(Plan::default(), |plan, service| {
        plan.set(service, "OTEL_EXPORTER_OTLP_ENDPOINT", url)
            .set(service, "OTEL_TRACES_SAMPLER_ARG", ratio)
            .set(service, "TRACE_CONSUMERS", consumers)
            .set(service, "OTEL_BSP_SCHEDULE_DELAY", "50")
    })
}

/// Places an order as a client that has a trace, or none.
async fn place(bed: &Bed, context: Option<&str>) -> Result<()> {
    let url = format!("{}/api/v1/orders/create", bed.url(Service::CreateOrder));
    let mut request = bed.http.post(url).json(&order_for(1));
    if let Some(context) = context {
        request = request.header("traceparent", context);
    }
    bed.send(request).await?.expect(201).map(drop)
}

/// The context that each of an order's first two records carries.
async fn contexts(bed: &Bed) -> Result<Vec<Option<String>>> {
    let mut records = Vec::new();
    until("both records", async || {
        records = bed.log().read(&["incoming", "reservation"]).await?;
        Ok(records.len() == 2)
    })
    .await?;
    Ok(records.iter().map(|record| record.header("traceparent")).collect())
}

#[test]
fn one_trace_leads_through_all_services_when_records_are_parents() -> Result<()> {
    crate::bed::block_on(async {
        let collector = Collector::start().await?;
        let plan = traced(&collector.url, "parent", "0");
        plan.run(async |bed| {
            place(bed, Some(&format!("00-{TRACE}-{CLIENT}-01"))).await?;
            collector
                .gets(
                    bed,
                    &[
                        "service-create-order: POST /api/v1/orders/create <- client",
                        "service-create-order: process reservation <- send reservation",
                        "service-create-order: send incoming <- POST /api/v1/orders/create",
                        "service-monitoring-order: process incoming <- send incoming",
                        "service-monitoring-order: process reservation <- send reservation",
                        "service-store: process incoming <- send incoming",
                        "service-store: send reservation <- process incoming",
                    ],
                )
                .await?;
            let spans = collector.spans.lock();
            let other = spans.iter().find(|seen| seen.span.trace_id != hex(TRACE));
            ensure!(other.is_none(), "{:?} is in another trace", other.map(|seen| &seen.span));
            let times = |span: &Span| (span.start_time_unix_nano, span.end_time_unix_nano);
            ensure!(spans.iter().all(|seen| times(&seen.span).0 <= times(&seen.span).1));
            Ok(())
        })
        .await
    })
}

#[test]
fn batches_are_linked_to_the_traces_of_their_records() -> Result<()> {
    crate::bed::block_on(async {
        let collector = Collector::start().await?;
        // The client decides for its own trace, and the batches follow: a ratio of 0 changes neither.
        let plan = traced(&collector.url, "link", "0");
        plan.run(async |bed| {
            place(bed, Some(&format!("00-{TRACE}-{CLIENT}-01"))).await?;
            collector
                .gets(
                    bed,
                    &[
                        "service-create-order: POST /api/v1/orders/create <- client",
                        "service-create-order: process <- linked to send reservation",
                        "service-create-order: send incoming <- POST /api/v1/orders/create",
                        "service-monitoring-order: process <- linked to send incoming",
                        "service-monitoring-order: process <- linked to send reservation",
                        "service-store: process <- linked to send incoming",
                        "service-store: send reservation <- send incoming",
                    ],
                )
                .await?;
            for seen in collector.spans.lock().iter() {
                let within = seen.span.trace_id == hex(TRACE);
                ensure!(within == (seen.span.name != "process"), "{:?}", seen.span);
            }
            Ok(())
        })
        .await
    })
}

#[test]
fn what_nobody_traces_costs_no_span_and_a_silent_collector_no_order() -> Result<()> {
    crate::bed::block_on(async {
        let collector = Collector::start().await?;
        let unsampled = format!("00-{TRACE}-{CLIENT}-00");
        traced(&collector.url, "parent", "0")
            .run(async |bed| {
                place(bed, Some(&unsampled)).await?;
                let carried = contexts(bed).await?;
                ensure!(carried.iter().all(|c| c.as_deref() == Some(&*unsampled)), "{carried:?}");
                place(bed, None).await?;
                invariants::hold(bed).await?;
                let told = collector.told(&bed.prefix);
                ensure!(told.is_empty(), "{told:?}");
                Ok(())
            })
            .await?;
        let nobody = format!("http://127.0.0.1:{}", ordersaga_devstack::free_port()?);
        traced(&nobody, "parent", "1")
            .run(async |bed| {
                place(bed, None).await?;
                let carried = contexts(bed).await?;
                ensure!(carried.iter().all(Option::is_some), "a request began no trace");
                invariants::hold(bed).await
            })
            .await
    })
}
