//! Choosing letters.

use chrono::{DateTime, TimeDelta, Utc};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use ordersaga_contract::Topic;
use ordersaga_runtime::clock;

use super::book::{Refusal, View};

/// The names of what narrows the choice.
pub(crate) const NARROWING: [&str; 7] =
    ["topic", "consumer", "order", "error", "since", "until", "limit"];

/// Filters; a letter must pass all that are given.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Filter {
    /// Letters from this topic
    #[arg(long, add = ArgValueCandidates::new(topics))]
    topic: Option<String>,
    /// Refused by this service: service-store
    #[arg(long)]
    consumer: Option<String>,
    /// Of this order: the record's key
    #[arg(long, value_name = "ID")]
    order: Option<i64>,
    /// With this text in the error
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Refused since then: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<DateTime<Utc>>,
    /// Refused until then
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<DateTime<Utc>>,
    /// No more than so many, the first in their order
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Also those that were replayed or discarded already
    #[arg(long)]
    pub(crate) all: bool,
}

impl Filter {
    /// The letters that pass, in their order.
    pub(crate) fn choose<'a>(&self, letters: &[View<'a>]) -> Vec<View<'a>> {
        let chosen = letters.iter().filter(|view| self.passes(view)).copied();
        chosen.take(self.limit.unwrap_or(usize::MAX)).collect()
    }

    fn passes(&self, view: &View<'_>) -> bool {
        let key = view.filed.record.key.as_deref();
        (self.all || view.is_open())
            && self.topic.as_ref().is_none_or(|topic| view.origin.topic == *topic)
            && self.order.is_none_or(|id| key == Some(id.to_string().as_bytes()))
            && view.filed.refusals.iter().any(|(consumer, refusal)| self.fits(consumer, refusal))
    }

    fn fits(&self, consumer: &str, refusal: &Refusal) -> bool {
        let plain = |name: &str| name.trim_start_matches('/').to_owned();
        self.consumer.as_ref().is_none_or(|wanted| plain(wanted) == plain(consumer))
            && self.error.as_ref().is_none_or(|text| refusal.error.contains(text))
            && self.since.is_none_or(|since| refusal.time >= since)
            && self.until.is_none_or(|until| refusal.time <= until)
    }
}

fn topics() -> Vec<CompletionCandidate> {
    Topic::EVENTS.map(Topic::name).map(CompletionCandidate::new).into()
}

fn when(text: &str) -> Result<DateTime<Utc>, String> {
    time_or_age(text, clock::now())
}

/// Reads a time, or an age at `now`.
fn time_or_age(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let age = humantime::parse_duration(text).ok();
    let age = age.and_then(|age| TimeDelta::from_std(age).ok());
    age.and_then(|age| now.checked_sub_signed(age)).ok_or_else(|| {
        "a time such as 2026-01-31T12:00:00Z or an age such as 2h is expected".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use sagabus::dead_letters::{Entry, Letter, Verdict};

    use super::super::book::tests::{book, letter, resolved};
    use super::*;

    #[test]
    fn every_filter_narrows() {
        let other = Letter {
            consumer: "/service-monitoring-order".to_owned(),
            error: "version 2".to_owned(),
            ..letter(9, "22", 0, 9)
        };
        let book = book([
            Entry::Letter(letter(5, "1", 0, 5)),
            Entry::Letter(letter(6, "2", 0, 6)),
            Entry::Letter(other),
            Entry::Resolution(resolved(6, 60, Verdict::Discarded)),
        ]);
        let chosen = |filter: Filter| {
            let chosen = filter.choose(&book.letters());
            chosen.iter().map(|view| view.origin.offset).collect::<Vec<_>>()
        };
        let at = |second| DateTime::from_timestamp(second, 0);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(chosen(Filter::default()), [5, 9]);
        assert_eq!(chosen(Filter { all: true, ..Filter::default() }), [5, 6, 9]);
        assert_eq!(chosen(Filter { topic: text("reset"), ..Filter::default() }), [5, 9]);
        assert!(chosen(Filter { topic: text("incoming"), ..Filter::default() }).is_empty());
        assert_eq!(chosen(Filter { order: Some(22), ..Filter::default() }), [9]);
        assert_eq!(chosen(Filter { consumer: text("service-store"), ..Filter::default() }), [5]);
        assert_eq!(chosen(Filter { error: text("version"), ..Filter::default() }), [9]);
        assert_eq!(chosen(Filter { since: at(6), ..Filter::default() }), [9]);
        assert_eq!(chosen(Filter { until: at(8), ..Filter::default() }), [5]);
        assert_eq!(chosen(Filter { limit: Some(1), ..Filter::default() }), [5]);
    }

    #[test]
    fn times_are_points_or_ages() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let read = |text| time_or_age(text, now);
        assert_eq!(read("2026-01-31T13:00:00+01:00"), read("2026-01-31T12:00:00Z"));
        assert_eq!(read("2h 30m"), Ok(now - TimeDelta::minutes(150)));
        for wrong in ["", "soon", "2026-01-31", "-2h", "999999999999999d"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
