//! How far an order is, and what it waits for, in a sentence.

use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_contract::{Cancellation, Initiator};
use ordersaga_saga::status::{Heard, Status, Step, Wait, fold};
use serde_json::Value;

use super::accounts;

/// How long the store may take to answer unless create-order is set otherwise.
const DEADLINE: TimeDelta = TimeDelta::seconds(60);

/// The status that follows from monitoring's facts.
pub(crate) fn status(told: &Value) -> Option<Status> {
    let heard = accounts::facts(told).filter_map(|(fact, told)| {
        let reason = serde_json::from_value(told["reason"].clone()).ok();
        Some(Heard { fact, time: accounts::time(&told["time"])?, reason })
    });
    fold(heard)
}

/// The name of a step in the API.
pub(crate) fn step(step: Step) -> &'static str {
    match step {
        Step::UnderReservation => "UNDER_RESERVATION",
        Step::Shipping => "SHIPPING",
        Step::Cancelled => "CANCELLED",
    }
}

/// Since when an order is at its step.
pub(crate) fn since(status: &Status) -> DateTime<Utc> {
    let is_it = |heard: &&Heard| match status.step {
        Step::Cancelled => heard.fact.initiator().is_some(),
        Step::Shipping => heard.fact == ordersaga_contract::Fact::Reserved,
        Step::UnderReservation => true,
    };
    status.facts.iter().find(is_it).map_or(status.updated, |heard| heard.time)
}

/// Step, since when, what is waited for and what ends that. `deadline` is the order's, if
/// create-order tells it.
pub(crate) fn sentence(
    status: &Status,
    deadline: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> String {
    let (step, since) = (step(status.step), since(status));
    let by = status.cancellation.map_or_else(String::new, by);
    let at = since.format("%F %T");
    let age = span(now - since);
    format!("{step}{by} since {at} UTC ({age} ago). {}", rest(status, deadline, now))
}

fn by(Cancellation { initiator, reason }: Cancellation) -> String {
    let who = match initiator {
        Initiator::Client => "by its client",
        Initiator::Store => "by the store",
        Initiator::Deadline => "by its deadline",
    };
    let reason = serde_json::to_value(reason).unwrap_or_default();
    format!(" {who} ({})", accounts::text(&reason))
}

fn rest(status: &Status, deadline: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some((wait, since)) = status.waits_for() else {
        return match status.step {
            Step::Shipping => "Nothing more is to come, unless its client cancels it.",
            _ => "Nothing more is to come.",
        }
        .to_owned();
    };
    let so_long = span(now - since);
    match wait {
        Wait::Answer => {
            let left = deadline.unwrap_or(since + DEADLINE) - now;
            let usual = if deadline.is_some() { "" } else { " (60 s unless set otherwise)" };
            let end = if left > TimeDelta::zero() {
                format!("its deadline{usual} ends it in {}", span(left))
            } else {
                format!("its deadline{usual} passed {} ago: create-order is to end it", span(-left))
            };
            format!("It has waited {so_long} for the store's answer; {end}.")
        }
        Wait::Release => format!(
            "It has waited {so_long} for the store to give its stock back; only the store's \
             RELEASED ends that."
        ),
        Wait::Placing => format!(
            "It has waited {so_long} for the news that it was placed; only create-order's PLACED \
             ends that."
        ),
    }
}

/// A span of time for people.
pub(crate) fn span(span: TimeDelta) -> String {
    let ms = span.num_microseconds().map_or(f64::MAX, |us| us as f64 / 1e3);
    match ms {
        ms if ms.abs() < 10.0 => format!("{ms:.1} ms"),
        ms if ms.abs() < 1e3 => format!("{ms:.0} ms"),
        ms if ms.abs() < 10e3 => format!("{:.1} s", ms / 1e3),
        ms if ms.abs() < 120e3 => format!("{:.0} s", ms / 1e3),
        ms if ms.abs() < 120.0 * 60e3 => format!("{:.0} min", ms / 60e3),
        ms if ms.abs() < 48.0 * 3600e3 => format!("{:.0} h", ms / 3600e3),
        ms => format!("{:.0} days", ms / 86400e3),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_798_000_000_000 + ms).unwrap()
    }

    fn said(facts: &[(&str, i64)], deadline: Option<i64>, now: i64) -> String {
        let facts: Vec<_> = facts
            .iter()
            .map(|(fact, ms)| match *fact {
                "PLACED" | "RESERVED" | "RELEASED" => json!({"fact": fact, "time": at(*ms)}),
                initiator => json!({"fact": "CANCELLED", "time": at(*ms),
                    "initiator": initiator, "reason": "DEADLINE_EXCEEDED"}),
            })
            .collect();
        sentence(&status(&json!({"facts": facts})).unwrap(), deadline.map(at), at(now))
    }

    #[test]
    fn a_waiting_order_says_for_whom_since_when_and_what_ends_it() {
        assert_eq!(
            said(&[("PLACED", 0)], Some(60_000), 41_000),
            "UNDER_RESERVATION since 2026-12-23 04:26:40 UTC (41 s ago). It has waited 41 s for the \
             store's answer; its deadline ends it in 19 s."
        );
        let late = said(&[("PLACED", 0)], None, 63_000);
        assert!(
            late.ends_with(
                "(60 s unless set otherwise) passed 3.0 s ago: create-order is to end it."
            ),
            "{late}"
        );
        let held = said(&[("PLACED", 0), ("RESERVED", 9), ("client", 2_000)], None, 2_080);
        assert!(held.starts_with("CANCELLED by its client"), "{held}");
        assert!(held.contains("80 ms for the store to give its stock back"), "{held}");
        assert!(said(&[("RESERVED", 0)], None, 5).contains("news that it was placed"));
    }

    #[test]
    fn an_order_that_waits_for_nothing_says_so() {
        let shipping = said(&[("PLACED", 0), ("RESERVED", 9)], None, 3_600_000 * 5);
        assert!(
            shipping.starts_with("SHIPPING since 2026-12-23 04:26:40 UTC (5 h ago)"),
            "{shipping}"
        );
        assert!(shipping.ends_with("unless its client cancels it."), "{shipping}");
        let over = said(&[("PLACED", 0), ("deadline", 60_000)], None, 60_000);
        assert!(over.ends_with("Nothing more is to come."), "{over}");
    }
}
