//! The twelve invariants by name, and what was found of each.

use crate::check::{Evidence, Violation};
use crate::onlooker::CONSUMERS;

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invariant {
    /// I1 to I12.
    pub name: &'static str,
    /// What it promises, in a sentence.
    pub promise: &'static str,
    /// What is compared to see whether it holds.
    pub compared: &'static str,
}

const fn invariant(name: &'static str, promise: &'static str, compared: &'static str) -> Invariant {
    Invariant { name, promise, compared }
}

/// All of them, in their order. ARCHITECTURE.md tells what holds each.
pub const INVARIANTS: [Invariant; 12] = [
    invariant(
        "I1",
        "Every acknowledged order ends, as shipped or cancelled.",
        "orders of create-order, decisions of the store, events of the topics",
    ),
    invariant(
        "I2",
        "No item has more units reserved than there are.",
        "reserved units of each item, the sum of its reservations",
    ),
    invariant("I3", "A cancelled order holds no stock.", "status of each order, its reservation"),
    invariant(
        "I4",
        "The status of an order is what its events amount to.",
        "status of each order, its events in the topics",
    ),
    invariant(
        "I5",
        "One idempotency key makes one order.",
        "keys that this program has sent, the orders they were answered with",
    ),
    invariant(
        "I6",
        "Every acknowledged order is in the topic incoming.",
        "orders of create-order, records of incoming",
    ),
    invariant(
        "I7",
        "A cancelled order stays cancelled.",
        "cancellations that were acknowledged, the status now",
    ),
    invariant(
        "I8",
        "The cache shows what the database has.",
        "items in Redis, items as the API shows them, items in the database",
    ),
    invariant(
        "I9",
        "What is kept to recognise repetition stays bounded.",
        "rows of offsets and idempotency keys past their time, by database",
    ),
    invariant(
        "I10",
        "Every event is applied or is a dead letter.",
        "events in the topics, facts on the shards, dead letters",
    ),
    invariant("I11", "Reading all topics again changes nothing.", "all databases before and after"),
    invariant(
        "I12",
        "Every order lies on the shard and in the partition of its hash.",
        "records of the topics, rows of the shards, the hash by Postgres",
    ),
];

/// What was found of an invariant.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It holds for all that was compared.
    Holds,
    /// It does not hold: where.
    Violated(Vec<Violation>),
    /// It was not checked: why.
    NotChecked(Unchecked),
}

/// Why an invariant was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchecked {
    /// Orders are in flight, and it concerns all orders at once.
    OrdersInFlight,
    /// Only clients know their keys, and this one has placed no order.
    NoKeys,
    /// Of these orders this client has cancelled none.
    NoCancellations,
    /// It takes reading all topics again.
    NeedsReplay,
    /// There is no order that has ended.
    NoOrders,
}

/// An invariant and what was found of it.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Which.
    pub invariant: Invariant,
    /// What was found.
    pub outcome: Outcome,
    /// How many orders, items, keys or records were compared.
    pub over: usize,
}

impl Evidence {
    /// What these violations say of each invariant.
    pub fn verdicts(&self, violations: &[Violation]) -> Vec<Verdict> {
        let verdict = |invariant: Invariant| {
            let of_it = violations.iter().filter(|one| one.invariant == invariant.name);
            let of_it: Vec<_> = of_it.cloned().collect();
            let (over, why_not) = self.compared(invariant.name);
            let outcome = match why_not.filter(|_| over == 0) {
                _ if !of_it.is_empty() => Outcome::Violated(of_it),
                Some(why) => Outcome::NotChecked(why),
                None => Outcome::Holds,
            };
            Verdict { invariant, outcome, over }
        };
        INVARIANTS.into_iter().map(verdict).collect()
    }

    /// How much was compared for an invariant, and why nothing if that is so.
    fn compared(&self, invariant: &str) -> (usize, Option<Unchecked>) {
        let (snapshot, history) = (&self.snapshot, &self.history);
        match invariant {
            "I2" if self.stock.is_some() => (snapshot.items.len(), None),
            "I8" => match &self.stock {
                Some(stock) => (stock.asked.len(), Some(Unchecked::NoOrders)),
                None => (0, Some(Unchecked::OrdersInFlight)),
            },
            "I2" => (0, Some(Unchecked::OrdersInFlight)),
            "I5" => (history.keys.len(), Some(Unchecked::NoKeys)),
            "I7" => (history.cancelled.len(), Some(Unchecked::NoCancellations)),
            "I10" => (self.told.records.len(), Some(Unchecked::NoOrders)),
            "I9" => (CONSUMERS.len(), None),
            "I11" => (0, Some(Unchecked::NeedsReplay)),
            "I3" | "I4" => (snapshot.statuses.len(), Some(Unchecked::NoOrders)),
            _ => (snapshot.orders.len(), Some(Unchecked::NoOrders)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twelve_in_their_order() {
        let names: Vec<_> = INVARIANTS.iter().map(|one| one.name).collect();
        let expected: Vec<_> = (1..=12).map(|number| format!("I{number}")).collect();
        assert_eq!(names, expected);
    }
}
