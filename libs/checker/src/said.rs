//! What the topics tell, read by the published contract and not by the services' code.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;

use crate::onlooker::Ends;
use crate::records::{EVENTS, Log, Place, Record};

/// Something that was said of an order: as it stands on a topic, or on a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, FromRow)]
pub struct Said {
    /// The order.
    pub order_id: i64,
    /// What: 1 placed, 2 reserved, 3 released, 4 to 6 reset by client, store or deadline.
    pub fact: i16,
    /// Its item.
    pub item_id: i64,
    /// Its seller.
    pub seller_id: i64,
    /// Its client.
    pub client_id: i64,
    /// Its units.
    pub quantity: i32,
    /// Why, for a reset.
    pub reason: Option<i16>,
    /// When.
    pub at: DateTime<Utc>,
}

pub(crate) const PLACED: i16 = 1;
pub(crate) const RESERVED: i16 = 2;
pub(crate) const RELEASED: i16 = 3;
pub(crate) const RESETS: [i16; 3] = [4, 5, 6];
pub(crate) const RESET_BY_CLIENT: i16 = 4;
pub(crate) const RESET_BY_STORE: i16 = 5;
const FACTS: [&str; 6] = [
    "placed",
    "reserved",
    "released",
    "reset by the client",
    "reset by the store",
    "reset by the deadline",
];
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

fn name_of(names: &[&'static str], code: i16) -> Option<&'static str> {
    names.get(usize::try_from(code).ok()?.checked_sub(1)?).copied()
}

/// The name of a reason's code.
pub(crate) fn reason_name(code: i16) -> Option<&'static str> {
    name_of(&REASONS, code)
}

/// A fact in words.
pub(crate) fn fact_name(code: i16) -> &'static str {
    name_of(&FACTS, code).unwrap_or("an unknown fact")
}

impl Said {
    /// Reads a record; `None` if it is no event.
    pub fn read(record: &Record) -> Option<Self> {
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

/// What the topics tell.
#[derive(Debug, Default)]
pub struct Told {
    /// Every record that is an event, with its place; repetitions included.
    pub records: Vec<(Place, Said)>,
    /// Records that are no events.
    pub poison: BTreeSet<Place>,
    /// Which of them each service sent to `dead-letter`.
    pub buried: BTreeMap<String, BTreeSet<Place>>,
}

impl Told {
    /// Reads all topics from their beginning.
    pub async fn read(log: &Log) -> Result<Self> {
        Self::read_from(log, BTreeMap::new(), |_| true).await
    }

    /// Reads the events' topics from these offsets on, of letters those about records from there on,
    /// and keeps what is wanted of orders.
    pub(crate) async fn read_from(
        log: &Log,
        from: Ends,
        is_wanted: impl Fn(i64) -> bool + Send + 'static,
    ) -> Result<Self> {
        let letters = log.fold(&["dead-letter"], Vec::new(), |letters, record| {
            // A note that a letter was dealt with names no consumer, and is no letter.
            if record.header("dead-letter-consumer").is_some() {
                letters.push(origin(&record));
            }
        });
        let mut told = Self::default();
        for letter in letters.await? {
            let (consumer, place) = letter?;
            let begin = from.get(&(place.0.clone(), place.1)).copied().unwrap_or(0);
            if place.2 >= begin {
                told.buried.entry(consumer).or_default().insert(place);
            }
        }
        let buried: BTreeSet<Place> = told.buried.values().flatten().cloned().collect();
        log.fold_from(&EVENTS, from, told, move |told, record| {
            // Whether its partition is right only Postgres knows; that is asked of all others.
            match Said::read(&record) {
                Some(said) if !buried.contains(&record.place()) => {
                    if is_wanted(said.order_id) {
                        told.records.push((record.place(), said));
                    }
                }
                _ => _ = told.poison.insert(record.place()),
            }
        })
        .await
    }

    /// Leaves out letters and what should be one from these ends on.
    pub(crate) fn end_letters_at(&mut self, ends: &Ends) {
        let is_before =
            |place: &Place| ends.get(&(place.0.clone(), place.1)).is_some_and(|end| place.2 < *end);
        self.poison.retain(is_before);
        for places in self.buried.values_mut() {
            places.retain(is_before);
        }
    }
}

/// Which consumer sent a letter, and where its record stood.
fn origin(letter: &Record) -> Result<(String, Place)> {
    let header = |name: &str| letter.header(name).with_context(|| format!("no {name}: {letter:?}"));
    let place = (
        header("dead-letter-topic")?,
        header("dead-letter-partition")?.parse()?,
        header("dead-letter-offset")?.parse()?,
    );
    Ok((header("dead-letter-consumer")?, place))
}
