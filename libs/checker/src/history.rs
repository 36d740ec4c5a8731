//! What clients asked for and were told.

use std::collections::{BTreeMap, BTreeSet};

/// What the services have promised so far, as their clients remember it.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Orders whose creation was acknowledged.
    pub placed: BTreeSet<i64>,
    /// Orders whose cancellation was acknowledged.
    pub cancelled: BTreeSet<i64>,
    /// The orders each idempotency key was answered with.
    pub keys: BTreeMap<String, BTreeSet<i64>>,
    /// Orders that were seen as CANCELLED.
    pub seen_cancelled: BTreeSet<i64>,
    /// What each client wanted, by client id; only where every wish has a client id of its own.
    pub wishes: BTreeMap<i64, Wish>,
}

/// One order that somebody wanted.
#[derive(Debug, Default, Clone)]
pub struct Wish {
    /// The idempotency key it was sent under.
    pub key: Option<String>,
    /// How often it was sent: without a key, each may have become an order.
    pub sent: u32,
    /// The orders it was acknowledged with.
    pub orders: BTreeSet<i64>,
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
        if step == "CANCELLED" {
            self.seen_cancelled.insert(order);
        } else if self.seen_cancelled.contains(&order) {
            return Err(format!("order {order} left CANCELLED: {step}"));
        }
        Ok(())
    }
}
