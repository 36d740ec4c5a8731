//! service-monitoring-order: the facts it has of one order, and its consumers.

use chrono::DateTime;
use ordersaga_contract::{Fact, Topic};
use ordersaga_saga::status::{Heard, Status, Step, fold};

use crate::consumer::Consumer;
use crate::scenario::{Guard, Without, reason_of};

/// Facts of an order, each once: the table whose key is the order and the fact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facts(u8);

/// What service-monitoring-order has of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monitoring {
    /// The table's rows.
    pub facts: Facts,
    /// The fact heard last; only where [`Guard::Fold`] is missing.
    pub last: Option<Fact>,
    /// Whether the status was ever cancelled; no part of the service, but what I7 is about.
    pub ended: bool,
    /// Its consumers, by topic.
    pub consumers: [Consumer; 3],
}

impl Monitoring {
    /// The topics it follows.
    pub const TOPICS: [Topic; 3] = Topic::EVENTS;

    /// Applies a record.
    pub fn read(&mut self, fact: Fact, without: Without) {
        self.facts.insert(fact);
        if without.lacks(Guard::Fold) {
            self.last = Some(fact);
        }
        self.ended |= self.step(without) == Some(Step::Cancelled);
    }

    /// What it says of the order; `None` if it has not heard of it.
    pub fn status(&self, without: Without) -> Option<Status> {
        if without.lacks(Guard::Fold) { fold(self.last.map(heard)) } else { self.facts.status() }
    }

    /// How far it says the order is.
    pub fn step(&self, without: Without) -> Option<Step> {
        self.status(without).map(|status| status.step)
    }
}

impl Facts {
    /// Adds a fact; whether it is new.
    pub fn insert(&mut self, fact: Fact) -> bool {
        let is_new = !self.contains(fact);
        self.0 |= 1 << fact.code();
        is_new
    }

    /// Takes a fact out.
    pub fn remove(&mut self, fact: Fact) {
        self.0 &= !(1 << fact.code());
    }

    /// Whether `fact` is among them.
    pub fn contains(self, fact: Fact) -> bool {
        self.0 & (1 << fact.code()) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        Fact::ALL.into_iter().filter(move |fact| self.contains(*fact))
    }

    /// The status these facts make.
    pub fn status(self) -> Option<Status> {
        fold(self.iter().map(heard))
    }
}

impl FromIterator<Fact> for Facts {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        let mut all = Self::default();
        for fact in facts {
            all.insert(fact);
        }
        all
    }
}

/// A fact without its time, of which no decision takes notice.
fn heard(fact: Fact) -> Heard {
    Heard { fact, time: DateTime::UNIX_EPOCH, reason: fact.initiator().map(reason_of) }
}
