//! What really stands on the topics is what redpanda/asyncapi.json says of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ordersaga_checker::Record;
use ordersaga_contract::{Topic, partition_of};
use serde_json::{Map, Value};

use crate::bed::{saga, until};
use crate::client::order_for;

const DOCUMENT: &str = include_str!("../../../../redpanda/asyncapi.json");

const POISON: &str = "no JSON";

#[test]
fn records_are_as_the_published_document_says() -> Result<()> {
    saga(async |bed| {
        // There is one unit, and orders of two partitions may overtake each other.
        bed.place(&order_for(1)).await?;
        bed.reaches(1, "SHIPPING").await?;
        bed.place(&order_for(1)).await?;
        bed.reaches(2, "CANCELLED").await?;
        bed.cancel(1).await?;
        let partition = i32::try_from(partition_of(3.try_into()?))?;
        let poison = Record::new(Topic::Incoming.name(), partition, "3", POISON);
        bed.log().write(vec![poison]).await?;

        let topics = [Topic::Incoming, Topic::Reservation, Topic::Reset, Topic::DeadLetter];
        let topics = topics.map(Topic::name);
        // Two services read the poisoned topic.
        let everything = "six events, the poison and its two letters stand on the topics";
        let all = async || Ok(bed.log().read(&topics).await?.len() == 6 + 1 + 2);
        until(everything, all).await?;
        let document = serde_json::from_str(DOCUMENT)?;
        let mut seen = BTreeSet::new();
        for record in bed.log().read(&topics).await? {
            if record.topic == Topic::Incoming.name() && record.payload == POISON.as_bytes() {
                continue;
            }
            seen.insert(check(&document, &record).with_context(|| format!("{record:?}"))?);
        }
        let expected =
            ["DeadLetter", "ItemReserved", "OrderPlaced", "OrderReset", "ReservationReleased"];
        ensure!(seen.iter().eq(&expected), "{seen:?}");
        Ok(())
    })
}

/// Holds a record to its message in the document, and returns the message's name.
fn check(document: &Value, record: &Record) -> Result<String> {
    let payload = serde_json::from_slice(&record.payload).unwrap_or(Value::Null);
    let name = if record.topic == Topic::DeadLetter.name() {
        "DeadLetter"
    } else {
        payload["type"].as_str().context("type")?
    };
    let channel = &document["channels"][&record.topic];
    ensure!(channel["messages"].get(name).is_some(), "no {name} on {}", record.topic);
    let message = &document["components"]["messages"][name];
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
    let headers = record.headers.iter().map(|(name, value)| (name.clone(), text(value)));
    let headers: Map<_, _> = headers.collect();
    for name in headers.keys() {
        ensure!(message["headers"]["properties"].get(name).is_some(), "{name} is not documented");
    }
    let key = &message["bindings"]["kafka"]["key"];
    for (what, schema, value) in [
        ("headers", &message["headers"], &Value::Object(headers)),
        ("key", key, &text(&record.key)),
        ("payload", &message["payload"], &payload),
    ] {
        let validator = jsonschema::options().should_validate_formats(true).build(schema)?;
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        ensure!(errors.is_empty(), "{what}: {}", errors.join("; "));
    }
    Ok(name.to_owned())
}
