//! The HTTP contract besides bad input, on the real services.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use ordersaga_devstack::{Cluster, Service, binary, free_port};
use serde_json::{Value, json};

use crate::bed::{Bed, Plan, WITHIN, block_on, saga, until};
use crate::client::{
    ADD, Answer, CANCEL, CREATE, CREATE_MANY, DEAD_LETTERS, DRY_RUN, EVIDENCE, FIND, FIND_ORDER,
    FIND_RESERVATION, FOLD, ITEMS, ORDERS, PARTITIONS, RESERVATIONS, STATS, STATUS, STUCK, WITNESS,
    order_for,
};
use crate::invariants;

#[test]
fn the_specification_is_one_and_the_same_everywhere() -> Result<()> {
    saga(async |bed| {
        for service in Service::ALL {
            let served = bed.get(service, "/openapi.json").await?;
            ensure!(served.status == 200, "{served:?}");
            // Needs neither settings nor dependencies.
            let printed = Command::new(binary(service)?).arg("--openapi").env_clear().output()?;
            ensure!(printed.status.success(), "{printed:?}");
            let printed = String::from_utf8(printed.stdout)?;
            let file =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../openapi/{service}.json"));
            let committed = std::fs::read_to_string(&file)
                .with_context(|| format!("{}: cargo ordersaga openapi export", file.display()))?;
            ensure!(printed == committed, "{service}: cargo ordersaga openapi export");
            let spec = served.json()?;
            let mut printed: Value = serde_json::from_str(&printed)?;
            // Clients made from what is served ask who served it; others the usual place.
            printed["servers"] = spec["servers"].clone();
            ensure!(spec == printed, "{service}: --openapi differs");
            ensure!(spec["openapi"].as_str().is_some_and(|version| version.starts_with("3.0")));
            let paths: BTreeSet<_> =
                spec["paths"].as_object().into_iter().flat_map(|paths| paths.keys()).collect();
            let expected: &[&str] = match service {
                Service::CreateOrder => &[CANCEL, CREATE, CREATE_MANY, FIND_ORDER],
                Service::Monitoring => &[
                    DEAD_LETTERS,
                    DRY_RUN,
                    ORDERS,
                    STUCK,
                    PARTITIONS,
                    STATS,
                    STATUS,
                    EVIDENCE,
                    FOLD,
                ],
                Service::Store => &[ITEMS, ADD, FIND, RESERVATIONS, WITNESS, FIND_RESERVATION],
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
            let page = bed.get(service, "/docs/").await?;
            ensure!(page.status == 200 && page.text.contains("swagger-ui"), "{service}: {page:?}");
            let front = bed.get(service, "/").await?;
            let is_own = front.text.contains("/desk/main.js");
            ensure!(is_own == (service == Service::Monitoring), "{service}: {front:?}");
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
    block_on(Plan::default().alone().run(async |bed| {
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
    }))
}

#[test]
fn a_long_poll_answers_when_the_order_is_decided_and_not_before_its_time() -> Result<()> {
    saga(async |bed| {
        bed.services[&Service::Store].kill9().await?;
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "UNDER_RESERVATION").await?;
        let asked = Instant::now();
        let undecided = bed.ask_status(order, 300).await?.expect(200)?;
        ensure!(undecided["step"] == "UNDER_RESERVATION", "{undecided}");
        ensure!(asked.elapsed() >= Duration::from_millis(300), "it did not wait");
        let wait = bed.ask_status(order, 30_000);
        let (decided, started) = tokio::join!(wait, bed.start(Service::Store));
        started?;
        let decided = decided?.expect(200)?;
        ensure!(decided["step"] == "SHIPPING", "{decided}");
        invariants::hold(bed).await
    })
}

#[test]
fn a_long_poll_waits_for_the_step_it_names() -> Result<()> {
    saga(async |bed| {
        let asked = async |order: i64, rest: &str| {
            let path = format!("{STATUS}?order_id={order}&{rest}");
            bed.get(Service::Monitoring, &path).await?.expect(200)
        };
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;

        let begin = Instant::now();
        let status = asked(order, "wait_for=CANCELLED&wait_ms=300").await?;
        ensure!(status["step"] == "SHIPPING", "{status}");
        ensure!(begin.elapsed() >= Duration::from_millis(300), "it did not wait");
        let waiting = asked(order, "wait_for=CANCELLED&wait_ms=30000");
        let (status, cancelled) = tokio::join!(waiting, bed.cancel(order));
        cancelled?;
        let status = status?;
        ensure!(status["step"] == "CANCELLED", "{status}");

        // What is past does not come again.
        let begin = Instant::now();
        for step in ["UNDER_RESERVATION", "SHIPPING", "CANCELLED"] {
            let status = asked(order, &format!("wait_for={step}&wait_ms=30000")).await?;
            ensure!(status["step"] == "CANCELLED", "{step}: {status}");
        }
        ensure!(begin.elapsed() < Duration::from_secs(20), "it waited for what is past");

        let path = format!("{STATUS}?order_id={order}&wait_for=SHIPPED");
        let wrong = bed.get(Service::Monitoring, &path).await?;
        wrong.is_problem(400, "invalid-parameter", Some("wait_for"))?;
        invariants::hold(bed).await
    })
}

/// Whether an answer says that it is that of an earlier request.
fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
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
        ensure!(!is_replayed(&first) && is_replayed(&again), "{first:?} {again:?}");
        let other = create_with_key(bed, "a", 2).await?;
        other.is_problem(422, "idempotency-key-reused", Some("Idempotency-Key"))?;
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

async fn cancel_with_key(bed: &Bed, base: &str, key: &str, order: i64) -> Result<Answer> {
    let request = bed.http.post(format!("{base}{CANCEL}?order_id={order}"));
    bed.send(request.header("Idempotency-Key", key)).await
}

#[test]
fn an_idempotency_key_stands_for_one_cancellation() -> Result<()> {
    saga(async |bed| {
        let base = bed.url(Service::CreateOrder);
        let reused = |answer: Answer| {
            answer.is_problem(422, "idempotency-key-reused", Some("Idempotency-Key"))
        };
        let (order, other) = (bed.place(&order_for(1)).await?, bed.place(&order_for(2)).await?);
        let first = cancel_with_key(bed, &base, "a", order).await?;
        let cancelled = first.expect(202)?;
        let again = cancel_with_key(bed, &base, "a", order).await?;
        ensure!(again.expect(202)? == cancelled, "{again:?}");
        ensure!(!is_replayed(&first) && is_replayed(&again), "{first:?} {again:?}");
        let anew = cancel_with_key(bed, &base, "another", order).await?;
        ensure!(anew.expect(202)? == cancelled && !is_replayed(&anew), "{anew:?}");
        reused(cancel_with_key(bed, &base, "a", other).await?)?;
        reused(create_with_key(bed, "a", 1).await?)?;
        create_with_key(bed, "b", 2).await?.expect(201)?;
        reused(cancel_with_key(bed, &base, "b", other).await?)?;

        // An order that is not there leaves the key to the request that was meant.
        let unknown = cancel_with_key(bed, &base, "c", other + 1_000_000).await?;
        unknown.is_problem(404, "not-found", None)?;
        create_with_key(bed, "c", 2).await?.expect(201)?;

        bed.services[&Service::CreateOrder].kill9().await?;
        bed.start(Service::CreateOrder).await?;
        ensure!(cancel_with_key(bed, &base, "a", order).await?.expect(202)? == cancelled);
        bed.reaches(order, "CANCELLED").await?;
        bed.reaches(other, "CANCELLED").await?;
        let by_client = "SELECT count(*) FROM orders WHERE reason = 4";
        ensure!(bed.number(Cluster::CreateOrder, by_client).await? == 1);
        invariants::hold(bed).await
    })
}

#[test]
fn a_cancellation_that_meets_its_order_on_the_way_has_its_key_or_no_effect() -> Result<()> {
    saga(async |bed| {
        let base = bed.url(Service::CreateOrder);
        let (bed, order) = (&*bed, order_for(1));
        let in_hand = async |requests: i64| {
            until("the requests are in hand", async || {
                // The request for the metrics is one more.
                let active = bed.metric(Service::CreateOrder, "http_server_active_requests");
                Ok(active.await? == requests + 1)
            })
            .await
        };
        // The first order waits for the table, and what comes meanwhile goes into one batch.
        let mut lock = bed.sql(Cluster::CreateOrder).begin().await?;
        sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
        let second = async {
            in_hand(1).await?;
            let next = async {
                in_hand(2).await?;
                cancel_with_key(bed, &base, "a", 2).await
            };
            let release = async {
                in_hand(3).await?;
                anyhow::Ok(lock.rollback().await?)
            };
            let (placed, cancelled, released) = tokio::join!(bed.place(&order), next, release);
            released?;
            anyhow::Ok((placed?, cancelled?))
        };
        let (first, second) = tokio::join!(bed.place(&order), second);
        let (second, cancelled) = second?;
        ensure!((first?, second) == (1, 2), "they have other ids");
        let reuse = create_with_key(bed, "a", 2).await?;
        if cancelled.status == 404 {
            reuse.expect(201)?;
        } else {
            cancelled.expect(202)?;
            reuse.is_problem(422, "idempotency-key-reused", Some("Idempotency-Key"))?;
        }
        invariants::hold(bed).await
    })
}

#[test]
fn of_concurrent_requests_with_one_key_one_kind_is_done_by_all_instances() -> Result<()> {
    saga(async |bed| {
        let second = bed.instance(Service::CreateOrder, free_port()?, "second");
        second.start()?;
        second.wait_ready(WITHIN).await?;
        let bases = [bed.url(Service::CreateOrder), second.url()];
        let order = bed.place(&order_for(1)).await?;
        let other = bed.place(&order_for(1)).await?;
        let bed = &*bed;
        for round in 0..5 {
            let key = format!("round {round}");
            let requests = (0..60).map(|number| {
                let (base, key, kind) = (&bases[number % 2], key.as_str(), number % 3);
                async move {
                    let answer = match kind {
                        0 => cancel_with_key(bed, base, key, order).await?,
                        1 => cancel_with_key(bed, base, key, other).await?,
                        _ => {
                            let request = bed.http.post(format!("{base}{CREATE}"));
                            let request = request.header("Idempotency-Key", key);
                            bed.send(request.json(&order_for(1))).await?
                        }
                    };
                    anyhow::Ok((kind, answer))
                }
            });
            let (mut done, mut firsts) = (BTreeSet::new(), 0);
            for answer in join_all(requests).await {
                let (kind, answer) = answer?;
                firsts += i32::from(answer.status < 300 && !is_replayed(&answer));
                if answer.status == 422 {
                    let field = Some("Idempotency-Key");
                    answer.is_problem(422, "idempotency-key-reused", field)?;
                } else {
                    let body = answer.expect(if kind == 2 { 201 } else { 202 })?;
                    done.insert((kind, body["order_id"].as_i64()));
                }
            }
            ensure!(done.len() == 1 && firsts == 1, "{key}: {done:?}, {firsts} first answers");
        }
        let keys = "SELECT count(*) FROM idempotency_key";
        ensure!(bed.number(Cluster::CreateOrder, keys).await? == 5);
        second.terminate().await?;
        invariants::hold(bed).await
    })
}

/// Adds an item under a key.
async fn add_with_key(bed: &Bed, base: &str, key: &str, name: &str) -> Result<Answer> {
    let item = json!({"seller_id": 1, "price": 1, "name": name});
    let request = bed.http.post(format!("{base}{ADD}"));
    bed.send(request.header("Idempotency-Key", key).json(&item)).await
}

/// Items beside those of a fresh store.
const ADDED: &str = "SELECT count(*) FROM item WHERE item_id NOT IN (1, 2, 3, 1000)";

#[test]
fn an_idempotency_key_stands_for_one_item() -> Result<()> {
    saga(async |bed| {
        let base = bed.url(Service::Store);
        let first = add_with_key(bed, &base, "a", "apple").await?;
        let item = first.expect(201)?;
        let again = add_with_key(bed, &base, "a", "apple").await?;
        ensure!(again.expect(201)? == item, "{again:?}");
        ensure!(again.header("location") == first.header("location"), "{again:?}");
        ensure!(!is_replayed(&first) && is_replayed(&again), "{first:?} {again:?}");
        let other = add_with_key(bed, &base, "a", "pear").await?;
        other.is_problem(422, "idempotency-key-reused", Some("Idempotency-Key"))?;
        ensure!(add_with_key(bed, &base, "b", "apple").await?.expect(201)? != item);
        // Each service has keys of its own.
        create_with_key(bed, "a", 1).await?.expect(201)?;

        bed.services[&Service::Store].kill9().await?;
        bed.start(Service::Store).await?;
        ensure!(add_with_key(bed, &base, "a", "apple").await?.expect(201)? == item);
        ensure!(bed.number(Cluster::Store, ADDED).await? == 2);
        invariants::hold(bed).await
    })
}

#[test]
fn of_concurrent_requests_with_one_key_one_item_is_added_by_all_instances() -> Result<()> {
    saga(async |bed| {
        let second = bed.instance(Service::Store, free_port()?, "second");
        second.start()?;
        second.wait_ready(WITHIN).await?;
        let (bed, bases) = (&*bed, [bed.url(Service::Store), second.url()]);
        for round in 0..5 {
            let key = format!("round {round}");
            let requests = (0..60).map(|number| {
                let name = if number % 3 == 0 { "apple" } else { "pear" };
                let (base, key) = (&bases[number % 2], &key);
                async move { anyhow::Ok((name, add_with_key(bed, base, key, name).await?)) }
            });
            let (mut added, mut firsts) = (BTreeSet::new(), 0);
            for answer in join_all(requests).await {
                let (name, answer) = answer?;
                firsts += i32::from(answer.status < 300 && !is_replayed(&answer));
                if answer.status == 422 {
                    let field = Some("Idempotency-Key");
                    answer.is_problem(422, "idempotency-key-reused", field)?;
                } else {
                    added.insert((name, answer.expect(201)?["item_id"].as_i64()));
                }
            }
            ensure!(added.len() == 1 && firsts == 1, "{key}: {added:?}, {firsts} first answers");
        }
        ensure!(bed.number(Cluster::Store, ADDED).await? == 5);
        second.terminate().await?;
        invariants::hold(bed).await
    })
}

#[test]
fn an_item_added_by_a_store_that_crashed_is_added_once() -> Result<()> {
    for (point, there) in [("items.before_commit", 0), ("items.after_commit", 1)] {
        let plan = Plan::default().set(Service::Store, "CRASH_AT", point);
        block_on(plan.run(async |bed| {
            let base = bed.url(Service::Store);
            let unanswered = add_with_key(bed, &base, "a", "apple").await;
            ensure!(unanswered.is_err(), "{unanswered:?}");
            bed.services[&Service::Store].wait_exit(WITHIN).await?;
            ensure!(bed.number(Cluster::Store, ADDED).await? == there, "{point}");
            if let Some(store) = bed.services.get_mut(&Service::Store) {
                store.set("CRASH_AT", "");
            }
            bed.start(Service::Store).await?;
            let answer = add_with_key(bed, &base, "a", "apple").await?;
            let item = answer.expect(201)?["item_id"].as_i64().context("item_id")?;
            ensure!(bed.item(item).await?["item_name"] == "apple");
            ensure!(bed.number(Cluster::Store, ADDED).await? == 1, "{point}");
            invariants::hold(bed).await
        }))?;
    }
    Ok(())
}

/// Adds an item while the session that does it is ended, as soon as it waits in a statement that
/// begins like this; `then` comes after that.
async fn add_while_ended(
    bed: &Bed,
    statement: &str,
    then: impl Future<Output = Result<()>>,
) -> Result<Answer> {
    let item = json!({"seller_id": 1, "price": 1, "name": "apple"});
    let add = bed.post(Service::Store, ADD, Some(&item));
    let ended = until("the session that waits is ended", async || {
        let ended: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND state = 'active' \
               AND wait_event_type IN ('Lock', 'Timeout') AND query LIKE $1 || '%'",
        )
        .bind(statement)
        .fetch_one(bed.sql(Cluster::Store))
        .await?;
        Ok(ended > 0)
    });
    let end = async {
        ended.await?;
        then.await
    };
    let (answer, ended) = tokio::join!(add, end);
    ended?;
    answer
}

#[test]
fn an_item_whose_insert_broke_off_is_added_by_another_try() -> Result<()> {
    saga(async |bed| {
        let mut lock = bed.sql(Cluster::Store).begin().await?;
        sqlx::query("LOCK TABLE item IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
        let unlock = async { Ok(lock.rollback().await?) };
        add_while_ended(bed, "INSERT INTO item ", unlock).await?.expect(201)?;
        let apples = "SELECT count(*) FROM item WHERE name = 'apple'";
        ensure!(bed.number(Cluster::Store, apples).await? == 1);
        Ok(())
    })
}

#[test]
fn an_item_that_may_have_been_added_is_not_said_to_be_not() -> Result<()> {
    saga(async |bed| {
        let slow = "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql \
                        AS 'BEGIN PERFORM pg_sleep(4); RETURN NULL; END'; \
                    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON item \
                        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep()";
        sqlx::raw_sql(slow).execute(bed.sql(Cluster::Store)).await?;
        let answer = add_while_ended(bed, "COMMIT", async { Ok(()) }).await?;
        answer.is_problem(504, "timeout", None)?;
        let detail = answer.json()?["detail"].to_string();
        ensure!(detail.contains("may or may not have had its effect"), "{detail}");
        Ok(())
    })
}

#[test]
fn an_idempotency_key_is_forgotten_after_its_time() -> Result<()> {
    let plan = Plan::default().set(Service::CreateOrder, "IDEMPOTENCY_TTL_SECONDS", "1");
    block_on(plan.run(async |bed| {
        let order = create_with_key(bed, "a", 1).await?.expect(201)?["order_id"].as_i64();
        let base = bed.url(Service::CreateOrder);
        cancel_with_key(bed, &base, "b", order.context("order_id")?).await?.expect(202)?;
        until("the keys are forgotten", async || {
            Ok(bed.number(Cluster::CreateOrder, "SELECT count(*) FROM idempotency_key").await? == 0)
        })
        .await?;
        // Another order now.
        create_with_key(bed, "a", 2).await?.expect(201)?;
        create_with_key(bed, "b", 2).await?.expect(201)?;
        ensure!(bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await? == 3);
        Ok(())
    }))
}

#[test]
fn an_items_idempotency_key_is_forgotten_after_its_time() -> Result<()> {
    let plan = Plan::default().set(Service::Store, "IDEMPOTENCY_TTL_SECONDS", "1");
    block_on(plan.run(async |bed| {
        let base = bed.url(Service::Store);
        add_with_key(bed, &base, "a", "apple").await?.expect(201)?;
        until("the key is forgotten", async || {
            Ok(bed.number(Cluster::Store, "SELECT count(*) FROM idempotency_key").await? == 0)
        })
        .await?;
        // Another item now.
        add_with_key(bed, &base, "a", "pear").await?.expect(201)?;
        ensure!(bed.number(Cluster::Store, ADDED).await? == 2);
        Ok(())
    }))
}

#[test]
fn with_too_much_unpublished_orders_are_refused_until_it_is_less() -> Result<()> {
    // Without topics nothing can be published.
    let plan = Plan::default().set(Service::CreateOrder, "OUTBOX_LIMIT", "5").idle();
    block_on(plan.run(async |bed| {
        bed.migrate().await?;
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
            orders.insert(answer.expect(201)?["order_id"].as_i64());
        }
        ensure!(orders.len() == 1, "{orders:?}");
        let later = create_with_key(bed, "same", 1).await?.expect(201)?["order_id"].as_i64();
        ensure!(orders.contains(&later));
        let stored = "SELECT count(*) FROM orders";
        ensure!(bed.number(Cluster::CreateOrder, stored).await? == 1);
        invariants::hold(bed).await
    })
}

/// What a browser says when a page of another site sends a form, and what a page says whose name was
/// bound to the service's address.
#[test]
fn a_foreign_page_changes_nothing_and_reads_nothing() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let cancel = format!("{}{CANCEL}?order_id={order}", bed.url(Service::CreateOrder));
        for (name, value) in [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
        ] {
            let refused = bed.send(bed.http.post(&cancel).header(name, value)).await?;
            refused.is_problem(403, "foreign-origin", None)?;
        }
        for service in Service::ALL {
            for path in ["/", "/docs/", "/metrics", "/nowhere"] {
                let url = format!("{}{path}", bed.url(service));
                let asked = bed.http.get(url).header("Host", "evil.example");
                bed.send(asked).await?.is_problem(421, "misdirected", None)?;
            }
            let page = bed.get(service, "/docs/").await?;
            let policy = page.header("content-security-policy").unwrap_or_default();
            ensure!(policy.contains("frame-ancestors 'none'"), "{policy}");
        }
        bed.reaches(order, "SHIPPING").await?;
        bed.cancel(order).await?;
        bed.reaches(order, "CANCELLED").await?;
        // The service's own page may.
        let own = bed.http.post(&cancel).header("Sec-Fetch-Site", "same-origin");
        bed.send(own).await?.expect(202)?;
        invariants::hold(bed).await
    })
}
