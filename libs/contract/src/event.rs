//! The events of the saga and their form on the wire: JSON, version 1, keyed by order id.
//!
//! A reader accepts unknown fields (an older reader meets a newer writer) and refuses an unknown
//! `version`: that number rises only when old readers would misunderstand.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Integer;
use crate::{ClientId, Fact, ItemId, OrderId, Quantity, SellerId, Topic, partition_of, time};

/// The version of the JSON form this code writes and understands.
pub const VERSION: u16 = 1;

/// An order's whole identity. Every event carries it, so that no service needs to have seen an
/// earlier event to act on a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    /// The order.
    pub order_id: OrderId,
    /// What is ordered.
    pub item_id: ItemId,
    /// Who is named as the item's seller.
    pub seller_id: SellerId,
    /// Who orders.
    pub client_id: ClientId,
    /// How many units.
    pub quantity: Quantity,
}

/// Who ended an order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// The client cancelled.
    Client,
    /// The store refused the reservation.
    Store,
    /// The store did not answer in time.
    Deadline,
}

/// Why an order ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// Fewer units are free than the order wants.
    OutOfStock,
    /// The store has no such item.
    ItemNotFound,
    /// The item is another seller's.
    SellerMismatch,
    /// The client changed their mind.
    CancelledByClient,
    /// No answer of the store within the order's deadline.
    DeadlineExceeded,
}

/// Who ended an order, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cancellation {
    /// Who.
    pub initiator: Initiator,
    /// Why.
    pub reason: Reason,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A client placed the order.
    OrderPlaced,
    /// The store holds stock for it: the pivot of the saga.
    ItemReserved,
    /// The store gave the stock back.
    ReservationReleased,
    /// The order is over; whoever did something for it undoes that.
    OrderReset(Cancellation),
}

/// One event of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    /// The order.
    pub order: Order,
    /// What happened to it.
    pub kind: EventKind,
    /// When the writer decided it; microseconds.
    pub time: DateTime<Utc>,
}

/// Why a record is not an event: it goes to `dead-letter` with this text.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, a field missing or out of range.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A form this code does not know.
    #[error("version {0} is not understood (this reader knows version {VERSION})")]
    UnknownVersion(u16),
    /// `initiator` or `reason` missing from an `OrderReset`.
    #[error("an OrderReset names its initiator and reason")]
    MissingCancellation,
    /// The key is not the order id in decimal.
    #[error("the key is not the order id {0}")]
    WrongKey(OrderId),
    /// The order belongs to another partition: co-partitioning would be broken.
    #[error("order {order} belongs to partition {expected}")]
    WrongPartition {
        /// The order.
        order: OrderId,
        /// Where its events belong.
        expected: u32,
    },
    /// An event of another topic.
    #[error("{event_type} does not belong on the topic {topic}")]
    WrongTopic {
        /// The event's type.
        event_type: &'static str,
        /// Where it was found.
        topic: Topic,
    },
}

impl Initiator {
    /// The name it has in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Store => "store",
            Self::Deadline => "deadline",
        }
    }
}

impl Reason {
    /// All reasons, by code.
    pub const ALL: [Self; 5] = [
        Self::OutOfStock,
        Self::ItemNotFound,
        Self::SellerMismatch,
        Self::CancelledByClient,
        Self::DeadlineExceeded,
    ];

    /// The number that stands for the reason in a database. Never reused for another meaning.
    pub const fn code(self) -> i16 {
        match self {
            Self::OutOfStock => 1,
            Self::ItemNotFound => 2,
            Self::SellerMismatch => 3,
            Self::CancelledByClient => 4,
            Self::DeadlineExceeded => 5,
        }
    }

    /// The reason a number of [`Reason::code`] stands for.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The name it has in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfStock => "OUT_OF_STOCK",
            Self::ItemNotFound => "ITEM_NOT_FOUND",
            Self::SellerMismatch => "SELLER_MISMATCH",
            Self::CancelledByClient => "CANCELLED_BY_CLIENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
        }
    }
}

impl EventKind {
    /// What this says of the order, without the reason.
    pub const fn fact(self) -> Fact {
        match self {
            Self::OrderPlaced => Fact::Placed,
            Self::ItemReserved => Fact::Reserved,
            Self::ReservationReleased => Fact::Released,
            Self::OrderReset(cancellation) => match cancellation.initiator {
                Initiator::Client => Fact::ResetByClient,
                Initiator::Store => Fact::ResetByStore,
                Initiator::Deadline => Fact::ResetByDeadline,
            },
        }
    }

    /// Who ended the order and why, if this event ends it.
    pub const fn cancellation(self) -> Option<Cancellation> {
        match self {
            Self::OrderReset(cancellation) => Some(cancellation),
            _ => None,
        }
    }
}

impl Event {
    /// The event's JSON, as it stands in the topic.
    pub fn encode(&self) -> Vec<u8> {
        let cancellation = self.kind.cancellation();
        let wire = Wire {
            version: VERSION,
            kind: self.kind.fact().event_type().into(),
            order_id: self.order.order_id,
            item_id: self.order.item_id,
            seller_id: self.order.seller_id,
            client_id: self.order.client_id,
            quantity: self.order.quantity,
            time: self.time,
            initiator: cancellation.map(|c| c.initiator),
            reason: cancellation.map(|c| c.reason),
        };
        serde_json::to_vec(&wire).expect("numbers and names always have a JSON form")
    }

    /// Reads a record as an event, or says why it is none. A record whose key, partition or topic
    /// is not the event's own is refused: order and co-partitioning would be lost silently.
    pub fn decode(
        topic: Topic,
        partition: u32,
        key: &[u8],
        payload: &[u8],
    ) -> Result<Self, DecodeError> {
        let event = Self::from_json(payload)?;
        let order = event.order.order_id;
        if !is_decimal_of(key, order) {
            return Err(DecodeError::WrongKey(order));
        }
        let expected = partition_of(order);
        if expected != partition {
            return Err(DecodeError::WrongPartition { order, expected });
        }
        let fact = event.kind.fact();
        if fact.topic() != topic {
            return Err(DecodeError::WrongTopic { event_type: fact.event_type(), topic });
        }
        Ok(event)
    }

    /// Reads the value alone, wherever it stands.
    pub(crate) fn from_json(payload: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = match serde_json::from_slice(payload) {
            Ok(wire) => wire,
            Err(error) => return Err(unknown_version(payload).unwrap_or(error.into())),
        };
        if wire.version != VERSION {
            return Err(DecodeError::UnknownVersion(wire.version));
        }
        let kind = match wire.kind.as_ref() {
            "OrderPlaced" => EventKind::OrderPlaced,
            "ItemReserved" => EventKind::ItemReserved,
            "ReservationReleased" => EventKind::ReservationReleased,
            "OrderReset" => match (wire.initiator, wire.reason) {
                (Some(initiator), Some(reason)) => {
                    EventKind::OrderReset(Cancellation { initiator, reason })
                }
                _ => return Err(DecodeError::MissingCancellation),
            },
            other => {
                let unknown = format!("unknown event type `{other}`");
                return Err(<serde_json::Error as serde::de::Error>::custom(unknown).into());
            }
        };
        let order = Order {
            order_id: wire.order_id,
            item_id: wire.item_id,
            seller_id: wire.seller_id,
            client_id: wire.client_id,
            quantity: wire.quantity,
        };
        Ok(Self { order, kind, time: wire.time })
    }
}

/// The JSON form. What is said of the fields here is published: it stands in the schemas.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Wire<'a> {
    /// Version of this form. A reader refuses a version it does not know.
    #[serde(deserialize_with = "version")]
    version: u16,
    /// What happened.
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    /// The order; at most 2^63 - 1. In decimal it is the record's key, and it decides the partition.
    order_id: OrderId,
    /// The item ordered; at most 2^63 - 1.
    item_id: ItemId,
    /// Who is named as the item's seller; at most 2^63 - 1.
    seller_id: SellerId,
    /// Who ordered; at most 2^63 - 1.
    client_id: ClientId,
    /// Units of the item ordered.
    quantity: Quantity,
    /// When the writer decided it, by the writer's clock: RFC 3339, UTC, at most microseconds.
    #[serde(deserialize_with = "time::deserialize")]
    time: DateTime<Utc>,
    /// Who ended the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Initiator")]
    initiator: Option<Initiator>,
    /// Why the order ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Reason")]
    reason: Option<Reason>,
}

/// A later version may lack any field of ours: its number is looked for before the blame is put
/// on a field.
fn unknown_version(payload: &[u8]) -> Option<DecodeError> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(deserialize_with = "version")]
        version: u16,
    }
    let Versioned { version } = serde_json::from_slice(payload).ok()?;
    (version != VERSION).then_some(DecodeError::UnknownVersion(version))
}

fn version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let version = Integer::deserialize(deserializer)?.0;
    version.try_into().map_err(serde::de::Error::custom)
}

fn is_decimal_of(key: &[u8], order: OrderId) -> bool {
    std::str::from_utf8(key).is_ok_and(|text| text.parse() == Ok(order.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn placed(order_id: i64) -> Event {
        Event {
            order: Order {
                order_id: order_id.try_into().unwrap(),
                item_id: 2.try_into().unwrap(),
                seller_id: 3.try_into().unwrap(),
                client_id: 4.try_into().unwrap(),
                quantity: Quantity::default(),
            },
            kind: EventKind::OrderPlaced,
            time: DateTime::from_timestamp_micros(1_795_000_000_123_456).unwrap(),
        }
    }

    fn decode(topic: Topic, payload: &str) -> Result<Event, DecodeError> {
        Event::decode(topic, partition_of(1.try_into().unwrap()), b"1", payload.as_bytes())
    }

    const PLACED: &str = r#"{"version":1,"type":"OrderPlaced","order_id":1,"item_id":2,"seller_id":3,"client_id":4,"quantity":1,"time":"2026-11-18T11:06:40.123456Z"}"#;

    #[test]
    fn the_json_is_the_published_contract() {
        assert_eq!(String::from_utf8(placed(1).encode()).unwrap(), PLACED);
        assert_eq!(decode(Topic::Incoming, PLACED).unwrap(), placed(1));
    }

    #[test]
    fn a_field_of_the_future_is_no_reason_to_refuse() {
        let newer = PLACED.replace("\"quantity\"", "\"gift\":{\"wrap\":true},\"quantity\"");
        assert_eq!(decode(Topic::Incoming, &newer).unwrap(), placed(1));
    }

    #[test]
    fn what_is_not_an_event_says_why() {
        let cases = [
            ("not json", "not an event"),
            ("{\"version\":2}", "version 2"),
            (&PLACED.replace("\"version\":1", "\"version\":9"), "version 9"),
            (&PLACED.replace("\"item_id\":2,", ""), "item_id"),
            (&PLACED.replace("\"item_id\":2", "\"item_id\":0"), "from 1 to"),
            (&PLACED.replace("OrderPlaced", "OrderPaid"), "OrderPaid"),
            (&PLACED.replace("OrderPlaced", "OrderReset"), "initiator"),
            (&PLACED.replace("OrderPlaced", "ItemReserved"), "does not belong"),
            (&PLACED.replace("\"order_id\":1", "\"order_id\":2"), "key"),
        ];
        for (payload, expected) in cases {
            let error = decode(Topic::Incoming, payload).unwrap_err().to_string();
            assert!(error.contains(expected), "{payload}: {error}");
        }
        let elsewhere = Event::decode(Topic::Incoming, 3, b"1", PLACED.as_bytes()).unwrap_err();
        assert!(elsewhere.to_string().contains("partition 8"), "{elsewhere}");
    }

    #[test]
    fn any_json_spelling_of_an_event_is_that_event() {
        let spelt = [
            PLACED.replace("OrderPlaced", "Order\\u0050laced"),
            PLACED.replace("\"type\"", "\"ty\\u0070e\""),
            PLACED.replace("\"version\":1", "\"version\":1.0"),
            PLACED.replace("\"item_id\":2", "\"item_id\":2e0"),
            PLACED.replace("\"quantity\":1", "\"quantity\":10E-1"),
            PLACED.replace("2026-11-18T11:06", "2026\\u002d11-18T11:06"),
            PLACED.replace("T11:06:40.123456Z", "t13:06:40.123456+02:00"),
            PLACED.replace("2026-11-18T11:06:40.123456Z", "2026-11-18 11:06:40.1234560z"),
            PLACED.replace(',', " ,\r\n\t"),
        ];
        for payload in spelt {
            assert_ne!(payload, PLACED, "nothing was replaced");
            assert_eq!(decode(Topic::Incoming, &payload).unwrap(), placed(1), "{payload}");
        }
        let ended = PLACED.replace("OrderPlaced", "OrderReset").replace(
            "\"quantity\"",
            r#""initiator":"cl\u0069ent","reason":"CANCELLED\u005fBY_CLIENT","quantity""#,
        );
        let ended = decode(Topic::Reset, &ended).unwrap().kind.cancellation().unwrap();
        assert_eq!((ended.initiator, ended.reason), (Initiator::Client, Reason::CancelledByClient));
    }

    #[test]
    fn a_time_outside_the_published_form_is_refused() {
        for time in [
            "-4713-11-23T23:59:59Z",
            "-4712-01-01T00:00:00Z",
            "+262000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "2026-11-18T11:06:40",
            "2026-11-18",
            "2026-13-18T11:06:40Z",
            " 2026-11-18T11:06:40Z",
            "1795000000",
        ] {
            let payload = PLACED.replace("2026-11-18T11:06:40.123456Z", time);
            let error = decode(Topic::Incoming, &payload).unwrap_err().to_string();
            assert!(error.contains("RFC 3339"), "{time}: {error}");
        }
        for time in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"] {
            let payload = PLACED.replace("2026-11-18T11:06:40.123456Z", time);
            assert!(decode(Topic::Incoming, &payload).is_ok(), "{time}");
        }
    }

    proptest! {
        #[test]
        fn every_event_survives_the_wire(
            ids in prop::array::uniform4(1..=i64::MAX),
            quantity in 1..=1_000_i64,
            micros in 0..4_000_000_000_000_000_i64,
            kind in prop::sample::select(vec![
                EventKind::OrderPlaced,
                EventKind::ItemReserved,
                EventKind::ReservationReleased,
                EventKind::OrderReset(Cancellation {
                    initiator: Initiator::Deadline,
                    reason: Reason::DeadlineExceeded,
                }),
            ]),
        ) {
            let event = Event {
                order: Order {
                    order_id: ids[0].try_into().unwrap(),
                    item_id: ids[1].try_into().unwrap(),
                    seller_id: ids[2].try_into().unwrap(),
                    client_id: ids[3].try_into().unwrap(),
                    quantity: quantity.try_into().unwrap(),
                },
                kind,
                time: DateTime::from_timestamp_micros(micros).unwrap(),
            };
            let key = ids[0].to_string();
            let partition = partition_of(event.order.order_id);
            let back = Event::decode(kind.fact().topic(), partition, key.as_bytes(), &event.encode());
            prop_assert_eq!(back.unwrap(), event);
        }
    }
}
