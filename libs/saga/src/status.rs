//! An order's status as a fold over a *set* of facts: a join-semilattice, so that the order in
//! which facts arrive and how often they arrive cannot matter. Facts are only ever added; that is
//! all of monitoring's concurrency control.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ordersaga_contract::{Cancellation, Fact, Reason};

/// A fact as heard, with its time and, for a reset, its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Heard {
    /// What became true.
    pub fact: Fact,
    /// When, by the service that decided it.
    pub time: DateTime<Utc>,
    /// Why, if it ends the order.
    pub reason: Option<Reason>,
}

/// How far an order is. Facts are only added, so an order only ever goes on to a later step: one
/// that is past a step will not be at it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The store has not decided, or not yet told.
    UnderReservation,
    /// Stock is held: on its way.
    Shipping,
    /// Over. Nothing follows.
    Cancelled,
}

/// What there is to say of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How far it is.
    pub step: Step,
    /// Whether stock is held for it now.
    pub is_reserved: bool,
    /// Whether it is over.
    pub is_cancelled: bool,
    /// Who ended it and why. Of several who did, the one that comes first in
    /// [`Initiator`](ordersaga_contract::Initiator): the client's word stands above the machine's.
    pub cancellation: Option<Cancellation>,
    /// When it was placed, if that was heard.
    pub placed: Option<DateTime<Utc>>,
    /// Time of the newest fact.
    pub updated: DateTime<Utc>,
    /// Each fact once, by its time.
    pub facts: Vec<Heard>,
}

/// What an order waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The store has not answered.
    Answer,
    /// It is over, and the store has not given the stock back.
    Release,
    /// Something was heard of it, but not that it was placed.
    Placing,
}

impl Status {
    /// What it waits for and since when; `None` if nothing is to come by itself.
    pub fn waits_for(&self) -> Option<(Wait, DateTime<Utc>)> {
        let time_of = |is_it: fn(Fact) -> bool| {
            self.facts.iter().find(|heard| is_it(heard.fact)).map(|heard| heard.time)
        };
        let ended = time_of(|fact| fact.initiator().is_some());
        let reserved = time_of(|fact| fact == Fact::Reserved);
        let released = time_of(|fact| fact == Fact::Released);
        let first = self.facts.first().map_or(self.updated, |heard| heard.time);
        match (self.placed, reserved, ended, released) {
            (_, Some(_), Some(ended), None) => Some((Wait::Release, ended)),
            (Some(placed), None, None, None) => Some((Wait::Answer, placed)),
            (None, ..) => Some((Wait::Placing, first)),
            _ => None,
        }
    }
}

/// Folds what was heard of one order; `None` if nothing was.
pub fn fold(heard: impl IntoIterator<Item = Heard>) -> Option<Status> {
    let mut set = BTreeMap::new();
    for one in heard {
        // Of two tellings of one fact the lesser stands, whichever came first.
        set.entry(one.fact).and_modify(|known: &mut Heard| *known = one.min(*known)).or_insert(one);
    }
    let updated = set.values().map(|heard| heard.time).max()?;
    let cancellation = set
        .values()
        .filter_map(|heard| {
            Some(Cancellation { initiator: heard.fact.initiator()?, reason: heard.reason? })
        })
        .min();
    let is_cancelled = set.keys().any(|fact| fact.initiator().is_some());
    let reserved = set.contains_key(&Fact::Reserved);
    let released = set.contains_key(&Fact::Released);
    let placed = set.get(&Fact::Placed).map(|heard| heard.time);
    let mut facts: Vec<_> = set.into_values().collect();
    facts.sort_by_key(|heard| (heard.time, heard.fact));
    Some(Status {
        step: match (is_cancelled, reserved) {
            (true, _) => Step::Cancelled,
            (false, true) => Step::Shipping,
            (false, false) => Step::UnderReservation,
        },
        is_reserved: reserved && !released && !is_cancelled,
        is_cancelled,
        cancellation,
        placed,
        updated,
        facts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ordersaga_contract::Initiator;
    use proptest::prelude::*;

    fn heard() -> impl Strategy<Value = Heard> {
        let reasons = vec![Reason::OutOfStock, Reason::CancelledByClient, Reason::DeadlineExceeded];
        (prop::sample::select(Fact::ALL.to_vec()), 0..50_i64, prop::sample::select(reasons))
            .prop_map(|(fact, seconds, reason)| Heard {
                fact,
                time: DateTime::from_timestamp(seconds, 0).unwrap(),
                reason: fact.initiator().map(|_| reason),
            })
    }

    proptest! {
        #[test]
        fn neither_order_nor_repetition_matters(
            (facts, shuffled) in prop::collection::vec(heard(), 0..12).prop_flat_map(|facts| {
                let twice: Vec<_> = facts.iter().chain(&facts).copied().collect();
                (Just(facts), Just(twice).prop_shuffle())
            })
        ) {
            prop_assert_eq!(fold(facts), fold(shuffled));
        }

        #[test]
        fn a_further_fact_never_takes_an_order_back_to_an_earlier_step(
            facts in prop::collection::vec(heard(), 1..8), more in heard(),
        ) {
            let before = fold(facts.clone()).unwrap();
            let after = fold(facts.into_iter().chain([more])).unwrap();
            prop_assert!(after.step >= before.step);
            prop_assert!(!(after.is_cancelled && after.is_reserved));
        }
    }

    #[test]
    fn an_order_waits_for_whoever_must_speak_next() {
        let waits = |facts: &[Fact]| {
            let heard = facts.iter().zip(1..).map(|(&fact, seconds)| Heard {
                fact,
                time: DateTime::from_timestamp(seconds, 0).unwrap(),
                reason: fact.initiator().map(|_| Reason::CancelledByClient),
            });
            let waits = fold(heard).unwrap().waits_for();
            waits.map(|(wait, since)| (wait, since.timestamp()))
        };
        let (placed, reserved, reset) = (Fact::Placed, Fact::Reserved, Fact::ResetByClient);
        assert_eq!(waits(&[placed]), Some((Wait::Answer, 1)));
        assert_eq!(waits(&[placed, reserved]), None);
        assert_eq!(waits(&[placed, reserved, reset]), Some((Wait::Release, 3)));
        assert_eq!(waits(&[placed, reserved, reset, Fact::Released]), None);
        assert_eq!(waits(&[placed, reset]), None);
        assert_eq!(waits(&[reserved]), Some((Wait::Placing, 1)));
    }

    #[test]
    fn nothing_heard_is_no_status() {
        assert_eq!(fold([]), None);
    }

    #[test]
    fn the_clients_word_stands_above_the_deadline() {
        let at = |fact, seconds, reason| Heard {
            fact,
            time: DateTime::from_timestamp(seconds, 0).unwrap(),
            reason: Some(reason),
        };
        let status = fold([
            at(Fact::ResetByDeadline, 1, Reason::DeadlineExceeded),
            at(Fact::ResetByClient, 2, Reason::CancelledByClient),
        ])
        .unwrap();
        assert_eq!(status.cancellation.unwrap().initiator, Initiator::Client);
        assert_eq!(status.step, Step::Cancelled);
    }
}
