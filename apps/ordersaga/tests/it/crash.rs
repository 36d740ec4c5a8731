//! Each service dies by its own hand at each boundary it has, or by kill -9 in the middle of much
//! work, and starts again: nothing is lost, nothing happens twice.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use ordersaga_devstack::{Cluster, Service};
use serde_json::json;

use crate::bed::{Bed, WITHIN, saga, until};
use crate::invariants;

/// The boundaries of the consumer, which every service has.
const CONSUMER: [&str; 3] =
    ["consumer.before_commit", "consumer.after_commit", "consumer.before_group_commit"];
/// The boundaries of the relay, in services that say something.
const RELAY: [&str; 2] = ["relay.before_publish", "relay.after_publish"];
/// The boundaries of taking orders.
const DESK: [&str; 2] = ["desk.before_commit", "desk.after_commit"];

/// Orders of a few kinds: some ship, some find nothing left, some are cancelled. Each client
/// repeats its requests until they are answered.
async fn traffic(bed: &Bed, round: usize) -> Result<()> {
    let clients = (0..24).map(|number| async move {
        let item = 1 + i64::from(number % 2 == 0) * 3;
        let order = json!({"item_id": item, "seller_id": 1, "client_id": number + 1});
        let order = bed.insist(&format!("round {round}, client {number}"), &order).await?;
        if number % 3 == 0 {
            bed.insist_cancel(order).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(clients).await.map(drop)
}

/// One crash of `service` at each point, with the invariants checked after each recovery.
async fn survives(bed: &Bed, service: Service, points: &[&str]) -> Result<()> {
    bed.add_item(40).await?;
    for (round, point) in points.iter().enumerate() {
        let healthy = &bed.services[&service];
        healthy.terminate().await?;
        let mut doomed = bed.instance(service, healthy.port(), &format!("doomed-{round}"));
        doomed.set("CRASH_AT", point);
        doomed.start()?;
        doomed.wait_ready(WITHIN).await?;
        let crash_and_recover = async {
            let status = doomed.wait_exit(WITHIN).await?;
            ensure!(status.signal().is_some(), "{point}: it ended by itself: {status}");
            bed.start(service).await
        };
        let both = async { tokio::try_join!(traffic(bed, round), crash_and_recover) };
        both.await.with_context(|| (*point).to_owned())?;
        invariants::hold(bed).await.with_context(|| format!("after {point}"))?;
    }
    Ok(())
}

#[test]
fn create_order_survives_a_crash_at_each_boundary() -> Result<()> {
    saga(async |bed| {
        let points = [&DESK[..], &RELAY, &CONSUMER].concat();
        survives(bed, Service::CreateOrder, &points).await
    })
}

#[test]
fn store_survives_a_crash_at_each_boundary() -> Result<()> {
    saga(async |bed| survives(bed, Service::Store, &[&RELAY[..], &CONSUMER].concat()).await)
}

#[test]
fn monitoring_survives_a_crash_at_each_boundary() -> Result<()> {
    saga(async |bed| survives(bed, Service::Monitoring, &CONSUMER).await)
}

/// A thousand clients order at once, the service is killed while they do and started again; each
/// client repeats its request under its key until it is answered.
async fn survives_a_kill(bed: &Bed, service: Service) -> Result<()> {
    const CLIENTS: usize = 1_000;
    const STOCK: u32 = 700;
    let item = bed.add_item(STOCK).await?;
    let answered = AtomicUsize::new(0);
    let clients = join_all((1..=CLIENTS).map(|client| {
        let answered = &answered;
        async move {
            let order = json!({"item_id": item, "seller_id": 1, "client_id": client});
            let order = bed.insist(&format!("client {client}"), &order).await;
            answered.fetch_add(1, Ordering::Relaxed);
            order
        }
    }));
    let kill = async {
        // In the middle: something is answered, something is on its way through the saga.
        until("the first orders are at the service that is to die", async || {
            Ok(match service {
                Service::CreateOrder => answered.load(Ordering::Relaxed) >= 50,
                _ => incoming_applied(bed, service).await? > 0,
            })
        })
        .await?;
        bed.services[&service].kill9().await?;
        let done = match service {
            Service::CreateOrder => answered.load(Ordering::Relaxed),
            _ => usize::try_from(incoming_applied(bed, service).await?)?,
        };
        ensure!(done < CLIENTS, "all {done} orders had passed before the kill");
        bed.start(service).await
    };
    let (orders, killed) = tokio::join!(clients, kill);
    killed?;
    orders.into_iter().collect::<Result<Vec<_>>>()?;
    invariants::hold(bed).await?;
    let orders = "SELECT count(*) FROM orders";
    ensure!(bed.number(Cluster::CreateOrder, orders).await? == 1_000, "one order for each client");
    let clients = "SELECT count(DISTINCT client_id) FROM orders";
    ensure!(bed.number(Cluster::CreateOrder, clients).await? == 1_000, "one client for each order");
    let held = bed.item(item).await?;
    ensure!(held["reserved"] == STOCK, "all stock is sold: {held}");
    Ok(())
}

/// How many new orders a service has applied.
async fn incoming_applied(bed: &Bed, service: Service) -> Result<i64> {
    let applied = "SELECT coalesce(sum(next_offset), 0)::bigint FROM sagabus.consumer_offset \
                   WHERE topic = 'incoming'";
    bed.number(service.cluster(), applied).await
}

#[test]
fn killing_create_order_amid_a_thousand_creates_loses_nothing() -> Result<()> {
    saga(async |bed| survives_a_kill(bed, Service::CreateOrder).await)
}

#[test]
fn killing_store_amid_a_thousand_creates_loses_nothing() -> Result<()> {
    saga(async |bed| survives_a_kill(bed, Service::Store).await)
}

#[test]
fn killing_monitoring_amid_a_thousand_creates_loses_nothing() -> Result<()> {
    saga(async |bed| survives_a_kill(bed, Service::Monitoring).await)
}
