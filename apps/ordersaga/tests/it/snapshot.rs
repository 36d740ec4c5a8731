//! What a system holds once it is at rest, and what its topics tell: read without the services'
//! code, for [`crate::invariants`] to compare.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use ordersaga_devstack::Cluster;
use serde_json::Value;
use sqlx::FromRow;

use crate::bed::Bed;
use crate::records::{EVENTS, Place, Record};

/// Something that was said of an order: as it stands on a topic, or on a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, FromRow)]
pub(crate) struct Said {
    pub(crate) order_id: i64,
    pub(crate) fact: i16,
    pub(crate) item_id: i64,
    pub(crate) seller_id: i64,
    pub(crate) client_id: i64,
    pub(crate) quantity: i32,
    pub(crate) reason: Option<i16>,
    pub(crate) at: DateTime<Utc>,
}

pub(crate) const PLACED: i16 = 1;
pub(crate) const RESERVED: i16 = 2;
pub(crate) const RELEASED: i16 = 3;
pub(crate) const RESETS: [i16; 3] = [4, 5, 6];
const INITIATORS: [&str; 3] = ["client", "store", "deadline"];
const REASONS: [&str; 5] = [
    "OUT_OF_STOCK",
    "ITEM_NOT_FOUND",
    "SELLER_MISMATCH",
    "CANCELLED_BY_CLIENT",
    "DEADLINE_EXCEEDED",
];

fn position(names: &[&str], name: &Value) -> Option<i16> {
    let at = names.iter().position(|known| name == known)?;
    i16::try_from(at).ok()
}

/// The name of a reason's code.
pub(crate) fn reason_name(code: i16) -> Option<&'static str> {
    REASONS.get(usize::try_from(code).ok()?.checked_sub(1)?).copied()
}

impl Said {
    /// Reads a record by the published contract; `None` if it is none of its events.
    pub(crate) fn read(record: &Record) -> Option<Self> {
        let event: Value = serde_json::from_slice(&record.payload).ok()?;
        let number = |name: &str| event[name].as_i64().filter(|number| *number >= 1);
        let fact = match (record.topic.as_str(), event["type"].as_str()?) {
            ("incoming", "OrderPlaced") => PLACED,
            ("reservation", "ItemReserved") => RESERVED,
            ("reservation", "ReservationReleased") => RELEASED,
            ("reset", "OrderReset") => RESETS[0] + position(&INITIATORS, &event["initiator"])?,
            _ => return None,
        };
        let is_reset = RESETS.contains(&fact);
        let said = Self {
            order_id: number("order_id")?,
            fact,
            item_id: number("item_id")?,
            seller_id: number("seller_id")?,
            client_id: number("client_id")?,
            quantity: number("quantity")?.try_into().ok()?,
            reason: if is_reset { Some(position(&REASONS, &event["reason"])? + 1) } else { None },
            at: event["time"].as_str()?.parse().ok()?,
        };
        let keyed = record.key == said.order_id.to_string().as_bytes();
        (event["version"] == 1 && keyed).then_some(said)
    }
}

/// Everything a system holds once it is at rest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) orders: BTreeMap<i64, OrderRow>,
    pub(crate) items: BTreeMap<i64, ItemRow>,
    pub(crate) reservations: BTreeMap<i64, ReservationRow>,
    /// By shard and table.
    pub(crate) facts: BTreeMap<(Cluster, i32), Vec<Said>>,
    /// What monitoring answers.
    pub(crate) statuses: BTreeMap<i64, Value>,
}

#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct OrderRow {
    pub(crate) order_id: i64,
    pub(crate) item_id: i64,
    pub(crate) client_id: i64,
    pub(crate) state: i16,
    pub(crate) ended_by: Option<i16>,
    pub(crate) reason: Option<i16>,
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct ItemRow {
    pub(crate) item_id: i64,
    pub(crate) quantity: i64,
    pub(crate) reserved: i64,
    pub(crate) version: i64,
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct ReservationRow {
    pub(crate) order_id: i64,
    pub(crate) item_id: i64,
    pub(crate) quantity: i32,
    /// 1 reserved, 2 released, 3 refused, 4 cancelled before it was seen.
    pub(crate) state: i16,
    pub(crate) reason: Option<i16>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl Snapshot {
    pub(crate) async fn take(bed: &Bed) -> Result<Self> {
        let orders: Vec<OrderRow> =
            sqlx::query_as("SELECT * FROM orders").fetch_all(bed.sql(Cluster::CreateOrder)).await?;
        let store = bed.sql(Cluster::Store);
        let items: Vec<ItemRow> = sqlx::query_as("SELECT * FROM item").fetch_all(store).await?;
        let reservations: Vec<ReservationRow> =
            sqlx::query_as("SELECT * FROM reservation").fetch_all(store).await?;
        let mut facts = BTreeMap::new();
        for shard in [Cluster::Shard1, Cluster::Shard2] {
            for table in 0..16 {
                let query = format!("SELECT * FROM order_event_{table:02} ORDER BY order_id, fact");
                let rows: Vec<Said> =
                    sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(bed.sql(shard)).await?;
                facts.insert((shard, table), rows);
            }
        }
        let known: BTreeSet<i64> = facts.values().flatten().map(|said| said.order_id).collect();
        let statuses = stream::iter(known)
            .map(|order| async move { anyhow::Ok((order, bed.status(order).await?)) })
            .buffer_unordered(16)
            .try_collect()
            .await?;
        Ok(Self {
            orders: orders.into_iter().map(|row| (row.order_id, row)).collect(),
            items: items.into_iter().map(|row| (row.item_id, row)).collect(),
            reservations: reservations.into_iter().map(|row| (row.order_id, row)).collect(),
            facts,
            statuses,
        })
    }

    pub(crate) fn all_facts(&self) -> BTreeSet<Said> {
        self.facts.values().flatten().cloned().collect()
    }
}

/// What the topics tell.
pub(crate) struct Told {
    /// Every record that is an event, with its partition; repetitions included.
    pub(crate) records: Vec<(i32, Said)>,
    /// Records that are no events.
    pub(crate) poison: BTreeSet<Place>,
    /// Which of them each service sent to `dead-letter`.
    pub(crate) buried: BTreeMap<String, BTreeSet<Place>>,
}

impl Told {
    pub(crate) async fn read(bed: &Bed) -> Result<Self> {
        let mut buried: BTreeMap<String, BTreeSet<Place>> = BTreeMap::new();
        for record in bed.log().read(&["dead-letter"]).await? {
            let header = |name: &str| record.header(name).with_context(|| name.to_owned());
            let place = (
                header("dead-letter-topic")?,
                header("dead-letter-partition")?.parse()?,
                header("dead-letter-offset")?.parse()?,
            );
            buried.entry(header("dead-letter-consumer")?).or_default().insert(place);
        }
        let (mut records, mut poison) = (Vec::new(), BTreeSet::new());
        let all_buried: BTreeSet<&Place> = buried.values().flatten().collect();
        for record in bed.log().read(&EVENTS).await? {
            // Whether its partition is right only Postgres knows; that is asked of all others.
            match Said::read(&record) {
                Some(said) if !all_buried.contains(&record.place()) => {
                    records.push((record.partition, said));
                }
                _ => _ = poison.insert(record.place()),
            }
        }
        Ok(Self { records, poison, buried })
    }

    /// Each thing said, once. Two tellings of one fact must agree.
    pub(crate) fn facts(&self) -> Result<BTreeMap<(i64, i16), Said>> {
        let mut facts = BTreeMap::new();
        for (_, said) in &self.records {
            let known = facts.entry((said.order_id, said.fact)).or_insert_with(|| said.clone());
            ensure!(known == said, "two tellings differ: {known:?} and {said:?}");
        }
        Ok(facts)
    }
}
