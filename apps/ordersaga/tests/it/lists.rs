//! Lists of orders, and counts, as clients get them.

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Service};
use serde_json::{Value, json};

use crate::bed::{Bed, Plan, block_on, saga, until};
use crate::client::{ORDERS, STATS, STUCK, order_for};
use crate::invariants;

async fn page(bed: &Bed, query: &str) -> Result<Value> {
    bed.get(Service::Monitoring, &format!("{ORDERS}?{query}")).await?.expect(200)
}

fn ids(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().into_iter().flatten();
    items.filter_map(|order| order["order_id"].as_i64()).collect()
}

/// All orders that a query finds, page by page.
async fn all(bed: &Bed, query: &str) -> Result<Vec<i64>> {
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = page(bed, &format!("{query}{after}")).await?;
        listed.extend(ids(&page));
        let Some(next) = page["next"].as_i64() else { return Ok(listed) };
        after = format!("&after={next}");
    }
}

#[test]
fn orders_of_both_shards_are_listed_newest_first_as_their_status_has_them() -> Result<()> {
    saga(async |bed| {
        let mut placed = Vec::new();
        for client in (1..=3).cycle().take(24) {
            let order = json!({"item_id": 1000, "seller_id": 1, "client_id": client});
            placed.push((bed.place(&order).await?, client));
        }
        let (cancelled, client) = placed[5];
        bed.cancel(cancelled).await?;
        for (order, _) in &placed {
            let step = if *order == cancelled { "CANCELLED" } else { "SHIPPING" };
            bed.reaches(*order, step).await?;
        }
        placed.sort_unstable();
        placed.reverse();
        let newest: Vec<_> = placed.iter().map(|(order, _)| *order).collect();
        for limit in [1, 7, 24, 200] {
            ensure!(all(bed, &format!("limit={limit}")).await? == newest, "by {limit}");
        }
        let of_client: Vec<_> =
            placed.iter().filter(|order| order.1 == client).map(|order| order.0).collect();
        let query = format!("client_id={client}&limit=3");
        ensure!(all(bed, &query).await? == of_client, "{query}");
        ensure!(all(bed, "step=CANCELLED").await? == [cancelled]);
        ensure!(all(bed, "step=SHIPPING&client_id=9").await?.is_empty());

        let whole = page(bed, "").await?;
        ensure!(whole["missing_shards"] == json!([]) && whole["scanned"] == 24, "{whole}");
        let shards: Vec<_> = whole["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|order| order["shard"].clone())
            .collect();
        ensure!(
            ["shard1", "shard2"].iter().all(|shard| shards.contains(&json!(shard))),
            "{shards:?}"
        );
        for order in whole["items"].as_array().into_iter().flatten() {
            let id = order["order_id"].as_i64().context("no id")?;
            ensure!(bed.status(id).await? == *order, "the list and the status differ: {order}");
        }
        let middle =
            bed.status(newest[12]).await?["created_at"].as_str().unwrap_or_default().to_owned();
        let (since, before) =
            (all(bed, &format!("from={middle}")).await?, all(bed, &format!("to={middle}")).await?);
        ensure!(since.contains(&newest[12]) && !before.contains(&newest[12]));
        ensure!(since.len() + before.len() == newest.len(), "{since:?} {before:?}");
        until(
            "the list says of when it is",
            async || Ok(page(bed, "").await?["as_of"].is_string()),
        )
        .await?;
        invariants::hold(bed).await
    })
}

#[test]
fn orders_of_a_node_that_is_away_are_said_to_be_missing() -> Result<()> {
    let plan = Plan::default().alone();
    block_on(plan.run(async |bed| {
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        // Nobody may read there: as good as away, and only for this test.
        sqlx::raw_sql("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM ordersaga_fdw")
            .execute(bed.sql(Cluster::Shard2))
            .await?;
        let page = page(bed, "").await?;
        ensure!(page["missing_shards"] == json!(["shard2"]), "{page}");
        sqlx::raw_sql("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM ordersaga_fdw")
            .execute(bed.sql(Cluster::Shard1))
            .await?;
        bed.get(Service::Monitoring, ORDERS).await?.is_problem(503, "unavailable", None)
    }))
}

#[test]
fn what_happened_is_counted_once_by_minute_and_fact() -> Result<()> {
    saga(async |bed| {
        let mut placed = Vec::new();
        for _ in 0..10 {
            placed.push(bed.place(&order_for(1000)).await?);
        }
        for order in &placed {
            bed.reaches(*order, "SHIPPING").await?;
        }
        bed.cancel(placed[0]).await?;
        let unknown = bed.place(&order_for(999)).await?;
        bed.reaches(unknown, "CANCELLED").await?;
        let sum = async || {
            let stats = bed.get(Service::Monitoring, STATS).await?.expect(200)?;
            let minutes = stats["minutes"].as_array().cloned().context("no minutes")?;
            let of = |fact: &str| -> i64 { minutes.iter().filter_map(|m| m[fact].as_i64()).sum() };
            anyhow::Ok(json!([
                of("placed"),
                of("reserved"),
                of("released"),
                of("cancelled_by_client"),
                of("cancelled_by_store"),
                of("cancelled_by_deadline"),
            ]))
        };
        until("every fact is counted", async || Ok(sum().await? == json!([11, 10, 1, 1, 1, 0])))
            .await?;
        // A crash repeats what was not committed, and counts it once all the same.
        bed.services[&Service::Monitoring].kill9().await?;
        bed.start(Service::Monitoring).await?;
        invariants::hold(bed).await?;
        let counted = sum().await?;
        ensure!(counted == json!([11, 10, 1, 1, 1, 0]), "{counted}");
        let none =
            bed.get(Service::Monitoring, &format!("{STATS}?to=2020-01-01T00:00:00Z")).await?;
        ensure!(none.expect(200)?["minutes"] == json!([]));
        Ok(())
    })
}

#[test]
fn what_is_stuck_says_what_it_waits_for_until_it_goes_on() -> Result<()> {
    let plan = Plan::default().alone().set(Service::Monitoring, "STUCK_AFTER_MS", "200");
    // Longer than the test: the deadline must not end what is stuck.
    let plan = plan.set(Service::CreateOrder, "ORDER_DEADLINE_SECONDS", "600");
    block_on(plan.run(async |bed| {
        let stuck = async || bed.get(Service::Monitoring, STUCK).await?.expect(200);
        let before = bed.place(&order_for(1000)).await?;
        bed.reaches(before, "SHIPPING").await?;
        until("nothing is stuck, and all was looked at", async || {
            let none = stuck().await?;
            Ok(none["items"] == json!([]) && none["is_complete"] == true)
        })
        .await?;

        bed.services[&Service::Store].pause()?;
        let order = bed.place(&order_for(1000)).await?;
        let is_stuck = async || {
            let found = stuck().await?;
            let one = &found["items"][0];
            anyhow::Ok(
                one["order"]["order_id"] == order
                    && one["waits_for"] == "ANSWER"
                    && one["is_late"] == false
                    && one["since"] == one["order"]["created_at"],
            )
        };
        until("the store's silence shows", &is_stuck).await?;
        // A new process reads it from the shards.
        bed.services[&Service::Monitoring].kill9().await?;
        bed.start(Service::Monitoring).await?;
        until("it shows after a restart", &is_stuck).await?;

        bed.services[&Service::Store].resume()?;
        bed.reaches(order, "SHIPPING").await?;
        until("it is stuck no more", async || Ok(stuck().await?["items"] == json!([]))).await?;
        invariants::hold(bed).await
    }))
}
