//! What clients send wrong: refused with the right status, a stable type and the culprit's name.

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Service};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::bed::{Bed, saga};
use crate::client::{ADD, CANCEL, CREATE, FIND, ITEMS, RESERVATIONS, STATUS, order_for};

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
        answer.is_problem(422, "invalid-field", Some(field)).context(body)
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
    let names = [
        "\"\"",
        "\"  \"",
        long.as_str(),
        "\"a\\u0000b\"",
        "\"a\\nb\"",
        "\"\\u200b\"",
        "\"\\ufeff\"",
        "\"\\u202e\"",
        "\"a\\u202eb\"",
        "\"\\u200da\"",
        "7",
        "null",
        "[]",
    ];
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
            ("quantity", "1", &["0", "-1", "1000000001", "\"1\"", "null", "1.5"]),
        ];
        bodies_with_a_wrong_field(bed, Service::Store, ADD, &item).await?;

        for (service, path) in [(Service::CreateOrder, CREATE), (Service::Store, ADD)] {
            let malformed: [&[u8]; 5] =
                [b"", b"{", b"nonsense", b"{\"seller_id\":", b"{\"\xff\":1}"];
            for body in malformed {
                let answer = bed.send(with_body(bed, service, path, body.to_vec())).await?;
                let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
                answer.is_problem(400, "bad-request", None).context(shown)?;
            }
            for body in ["[]", "null", "1", "\"text\""] {
                let answer = bed.send(with_body(bed, service, path, body)).await?;
                answer.is_problem(422, "invalid-field", None).context(body)?;
            }
            // Recursion deep enough to end a careless parser.
            let deep = bed.send(with_body(bed, service, path, "[".repeat(16_000))).await?;
            deep.is_problem(422, "invalid-field", None)?;
            let large = format!("{{\"name\":\"{}\"}}", "x".repeat(20_000));
            let answer = bed.send(with_body(bed, service, path, large)).await?;
            answer.is_problem(413, "payload-too-large", None)?;
            for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
                let request = bed.http.post(format!("{}{path}", bed.url(service)));
                let request = request.header("Content-Type", content_type).body("{}");
                let answer = bed.send(request).await?;
                answer.is_problem(415, "unsupported-media-type", None).context(content_type)?;
            }
            let untyped = bed.http.post(format!("{}{path}", bed.url(service))).body("{}");
            bed.send(untyped).await?.is_problem(415, "unsupported-media-type", None)?;
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
            (Service::Store, Method::GET, RESERVATIONS, "item_id"),
        ] {
            let url = format!("{}{path}", bed.url(service));
            let refused = async |query: String, name: &str| {
                let request = bed.http.request(method.clone(), format!("{url}?{query}"));
                let answer = bed.send(request).await?;
                answer
                    .is_problem(400, "invalid-parameter", Some(name))
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
            answer.is_problem(400, "invalid-parameter", Some("Idempotency-Key"))?;
        }
        nothing_written(bed).await
    })
}

#[test]
fn names_of_any_script_are_taken_and_older_names_stay_readable() -> Result<()> {
    saga(async |bed| {
        for name in ["Сок, 1 л", "نان\u{200c}ها", "👩\u{200d}👧 ❤\u{fe0f}"] {
            let item = json!({"seller_id": 1, "price": 1, "name": name});
            let added = bed.post(Service::Store, ADD, Some(&item)).await?.expect(201)?;
            let added = added["item_id"].as_i64().context("item_id")?;
            ensure!(bed.item(added).await?["item_name"] == name);
        }
        // From a time when such names were taken.
        let older = "\u{202e}\u{200b}";
        let item: i64 = sqlx::query_scalar(
            "INSERT INTO item (seller_id, name, price) VALUES (1, $1, 1) RETURNING item_id",
        )
        .bind(older)
        .fetch_one(bed.sql(Cluster::Store))
        .await?;
        ensure!(bed.item(item).await?["item_name"] == older);
        Ok(())
    })
}

#[test]
fn a_malformed_trace_context_is_ignored() -> Result<()> {
    const GOOD: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    saga(async |bed| {
        let create = async |contexts: &[&[u8]]| {
            let mut request = bed.http.post(format!("{}{CREATE}", bed.url(Service::CreateOrder)));
            for context in contexts {
                request = request.header("traceparent", *context);
            }
            bed.send(request.json(&order_for(1))).await?.expect(201)
        };
        let malformed: [&[&[u8]]; 4] =
            [&[b"\xff"], &[b"nonsense"], &[GOOD, GOOD], &[b"\xff", GOOD]];
        for contexts in malformed {
            create(contexts).await?;
        }
        let traced = "SELECT count(*) FROM orders WHERE traceparent IS NOT NULL";
        ensure!(bed.number(Cluster::CreateOrder, traced).await? == 0);
        create(&[GOOD]).await?;
        ensure!(bed.number(Cluster::CreateOrder, traced).await? == 1);
        Ok(())
    })
}

async fn nothing_written(bed: &Bed) -> Result<()> {
    for (cluster, query, count) in [
        (Cluster::CreateOrder, "SELECT count(*) FROM orders", 0),
        (Cluster::CreateOrder, "SELECT count(*) FROM sagabus.outbox", 0),
        (Cluster::CreateOrder, "SELECT count(*) FROM idempotency_key", 0),
        (Cluster::Store, "SELECT count(*) FROM item", 4),
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
            for path in ["/nowhere", "/api/v1", "/api/v1/order", "/docs/nothing.js", "//"] {
                bed.get(service, path).await?.is_problem(404, "not-found", None).context(path)?;
            }
        }
        for (service, method, path, allow) in [
            (Service::CreateOrder, Method::GET, CREATE, "POST"),
            (Service::CreateOrder, Method::DELETE, CANCEL, "POST"),
            (Service::Monitoring, Method::POST, STATUS, "GET, HEAD"),
            (Service::Store, Method::PUT, FIND, "GET, HEAD"),
            (Service::Store, Method::POST, ITEMS, "GET, HEAD"),
            (Service::Store, Method::GET, ADD, "POST"),
            (Service::Store, Method::POST, "/metrics", "GET, HEAD"),
        ] {
            let url = format!("{}{path}", bed.url(service));
            let answer = bed.send(bed.http.request(method.clone(), url)).await?;
            answer.is_problem(405, "method-not-allowed", None)?;
            ensure!(answer.header("allow") == Some(allow), "{method} {path}: {answer:?}");
        }
        Ok(())
    })
}
