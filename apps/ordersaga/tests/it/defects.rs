//! The known defects of the public solution of this homework: none of them is ours.

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_contract::{OrderId, partition_of};
use ordersaga_devstack::{Cluster, Part, Service};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::bed::{Bed, Plan, WITHIN, block_on, order_for, saga, until};
use crate::invariants::{self, Snapshot, consumed};
use crate::records::{EVENTS, Record};

fn partition(order: i64) -> Result<i32> {
    Ok(i32::try_from(partition_of(OrderId::try_from(order)?))?)
}

/// An event as another service would have published it.
fn event(topic: &str, order: i64, item: i64, more: &Value) -> Result<Record> {
    let mut event = json!({
        "version": 1, "order_id": order, "item_id": item, "seller_id": 1, "client_id": 1,
        "quantity": 1, "time": "2026-01-02T03:04:05.000006Z",
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    Ok(Record::new(topic, partition(order)?, &order.to_string(), &event.to_string()))
}

/// Waits until a service has applied everything in its topics.
async fn caught_up(bed: &Bed, cluster: Cluster) -> Result<()> {
    until("the consumer is at the end of its topics", async || {
        let ends = bed.log().ends().await?;
        let topics = consumed(cluster);
        let end: i64 =
            ends.iter().filter(|(p, _)| topics.contains(&p.0.as_str())).map(|(_, e)| e).sum();
        let applied = "SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offset";
        Ok(bed.number(cluster, applied).await? == end)
    })
    .await
}

#[test]
fn defect_01_a_crash_between_database_and_publishing_loses_no_order() -> Result<()> {
    saga(async |bed| {
        let create = &bed.services[&Service::CreateOrder];
        create.terminate().await?;
        let mut doomed = bed.instance(Service::CreateOrder, create.port(), "doomed");
        doomed.set("CRASH_AT", "relay.before_publish");
        doomed.start()?;
        doomed.wait_ready(WITHIN).await?;
        // Committed in any case; whether the answer outruns the crash is a race.
        let answer = bed.place(&order_for(1)).await;
        doomed.wait_exit(WITHIN).await?;
        let stored = "SELECT count(*) FROM orders";
        ensure!(bed.number(Cluster::CreateOrder, stored).await? == 1, "{answer:?}");
        ensure!(bed.log().read(&["incoming"]).await?.is_empty(), "it crashed too late");
        bed.start(Service::CreateOrder).await?;
        bed.reaches(1, "SHIPPING").await?;
        invariants::hold(bed).await
    })
}

#[test]
fn defect_02_a_duplicate_placement_does_not_cancel_the_order() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let placed = bed.log().read(&["incoming"]).await?;
        bed.log().write([placed.clone(), placed.clone(), placed].concat()).await?;
        invariants::at_rest(bed).await?;
        ensure!(bed.status(order).await?["step"] == "SHIPPING");
        ensure!(bed.log().read(&["reset"]).await?.is_empty(), "nothing was reset");
        ensure!(bed.log().read(&["reservation"]).await?.len() == 1, "nor reserved again");
        invariants::hold(bed).await
    })
}

#[test]
fn defect_02_an_error_while_reserving_is_tried_again_and_cancels_nothing() -> Result<()> {
    saga(async |bed| {
        let store = bed.sql(Cluster::Store);
        sqlx::raw_sql("REVOKE INSERT ON reservation FROM ordersaga_service").execute(store).await?;
        let order = bed.place(&order_for(1)).await?;
        let log = bed.services[&Service::Store].log().to_owned();
        until("the store has failed and tried again", async || {
            Ok(std::fs::read_to_string(&log)?.matches("a batch is tried again").count() >= 2)
        })
        .await?;
        ensure!(bed.status(order).await?["step"] == "UNDER_RESERVATION");
        sqlx::raw_sql("GRANT INSERT ON reservation TO ordersaga_service").execute(store).await?;
        bed.reaches(order, "SHIPPING").await?;
        invariants::hold(bed).await
    })
}

#[test]
fn defect_03_a_consumer_that_is_down_misses_nothing() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(15).await?;
        for service in [Service::Store, Service::Monitoring] {
            bed.services[&service].kill9().await?;
        }
        let order = order_for(item);
        let orders = try_join_all((0..20).map(|_| bed.place(&order))).await?;
        bed.cancel(orders[0]).await?;
        bed.start(Service::Monitoring).await?;
        bed.start(Service::Store).await?;
        bed.reaches(orders[0], "CANCELLED").await?;
        invariants::hold(bed).await?;
        let reserved = "SELECT count(*) FROM reservation WHERE state = 1";
        // The cancelled one came before its cancellation, or after it and was ignored.
        let held = bed.number(Cluster::Store, reserved).await?;
        ensure!((14..=15).contains(&held), "{held} of 15 units are held");
        Ok(())
    })
}

#[test]
fn defect_04_a_reset_that_overtakes_its_order_leaves_a_tombstone_and_no_leak() -> Result<()> {
    saga(async |bed| {
        let reset =
            json!({"type": "OrderReset", "initiator": "client", "reason": "CANCELLED_BY_CLIENT"});
        let order = 9_000_000_001;
        bed.log().write(vec![event("reset", order, 1, &reset)?]).await?;
        caught_up(bed, Cluster::Store).await?;
        let placed = event("incoming", order, 1, &json!({"type": "OrderPlaced"}))?;
        bed.log().write(vec![placed]).await?;
        bed.reaches(order, "CANCELLED").await?;
        caught_up(bed, Cluster::Store).await?;
        let tombstones = "SELECT count(*) FROM reservation WHERE state = 4";
        ensure!(bed.number(Cluster::Store, tombstones).await? == 1, "no tombstone");
        ensure!(bed.item(1).await?["is_reserved"] == false, "the reservation leaked");
        // The item is there for whoever wants it.
        let next = bed.place(&order_for(1)).await?;
        bed.reaches(next, "SHIPPING").await?;
        invariants::hold(bed).await
    })
}

#[test]
fn defect_05_duplicates_make_no_duplicate_status_rows() -> Result<()> {
    saga(async |bed| {
        let first = bed.place(&order_for(1)).await?;
        bed.reaches(first, "SHIPPING").await?;
        let second = bed.place(&order_for(1)).await?;
        bed.cancel(first).await?;
        for order in [first, second] {
            bed.reaches(order, "CANCELLED").await?;
        }
        invariants::at_rest(bed).await?;
        let records = bed.log().read(&EVENTS).await?;
        bed.log().write([records.clone(), records.clone()].concat()).await?;
        invariants::at_rest(bed).await?;
        let snapshot = Snapshot::take(bed).await?;
        let rows: usize = snapshot.facts.values().map(Vec::len).sum();
        ensure!(rows == records.len(), "{rows} rows of {} facts", records.len());
        for shard in [Cluster::Shard1, Cluster::Shard2] {
            let without_key = "SELECT count(*) FROM pg_class c WHERE relname LIKE 'order\\_event\\___' \
                 AND relkind = 'r' AND NOT EXISTS \
                 (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)";
            ensure!(bed.number(shard, without_key).await? == 0, "{shard}: no primary key");
        }
        invariants::hold(bed).await
    })
}

#[test]
fn defect_06_with_redis_down_find_tells_the_truth() -> Result<()> {
    saga(async |bed| {
        ensure!(bed.item(1).await?["is_reserved"] == false, "this answer is now cached");
        bed.redis.kill9().await?;
        let item = bed.item(1).await?;
        ensure!(item["item_name"] == "IPHONE 13" && item["price"] == 1000, "{item}");
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let item = bed.item(1).await?;
        ensure!(item["is_reserved"] == true, "the cached answer is stale: {item}");
        let unknown = bed.get(Service::Store, "/api/v1/items/find?item_id=99").await?;
        ensure!(unknown.status == 404, "{unknown:?}");
        let bypassed = r#"cache_requests_total{result="bypass"}"#;
        ensure!(bed.metric(Service::Store, bypassed).await? >= 1, "no metric tells of it");
        let ready = bed.get(Service::Store, "/ready").await?.expect(200)?;
        ensure!(state_of(&ready, "redis")?["ready"] == false, "{ready}");
        invariants::hold(bed).await
    })
}

#[test]
fn defect_06_what_changed_while_redis_was_away_is_not_read_from_it_afterwards() -> Result<()> {
    saga(async |bed| {
        ensure!(bed.item(1).await?["is_reserved"] == false, "this answer is now cached");
        // Frozen, not ended: it comes back with everything it had.
        bed.redis.pause()?;
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        ensure!(bed.item(1).await?["is_reserved"] == true);
        bed.redis.resume()?;
        until("redis is back in use", async || {
            ensure!(bed.item(1).await?["is_reserved"] == true, "a stale item was served");
            let hits = r#"cache_requests_total{result="hit"}"#;
            Ok(bed.metric(Service::Store, hits).await? >= 1)
        })
        .await?;
        invariants::hold(bed).await
    })
}

#[test]
fn defect_06_reads_that_race_reservations_leave_no_stale_item() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(1000).await?;
        let orders = async {
            let order = order_for(item);
            for round in 0..12 {
                let placed = try_join_all((0..10).map(|_| bed.place(&order))).await?;
                if round % 3 == 0 {
                    try_join_all(placed.iter().map(|order| bed.cancel(*order))).await?;
                }
            }
            invariants::at_rest(bed).await
        };
        let reads = async {
            loop {
                let item = bed.item(item).await?;
                let sum = item["reserved"].as_i64().zip(item["available"].as_i64());
                ensure!(sum.map(|(held, free)| held + free) == Some(1000), "torn: {item}");
            }
        };
        tokio::select! {
            done = orders => done?,
            failed = async { tokio::try_join!(reads, reads2(bed, item)) } => {
                let _: ((), ()) = failed?;
            }
        }
        let held = "SELECT reserved FROM item WHERE item_id = 4";
        let held = bed.number(Cluster::Store, held).await?;
        let shown = bed.item(item).await?;
        ensure!(shown["reserved"] == held, "the cache is stale: {shown}, the database has {held}");
        invariants::hold(bed).await
    })
}

async fn reads2(bed: &Bed, item: i64) -> Result<()> {
    loop {
        bed.item(item).await?;
    }
}

/// One dependency in the body of `/ready`.
pub(crate) fn state_of<'a>(ready: &'a Value, name: &str) -> Result<&'a Value> {
    let all = ready["dependencies"].as_array().into_iter().flatten();
    let mut named = all.filter(|dependency| dependency["name"] == name);
    named.next().with_context(|| format!("{name} is not in {ready}"))
}

#[test]
fn defect_07_an_order_ends_at_its_deadline_when_the_store_is_silent() -> Result<()> {
    let plan = Plan::default().set(Service::CreateOrder, "ORDER_DEADLINE_SECONDS", "1");
    block_on(plan.run(async |bed| {
        bed.services[&Service::Store].kill9().await?;
        let order = bed.place(&order_for(1)).await?;
        let status = bed.reaches(order, "CANCELLED").await?;
        ensure!(status["reason"] == "DEADLINE_EXCEEDED", "{status}");
        ensure!(status["initiator"] == "deadline", "{status}");
        bed.start(Service::Store).await?;
        invariants::hold(bed).await?;
        ensure!(bed.item(1).await?["is_reserved"] == false);
        Ok(())
    }))
}

#[test]
fn defect_07_a_reservation_that_comes_after_the_deadline_is_released() -> Result<()> {
    let plan = Plan::default().set(Service::CreateOrder, "ORDER_DEADLINE_SECONDS", "3");
    block_on(plan.run(async |bed| {
        // The store reserves, and dies before it can say so.
        let store = &bed.services[&Service::Store];
        store.terminate().await?;
        let mut doomed = bed.instance(Service::Store, store.port(), "doomed");
        doomed.set("CRASH_AT", "relay.before_publish");
        doomed.start()?;
        doomed.wait_ready(WITHIN).await?;
        let order = bed.place(&order_for(1)).await?;
        doomed.wait_exit(WITHIN).await?;
        let held = "SELECT count(*) FROM reservation WHERE state = 1";
        ensure!(bed.number(Cluster::Store, held).await? == 1, "it died too early");
        bed.reaches(order, "CANCELLED").await?;
        bed.start(Service::Store).await?;
        invariants::hold(bed).await?;
        let status = bed.status(order).await?;
        let facts: Vec<_> = status["facts"].as_array().into_iter().flatten().collect();
        let has = |fact: &str| facts.iter().any(|heard| heard["fact"] == fact);
        ensure!(has("RESERVED") && has("RELEASED") && has("CANCELLED"), "{status}");
        ensure!(bed.item(1).await?["is_reserved"] == false);
        Ok(())
    }))
}

#[test]
fn defect_08_unknown_orders_are_404_and_cancelling_twice_is_202() -> Result<()> {
    saga(async |bed| {
        for (service, path) in [
            (Service::Monitoring, "/api/v1/status?order_id=77"),
            (Service::Store, "/api/v1/items/find?item_id=77"),
        ] {
            let answer = bed.get(service, path).await?;
            ensure!(answer.expect(404)?["type"] == "urn:ordersaga:problem:not-found", "{answer:?}");
        }
        let cancel = "/api/v1/orders/cancel?order_id=77";
        let answer = bed.post(Service::CreateOrder, cancel, None).await?;
        ensure!(answer.expect(404)?["type"] == "urn:ordersaga:problem:not-found", "{answer:?}");
        let order = bed.place(&order_for(1)).await?;
        for _ in 0..3 {
            bed.cancel(order).await?;
        }
        bed.reaches(order, "CANCELLED").await?;
        bed.cancel(order).await?;
        invariants::hold(bed).await?;
        ensure!(bed.log().read(&["reset"]).await?.len() == 1, "said once");
        Ok(())
    })
}

/// What is wrong with a record, and what its dead letter says.
const POISON: [(&str, &str, &str); 6] = [
    ("not JSON", "not json at all", "not an event"),
    ("wrong version", r#"{"version":2,"type":"OrderPlaced","order_id":1}"#, "version 2"),
    ("missing field", r#"{"version":1,"type":"OrderPlaced","order_id":1}"#, "missing field"),
    ("unknown type", "UNKNOWN_TYPE", "OrderLost"),
    ("wrong key", "WRONG_KEY", "key"),
    ("empty", "", "not an event"),
];

#[test]
fn defect_09_poison_goes_to_dead_letter_and_its_partition_goes_on() -> Result<()> {
    saga(async |bed| {
        let place = partition(1)?;
        let whole = json!({"type": "OrderPlaced"});
        let mut sent = Vec::new();
        for topic in EVENTS {
            for (kind, payload, _) in POISON {
                let (key, payload) = match payload {
                    "WRONG_KEY" => ("2".to_owned(), event(topic, 1, 1, &whole)?.payload),
                    "UNKNOWN_TYPE" => {
                        ("1".to_owned(), event(topic, 1, 1, &json!({"type": "OrderLost"}))?.payload)
                    }
                    other => ("1".to_owned(), other.into()),
                };
                let mut record = Record::new(topic, place, &key, "");
                record.payload = payload;
                record.headers.push(("kind".to_owned(), kind.into()));
                sent.push(record);
            }
            // Events that are whole and stand where they do not belong.
            let mut astray = event(topic, 1, 1, &json!({"type": "OrderPlaced"}))?;
            astray.partition = (place + 1) % 16;
            astray.headers.push(("kind".to_owned(), "wrong partition".into()));
            sent.push(astray);
        }
        bed.log().write(sent.clone()).await?;
        // Every topic's partition goes on: an order needs all three.
        let order = bed.place(&order_for(1)).await?;
        ensure!(partition(order)? == place);
        bed.reaches(order, "SHIPPING").await?;
        bed.cancel(order).await?;
        bed.reaches(order, "CANCELLED").await?;
        invariants::hold(bed).await?;

        let letters = bed.log().read(&["dead-letter"]).await?;
        let kinds = POISON.len() + 1;
        ensure!(letters.len() == kinds * (2 + 2 + 3), "{} dead letters", letters.len());
        for letter in &letters {
            let header = |name: &str| letter.header(name).with_context(|| format!("no {name}"));
            let (topic, kind) = (header("dead-letter-topic")?, header("kind")?);
            let original = sent
                .iter()
                .find(|record| record.topic == topic && record.header("kind") == Some(kind.clone()))
                .context("nobody sent this")?;
            ensure!(letter.payload == original.payload && letter.key == original.key, "{kind}");
            ensure!(header("dead-letter-partition")? == original.partition.to_string());
            header("dead-letter-offset")?.parse::<i64>()?;
            header("dead-letter-time")?;
            let error = header("dead-letter-error")?;
            let expected =
                POISON.iter().find(|poison| poison.0 == kind).map_or("partition", |p| p.2);
            ensure!(error.contains(expected), "{kind}: {error}");
        }
        for (service, topics) in [
            (Service::CreateOrder, &["reservation", "reset"][..]),
            (Service::Store, &["incoming", "reset"]),
            (Service::Monitoring, &EVENTS),
        ] {
            for topic in topics {
                let series =
                    format!(r#"consumer_records_total{{result="dead_lettered",topic="{topic}"}}"#);
                let counted = bed.metric(service, &series).await?;
                ensure!(usize::try_from(counted)? == kinds, "{service}: {series} {counted}");
            }
        }
        Ok(())
    })
}

#[test]
fn defect_10_services_wait_for_their_dependencies_and_say_so() -> Result<()> {
    block_on(async {
        let (postgres, broker) =
            tokio::try_join!(Part::temporary_postgres(), Part::temporary_broker(None))?;
        let database = postgres.server().create_database(Cluster::CreateOrder, "late").await?;
        postgres.stop().await?;
        broker.stop().await?;
        let plan =
            Plan::default().idle().database(Cluster::CreateOrder, database).broker(broker.url());
        plan.run(async |bed| {
            for process in bed.services.values() {
                process.start()?;
            }
            for (service, waited) in [
                (Service::CreateOrder, &["postgres", "kafka-producer", "kafka-consumer"][..]),
                (Service::Store, &["kafka-producer", "kafka-consumer"]),
                (Service::Monitoring, &["kafka-producer", "kafka-consumer"]),
            ] {
                until(&format!("{service} says what it waits for"), async || {
                    let Ok(answer) = bed.get(service, "/ready").await else { return Ok(false) };
                    let ready = answer.expect(503)?;
                    ensure!(ready["ready"] == false, "{ready}");
                    for name in waited {
                        let state = state_of(&ready, name)?;
                        ensure!(state["ready"] == false && state["detail"].is_string(), "{ready}");
                    }
                    // The databases that are there come up meanwhile.
                    Ok(waited.contains(&"postgres")
                        || state_of(&ready, "postgres")?["ready"] == true)
                })
                .await?;
                bed.get(service, "/health").await?.expect(200)?;
            }
            let refused = bed
                .post(Service::CreateOrder, "/api/v1/orders/create", Some(&order_for(1)))
                .await?;
            let problem = refused.expect(refused.status)?;
            let told = [503, 504].contains(&refused.status) && problem["type"].is_string();
            ensure!(told, "an answer rather than silence: {refused:?}");

            postgres.start().await?;
            until("the database is seen", async || {
                let ready = bed.get(Service::CreateOrder, "/ready").await?.expect(503)?;
                Ok(state_of(&ready, "postgres")?["ready"] == true)
            })
            .await?;
            // The last to come are the topics.
            broker.start().await?;
            bed.apply_topics().await?;
            bed.wait_ready().await?;
            let order = bed.place(&order_for(1)).await?;
            bed.reaches(order, "SHIPPING").await?;
            invariants::hold(bed).await
        })
        .await
    })
}

#[test]
fn defect_11_refused_orders_all_end() -> Result<()> {
    saga(async |bed| {
        let order = order_for(1);
        let mut orders = Vec::new();
        for _ in 0..10 {
            orders.extend(try_join_all((0..30).map(|_| bed.place(&order))).await?);
        }
        invariants::hold(bed).await?;
        let refused = "SELECT count(*) FROM orders WHERE state = 3 AND reason = 1";
        ensure!(bed.number(Cluster::CreateOrder, refused).await? == 299, "one of 300 ships");
        Ok(())
    })
}

#[test]
fn defect_12_an_order_that_names_another_seller_does_not_ship() -> Result<()> {
    saga(async |bed| {
        let wrong = json!({"item_id": 1, "seller_id": 2, "client_id": 1});
        let status = bed.reaches(bed.place(&wrong).await?, "CANCELLED").await?;
        ensure!(
            status["reason"] == "SELLER_MISMATCH" && status["initiator"] == "store",
            "{status}"
        );
        let status = bed.reaches(bed.place(&order_for(99)).await?, "CANCELLED").await?;
        ensure!(status["reason"] == "ITEM_NOT_FOUND", "{status}");
        ensure!(bed.item(1).await?["is_reserved"] == false);
        invariants::hold(bed).await
    })
}

#[test]
fn defect_16_a_status_is_found_by_an_index() -> Result<()> {
    saga(async |bed| {
        // As the service itself does: through the coordinator.
        let url = bed.databases[Cluster::Monitoring].service_url();
        sqlx::raw_sql(
            "INSERT INTO order_event (order_id, fact, item_id, seller_id, client_id, quantity, at) \
             SELECT o, 1, 1, 1, 1, 1, now() FROM generate_series(1, 20000) o",
        )
        .execute(&mut PgConnection::connect(&url).await?)
        .await?;
        for (shard, tables) in [(Cluster::Shard1, 0), (Cluster::Shard2, 1)] {
            for table in (tables..16).step_by(2) {
                let explain = format!(
                    "EXPLAIN SELECT fact FROM order_event_{table:02} WHERE order_id = 7 ORDER BY fact"
                );
                let analyze = format!("ANALYZE order_event_{table:02}");
                sqlx::raw_sql(sqlx::AssertSqlSafe(analyze)).execute(bed.sql(shard)).await?;
                let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
                    .fetch_all(bed.sql(shard))
                    .await?;
                ensure!(plan.join("\n").contains("Index"), "{shard}, table {table}: {plan:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn defect_17_orders_cancelled_at_once_leak_no_reservation() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(1000).await?;
        let order = order_for(item);
        let place_and_cancel = async || {
            let order = bed.place(&order).await?;
            bed.cancel(order).await?;
            anyhow::Ok(order)
        };
        for _ in 0..10 {
            try_join_all((0..50).map(|_| place_and_cancel())).await?;
        }
        invariants::hold(bed).await?;
        let cancelled = "SELECT count(*) FROM orders WHERE state = 3";
        ensure!(bed.number(Cluster::CreateOrder, cancelled).await? == 500);
        let item = bed.item(item).await?;
        ensure!(item["reserved"] == 0, "leaked: {item}");
        Ok(())
    })
}
