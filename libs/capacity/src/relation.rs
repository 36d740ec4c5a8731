//! The tables and indexes: what their rows take by their layout, how many rows an order makes, and
//! how long those stay. The columns are those of `sql/`.

use crate::layout::Column::{Eight, Four, Null, Text, Two};
use crate::layout::{entry, row};
use crate::parameters::Parameters;

/// What rows hold that differs from system to system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Letters of an item's name.
    pub name_chars: f64,
    /// Share of the orders with a trace context.
    pub traced: f64,
    /// Units of an item.
    pub units: u64,
    /// Reservations shown with a cached item.
    pub reservations: f64,
    /// Idempotency keys that expire at the same time, as those of one batch do.
    pub keys_together: f64,
}

/// The benchmark's orders and items: `item 123456` with 10¹² units; of a million items, those that
/// were ordered show 20 reservations each, a hundredth of all.
pub(crate) const BENCH: Shape = Shape {
    name_chars: 11.0,
    traced: 0.0,
    units: 1_000_000_000_000,
    reservations: 0.2,
    keys_together: 1.0,
};

/// How many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Those of the orders not yet retired.
    Orders,
    /// One for each item.
    Catalogue,
    /// Those of the creates with an idempotency key that has not expired.
    Keys,
}

/// A table or an index.
pub struct Relation {
    /// Its name in the database; that of the partitioned table for its partitions together.
    pub name: &'static str,
    /// The part whose database it is in.
    pub node: &'static str,
    /// Bytes of a row or entry in pages that are full.
    pub bytes: fn(&Shape) -> f64,
    pub(crate) per_order: fn(&Parameters) -> f64,
    pub(crate) kept: Kept,
    /// Rows an order makes in the benchmark, where the fill is measured there.
    pub(crate) measured_rows: Option<f64>,
    /// Otherwise how much of the room rows fill, and why.
    pub(crate) fill: f64,
    pub(crate) fill_origin: &'static str,
}

const FILLFACTOR: &str = "fillfactor of the table, in sql/";
const RISING: &str = "B-tree of rising keys: Postgres' fillfactor for indexes, 90 %";
const RANDOM: &str =
    "B-tree of random keys: ln 2, Yao, On Random 2–3 Trees, Acta Informatica 9 (1978)";

const IN_BLOCKS: &str =
    "B-tree of ids that come in blocks, in any order within one: as of random keys";

const CREATE: &str = "postgres create-order";
const STORE: &str = "postgres store";
const SHARDS: &str = "shards";

const fn measured(
    name: &'static str,
    node: &'static str,
    rows: f64,
    bytes: fn(&Shape) -> f64,
    per_order: fn(&Parameters) -> f64,
) -> Relation {
    let kept = Kept::Orders;
    Relation {
        name,
        node,
        bytes,
        per_order,
        kept,
        measured_rows: Some(rows),
        fill: 1.0,
        fill_origin: "",
    }
}

const fn reckoned(
    name: &'static str,
    node: &'static str,
    kept: Kept,
    bytes: fn(&Shape) -> f64,
    (fill, fill_origin): (f64, &'static str),
) -> Relation {
    Relation { name, node, bytes, per_order: |_| 1.0, kept, measured_rows: None, fill, fill_origin }
}

/// A release adds an entry, since it is an update that is not heap-only; for some of them Postgres
/// deletes a dead one: by the series `cancels` beside `saturation-256`.
const ENTRIES_OF_A_RELEASE: f64 = 0.75;

const LN_2: f64 = std::f64::consts::LN_2;

/// All that take room, but for what is empty again soon: outbox, dead letters and the index of
/// orders still placed.
pub static ALL: [Relation; 14] = [
    // An update leaves a dead row; where vacuum clears it, an insert leaves the reserve free again.
    reckoned("orders", CREATE, Kept::Orders, order, (0.8, FILLFACTOR)),
    measured("orders_pkey", CREATE, 1.0, |_| entry(8.0), |_| 1.0),
    reckoned("idempotency_key", CREATE, Kept::Keys, key, (1.0, "rows are never updated")),
    // A UUID's 36 letters and their length.
    reckoned("idempotency_key_pkey", CREATE, Kept::Keys, |_| entry(37.0), (LN_2, RANDOM)),
    reckoned("idempotency_key_expiry", CREATE, Kept::Keys, expiry, (0.9, RISING)),
    reckoned("item", STORE, Kept::Catalogue, item, (0.5, FILLFACTOR)),
    reckoned("item_pkey", STORE, Kept::Catalogue, |_| entry(8.0), (0.9, RISING)),
    reckoned("item_of_seller", STORE, Kept::Catalogue, |_| entry(16.0), (LN_2, RANDOM)),
    reckoned("item_by_name", STORE, Kept::Catalogue, name, (LN_2, RANDOM)),
    measured("reservation", STORE, 1.0, reservation, |_| 1.0),
    Relation {
        per_order: |p| 1.0 + ENTRIES_OF_A_RELEASE * p.cancel_share,
        ..reckoned("reservation_pkey", STORE, Kept::Orders, |_| entry(8.0), (LN_2, IN_BLOCKS))
    },
    Relation {
        // A release is an update that is not heap-only: another entry.
        per_order: |p| 1.0 - p.refuse_share + p.cancel_share,
        ..reckoned("reservation_of_item", STORE, Kept::Orders, |_| entry(16.0), (LN_2, RANDOM))
    },
    measured("order_event", SHARDS, 2.0, fact, facts),
    measured("order_event_pkey", SHARDS, 2.0, |_| entry(10.0), facts),
];

/// Placed; reserved or reset; and if the client cancels, reset and released.
fn facts(p: &Parameters) -> f64 {
    2.0 + 2.0 * p.cancel_share
}

fn order(shape: &Shape) -> f64 {
    let with = |traceparent| {
        row(&[Eight, Eight, Eight, Eight, Four, Two, Null, Null, traceparent, Eight, Eight])
    };
    with(Null) * (1.0 - shape.traced) + with(Text(55.0)) * shape.traced
}

fn key(_: &Shape) -> f64 {
    row(&[Text(36.0), Text(32.0), Eight, Eight])
}

/// Equal keys are one entry with 6 bytes for each row
/// (<https://www.postgresql.org/docs/current/btree.html#BTREE-DEDUPLICATION>).
fn expiry(shape: &Shape) -> f64 {
    let together = shape.keys_together;
    let rows = if together > 1.0 { 6.0 * together } else { 0.0 };
    entry(8.0 + rows) / together
}

fn item(shape: &Shape) -> f64 {
    row(&[Eight, Eight, Text(shape.name_chars), Eight, Eight, Eight, Eight, Eight])
}

/// A name with its length, and an id.
fn name(shape: &Shape) -> f64 {
    entry(1.0 + shape.name_chars + 8.0)
}

fn reservation(_: &Shape) -> f64 {
    row(&[Eight, Eight, Eight, Eight, Four, Two, Null, Eight])
}

fn fact(_: &Shape) -> f64 {
    row(&[Eight, Two, Eight, Eight, Eight, Four, Null, Eight])
}

/// What rows are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rows {
    /// Orders not yet retired.
    pub orders: f64,
    /// Creates whose idempotency key has not expired.
    pub keys: f64,
    /// Items.
    pub items: f64,
}

impl Relation {
    /// How many rows or entries it has room for; shares of orders are the parameters'.
    pub fn rows(&self, of: &Rows, parameters: &Parameters) -> f64 {
        match self.kept {
            Kept::Orders => of.orders * (self.per_order)(parameters),
            Kept::Keys => of.keys,
            Kept::Catalogue => of.items,
        }
    }
}

impl Shape {
    /// What a plan's rows hold.
    pub(crate) fn of(parameters: &Parameters) -> Self {
        Self {
            name_chars: parameters.item_name_chars,
            traced: parameters.traced_share,
            units: 1_000,
            reservations: parameters.cached_reservations,
            keys_together: 1.0,
        }
    }

    /// Bytes of an item's view as the cache holds it.
    pub(crate) fn item_json(&self) -> f64 {
        let units = self.units;
        let item = format!(
            r#"{{"item_id":12345678,"seller_id":123456,"price":100000,"item_name":"","is_reserved":true,"date":"2026-01-01T00:00:00.000000Z","quantity":{units},"available":{units},"reserved":10,"reservations":[]}}"#
        );
        let reservation =
            r#"{"order_id":12345678,"state":"RESERVED","time":"2026-01-01T00:00:00.000000Z"},"#;
        item.len() as f64 + self.name_chars + self.reservations * reservation.len() as f64
    }
}
