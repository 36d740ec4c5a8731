//! At-least-once delivery, in any order, any number of times: the effects are the same.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_checker::{EVENTS, Snapshot};
use ordersaga_devstack::{Cluster, Service};
use serde_json::{Value, json};

use crate::bed::{Bed, saga};
use crate::client::order_for;
use crate::invariants;

/// Orders that end in every way there is.
async fn orders_of_all_kinds(bed: &Bed) -> Result<()> {
    let item = bed.add_item(12).await?;
    let orders = (0..40_i64).map(|number| async move {
        let seller = if number % 10 == 9 { 2 } else { 1 };
        let item = if number % 10 == 8 { 77 } else { item };
        let quantity = 1 + number % 2;
        let order = json!({
            "item_id": item, "seller_id": seller, "client_id": 1, "quantity": quantity,
        });
        let order = bed.place(&order).await?;
        if number % 4 == 0 {
            bed.cancel(order).await?;
        }
        anyhow::Ok(order)
    });
    let orders = try_join_all(orders).await?;
    bed.reaches(orders[0], "CANCELLED").await?;
    invariants::hold(bed).await?;
    // Cancelled after it was reserved, for certain.
    let late = bed.place(&json!({"item_id": 2, "seller_id": 2, "client_id": 1})).await?;
    bed.reaches(late, "SHIPPING").await?;
    bed.cancel(late).await?;
    invariants::hold(bed).await
}

fn compare(before: &Snapshot, after: &Snapshot) -> Result<()> {
    ensure!(before.orders == after.orders, "{:?}\n{:?}", before.orders, after.orders);
    ensure!(before.reservations == after.reservations, "reservations differ");
    ensure!(before.items == after.items, "{:?}\n{:?}", before.items, after.items);
    ensure!(before.facts == after.facts, "facts differ");
    ensure!(before.statuses == after.statuses, "statuses differ");
    Ok(())
}

#[test]
fn every_record_delivered_again_in_another_order_changes_nothing() -> Result<()> {
    saga(async |bed| {
        orders_of_all_kinds(bed).await?;
        let before = Snapshot::take(&bed.onlooker()).await?;
        let records = bed.log().read(&EVENTS).await?;
        let mut again = [records.clone(), records.clone()].concat();
        fastrand::shuffle(&mut again);
        bed.log().write(again).await?;
        invariants::hold(bed).await?;
        compare(&before, &Snapshot::take(&bed.onlooker()).await?)?;
        let now = bed.log().read(&EVENTS).await?.len();
        ensure!(now == 3 * records.len(), "{now} records: something was said anew");
        Ok(())
    })
}

#[test]
fn replaying_all_topics_from_the_beginning_changes_nothing() -> Result<()> {
    saga(async |bed| {
        orders_of_all_kinds(bed).await?;
        let before = Snapshot::take(&bed.onlooker()).await?;
        let records = bed.log().read(&EVENTS).await?.len();
        for process in bed.services.values() {
            ensure!(process.terminate().await?.success());
        }
        for cluster in [Cluster::CreateOrder, Cluster::Store, Cluster::Monitoring] {
            sqlx::raw_sql("UPDATE sagabus.consumer_offset SET next_offset = 0")
                .execute(bed.sql(cluster))
                .await?;
        }
        bed.start_all().await?;
        invariants::hold(bed).await?;
        compare(&before, &Snapshot::take(&bed.onlooker()).await?)?;
        let now = bed.log().read(&EVENTS).await?.len();
        ensure!(now == records, "{now} records, not {records}: something was said anew");
        let applied = bed.metric(Service::Monitoring, "consumer_records_total").await?;
        ensure!(usize::try_from(applied)? == records, "{applied} of {records} were consumed again");
        Ok(())
    })
}

#[test]
fn every_event_carries_its_headers_and_the_trace_of_its_order() -> Result<()> {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    saga(async |bed| {
        let url = format!("{}/api/v1/orders/create", bed.url(Service::CreateOrder));
        let request = bed.http.post(url).header("traceparent", TRACE).json(&order_for(1));
        bed.send(request).await?.expect(201)?;
        bed.reaches(1, "SHIPPING").await?;
        bed.cancel(1).await?;
        invariants::hold(bed).await?;
        let records = bed.log().read(&EVENTS).await?;
        let mut ids = BTreeSet::new();
        for record in &records {
            let event: Value = serde_json::from_slice(&record.payload)?;
            let header = |name: &str| record.header(name).with_context(|| format!("no {name}"));
            ensure!(header("ce_specversion")? == "1.0");
            let kind = event["type"].as_str().context("type")?;
            ensure!(header("ce_type")? == format!("ordersaga.{kind}.v1"), "{record:?}");
            let source = match kind {
                "OrderPlaced" | "OrderReset" => "/service-create-order",
                _ => "/service-store",
            };
            ensure!(header("ce_source")? == source, "{record:?}");
            ensure!(event["time"] == header("ce_time")?, "{record:?}");
            ensure!(header("content-type")? == "application/json");
            ensure!(header("traceparent")? == TRACE, "the trace is lost at {kind}");
            ids.insert(header("ce_id")?);
        }
        ensure!(ids.len() == 4 && records.len() == 4, "{ids:?}");
        Ok(())
    })
}
