//! What clients asked for and were told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the services have promised so far, as their clients remember it.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Orders whose creation was acknowledged.
    pub placed: BTreeSet<i64>,
    /// Orders whose cancellation was acknowledged.
    pub cancelled: BTreeSet<i64>,
    /// The orders each idempotency key was answered with.
    pub keys: BTreeMap<String, BTreeSet<i64>>,
    /// Items whose addition was acknowledged, with their units.
    pub items: BTreeMap<i64, i64>,
    /// Orders of which a status was seen.
    pub seen: BTreeSet<i64>,
    /// Orders that were seen as CANCELLED.
    pub seen_cancelled: BTreeSet<i64>,
    /// What each client wanted, by client id; only where every wish has a client id of its own.
    pub wishes: BTreeMap<i64, Wish>,
    /// How long the store has to answer, where that is to be checked.
    pub deadline: Option<Duration>,
}

/// One order that somebody wanted.
#[derive(Debug, Default, Clone)]
pub struct Wish {
    /// The idempotency key it was sent under.
    pub key: Option<String>,
    /// What was ordered: item, seller, units.
    pub wanted: (i64, i64, i64),
    /// How often it was sent: without a key, each may have become an order.
    pub sent: u32,
    /// How often it was acknowledged.
    pub acknowledged: usize,
    /// The orders it was acknowledged with.
    pub orders: BTreeSet<i64>,
    /// How often a cancel was sent.
    pub cancels: u32,
    /// What happened to it, with seconds since the begin.
    pub log: Vec<(f64, String)>,
}

impl History {
    /// A create was answered with this order.
    pub fn acknowledged(&mut self, key: Option<&str>, order: i64) {
        self.placed.insert(order);
        if let Some(key) = key {
            self.keys.entry(key.to_owned()).or_default().insert(order);
        }
    }

    /// Somebody was shown an order's step; an error if it had been CANCELLED and is not any more.
    pub fn saw(&mut self, order: i64, step: &str) -> Result<(), String> {
        self.seen.insert(order);
        if step == "CANCELLED" {
            self.seen_cancelled.insert(order);
        } else if self.seen_cancelled.contains(&order) {
            return Err(format!("order {order} left CANCELLED: {step}"));
        }
        Ok(())
    }

    /// Somebody was told that an order is not known; an error if it was known before.
    pub fn missed(&self, order: i64) -> Result<(), String> {
        if self.seen.contains(&order) {
            return Err(format!("order {order} is not known any more"));
        }
        Ok(())
    }
}
