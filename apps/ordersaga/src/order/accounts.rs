//! The witnesses' answers, as accounts that can be compared. An answer is the body, or null where
//! the witness knows of no such order.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ordersaga_contract::Fact;
use serde_json::Value;

use super::witness::{Account, Witness};

/// The fields that make an order.
const FIELDS: [&str; 4] = ["item_id", "seller_id", "client_id", "quantity"];
/// So many reservations of an item are cached at the most.
const CACHED: usize = 20;

type Known = BTreeMap<Fact, Option<DateTime<Utc>>>;

/// What monitoring says: every fact that it has heard, and no other.
pub(crate) fn monitoring(status: &Value) -> Account {
    let knows = facts(status).map(|(fact, told)| (fact, time(&told["time"]))).collect();
    let says = text(&status["step"]);
    account(Witness::Monitoring, says, knows, &Fact::ALL, status)
}

/// What stands in the topics. Only what monitoring has heard is looked for, so it lacks nothing.
pub(crate) fn topics(evidence: &Value) -> Account {
    let (found, lost): (Vec<_>, Vec<_>) =
        facts(evidence).partition(|(_, told)| told["record"].is_object());
    let mut says = format!("{} records", found.len());
    if let Some((_, told)) = lost.first() {
        says = format!("{says}, {} {}", lost.len(), text(&told["missing"]));
    }
    let knows = found.into_iter().map(|(fact, told)| (fact, time(&told["time"]))).collect();
    account(Witness::Topics, says, knows, &[], &Value::Null)
}

/// What the store has decided, by its answer for the order.
pub(crate) fn store(decision: &Value) -> Account {
    let at = time(&decision["time"]);
    let (knows, lacks): (&[_], &[_]) = match decision["state"].as_str() {
        Some("RESERVED") => (
            &[(Fact::Placed, None), (Fact::Reserved, at)],
            &[Fact::Released, Fact::ResetByStore, Fact::ResetByClient, Fact::ResetByDeadline],
        ),
        Some("RELEASED") => (
            &[(Fact::Placed, None), (Fact::Reserved, None), (Fact::Released, at)],
            &[Fact::ResetByStore],
        ),
        Some("REFUSED") => {
            (&[(Fact::Placed, None), (Fact::ResetByStore, at)], &[Fact::Reserved, Fact::Released])
        }
        Some("TOMBSTONE") => (&[], &[Fact::Reserved, Fact::Released, Fact::ResetByStore]),
        Some(_) => (&[], &[]),
        None => (&[], &Fact::ALL),
    };
    let is_reset = decision["state"] == "TOMBSTONE";
    let knows = knows.iter().copied().collect();
    let account = account(Witness::Store, said(&decision["state"]), knows, lacks, decision);
    Account { is_reset, ..account }
}

/// What the store has decided, by the reservations of the order's item: without one it may have
/// refused the order as well as not heard of it.
pub(crate) fn reservation(reservations: &Value, order: i64) -> Account {
    let own = own(&reservations["items"], order);
    if own.is_null() {
        let lacks = [Fact::Reserved, Fact::Released];
        let says = "no reservation".to_owned();
        return account(Witness::Store, says, Known::new(), &lacks, own);
    }
    store(own)
}

/// What readers of the item are told of the order's reservation. `state` says how the cache has it.
pub(crate) fn cache(item: &Value, state: &str, order: i64) -> Account {
    let all = &item["reservations"];
    let (own, at) = (own(all, order), time(&own(all, order)["time"]));
    let (knows, lacks): (&[_], &[_]) = match own["state"].as_str() {
        Some("RESERVED") => (&[(Fact::Reserved, at)], &[Fact::Released]),
        Some(_) => (&[(Fact::Reserved, None), (Fact::Released, at)], &[]),
        None if item.is_null() || is_cut(all, order) => (&[], &[]),
        None => (&[], &[Fact::Reserved, Fact::Released]),
    };
    let says = match own["state"].as_str() {
        Some(own) => format!("{state}: {}", text(&Value::from(own))),
        None if item.is_null() => state.to_owned(),
        None => format!("{state}: no reservation"),
    };
    account(Witness::Cache, says, knows.iter().copied().collect(), lacks, &Value::Null)
}

/// Newer reservations leave no place for that of the order.
fn is_cut(reservations: &Value, order: i64) -> bool {
    let all: Vec<_> = reservations.as_array().into_iter().flatten().collect();
    let is_newer = |one: &&Value| one["order_id"].as_i64().is_some_and(|id| id > order);
    all.len() >= CACHED && all.iter().all(is_newer)
}

/// What create-order has stored.
pub(crate) fn create_order(record: &Value) -> Account {
    let at = time(&record["updated_at"]);
    let mut knows = Known::new();
    if !record.is_null() {
        knows.insert(Fact::Placed, time(&record["created_at"]));
    }
    let unheard: &[_] = match record["state"].as_str() {
        Some("RESERVED") => {
            knows.insert(Fact::Reserved, None);
            &[Fact::ResetByStore, Fact::ResetByClient, Fact::ResetByDeadline]
        }
        Some("CANCELLED") => {
            knows.extend(reset(&record["initiator"]).map(|fact| (fact, at)));
            &[Fact::ResetByClient, Fact::ResetByDeadline]
        }
        Some("PLACED") => {
            &[Fact::Reserved, Fact::ResetByStore, Fact::ResetByClient, Fact::ResetByDeadline]
        }
        Some(_) => &[],
        None => &[Fact::Placed, Fact::ResetByClient, Fact::ResetByDeadline],
    };
    account(Witness::CreateOrder, said(&record["state"]), knows, unheard, record)
}

/// It lacks what it does not know of `would_know`.
fn account(
    witness: Witness,
    says: String,
    knows: Known,
    would_know: &[Fact],
    fields: &Value,
) -> Account {
    let lacks: BTreeSet<_> =
        would_know.iter().filter(|fact| !knows.contains_key(fact)).copied().collect();
    let fields = FIELDS.into_iter().filter_map(|name| Some((name, fields[name].as_i64()?)));
    Account { witness, says, knows, lacks, is_reset: false, fields: fields.collect() }
}

/// Facts as monitoring tells them, each with all that is told of it.
pub(crate) fn facts(status: &Value) -> impl Iterator<Item = (Fact, &Value)> {
    let all = status["facts"].as_array().into_iter().flatten();
    all.filter_map(|told| Some((fact(told)?, told)))
}

fn fact(told: &Value) -> Option<Fact> {
    match told["fact"].as_str()? {
        "PLACED" => Some(Fact::Placed),
        "RESERVED" => Some(Fact::Reserved),
        "RELEASED" => Some(Fact::Released),
        _ => reset(&told["initiator"]),
    }
}

fn reset(initiator: &Value) -> Option<Fact> {
    let name = initiator.as_str()?;
    Fact::ALL.into_iter().find(|fact| fact.initiator().is_some_and(|who| who.name() == name))
}

fn own(reservations: &Value, order: i64) -> &Value {
    let mut all = reservations.as_array().into_iter().flatten();
    all.find(|one| one["order_id"].as_i64() == Some(order)).unwrap_or(&Value::Null)
}

/// A state, or that there is none.
fn said(state: &Value) -> String {
    if state.is_null() { "unknown".to_owned() } else { text(state) }
}

/// Text of a service, for within a line.
pub(crate) fn text(value: &Value) -> String {
    ordersaga_terminal::line(value.as_str().unwrap_or("unknown"))
}

pub(crate) fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}
