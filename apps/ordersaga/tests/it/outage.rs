//! A part goes away and comes back: what needs it waits, all else goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_contract::partition_of;
use ordersaga_devstack::{Cluster, Part, Service, ServiceProcess};

use crate::bed::{Bed, Plan, block_on, until};
use crate::client::{DEAD_LETTERS, EVIDENCE, order_for, state_of};
use crate::invariants;

#[test]
fn without_redis_everything_works_and_ready_says_so() -> Result<()> {
    let plan = Plan::default().idle();
    block_on(plan.run(async |bed| {
        bed.redis.stop().await?;
        bed.apply_topics().await?;
        bed.start_all().await?;
        let ready = bed.get(Service::Store, "/ready").await?.expect(200)?;
        let redis = state_of(&ready, "redis")?;
        ensure!(redis["ready"] == false && redis["required"] == false, "{ready}");
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        ensure!(bed.item(1).await?["is_reserved"] == true);
        let item = bed.add_item(2).await?;
        ensure!(bed.item(item).await?["available"] == 2);
        bed.cancel(order).await?;
        bed.reaches(order, "CANCELLED").await?;
        invariants::hold(bed).await?;
        bed.redis.start().await?;
        until("redis is seen again", async || {
            let ready = bed.get(Service::Store, "/ready").await?.expect(200)?;
            Ok(state_of(&ready, "redis")?["ready"] == true)
        })
        .await?;
        invariants::hold(bed).await
    }))
}

/// Orders of both shards go their way while the second shard is away in the given manner.
async fn without_shard2(
    bed: &Bed,
    shard2: &Part,
    go: impl AsyncFnOnce(&Part) -> Result<()>,
    come: impl AsyncFnOnce(&Part) -> Result<()>,
) -> Result<()> {
    let item = bed.add_item(100).await?;
    go(shard2).await?;
    // One by one: orders placed together share a partition.
    let mut orders = Vec::new();
    for _ in 0..60 {
        orders.push(bed.place(&order_for(item)).await?);
    }
    let (mut here, mut away) = (Vec::new(), Vec::new());
    for order in orders {
        // Partitions are dealt to the two shards in turn.
        let partition = partition_of(order.try_into()?);
        if partition.is_multiple_of(2) { here.push(order) } else { away.push(order) }
    }
    ensure!(here.len() > 10 && away.len() > 10, "{here:?} {away:?}");
    for order in &here {
        let status = bed.reaches(*order, "SHIPPING").await?;
        ensure!(status["shard"] == "shard1", "{status}");
    }
    // The saga itself needs no status store.
    until("all orders are reserved", async || {
        let reserved = "SELECT count(*) FROM orders WHERE state = 2";
        Ok(bed.number(Cluster::CreateOrder, reserved).await? == 60)
    })
    .await?;
    let silent = bed.ask_status(away[0], 0).await?;
    ensure!((503..=504).contains(&silent.status), "neither a lie nor a 404: {silent:?}");
    until("ready tells of the shard", async || {
        let ready = bed.get(Service::Monitoring, "/ready").await?.json()?;
        Ok(state_of(&ready, "shard2")?["ready"] == false)
    })
    .await?;
    bed.cancel(here[0]).await?;
    bed.reaches(here[0], "CANCELLED").await?;
    come(shard2).await?;
    for order in &away {
        bed.reaches(*order, "SHIPPING").await?;
    }
    invariants::hold(bed).await
}

/// A system whose second shard is its own.
async fn with_own_shard2(test: impl AsyncFnOnce(&Bed, &Part) -> Result<()>) -> Result<()> {
    let shard2 = Part::temporary_postgres().await?;
    let database = shard2.server().create_database(Cluster::Shard2, "own").await?;
    let plan = Plan::default().database(Cluster::Shard2, database);
    plan.run(async |bed| test(bed, &shard2).await).await
}

#[test]
fn with_one_shard_dead_the_other_shards_orders_move_and_all_catch_up() -> Result<()> {
    block_on(with_own_shard2(async |bed, shard2| {
        without_shard2(bed, shard2, Part::kill9, Part::start).await
    }))
}

#[test]
fn with_one_shard_silent_the_other_shards_orders_move_and_all_catch_up() -> Result<()> {
    let (go, come) = (async |part: &Part| part.pause(), async |part: &Part| part.resume());
    block_on(with_own_shard2(async |bed, shard2| without_shard2(bed, shard2, go, come).await))
}

/// Long enough for idle clients to give up calling for a while.
const OUTAGE: Duration = Duration::from_secs(8);

#[test]
fn with_the_broker_away_orders_are_accepted_and_end_when_it_is_back() -> Result<()> {
    block_on(async {
        let broker = Part::temporary_broker(None).await?;
        let plan = Plan::default().broker(broker.url());
        plan.run(async |bed| {
            let item = bed.add_item(10).await?;
            let known = bed.place(&order_for(1000)).await?;
            bed.reaches(known, "SHIPPING").await?;
            let pids: Vec<_> = bed.services.values().map(ServiceProcess::pid).collect();
            broker.kill9().await?;
            let back_at = tokio::time::Instant::now() + OUTAGE;
            let order = order_for(item);
            let orders = try_join_all((0..20).map(|_| bed.place(&order))).await?;
            bed.cancel(orders[3]).await?;
            for service in Service::ALL {
                until(&format!("{service} says that the broker is away"), async || {
                    let answer = bed.get(service, "/ready").await?;
                    Ok(answer.status == 503
                        && state_of(&answer.json()?, "kafka-producer")?["ready"] == false)
                })
                .await?;
            }
            until("a metric tells of what waits", async || {
                Ok(bed.metric(Service::CreateOrder, "outbox_pending").await? >= 21)
            })
            .await?;
            for path in [format!("{EVIDENCE}?order_id={known}"), DEAD_LETTERS.to_owned()] {
                let answer = bed.get(Service::Monitoring, &path).await?;
                answer.is_problem(503, "unavailable", None).context(path)?;
            }
            tokio::time::sleep_until(back_at).await;
            broker.start().await?;
            bed.wait_ready().await?;
            bed.reaches(orders[3], "CANCELLED").await?;
            invariants::hold(bed).await?;
            let now: Vec<_> = bed.services.values().map(ServiceProcess::pid).collect();
            ensure!(pids == now, "a service did not live through it");
            let item = bed.item(item).await?;
            let held = item["reserved"].as_i64().unwrap_or_default();
            // The cancelled order may have had a unit while others found nothing left.
            ensure!((9..=10).contains(&held), "{item}");
            Ok(())
        })
        .await
    })
}

#[test]
fn with_its_database_away_create_order_answers_soon_and_then_goes_on() -> Result<()> {
    block_on(async {
        let postgres = Part::temporary_postgres().await?;
        let database = postgres.server().create_database(Cluster::CreateOrder, "own").await?;
        let plan = Plan::default().database(Cluster::CreateOrder, database).set(
            Service::CreateOrder,
            "ORDER_DEADLINE_SECONDS",
            "60",
        );
        plan.run(async |bed| {
            let order = bed.place(&order_for(1)).await?;
            bed.reaches(order, "SHIPPING").await?;
            postgres.kill9().await?;
            let asked = std::time::Instant::now();
            let refused = bed
                .post(Service::CreateOrder, "/api/v1/orders/create", Some(&order_for(2)))
                .await?;
            ensure!((503..=504).contains(&refused.status), "{refused:?}");
            ensure!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
            for leak in ["sql", "SELECT", "postgres", "connect", "127.0.0.1"] {
                ensure!(!refused.text.contains(leak), "it leaks {leak}: {}", refused.text);
            }
            let status = bed.status(order).await?;
            ensure!(status["step"] == "SHIPPING", "monitoring does not care: {status}");
            postgres.start().await?;
            let again = bed.insist("again", &order_for(1)).await.context("after its return")?;
            bed.reaches(again, "CANCELLED").await?;
            invariants::hold(bed).await
        })
        .await
    })
}

#[test]
fn a_restart_of_each_database_under_load_loses_nothing() -> Result<()> {
    block_on(async {
        let clusters = [Cluster::CreateOrder, Cluster::Store, Cluster::Monitoring];
        let parts = try_join_all(clusters.map(|_| Part::temporary_postgres())).await?;
        let mut plan = Plan::default();
        for (cluster, part) in clusters.into_iter().zip(&parts) {
            let database = part.server().create_database(cluster, "own").await?;
            plan = plan.database(cluster, database);
        }
        plan.run(async |bed| {
            let item = bed.add_item(60).await?;
            let order = order_for(item);
            for (round, part) in parts.iter().enumerate() {
                let keys: Vec<_> = (0..40).map(|n| format!("round {round}, {n}")).collect();
                let orders = try_join_all(keys.iter().map(|key| bed.insist(key, &order)));
                let restart = async {
                    part.kill9().await?;
                    part.start().await
                };
                tokio::try_join!(orders, restart)?;
            }
            invariants::hold(bed).await?;
            let held = "SELECT reserved FROM item WHERE item_id = 4";
            ensure!(bed.number(Cluster::Store, held).await? == 60);
            Ok(())
        })
        .await
    })
}
