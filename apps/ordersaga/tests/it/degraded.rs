//! Databases that are there and yet not as ever: read-only, or with every session ended.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_contract::partition_of;
use ordersaga_devstack::{Cluster, Service};
use serde_json::json;

use crate::bed::{Bed, Plan, block_on, until};
use crate::client::{ADD, Answer, CANCEL, CREATE, order_for, state_of};
use crate::invariants;

/// How soon a request is told that nothing can be written: long before anything times out.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Makes a database read-only, waits until its service says so, does something, and ends it. The
/// sessions that were opened meanwhile stay read-only: the service has to part with them.
async fn while_read_only(
    bed: &Bed,
    (cluster, service, dependency): (Cluster, Service, &str),
    during: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    bed.databases[cluster].set_read_only(true).await?;
    bed.databases[cluster].end_sessions().await?;
    until(&format!("{service} says that {dependency} is read-only"), async || {
        let ready = bed.get(service, "/ready").await?;
        let report = ready.json()?;
        let state = state_of(&report, dependency)?;
        // Monitoring is ready without a shard.
        let shows = ready.status == if state["required"] == true { 503 } else { 200 };
        Ok(shows && state["ready"] == false && state["detail"] == "read-only")
    })
    .await?;
    during().await.with_context(|| format!("while {cluster} is read-only"))?;
    bed.databases[cluster].set_read_only(false).await?;
    until(&format!("{service} can write to {dependency} again"), async || {
        let ready = bed.get(service, "/ready").await?.json()?;
        Ok(state_of(&ready, dependency)?["ready"] == true)
    })
    .await
}

async fn is_refused_at_once(asking: impl Future<Output = Result<Answer>>) -> Result<()> {
    let asked = Instant::now();
    let refused = asking.await?;
    refused.is_problem(503, "unavailable", None)?;
    ensure!(refused.header("retry-after").is_some(), "{refused:?}");
    ensure!(asked.elapsed() < AT_ONCE, "after {:?}", asked.elapsed());
    Ok(())
}

#[test]
fn a_read_only_database_is_told_at_once_and_all_goes_on_when_it_takes_writes_again() -> Result<()> {
    block_on(Plan::default().alone().run(async |bed| {
        let item = bed.add_item(100).await?;
        let order = order_for(item);
        let known = bed.place(&order).await?;
        bed.reaches(known, "SHIPPING").await?;

        let create_order = (Cluster::CreateOrder, Service::CreateOrder, "postgres");
        while_read_only(bed, create_order, async || {
            let cancel = format!("{CANCEL}?order_id={known}");
            is_refused_at_once(bed.post(Service::CreateOrder, CREATE, Some(&order))).await?;
            is_refused_at_once(bed.post(Service::CreateOrder, &cancel, None)).await
        })
        .await?;
        let mut waiting = vec![bed.insist("after create-order's", &order).await?];

        let store = (Cluster::Store, Service::Store, "postgres");
        let thing = json!({"seller_id": 1, "price": 100, "name": "thing"});
        while_read_only(bed, store, async || {
            is_refused_at_once(bed.post(Service::Store, ADD, Some(&thing))).await?;
            ensure!(bed.item(2).await?["available"] == 1, "it can still be read");
            waiting.push(bed.place(&order).await?);
            Ok(())
        })
        .await?;

        let monitoring = (Cluster::Monitoring, Service::Monitoring, "postgres");
        while_read_only(bed, monitoring, async || {
            waiting.push(bed.place(&order).await?);
            ensure!(bed.status(known).await?["step"] == "SHIPPING", "it can still be read");
            Ok(())
        })
        .await?;

        // Partitions are dealt to the two shards in turn.
        let of_shard2 = !partition_of(known.try_into()?).is_multiple_of(2);
        let shard = if of_shard2 { Cluster::Shard2 } else { Cluster::Shard1 };
        while_read_only(bed, (shard, Service::Monitoring, shard.name()), async || {
            waiting.extend(try_join_all((0..8).map(|_| bed.place(&order))).await?);
            ensure!(bed.status(known).await?["step"] == "SHIPPING", "it can still be read");
            Ok(())
        })
        .await?;

        for order in waiting {
            bed.reaches(order, "SHIPPING").await?;
        }
        bed.insist_cancel(known).await?;
        bed.reaches(known, "CANCELLED").await?;
        let letters = bed.log().read(&["dead-letter"]).await?;
        ensure!(letters.is_empty(), "{letters:?}");
        invariants::hold(bed).await
    }))
}

/// When each service's databases last came or went.
async fn since(bed: &Bed) -> Result<Vec<(Service, String, String)>> {
    let mut since = Vec::new();
    for (service, dependency) in [
        (Service::CreateOrder, "postgres"),
        (Service::Store, "postgres"),
        (Service::Monitoring, "postgres"),
        (Service::Monitoring, "shard1"),
        (Service::Monitoring, "shard2"),
    ] {
        let ready = bed.get(service, "/ready").await?.expect(200)?;
        let at = state_of(&ready, dependency)?["since"].as_str().context("since")?.to_owned();
        since.push((service, dependency.to_owned(), at));
    }
    Ok(since)
}

#[test]
fn sessions_that_are_ended_are_replaced_without_a_client_noticing() -> Result<()> {
    block_on(Plan::default().alone().run(async |bed| {
        let stock = bed.add_item(1_000).await?;
        let mut before = None;
        for round in 0..3 {
            // Items that were never asked for are in no cache.
            let items = try_join_all((0..10).map(|_| bed.add_item(5))).await?;
            let order = order_for(stock);
            let orders = try_join_all((0..20).map(|_| bed.place(&order))).await?;
            try_join_all(orders.iter().map(|order| bed.reaches(*order, "SHIPPING"))).await?;
            // As many at once as there may be connections.
            try_join_all(orders.iter().map(|order| bed.status(*order))).await?;
            before.get_or_insert(since(bed).await?);
            for cluster in Cluster::ALL {
                bed.databases[cluster].end_sessions().await?;
            }
            let finds = try_join_all(items.iter().map(|item| bed.item(*item)));
            let adds = try_join_all((0..5).map(|_| bed.add_item(5)));
            let statuses = try_join_all(orders.iter().map(|order| bed.status(*order)));
            let creates = try_join_all((0..5).map(|_| bed.place(&order)));
            let (finds, adds, statuses, creates) = tokio::join!(finds, adds, statuses, creates);
            let round = || format!("in round {round}");
            finds.context("finds").with_context(round)?;
            adds.context("adds").with_context(round)?;
            statuses.context("statuses").with_context(round)?;
            creates.context("creates").with_context(round)?;
        }
        let (before, after) = (before.context("rounds")?, since(bed).await?);
        ensure!(before == after, "a database counted as gone: {before:?} {after:?}");
        let added = "SELECT count(*) FROM item";
        ensure!(bed.number(Cluster::Store, added).await? == 4 + 1 + 3 * 15, "none twice");
        invariants::hold(bed).await
    }))
}
