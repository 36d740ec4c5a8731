//! What several witnesses say of one order, compared: who has not heard of something yet (a delay),
//! and what cannot be true together (a contradiction). Pure: it asks nobody and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_contract::{Fact, Initiator};
use serde::Serialize;

/// The cache is told within this time even after a crash.
const CACHE_IS_TOLD: TimeDelta = TimeDelta::seconds(2);
/// Of each of these pairs only one can come true.
const EXCLUSIVE: [[Fact; 2]; 2] =
    [[Fact::Reserved, Fact::ResetByStore], [Fact::ResetByClient, Fact::ResetByDeadline]];

/// Who can say something of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Witness {
    /// service-monitoring-order: every fact that it has heard.
    Monitoring,
    /// The records behind monitoring's facts.
    Topics,
    /// The store's cache: the order's reservation among those of its item.
    Cache,
    /// service-store: what it has decided for the order.
    Store,
    /// service-create-order: the order, and what it has heard from the store.
    CreateOrder,
}

/// What one witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Who says it.
    pub(crate) witness: Witness,
    /// In a word.
    pub(crate) says: String,
    /// Facts that it knows, with the time that it tells for each, if it tells one.
    pub(crate) knows: BTreeMap<Fact, Option<DateTime<Utc>>>,
    /// Facts that it would know, had it heard of them. Of all others it says nothing.
    pub(crate) lacks: BTreeSet<Fact>,
    /// It has heard that somebody else ended the order, not who.
    pub(crate) is_reset: bool,
    /// The order's fields, as `item_id`, if it tells them.
    pub(crate) fields: BTreeMap<&'static str, i64>,
}

/// Something that is not the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub(crate) enum Finding {
    /// A delay: a fact is on its way to somebody.
    NotHeard {
        who: Witness,
        #[serde(serialize_with = "by_name")]
        fact: Fact,
        told_by: Witness,
        since: Option<DateTime<Utc>>,
    },
    /// A contradiction: two facts of which only one can be.
    Exclusive {
        #[serde(serialize_with = "both_by_name")]
        facts: [Fact; 2],
        told_by: [Witness; 2],
    },
    /// A contradiction: who decides a fact does not know it, somebody else does.
    Sourceless {
        #[serde(serialize_with = "by_name")]
        fact: Fact,
        source: Witness,
        told_by: Witness,
    },
    /// A contradiction: somebody undoes an order that has not ended.
    StillOpen { told_by: Witness },
    /// A contradiction: a field of the order has two values.
    Differs { field: &'static str, values: BTreeMap<Witness, i64> },
    /// A contradiction: readers of the cache are told what is no longer so.
    Stale {
        #[serde(serialize_with = "by_name")]
        fact: Fact,
        told_by: Witness,
    },
}

impl Finding {
    /// Whether it cannot be explained by news that are on their way.
    pub(crate) fn is_contradiction(&self) -> bool {
        !matches!(self, Self::NotHeard { .. })
    }
}

/// Compares accounts of one order. They stand in the order in which they were asked for, each after
/// the answer before it had come; whoever decides a fact after those who only hear of it, so that
/// what the last one does not know was not so when the others said it.
pub(crate) fn compare(accounts: &[Account], now: DateTime<Utc>) -> Vec<Finding> {
    let all = Accounts(accounts);
    let mut found = exclusive(all);
    found.extend(differing(all));
    found.extend(still_open(all));
    for fact in Fact::ALL {
        found.extend(spread(all, fact, now));
    }
    found
}

#[derive(Clone, Copy)]
struct Accounts<'a>(&'a [Account]);

impl<'a> Accounts<'a> {
    fn who_know(self, fact: Fact) -> impl Iterator<Item = &'a Account> {
        self.0.iter().filter(move |account| account.knows.contains_key(&fact))
    }

    fn of(self, witness: Witness) -> Option<&'a Account> {
        self.0.iter().find(|account| account.witness == witness)
    }

    /// Whether one was asked when another had answered.
    fn is_after(self, later: &Account, earlier: &Account) -> bool {
        let place = |one: &Account| self.0.iter().position(|other| other.witness == one.witness);
        place(later) > place(earlier)
    }
}

/// Who decides whether a fact comes true.
fn source(fact: Fact) -> Witness {
    match fact {
        Fact::Placed | Fact::ResetByClient | Fact::ResetByDeadline => Witness::CreateOrder,
        Fact::Reserved | Fact::Released | Fact::ResetByStore => Witness::Store,
    }
}

fn exclusive(all: Accounts<'_>) -> Vec<Finding> {
    let told = |fact| all.who_know(fact).map(|account| account.witness).next();
    let found = EXCLUSIVE.into_iter().filter_map(|facts| {
        let told_by = [told(facts[0])?, told(facts[1])?];
        Some(Finding::Exclusive { facts, told_by })
    });
    found.collect()
}

fn differing(all: Accounts<'_>) -> Vec<Finding> {
    let mut told: BTreeMap<&'static str, BTreeMap<Witness, i64>> = BTreeMap::new();
    for account in all.0 {
        for (field, value) in &account.fields {
            told.entry(field).or_default().insert(account.witness, *value);
        }
    }
    told.retain(|_, values| values.values().collect::<BTreeSet<_>>().len() > 1);
    told.into_iter().map(|(field, values)| Finding::Differs { field, values }).collect()
}

/// Stock is given back, and an order passed over, only after create-order has ended it.
fn still_open(all: Accounts<'_>) -> Option<Finding> {
    let create = all.of(Witness::CreateOrder)?;
    let lacks = |fact| create.lacks.contains(&fact);
    let is_open = lacks(Fact::ResetByClient) && lacks(Fact::ResetByDeadline);
    let undoes = |one: &&Account| one.is_reset || one.knows.contains_key(&Fact::Released);
    let undone = all.0.iter().filter(undoes).find(|one| all.is_after(create, one))?;
    is_open.then_some(Finding::StillOpen { told_by: undone.witness })
}

/// Who knows of a fact, and who does not.
fn spread(all: Accounts<'_>, fact: Fact, now: DateTime<Utc>) -> Vec<Finding> {
    let decides = source(fact);
    let first = all.who_know(fact).find(|one| one.witness == decides);
    let Some(teller) = first.or_else(|| all.who_know(fact).next()) else { return Vec::new() };
    let since = all.who_know(fact).filter_map(|one| one.knows[&fact]).min();
    let is_new = since.is_none_or(|since| now - since < CACHE_IS_TOLD);
    let lacking = all.0.iter().filter(|one| one.lacks.contains(&fact));
    let finding = |one: &Account| {
        let told_by = teller.witness;
        if one.witness == decides {
            let sourceless = Finding::Sourceless { fact, source: decides, told_by };
            // Asked before, it may have learned of it since.
            return all.is_after(one, teller).then_some(sourceless);
        }
        let heard = all.of(Witness::Monitoring).filter(|it| it.knows.contains_key(&fact));
        let is_told = heard.is_some_and(|heard| all.is_after(one, heard));
        if one.witness == Witness::Cache && is_told && !is_new {
            return Some(Finding::Stale { fact, told_by: Witness::Monitoring });
        }
        Some(Finding::NotHeard { who: one.witness, fact, told_by, since })
    };
    lacking.filter_map(finding).collect()
}

/// A fact as people read it.
pub(crate) fn name(fact: Fact) -> String {
    match fact {
        Fact::Placed => "PLACED".to_owned(),
        Fact::Reserved => "RESERVED".to_owned(),
        Fact::Released => "RELEASED".to_owned(),
        Fact::ResetByClient | Fact::ResetByStore | Fact::ResetByDeadline => {
            let initiator = fact.initiator().map_or("", Initiator::name);
            format!("CANCELLED by {initiator}")
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn by_name<S: serde::Serializer>(fact: &Fact, to: S) -> Result<S::Ok, S::Error> {
    name(*fact).serialize(to)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn both_by_name<S: serde::Serializer>(facts: &[Fact; 2], to: S) -> Result<S::Ok, S::Error> {
    facts.map(name).serialize(to)
}

impl fmt::Display for Witness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Monitoring => "monitoring",
            Self::Topics => "topics",
            Self::Cache => "cache",
            Self::Store => "store",
            Self::CreateOrder => "create-order",
        })
    }
}

#[cfg(test)]
mod tests;
