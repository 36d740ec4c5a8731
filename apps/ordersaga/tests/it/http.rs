//! The HTTP contract, on the real services.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use ordersaga_devstack::{Cluster, Service, binary};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::bed::{Answer, Bed, Plan, block_on, order_for, saga, until};
use crate::invariants;

const CREATE: &str = "/api/v1/orders/create";
const CANCEL: &str = "/api/v1/orders/cancel";
const STATUS: &str = "/api/v1/status";
const FIND: &str = "/api/v1/items/find";
const ADD: &str = "/api/v1/items/add";

/// The answer is a problem document of this kind that names this field.
fn is_problem(answer: &Answer, status: u16, kind: &str, field: Option<&str>) -> Result<()> {
    let problem = answer.expect(status)?;
    ensure!(answer.header("content-type") == Some("application/problem+json"), "{answer:?}");
    ensure!(problem["type"] == format!("urn:ordersaga:problem:{kind}"), "{problem}");
    ensure!(problem["status"] == status, "{problem}");
    ensure!(problem["field"].as_str() == field, "{field:?} is not named: {problem}");
    for name in ["title", "detail", "request_id"] {
        ensure!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {problem}");
    }
    Ok(())
}

/// A body of this text for an endpoint that takes JSON.
fn with_body(
    bed: &Bed,
    service: Service,
    path: &str,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    let request = bed.http.post(format!("{}{path}", bed.url(service)));
    request.header("Content-Type", "application/json").body(body)
}

/// What a field of a body may not be, as JSON.
const NO_ID: [&str; 10] =
    ["0", "-1", "9223372036854775808", "1e30", "1.5", "\"1\"", "null", "true", "[1]", "{}"];
/// What an id in a query may not be.
const NO_ID_IN_QUERY: [&str; 9] =
    ["0", "-1", "9223372036854775808", "abc", "", "1.0", "%2B1", "%00", "1%20"];

async fn bodies_with_a_wrong_field(
    bed: &Bed,
    service: Service,
    path: &str,
    fields: &[(&str, &str, &[&str])],
) -> Result<()> {
    let body = |fields: &[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().map(|(name, v)| format!("\"{name}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let good: Vec<_> = fields.iter().map(|(name, value, _)| (*name, *value)).collect();
    let refused = async |fields: &[(&str, &str)], field: &str| {
        let body = body(fields);
        let answer = bed.send(with_body(bed, service, path, body.clone())).await?;
        is_problem(&answer, 422, "invalid-field", Some(field)).context(body)
    };
    for (at, (name, value, wrong)) in fields.iter().enumerate() {
        for wrong in *wrong {
            let mut fields = good.clone();
            fields[at].1 = wrong;
            refused(&fields, name).await?;
        }
        let twice: Vec<_> = good.iter().copied().chain([(*name, *value)]).collect();
        refused(&twice, name).await?;
        if *name != "quantity" {
            let mut without = good.clone();
            without.remove(at);
            refused(&without, name).await?;
        }
    }
    let more: Vec<_> = good.iter().copied().chain([("surprise", "1")]).collect();
    refused(&more, "surprise").await
}

#[test]
fn defect_18_a_wrong_body_is_refused_by_field_and_nothing_is_written() -> Result<()> {
    const QUANTITIES: [&str; 6] = ["0", "-1", "1001", "\"1\"", "null", "1.5"];
    let long = format!("\"{}\"", "x".repeat(201));
    let names = ["\"\"", "\"  \"", long.as_str(), "\"a\\u0000b\"", "\"a\\nb\"", "7", "null", "[]"];
    let prices = ["-1", "9223372036854775808", "1.5", "\"150\"", "null", "true", "{}"];
    saga(async |bed| {
        let order: [(&str, &str, &[&str]); 4] = [
            ("item_id", "1", &NO_ID),
            ("seller_id", "1", &NO_ID),
            ("client_id", "1", &NO_ID),
            ("quantity", "1", &QUANTITIES),
        ];
        bodies_with_a_wrong_field(bed, Service::CreateOrder, CREATE, &order).await?;
        let item: [(&str, &str, &[&str]); 4] = [
            ("seller_id", "1", &NO_ID),
            ("price", "1", &prices),
            ("name", "\"thing\"", &names),
            ("quantity", "1", &QUANTITIES),
        ];
        bodies_with_a_wrong_field(bed, Service::Store, ADD, &item).await?;

        for (service, path) in [(Service::CreateOrder, CREATE), (Service::Store, ADD)] {
            let malformed: [&[u8]; 5] =
                [b"", b"{", b"nonsense", b"{\"seller_id\":", b"{\"\xff\":1}"];
            for body in malformed {
                let answer = bed.send(with_body(bed, service, path, body.to_vec())).await?;
                let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
                is_problem(&answer, 400, "bad-request", None).context(shown)?;
            }
            for body in ["[]", "null", "1", "\"text\"", "[1,1,1]"] {
                let answer = bed.send(with_body(bed, service, path, body)).await?;
                is_problem(&answer, 422, "invalid-field", None).context(body)?;
            }
            // Recursion deep enough to end a careless parser.
            let deep = bed.send(with_body(bed, service, path, "[".repeat(16_000))).await?;
            is_problem(&deep, 422, "invalid-field", Some("[0]"))?;
            let large = format!("{{\"name\":\"{}\"}}", "x".repeat(20_000));
            let answer = bed.send(with_body(bed, service, path, large)).await?;
            is_problem(&answer, 413, "payload-too-large", None)?;
            for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
                let request = bed.http.post(format!("{}{path}", bed.url(service)));
                let request = request.header("Content-Type", content_type).body("{}");
                let answer = bed.send(request).await?;
                is_problem(&answer, 415, "unsupported-media-type", None).context(content_type)?;
            }
            let untyped = bed.http.post(format!("{}{path}", bed.url(service))).body("{}");
            is_problem(&bed.send(untyped).await?, 415, "unsupported-media-type", None)?;
        }
        nothing_written(bed).await
    })
}

#[test]
fn defect_18_a_wrong_parameter_is_refused_by_name_and_nothing_is_written() -> Result<()> {
    saga(async |bed| {
        for (service, method, path, name) in [
            (Service::CreateOrder, Method::POST, CANCEL, "order_id"),
            (Service::Monitoring, Method::GET, STATUS, "order_id"),
            (Service::Store, Method::GET, FIND, "item_id"),
        ] {
            let url = format!("{}{path}", bed.url(service));
            let refused = async |query: String, name: &str| {
                let request = bed.http.request(method.clone(), format!("{url}?{query}"));
                let answer = bed.send(request).await?;
                is_problem(&answer, 400, "invalid-parameter", Some(name))
                    .with_context(|| format!("{path}?{query}"))
            };
            for value in NO_ID_IN_QUERY {
                refused(format!("{name}={value}"), name).await?;
            }
            refused(String::new(), name).await?;
            refused(format!("{name}=1&{name}=1"), name).await?;
            refused(format!("{name}=1&surprise=1"), "surprise").await?;
            if service == Service::Monitoring {
                for value in ["-1", "30001", "abc", ""] {
                    refused(format!("{name}=1&wait_ms={value}"), "wait_ms").await?;
                }
            }
        }
        let long = "k".repeat(256);
        for key in ["", long.as_str()] {
            let request = bed.http.post(format!("{}{CREATE}", bed.url(Service::CreateOrder)));
            let request = request.header("Idempotency-Key", key).json(&order_for(1));
            let answer = bed.send(request).await?;
            is_problem(&answer, 400, "invalid-parameter", Some("Idempotency-Key"))?;
        }
        nothing_written(bed).await
    })
}

async fn nothing_written(bed: &Bed) -> Result<()> {
    for (cluster, query, count) in [
        (Cluster::CreateOrder, "SELECT count(*) FROM orders", 0),
        (Cluster::CreateOrder, "SELECT count(*) FROM outbox", 0),
        (Cluster::CreateOrder, "SELECT count(*) FROM idempotency_key", 0),
        (Cluster::Store, "SELECT count(*) FROM item", 3),
        (Cluster::Store, "SELECT count(*) FROM reservation", 0),
    ] {
        ensure!(bed.number(cluster, query).await? == count, "{cluster}: {query}");
    }
    ensure!(bed.log().ends().await?.values().all(|end| *end == 0), "something was published");
    Ok(())
}

#[test]
fn unknown_paths_and_methods_are_refused() -> Result<()> {
    saga(async |bed| {
        for service in Service::ALL {
            for path in ["/nowhere", "/api/v1", "/api/v1/orders", "/docs/nothing.js", "//"] {
                is_problem(&bed.get(service, path).await?, 404, "not-found", None).context(path)?;
            }
        }
        for (service, method, path, allow) in [
            (Service::CreateOrder, Method::GET, CREATE, "POST"),
            (Service::CreateOrder, Method::DELETE, CANCEL, "POST"),
            (Service::Monitoring, Method::POST, STATUS, "GET, HEAD"),
            (Service::Store, Method::PUT, FIND, "GET, HEAD"),
            (Service::Store, Method::GET, ADD, "POST"),
            (Service::Store, Method::POST, "/metrics", "GET, HEAD"),
        ] {
            let url = format!("{}{path}", bed.url(service));
            let answer = bed.send(bed.http.request(method.clone(), url)).await?;
            is_problem(&answer, 405, "method-not-allowed", None)?;
            ensure!(answer.header("allow") == Some(allow), "{method} {path}: {answer:?}");
        }
        Ok(())
    })
}

#[test]
fn the_specification_is_one_and_the_same_everywhere() -> Result<()> {
    saga(async |bed| {
        for service in Service::ALL {
            let served = bed.get(service, "/openapi.json").await?;
            ensure!(served.status == 200, "{served:?}");
            // Needs neither settings nor dependencies.
            let printed = Command::new(binary(service)?).arg("--openapi").env_clear().output()?;
            ensure!(printed.status.success(), "{printed:?}");
            ensure!(
                served.text == String::from_utf8(printed.stdout)?,
                "{service}: --openapi differs"
            );
            let file =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../openapi/{service}.json"));
            let committed = std::fs::read_to_string(&file)
                .with_context(|| format!("{}: cargo ordersaga openapi export", file.display()))?;
            ensure!(served.text == committed, "{service}: cargo ordersaga openapi export");
            let spec = served.json()?;
            ensure!(spec["openapi"].as_str().is_some_and(|version| version.starts_with("3.0")));
            let paths: BTreeSet<_> =
                spec["paths"].as_object().into_iter().flat_map(|paths| paths.keys()).collect();
            let expected: &[&str] = match service {
                Service::CreateOrder => &[CANCEL, CREATE],
                Service::Monitoring => &[STATUS],
                Service::Store => &[ADD, FIND],
            };
            ensure!(paths.iter().copied().eq(expected), "{service}: {paths:?}");
        }
        Ok(())
    })
}

#[test]
fn every_service_serves_its_pages() -> Result<()> {
    saga(async |bed| {
        for service in Service::ALL {
            let page = bed.get(service, "/").await?;
            ensure!(page.status == 200 && page.text.contains("swagger-ui"), "{service}: {page:?}");
            let script = bed.get(service, "/docs/swagger-initializer.js").await?;
            ensure!(script.text.contains("/openapi.json"), "{service}: {script:?}");
            for file in ["swagger-ui-bundle.js", "swagger-ui.css"] {
                let answer = bed.get(service, &format!("/docs/{file}")).await?;
                ensure!(answer.status == 200 && answer.text.len() > 10_000, "{service}: {file}");
            }
            ensure!(bed.get(service, "/health").await?.expect(200)?["status"] == "ok");
            ensure!(bed.get(service, "/ready").await?.expect(200)?["ready"] == true);
        }
        Ok(())
    })
}

#[test]
fn metrics_have_their_documented_names_and_no_ids() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        bed.item(1).await?;
        invariants::hold(bed).await?;
        for (service, names) in [
            (
                Service::CreateOrder,
                &[
                    r#"http_server_request_duration_seconds_count{method="POST",route="/api/v1/orders/create",status="201"} 1"#,
                    r#"saga_duration_seconds_count{outcome="reserved"} 1"#,
                    "outbox_pending 0",
                    "outbox_oldest_seconds 0",
                    r#"outbox_published_total{topic="incoming"} 1"#,
                    r#"consumer_records_total{result="applied",topic="reservation"} 1"#,
                    r#"consumer_lag_records{partition="8",topic="reservation"} 0"#,
                    "process_resident_memory_bytes ",
                ][..],
            ),
            (
                Service::Store,
                &[
                    r#"http_server_request_duration_seconds_count{method="GET",route="/api/v1/items/find",status="200"} "#,
                    r#"consumer_records_total{result="applied",topic="incoming"} 1"#,
                    r#"outbox_published_total{topic="reservation"} 1"#,
                    "cache_requests_total{result=\"",
                    r#"consumer_lag_records{partition="8",topic="incoming"} 0"#,
                    "outbox_pending 0",
                ],
            ),
            (
                Service::Monitoring,
                &[
                    r#"http_server_request_duration_seconds_count{method="GET",route="/api/v1/status",status="200"} "#,
                    r#"consumer_records_total{result="applied",topic="incoming"} 1"#,
                    r#"consumer_records_total{result="applied",topic="reservation"} 1"#,
                    r#"consumer_lag_records{partition="8",topic="incoming"} 0"#,
                    "consumer_batch_records_count ",
                ],
            ),
        ] {
            for name in names {
                // Some are brought up to date once a second.
                until(&format!("{service} exports {name}"), async || {
                    let page = bed.get(service, "/metrics").await?.text;
                    Ok(page.lines().any(|line| line.starts_with(name)))
                })
                .await?;
            }
            let page = bed.get(service, "/metrics").await?;
            let kind = page.header("content-type").unwrap_or_default();
            ensure!(kind.starts_with("text/plain"), "{kind}");
            for label in ["order_id=", "item_id=", "client_id=", "key="] {
                ensure!(!page.text.contains(label), "{service}: {label} is a label");
            }
        }
        Ok(())
    })
}

#[test]
fn the_location_of_a_new_order_is_its_status() -> Result<()> {
    saga(async |bed| {
        let created = bed.post(Service::CreateOrder, CREATE, Some(&order_for(1))).await?;
        let order = created.expect(201)?["order_id"].clone();
        let location = created.header("location").context("no Location")?.to_owned();
        let status = bed.send(bed.http.get(location)).await?.expect(200)?;
        ensure!(status["order_id"] == order, "{status}");

        let added = json!({"seller_id": 1, "price": 0, "name": "gift"});
        let added = bed.post(Service::Store, ADD, Some(&added)).await?;
        let item = added.expect(201)?["item_id"].clone();
        let location = added.header("location").context("no Location")?.to_owned();
        let found = bed.get(Service::Store, &location).await?.expect(200)?;
        ensure!(found["item_id"] == item && found["price"] == 0, "{found}");
        Ok(())
    })
}

#[test]
fn a_long_poll_answers_when_the_order_is_decided_and_not_before_its_time() -> Result<()> {
    saga(async |bed| {
        bed.services[&Service::Store].kill9().await?;
        let order = bed.place(&order_for(1)).await?;
        let undecided = bed.ask_status(order, 300).await?.expect(200)?;
        ensure!(undecided["step"] == "UNDER_RESERVATION", "{undecided}");
        let wait = bed.ask_status(order, 30_000);
        let (decided, started) = tokio::join!(wait, bed.start(Service::Store));
        started?;
        let decided = decided?.expect(200)?;
        ensure!(decided["step"] == "SHIPPING", "{decided}");
        invariants::hold(bed).await
    })
}

async fn create_with_key(bed: &Bed, key: &str, item: i64) -> Result<Answer> {
    let request = bed.http.post(format!("{}{CREATE}", bed.url(Service::CreateOrder)));
    bed.send(request.header("Idempotency-Key", key).json(&order_for(item))).await
}

#[test]
fn an_idempotency_key_stands_for_one_order() -> Result<()> {
    saga(async |bed| {
        let first = create_with_key(bed, "a", 1).await?;
        let order = first.expect(201)?;
        let again = create_with_key(bed, "a", 1).await?;
        ensure!(again.expect(201)? == order, "{again:?}");
        ensure!(again.header("location") == first.header("location"), "{again:?}");
        let other = create_with_key(bed, "a", 2).await?;
        is_problem(&other, 422, "idempotency-key-reused", Some("Idempotency-Key"))?;
        ensure!(create_with_key(bed, "b", 1).await?.expect(201)? != order, "another key");

        // It holds over a restart, and after the order has ended.
        let id = order["order_id"].as_i64().context("order_id")?;
        bed.cancel(id).await?;
        bed.reaches(id, "CANCELLED").await?;
        bed.services[&Service::CreateOrder].kill9().await?;
        bed.start(Service::CreateOrder).await?;
        ensure!(create_with_key(bed, "a", 1).await?.expect(201)? == order);
        let orders = "SELECT count(*) FROM orders";
        ensure!(bed.number(Cluster::CreateOrder, orders).await? == 2);
        invariants::hold(bed).await
    })
}

#[test]
fn an_idempotency_key_is_forgotten_after_its_time() -> Result<()> {
    let plan = Plan::default().set(Service::CreateOrder, "IDEMPOTENCY_TTL_SECONDS", "1");
    block_on(plan.run(async |bed| {
        create_with_key(bed, "a", 1).await?.expect(201)?;
        until("the key is forgotten", async || {
            Ok(bed.number(Cluster::CreateOrder, "SELECT count(*) FROM idempotency_key").await? == 0)
        })
        .await?;
        // Another order now.
        create_with_key(bed, "a", 2).await?.expect(201)?;
        ensure!(bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await? == 2);
        Ok(())
    }))
}

#[test]
fn with_too_much_unpublished_orders_are_refused_until_it_is_less() -> Result<()> {
    // Without topics nothing can be published.
    let plan = Plan::default().set(Service::CreateOrder, "OUTBOX_LIMIT", "5").idle();
    block_on(plan.run(async |bed| {
        let create = &bed.services[&Service::CreateOrder];
        create.start()?;
        until("orders are refused", async || {
            let Ok(answer) = bed.post(Service::CreateOrder, CREATE, Some(&order_for(1))).await
            else {
                return Ok(false);
            };
            if answer.status != 503 || answer.json()?["type"] != "urn:ordersaga:problem:overloaded"
            {
                return Ok(false);
            }
            ensure!(answer.header("retry-after").is_some(), "{answer:?}");
            Ok(true)
        })
        .await?;
        bed.apply_topics().await?;
        for service in [Service::Store, Service::Monitoring] {
            bed.services[&service].start()?;
        }
        bed.wait_ready().await?;
        let order = bed.insist("patient", &order_for(2)).await?;
        bed.reaches(order, "CANCELLED").await?;
        invariants::hold(bed).await
    }))
}

#[test]
fn concurrent_requests_with_one_key_make_one_order() -> Result<()> {
    saga(async |bed| {
        let answers = join_all((0..60).map(|_| create_with_key(bed, "same", 1))).await;
        let mut orders = BTreeSet::new();
        for answer in answers {
            let answer = answer?;
            if answer.status == 409 {
                let field = Some("Idempotency-Key");
                is_problem(&answer, 409, "idempotency-key-in-flight", field)?;
            } else {
                orders.insert(answer.expect(201)?["order_id"].as_i64());
            }
        }
        ensure!(orders.len() == 1, "{orders:?}");
        let later = create_with_key(bed, "same", 1).await?.expect(201)?["order_id"].as_i64();
        ensure!(orders.contains(&later));
        let stored = "SELECT count(*) FROM orders";
        ensure!(bed.number(Cluster::CreateOrder, stored).await? == 1);
        invariants::hold(bed).await
    })
}
