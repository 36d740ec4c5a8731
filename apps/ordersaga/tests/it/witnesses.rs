//! What each service says of an order for itself, and of an item the cache beside the database.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_devstack::{Part, Service};
use serde_json::{Value, json};

use crate::bed::{Bed, Plan, block_on, saga, until};
use crate::client::{FIND_ORDER, FIND_RESERVATION, WITNESS, order_for};
use crate::invariants;

/// What create-order has of an order.
async fn stored(bed: &Bed, order: i64) -> Result<Value> {
    let path = format!("{FIND_ORDER}?order_id={order}");
    bed.get(Service::CreateOrder, &path).await?.expect(200)
}

/// What the store has decided for an order.
async fn decided(bed: &Bed, order: i64) -> Result<Value> {
    let path = format!("{FIND_RESERVATION}?order_id={order}");
    bed.get(Service::Store, &path).await?.expect(200)
}

/// An item as the cache and the database have it.
async fn both(bed: &Bed, item: i64) -> Result<Value> {
    bed.get(Service::Store, &format!("{WITNESS}?item_id={item}")).await?.expect(200)
}

fn time(answer: &Value, field: &str) -> Result<DateTime<Utc>> {
    Ok(answer[field].as_str().with_context(|| format!("no {field}: {answer}"))?.parse()?)
}

#[test]
fn an_order_is_found_where_it_was_placed_and_where_it_was_decided() -> Result<()> {
    saga(async |bed| {
        let wanted = json!({"item_id": 1000, "seller_id": 1, "client_id": 7, "quantity": 3});
        let order = bed.place(&wanted).await?;
        bed.reaches(order, "SHIPPING").await?;
        invariants::at_rest(bed).await?;
        let (placed, held) = (stored(bed, order).await?, decided(bed, order).await?);
        for answer in [&placed, &held] {
            for (field, value) in wanted.as_object().into_iter().flatten() {
                ensure!(answer[field] == *value && answer["order_id"] == order, "{answer}");
            }
            ensure!(answer["state"] == "RESERVED" && answer.get("reason").is_none(), "{answer}");
        }
        let left = time(&placed, "deadline")? - time(&placed, "created_at")?;
        ensure!(left == TimeDelta::seconds(60), "{placed}");
        let status = bed.status(order).await?;
        ensure!(time(&placed, "created_at")? == time(&status, "created_at")?, "{placed} {status}");
        ensure!(time(&held, "time")? == time(&status, "update_date")?, "{held} {status}");

        bed.cancel(order).await?;
        invariants::at_rest(bed).await?;
        let over = stored(bed, order).await?;
        ensure!(over["state"] == "CANCELLED" && over["initiator"] == "client", "{over}");
        ensure!(over["reason"] == "CANCELLED_BY_CLIENT", "{over}");
        ensure!(decided(bed, order).await?["state"] == "RELEASED");
        invariants::hold(bed).await
    })
}

#[test]
fn a_refusal_and_a_tombstone_are_decisions_too() -> Result<()> {
    saga(async |bed| {
        let order = bed.place(&order_for(77)).await?;
        bed.reaches(order, "CANCELLED").await?;
        invariants::at_rest(bed).await?;
        for answer in [decided(bed, order).await?, stored(bed, order).await?] {
            ensure!(answer["reason"] == "ITEM_NOT_FOUND", "{answer}");
        }
        ensure!(decided(bed, order).await?["state"] == "REFUSED");
        ensure!(stored(bed, order).await?["initiator"] == "store");

        // Orders and cancellations are two topics; which of the two the store reads first is open.
        bed.services[&Service::Store].kill9().await?;
        let order = bed.place(&order_for(1000)).await?;
        bed.cancel(order).await?;
        ensure!(stored(bed, order).await?["state"] == "CANCELLED");
        bed.start(Service::Store).await?;
        invariants::at_rest(bed).await?;
        let state = decided(bed, order).await?["state"].clone();
        ensure!(state == "TOMBSTONE" || state == "RELEASED", "{state}");
        invariants::hold(bed).await
    })
}

#[test]
fn events_that_the_broker_does_not_take_are_said_to_wait() -> Result<()> {
    block_on(async {
        let broker = Part::temporary_broker(None).await?;
        let plan = Plan::default().broker(broker.url());
        plan.run(async |bed| {
            let before = bed.place(&order_for(1000)).await?;
            bed.reaches(before, "SHIPPING").await?;
            broker.pause()?;
            let order = bed.place(&order_for(1000)).await?;
            let waits = stored(bed, order).await?;
            broker.resume()?;
            ensure!(waits["events_wait"] == true, "the broker is frozen: {waits}");
            ensure!(waits["state"] == "PLACED", "{waits}");
            bed.reaches(order, "SHIPPING").await?;
            until("nothing of either waits", async || {
                let waits = [stored(bed, order).await?, stored(bed, before).await?];
                Ok(waits.iter().all(|answer| answer["events_wait"] == false))
            })
            .await?;
            ensure!(decided(bed, order).await?["state"] == "RESERVED");
            invariants::hold(bed).await
        })
        .await
    })
}

#[test]
fn the_cache_is_shown_beside_the_database() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(5).await?;
        until("it is cached", async || {
            bed.item(item).await?;
            Ok(both(bed, item).await?["cache"]["state"] == "HIT")
        })
        .await?;
        let cached = both(bed, item).await?;
        ensure!(cached["cache"]["version"] == cached["database"]["version"], "{cached}");
        ensure!(cached["cache"]["item"] == cached["database"]["item"], "{cached}");
        let stays = cached["cache"]["expires_in_ms"].as_i64();
        ensure!(stays.is_some_and(|ms| ms > 0), "{cached}");

        let order = bed.place(&order_for(item)).await?;
        bed.reaches(order, "SHIPPING").await?;
        // Nobody has asked for it since: the cache knows that it has changed, and no more.
        let marked = both(bed, item).await?;
        ensure!(marked["cache"]["state"] == "MARKED", "{marked}");
        ensure!(marked["cache"]["version"] == marked["database"]["version"], "{marked}");
        ensure!(marked["cache"].get("item").is_none(), "{marked}");
        ensure!(marked["database"]["item"]["reserved"] == 1, "{marked}");

        bed.redis.kill9().await?;
        until("it is known to be away", async || {
            Ok(both(bed, item).await?["cache"] == json!({"state": "BYPASSED"}))
        })
        .await?;
        invariants::hold(bed).await
    })
}
