//! A record that is looked for: by whoever knows what it says and about when it was written, and not
//! where it stands.

use std::cell::Cell;
use std::time::Instant;

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::bus::Inner;
use crate::raw_record::{self, Polled, RawRecord};
use crate::{Error, Received, kafka};

/// A record may be written so much later than asked for, since its writer or the broker was away. Of
/// a partition that was cut, nothing that is younger still needs to be read.
const LATE_MS: i64 = 60 * 60 * 1_000;

/// Looks for records: see [`Bus::search`](crate::Bus::search).
pub struct Search<'a> {
    client: &'a BaseConsumer,
    bus: &'a Inner,
    until: Instant,
    /// The broker has given something: when it gives nothing more, time was short.
    was_answered: Cell<bool>,
}

/// What came of looking for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Searched {
    /// It stands there.
    Found(RawRecord),
    /// What the partition had of that time has been removed, at least in part, and it is not in what
    /// is left.
    Gone,
    /// It is not among the records that were looked at.
    NotFound,
}

pub(crate) fn run<T>(
    bus: &Inner,
    group: &str,
    until: Instant,
    look: impl FnOnce(&Search<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut settings = kafka::client(&bus.kafka);
    settings
        .set("group.id", group)
        // Little is read in advance: most of it would be for nothing.
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "4096")
        // What is fetched next waits until what was fetched before has been answered.
        .set("fetch.wait.max.ms", "10");
    raw_record::with_client(&settings, |client| {
        look(&Search { client, bus, until, was_answered: Cell::new(false) })
    })
}

impl Search<'_> {
    /// Finds the first record that `is_it` takes for it, among `records` of a partition of `topic`
    /// (without prefix): from the first on that is as young as `from`. When time is over, what is
    /// not yet found is not found. Fails if the broker does not answer at all.
    pub fn find(
        &self,
        topic: &str,
        partition: u32,
        from: DateTime<Utc>,
        records: usize,
        is_it: impl Fn(&Received<'_>) -> bool,
    ) -> Result<Searched, Error> {
        if Instant::now() >= self.until {
            return Ok(Searched::NotFound);
        }
        let name = self.bus.full_name(topic);
        let number = i32::try_from(partition).map_err(|_| Error::other("no such partition"))?;
        let from = from.timestamp_millis().max(0);
        let span = match self.span(&name, number, from) {
            Err(_) if self.was_answered.get() && Instant::now() >= self.until => {
                return Ok(Searched::NotFound);
            }
            span => span?,
        };
        if span.start >= span.end {
            return Ok(span.missing());
        }
        raw_record::begin(self.client, &name, number, span.start)?;
        for looked in 0..records {
            let message = match raw_record::poll(self.client, self.until) {
                Some(Polled::Record(message)) => message,
                None if looked == 0 && !self.was_answered.get() => {
                    return Err(raw_record::silent());
                }
                // The client gets no further than to what it cannot read.
                Some(Polled::Unreadable(_) | Polled::End) | None => break,
            };
            self.was_answered.set(true);
            if is_it(&received(topic, partition, &message)) {
                return Ok(Searched::Found(RawRecord::of(&message)));
            }
            let time = message.timestamp().to_millis();
            if span.is_past(from, time) || message.offset() + 1 >= span.end {
                break;
            }
        }
        Ok(span.missing())
    }

    fn span(&self, topic: &str, partition: i32, from: i64) -> Result<Span, Error> {
        let left = || self.until.saturating_duration_since(Instant::now());
        let (first, end) = self.client.fetch_watermarks(topic, partition, left())?;
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(topic, partition, Offset::Offset(from))?;
        let offsets = self.client.offsets_for_times(times, left())?;
        let mut start = end;
        for element in offsets.elements() {
            element.error()?;
            // Else none is as young.
            if let Offset::Offset(offset) = element.offset() {
                start = offset;
            }
        }
        Ok(Span { first, start, end })
    }
}

fn received<'a>(topic: &'a str, partition: u32, message: &'a BorrowedMessage<'_>) -> Received<'a> {
    Received {
        topic,
        partition,
        key: message.key().unwrap_or_default(),
        payload: message.payload().unwrap_or_default(),
        created: kafka::created(message),
    }
}

/// A partition, as offsets.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// What it begins with.
    first: i64,
    /// The first record that is as young as asked for.
    start: i64,
    /// What it ends before.
    end: i64,
}

impl Span {
    /// Whether records as young as asked for may have been removed: some were, and all that are left
    /// are as young.
    fn is_cut(self) -> bool {
        self.first > 0 && self.start <= self.first
    }

    /// Whether a record of this time ends the search: it is too young, and what was sought is older
    /// and has been removed.
    fn is_past(self, from: i64, time: Option<i64>) -> bool {
        self.is_cut() && time.is_some_and(|time| time > from.saturating_add(LATE_MS))
    }

    fn missing(self) -> Searched {
        if self.is_cut() { Searched::Gone } else { Searched::NotFound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_gone_only_where_records_of_its_time_were_removed() {
        for (first, start, end, missing) in [
            // Nothing was ever removed.
            (0, 0, 0, Searched::NotFound),
            (0, 0, 9, Searched::NotFound),
            (0, 9, 9, Searched::NotFound),
            // Older ones were.
            (5, 6, 9, Searched::NotFound),
            (5, 9, 9, Searched::NotFound),
            // Its own may have been.
            (5, 5, 9, Searched::Gone),
            (9, 9, 9, Searched::Gone),
        ] {
            let span = Span { first, start, end };
            assert_eq!(span.missing(), missing, "{span:?}");
        }
    }

    #[test]
    fn only_behind_a_cut_a_late_record_ends_the_search() {
        let (whole, cut) =
            (Span { first: 0, start: 0, end: 9 }, Span { first: 5, start: 5, end: 9 });
        assert!(cut.is_past(7, Some(8 + LATE_MS)));
        assert!(!cut.is_past(7, Some(7 + LATE_MS)) && !cut.is_past(7, None));
        assert!(!whole.is_past(7, Some(8 + LATE_MS)), "its writer may have been away for long");
    }
}
