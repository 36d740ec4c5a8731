//! The known defects of the public solution of this homework: none of them is ours.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_checker::{EVENTS, Snapshot, consumed};
use ordersaga_devstack::{Cluster, Part, Service};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::bed::{Bed, Plan, WITHIN, block_on, saga, until};
use crate::client::{order_for, state_of};
use crate::invariants;
use crate::poison::event;

/// Waits until a service has applied everything in its topics.
async fn caught_up(bed: &Bed, cluster: Cluster) -> Result<()> {
    until("the consumer is at the end of its topics", async || {
        let ends = bed.log().ends().await?;
        let topics = consumed(cluster);
        let end: i64 =
            ends.iter().filter(|(p, _)| topics.contains(&p.0.as_str())).map(|(_, e)| e).sum();
        let applied = "SELECT coalesce(sum(next_offset), 0)::bigint FROM sagabus.consumer_offset";
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
        // Refused while the first still holds the only unit: a cancellation sent before could
        // overtake this order, which lies in another partition.
        let second = bed.place(&order_for(1)).await?;
        bed.reaches(second, "CANCELLED").await?;
        bed.cancel(first).await?;
        bed.reaches(first, "CANCELLED").await?;
        invariants::at_rest(bed).await?;
        let records = bed.log().read(&EVENTS).await?;
        bed.log().write([records.clone(), records.clone()].concat()).await?;
        invariants::at_rest(bed).await?;
        let snapshot = Snapshot::take(&bed.onlooker()).await?;
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
            (Service::Store, "/api/v1/items/reservations?item_id=77"),
            (Service::Store, "/api/v1/items/witness?item_id=77"),
            (Service::Store, "/api/v1/reservations/find?order_id=77"),
            (Service::CreateOrder, "/api/v1/orders/find?order_id=77"),
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
            for service in [Service::Store, Service::Monitoring] {
                bed.services[&service].migrate(WITHIN).await?;
            }
            // This one waits as well.
            let migration = bed.services[&Service::CreateOrder].migration();
            migration.start()?;
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
                        // It is named once its part of the service has begun.
                        let Ok(state) = state_of(&ready, name) else { return Ok(false) };
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
