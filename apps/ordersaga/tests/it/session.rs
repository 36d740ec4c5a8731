//! The sessions a newcomer types first.

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::Service;
use serde_json::json;

use crate::bed::{Bed, Plan, block_on, saga, until};
use crate::client::order_for;
use crate::invariants;

/// The body of the seed's curl command, tabs included.
const CREATE: &str = "{\n\t\"item_id\": 1,\n\t\"seller_id\": 1,\n\t\"client_id\": 1\n}";

#[test]
fn the_seeds_session_runs_as_written_on_a_fresh_system() -> Result<()> {
    // The default grace: the session asks for the status at once.
    let plan = Plan::default().alone().set(Service::Monitoring, "STATUS_GRACE_MS", "500");
    block_on(plan.run(async |bed| {
        let url = format!("{}/api/v1/orders/create", bed.url(Service::CreateOrder));
        let request = bed.http.post(url).header("Content-Type", "application/json").body(CREATE);
        let created = bed.send(request).await?;
        ensure!(created.expect(201)? == json!({"order_id": 1}), "{}", created.text);

        // At once, as the seed does: monitoring may not have heard of the order yet.
        let status = bed.status(1).await?;
        ensure!(status["order_id"] == 1, "{status}");
        let status = bed.reaches(1, "SHIPPING").await?;
        for name in ["order_id", "item_id", "seller_id", "client_id", "quantity"] {
            ensure!(status[name] == 1, "{name} in {status}");
        }
        ensure!(status["is_reserved"] == true && status["is_cancelled"] == false, "{status}");
        ensure!(status["update_date"].is_string() && status["shard"].is_string(), "{status}");

        let item = bed.item(1).await?;
        ensure!(item["is_reserved"] == true && item["item_name"] == "IPHONE 13", "{item}");
        ensure!(item["price"] == 1000 && item["seller_id"] == 1, "{item}");
        ensure!(item["reservations"][0]["order_id"] == 1, "{item}");

        let cancelled = bed.post(Service::CreateOrder, "/api/v1/orders/cancel?order_id=1", None);
        cancelled.await?.expect(202)?;
        let status = bed.reaches(1, "CANCELLED").await?;
        ensure!(status["is_reserved"] == false && status["is_cancelled"] == true, "{status}");
        ensure!(status["reason"] == "CANCELLED_BY_CLIENT", "{status}");
        released(bed, 1).await?;
        invariants::hold(bed).await
    }))
}

/// The store hears of a cancellation by itself, not before monitoring does.
async fn released(bed: &Bed, item: i64) -> Result<()> {
    let what = format!("item {item} is free again");
    until(&what, async || Ok(bed.item(item).await?["is_reserved"] == false)).await
}

#[test]
fn the_session_of_the_seed_runs_to_its_end() -> Result<()> {
    saga(async |bed| {
        let first = bed.place(&order_for(1)).await?;
        let second = bed.place(&json!({"item_id": 2, "seller_id": 2, "client_id": 1})).await?;
        ensure!((first, second) == (1, 2), "ids count from 1: {first}, {second}");
        for order in [first, second] {
            let status = bed.reaches(order, "SHIPPING").await?;
            ensure!(status["item_id"] == order, "{status}");
        }
        ensure!(bed.item(2).await?["item_name"] == "SAMSUNG S15");

        bed.cancel(second).await?;
        bed.reaches(second, "CANCELLED").await?;
        released(bed, 2).await?;
        ensure!(bed.item(1).await?["is_reserved"] == true, "the other order is not touched");

        let banana = json!({"seller_id": 1, "price": 150, "name": "Банан"});
        let added = bed.post(Service::Store, "/api/v1/items/add", Some(&banana)).await?;
        ensure!(added.expect(201)? == json!({"item_id": 4}), "{}", added.text);
        let item = bed.item(4).await?;
        ensure!(item["item_name"] == "Банан" && item["price"] == 150, "{item}");
        ensure!(item["is_reserved"] == false && item["available"] == 1, "{item}");

        let third = bed.place(&order_for(4)).await?;
        bed.reaches(third, "SHIPPING").await?;
        let item = bed.item(4).await?;
        ensure!(item["is_reserved"] == true && item["available"] == 0, "{item}");
        bed.cancel(third).await?;
        bed.reaches(third, "CANCELLED").await?;
        released(bed, 4).await?;
        let item = bed.item(4).await?;
        ensure!(item["reservations"][0]["state"] == "RELEASED", "{item}");
        let date = item["date"].as_str().context("no date")?;
        ensure!(date.ends_with('Z'), "{date}");
        invariants::hold(bed).await
    })
}
