//! Orders that are not settled: what this instance has heard of and what is still to come. Kept in
//! memory, since to find them in the tables would take a scan. It is where to look, no more: what is
//! told of an order is read from its node.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_contract::{Event, Fact, OrderId};
use ordersaga_saga::status::{Heard, Wait, fold};
use parking_lot::Mutex;

use crate::db::History;
use crate::follower::minute_of;
use crate::latency::{self, Latencies};

/// Orders that are kept, at the most: 40 MB. At the peak rate a store that is silent until the
/// deadline leaves fewer.
const MOST: usize = 1_000_000;
/// How long after its end an order's stock may be held, and how long after its first fact the
/// placing may be unheard of, before it is overdue.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// How an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits for nothing.
    Settled,
    /// It waits, not for long.
    InTime,
    /// It has waited for too long.
    Overdue {
        /// What for.
        wait: Wait,
        /// Since when.
        since: DateTime<Utc>,
        /// What it waits for may have happened: its partition is applied only until before that
        /// would be overdue.
        is_late: bool,
    },
}

/// Judges an order by all that was heard of it. `until` is until when its partition is applied, if
/// that is known; `patience` how long the store may take to answer.
pub(crate) fn judge(
    heard: &[Heard],
    until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    patience: Duration,
) -> Verdict {
    let Some(status) = fold(heard.iter().copied()) else { return Verdict::Settled };
    let Some((wait, since)) = status.waits_for() else { return Verdict::Settled };
    let limit = if wait == Wait::Answer { patience } else { SOON };
    let is_over = |time: DateTime<Utc>| (time - since).to_std().is_ok_and(|age| age >= limit);
    if is_over(now) {
        Verdict::Overdue { wait, since, is_late: !until.is_some_and(is_over) }
    } else {
        Verdict::InTime
    }
}

/// The orders that wait for something, by what this instance has heard.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<State>);

#[derive(Default)]
struct State {
    orders: HashMap<OrderId, Flight>,
    /// Some were not kept.
    was_full: bool,
    /// What was in flight when the process began has been read.
    is_read: bool,
    latencies: Latencies,
}

#[derive(Clone, Copy)]
struct Flight {
    facts: Facts,
    /// The time of what was heard first.
    since: DateTime<Utc>,
}

/// A set of facts: a bit for each code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Facts(u8);

impl Facts {
    const RESETS: Self = Self::of(Fact::ResetByClient)
        .and(Self::of(Fact::ResetByStore))
        .and(Self::of(Fact::ResetByDeadline));

    /// What the store may say first.
    const ANSWERS: Self = Self::of(Fact::Reserved).and(Self::of(Fact::ResetByStore));

    const fn is_one(self) -> bool {
        self.0.is_power_of_two()
    }

    const fn of(fact: Fact) -> Self {
        Self(1 << fact.code())
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Nothing is to come, by these alone. Stock that was given back was placed, held and ended,
    /// whether or not that was heard here.
    const fn are_settled(self) -> bool {
        let is_reserved = self.has_any(Self::of(Fact::Reserved));
        self.has_any(Self::of(Fact::Released))
            || self.has_any(Self::of(Fact::Placed)) && is_reserved != self.has_any(Self::RESETS)
    }
}

impl InFlight {
    /// These events are committed.
    pub(crate) fn tell<'a>(&self, events: impl Iterator<Item = &'a Event>, now: DateTime<Utc>) {
        let mut state = self.0.lock();
        state.latencies.begin(minute_of(now));
        for event in events {
            let answered = state.add(event.order.order_id, event.kind.fact(), event.time);
            if let Some(span) = answered {
                state.latencies.answered(span);
            }
            state.latencies.applied(now - event.time);
        }
    }

    /// How long what was heard here took, by minute, newest first.
    pub(crate) fn latencies(&self) -> Vec<latency::Heard> {
        self.0.lock().latencies.minutes().collect()
    }

    /// Adds what was read of orders that may be in flight.
    pub(crate) fn add<'a>(&self, histories: impl Iterator<Item = &'a History>) {
        let mut state = self.0.lock();
        for History { order, heard } in histories {
            for heard in heard {
                state.add(order.order_id, heard.fact, heard.time);
            }
        }
    }

    /// All that were in flight when the process began have been added.
    pub(crate) fn mark_read(&self) {
        self.0.lock().is_read = true;
    }

    /// Whether every order that is in flight is known of.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.0.lock();
        state.is_read && !state.was_full
    }

    /// These have proved to be settled.
    pub(crate) fn settle(&self, orders: impl Iterator<Item = OrderId>) {
        let mut state = self.0.lock();
        for order in orders {
            state.orders.remove(&order);
        }
    }

    /// Those first heard of before `time` that `admits` lets through, `most` at the most, oldest
    /// first.
    pub(crate) fn since_before(
        &self,
        time: DateTime<Utc>,
        most: usize,
        admits: impl Fn(OrderId) -> bool,
    ) -> Vec<OrderId> {
        let mut old = self.0.lock().since_before(time);
        old.retain(|(_, order)| admits(*order));
        old.sort_unstable();
        old.truncate(most);
        old.into_iter().map(|(_, order)| order).collect()
    }
}

impl State {
    fn since_before(&self, time: DateTime<Utc>) -> Vec<(DateTime<Utc>, OrderId)> {
        let old = self.orders.iter().filter(|(_, flight)| flight.since <= time);
        old.map(|(order, flight)| (flight.since, *order)).collect()
    }

    /// Adds a fact. If it completes an order's placing and the store's answer, says how long the answer took.
    fn add(&mut self, order: OrderId, fact: Fact, time: DateTime<Utc>) -> Option<TimeDelta> {
        let known = self.orders.get(&order).copied();
        let known = known.unwrap_or(Flight { facts: Facts::default(), since: time });
        let answered = known.answered_by(fact, time);
        let facts = known.facts.and(Facts::of(fact));
        if facts.are_settled() {
            self.orders.remove(&order);
        } else if self.orders.len() < MOST || self.orders.contains_key(&order) {
            self.orders.insert(order, Flight { facts, since: known.since.min(time) });
        } else {
            self.was_full = true;
        }
        answered
    }
}

impl Flight {
    /// How long the store took to answer, if that is known with this fact. An order is placed before
    /// all else that comes true of it, so `since` is when, once the placing was heard.
    fn answered_by(self, fact: Fact, time: DateTime<Utc>) -> Option<TimeDelta> {
        let was_placed = self.facts.has_any(Facts::of(Fact::Placed));
        let was_answered = self.facts.has_any(Facts::ANSWERS);
        if Facts::ANSWERS.has_any(Facts::of(fact)) && was_placed && !was_answered {
            Some(time - self.since)
        } else if fact == Fact::Placed && was_answered && self.facts.is_one() {
            Some(self.since - time)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::examples::at;

    fn heard(facts: &[(Fact, i64)]) -> Vec<Heard> {
        facts
            .iter()
            .map(|(fact, time)| Heard { fact: *fact, time: at(*time), reason: None })
            .collect()
    }

    #[test]
    fn an_order_is_stuck_when_it_is_overdue_and_all_until_then_is_applied() {
        use Fact::{Placed, Released, Reserved, ResetByClient, ResetByStore};
        let patience = Duration::from_secs(30);
        let overdue = |wait, since, is_late| Verdict::Overdue { wait, since: at(since), is_late };
        for (facts, until, now, verdict) in [
            (&[(Placed, 0)][..], Some(29), 29, Verdict::InTime),
            (&[(Placed, 0)], Some(30), 30, overdue(Wait::Answer, 0, false)),
            (&[(Placed, 0)], Some(29), 300, overdue(Wait::Answer, 0, true)),
            (&[(Placed, 0)], None, 300, overdue(Wait::Answer, 0, true)),
            (&[(Placed, 0), (Reserved, 1)], Some(300), 300, Verdict::Settled),
            (&[(Placed, 0), (ResetByStore, 1)], Some(300), 300, Verdict::Settled),
            (&[(Placed, 0), (Reserved, 1), (ResetByClient, 5)], Some(14), 14, Verdict::InTime),
            (
                &[(Placed, 0), (Reserved, 1), (ResetByClient, 5)],
                Some(15),
                15,
                overdue(Wait::Release, 5, false),
            ),
            (
                &[(Placed, 0), (Reserved, 1), (ResetByClient, 5), (Released, 6)],
                Some(300),
                300,
                Verdict::Settled,
            ),
            (&[(Reserved, 3)], Some(13), 13, overdue(Wait::Placing, 3, false)),
            (&[], Some(300), 300, Verdict::Settled),
        ] {
            let known = until.map(at);
            assert_eq!(judge(&heard(facts), known, at(now), patience), verdict, "{facts:?}");
        }
    }

    proptest! {
        /// Whatever comes first and however often, an order that waits is kept, and one that is
        /// settled with all its facts heard is not.
        #[test]
        fn what_is_kept_is_what_waits(
            facts in prop::collection::btree_set(0..6_usize, 1..6)
                .prop_flat_map(|facts| Just(facts.into_iter().collect::<Vec<_>>()).prop_shuffle()),
        ) {
            let facts: Vec<_> = facts.into_iter().map(|fact| (Fact::ALL[fact], 0)).collect();
            let verdict = judge(&heard(&facts), Some(at(900)), at(900), Duration::from_secs(1));
            let order = OrderId::try_from(1).unwrap();
            let mut state = State::default();
            for (fact, time) in &facts {
                state.add(order, *fact, at(*time));
            }
            let was_placed = facts.contains(&(Fact::Placed, 0));
            if verdict != Verdict::Settled && was_placed {
                prop_assert!(state.orders.contains_key(&order), "{:?}", facts);
            }
        }
    }

    #[test]
    fn the_store_s_answer_is_timed_once_whichever_is_heard_first() {
        use Fact::{Placed, Released, Reserved, ResetByClient, ResetByStore};
        let spans = |facts: &[(Fact, i64)]| {
            let (order, mut state) = (OrderId::try_from(1).unwrap(), State::default());
            let spans = facts.iter().filter_map(|(fact, time)| state.add(order, *fact, at(*time)));
            spans.map(|span| span.num_seconds()).collect::<Vec<_>>()
        };
        assert_eq!(spans(&[(Placed, 10), (Reserved, 13)]), [3]);
        assert_eq!(spans(&[(Reserved, 13), (Placed, 10)]), [3]);
        assert_eq!(spans(&[(Placed, 10), (ResetByStore, 12)]), [2]);
        assert_eq!(spans(&[(ResetByStore, 12), (Placed, 10)]), [2]);
        let ended_first = [(Placed, 10), (ResetByClient, 11), (Reserved, 14), (Reserved, 14)];
        assert!(spans(&ended_first).is_empty(), "it was settled and is not kept");
        assert_eq!(spans(&[(Placed, 10), (Placed, 10), (Reserved, 14)]), [4]);
        assert!(
            spans(&[(ResetByClient, 11), (Reserved, 14), (Placed, 10)]).is_empty(),
            "not known"
        );
        assert!(spans(&[(Placed, 10), (ResetByClient, 11), (Released, 15)]).is_empty());
    }

    #[test]
    fn a_life_leaves_nothing_behind() {
        let order = OrderId::try_from(1).unwrap();
        let mut state = State::default();
        for fact in [Fact::Placed, Fact::Reserved, Fact::ResetByClient, Fact::Released] {
            state.add(order, fact, at(0));
        }
        assert!(state.orders.is_empty());
        // What comes again of an order that is long settled waits to be looked up.
        state.add(order, Fact::ResetByClient, at(5));
        let flights = InFlight(Mutex::new(state));
        assert_eq!(flights.since_before(at(5), 9, |_| true), [order]);
        assert!(flights.since_before(at(4), 9, |_| true).is_empty());
        flights.settle([order].into_iter());
        assert!(flights.0.lock().orders.is_empty());
    }
}
