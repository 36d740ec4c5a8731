//! An order's story on a terminal and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Utc};
use ordersaga_contract::Fact;
use ordersaga_saga::status::{Status, Wait};
use serde_json::{Value, json};

use super::witness::{Account, Finding, Witness, name};
use super::{Story, accounts, next};
use crate::order::span;
use crate::status::table;

/// Prints all of it.
pub(super) fn story(story: &Story) {
    let order = story.order;
    match story.status() {
        Some(status) => {
            say!("order {order}: {}", next::sentence(&status, story.deadline, story.now));
            say!("{}\n", what(&story.told));
            say!("{}\n", timeline(&status).join("\n"));
        }
        None if story.is_known() => say!("order {order}: monitoring has heard nothing of it.\n"),
        None => {
            say!("order {order}: nobody knows it.");
            return silent(story);
        }
    }
    say!("{}\n", side_by_side(story));
    silent(story);
    for finding in &story.findings {
        say!("{}", sentence(finding, story.now));
    }
    if story.findings.is_empty() {
        say!("Nothing disagrees.");
    }
}

fn silent(story: &Story) {
    for (witness, why) in &story.silent {
        say!("{witness} says nothing: {why}");
    }
}

/// Who ordered what.
fn what(told: &Value) -> String {
    let [quantity, item, seller, client] =
        ["quantity", "item_id", "seller_id", "client_id"].map(|name| &told[name]);
    format!("{quantity} of item {item} of seller {seller}, for client {client}")
}

/// Each fact with the time since the one before.
fn timeline(status: &Status) -> Vec<String> {
    let mut before: Option<DateTime<Utc>> = None;
    let line = |heard: &ordersaga_saga::status::Heard| {
        let gap = before.map_or_else(String::new, |time| format!("+{}", span(heard.time - time)));
        before = Some(heard.time);
        let time = heard.time.format("%T%.6f");
        format!("{time}  {gap:>9}  {:<22} said by {}", name(heard.fact), heard.fact.writer())
    };
    status.facts.iter().map(line).collect()
}

/// Prints the facts that were not known.
pub(super) fn news(status: &Status, known: &BTreeSet<Fact>) {
    let lines = timeline(status);
    for (heard, line) in status.facts.iter().zip(lines) {
        if !known.contains(&heard.fact) {
            say!("{line}");
        }
    }
}

/// A row for each fact that somebody knows, a column for each witness.
fn side_by_side(story: &Story) -> String {
    let columns = story.accounts.iter().map(|account| account.witness.to_string());
    let mut shown = table(&[]);
    shown.set_header([String::new()].into_iter().chain(columns));
    shown.add_row(["says"].into_iter().chain(story.accounts.iter().map(|one| one.says.as_str())));
    let places = places(&story.evidence);
    let facts: BTreeSet<_> =
        story.accounts.iter().flat_map(|account| account.knows.keys().copied()).collect();
    for fact in facts {
        let cells = story.accounts.iter().map(|account| cell(account, fact, &places));
        shown.add_row([name(fact)].into_iter().chain(cells));
    }
    shown.to_string()
}

fn cell(account: &Account, fact: Fact, places: &BTreeMap<Fact, String>) -> String {
    match account.knows.get(&fact) {
        Some(_) if account.witness == Witness::Topics => {
            places.get(&fact).cloned().unwrap_or_default()
        }
        Some(Some(time)) => time.format("%T%.3f").to_string(),
        Some(None) => "yes".to_owned(),
        None if account.lacks.contains(&fact) => "no".to_owned(),
        None => String::new(),
    }
}

/// Where the records stand: topic, partition and offset.
fn places(evidence: &Value) -> BTreeMap<Fact, String> {
    let place = |(fact, told): (Fact, &Value)| {
        let offset = told["record"]["offset"].as_i64()?;
        Some((fact, format!("{}/{}:{offset}", accounts::text(&told["topic"]), told["partition"])))
    };
    accounts::facts(evidence).filter_map(place).collect()
}

fn sentence(finding: &Finding, now: DateTime<Utc>) -> String {
    match finding {
        Finding::NotHeard { who, fact, told_by, since } => {
            let fact = name(*fact);
            let age = since.map_or_else(String::new, |since| {
                format!(" for {}", span((now - since).max(chrono::TimeDelta::zero())))
            });
            format!("Delay: {fact} is known to {told_by}{age}, and not yet to {who}.")
        }
        Finding::Exclusive { facts: [one, other], told_by: [by, and_by] } => format!(
            "Contradiction: {by} says {}, {and_by} says {}; only one can be.",
            name(*one),
            name(*other)
        ),
        Finding::Sourceless { fact, source, told_by } => format!(
            "Contradiction: {told_by} says {}, which {source} decides and does not know.",
            name(*fact)
        ),
        Finding::StillOpen { told_by } => format!(
            "Contradiction: {told_by} says that the order is undone; at create-order it is open."
        ),
        Finding::Differs { field, values } => {
            let values: Vec<_> =
                values.iter().map(|(witness, value)| format!("{value} at {witness}")).collect();
            format!("Contradiction: {field} is {}.", values.join(", "))
        }
        Finding::Stale { fact, told_by } => format!(
            "Contradiction: {told_by} has heard {}, and readers of the item are still told \
             otherwise.",
            name(*fact)
        ),
    }
}

/// Prints it as one document, in one line if more follows.
pub(super) fn json(story: &Story, is_brief: bool) -> Result<()> {
    let status = story.status();
    let waits_for = status.as_ref().and_then(Status::waits_for).map(|(wait, since)| {
        let wait = match wait {
            Wait::Answer => "ANSWER",
            Wait::Release => "RELEASE",
            Wait::Placing => "PLACING",
        };
        json!({"wait": wait, "since": since})
    });
    let document = json!({
        "order_id": story.order,
        "is_known": story.is_known(),
        "step": status.as_ref().map(|status| next::step(status.step)),
        "since": status.as_ref().map(next::since),
        "waits_for": waits_for,
        "deadline": story.deadline,
        "status": story.told,
        "evidence": story.evidence,
        "witnesses": story.accounts.iter().map(account).collect::<Vec<_>>(),
        "silent": story.silent.iter()
            .map(|(witness, why)| json!({"witness": witness, "why": why}))
            .collect::<Vec<_>>(),
        "findings": story.findings,
        "has_contradiction": story.findings.iter().any(Finding::is_contradiction),
    });
    let text =
        if is_brief { document.to_string() } else { serde_json::to_string_pretty(&document)? };
    say!("{}", ordersaga_terminal::json(&text));
    Ok(())
}

fn account(account: &Account) -> Value {
    let knows: BTreeMap<_, _> =
        account.knows.iter().map(|(fact, time)| (name(*fact), time)).collect();
    let lacks: Vec<_> = account.lacks.iter().map(|fact| name(*fact)).collect();
    json!({"witness": account.witness, "says": account.says, "knows": knows, "lacks": lacks})
}
