//! Records that are no events.

use anyhow::{Context, Result, ensure};
use ordersaga_checker::{EVENTS, Record};
use ordersaga_contract::{OrderId, partition_of};
use ordersaga_devstack::Service;
use serde_json::{Value, json};

use crate::bed::saga;
use crate::client::order_for;
use crate::invariants;

fn partition(order: i64) -> Result<i32> {
    Ok(i32::try_from(partition_of(OrderId::try_from(order)?))?)
}

/// An event as another service would have published it.
pub(crate) fn event(topic: &str, order: i64, item: i64, more: &Value) -> Result<Record> {
    let mut event = json!({
        "version": 1, "order_id": order, "item_id": item, "seller_id": 1, "client_id": 1,
        "quantity": 1, "time": "2026-01-02T03:04:05.000006Z",
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    Ok(Record::new(topic, partition(order)?, &order.to_string(), &event.to_string()))
}
/// Records that are no events: what is wrong, the record, and what its dead letter says.
fn poison(topic: &str) -> Result<Vec<(&'static str, Record, &'static str)>> {
    let whole = event(topic, 1, 1, &json!({"type": "OrderPlaced"}))?;
    let but = |more: Value| event(topic, 1, 1, &more);
    let of = |payload: &[u8]| Record { payload: payload.to_vec(), ..whole.clone() };
    let under = |key: &[u8]| Record { key: key.to_vec(), ..whole.clone() };
    let astray = Record { partition: (whole.partition + 1) % 16, ..whole.clone() };
    Ok(vec![
        ("not JSON", of(b"not json at all"), "not an event"),
        ("not text", of(b"\xff\0\xfe"), "not an event"),
        ("empty", of(b""), "not an event"),
        ("missing field", of(br#"{"version":1,"type":"OrderPlaced","order_id":1}"#), "missing"),
        ("another version", but(json!({"version": 2, "type": "OrderPlaced"}))?, "version 2"),
        ("another type", but(json!({"type": "OrderLost"}))?, "OrderLost"),
        ("NUL in its type", but(json!({"type": "Order\0Lost"}))?, "event"),
        ("impossible item", but(json!({"type": "OrderPlaced", "item_id": 0}))?, "from 1 to"),
        ("another order's key", under(b"2"), "key"),
        ("key that is no text", under(b"\xff\0"), "key"),
        ("another partition", astray, "partition"),
    ])
}

#[test]
fn defect_09_poison_goes_to_dead_letter_and_its_partition_goes_on() -> Result<()> {
    saga(async |bed| {
        let mut sent = Vec::new();
        for topic in EVENTS {
            for (kind, mut record, error) in poison(topic)? {
                record.headers.push(("kind".to_owned(), kind.into()));
                record.headers.push(("expected-error".to_owned(), error.into()));
                sent.push(record);
            }
        }
        bed.log().write(sent.clone()).await?;
        // Every topic's partition goes on: an order needs all three.
        let order = bed.place(&order_for(1)).await?;
        ensure!(order == 1, "its partitions are the poisoned ones");
        bed.reaches(order, "SHIPPING").await?;
        bed.cancel(order).await?;
        bed.reaches(order, "CANCELLED").await?;
        invariants::hold(bed).await?;

        let letters = bed.log().read(&["dead-letter"]).await?;
        let kinds = sent.len() / EVENTS.len();
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
            ensure!(error.contains(&header("expected-error")?), "{kind}: {error}");
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
