//! How long things took, by the minute in which this instance heard of them: the store's answers, and
//! what came true until it was applied here.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use hdrhistogram::Histogram;

/// Minutes that are kept: 2 × 13 KB each.
const MINUTES: usize = 60;
/// What takes longer counts as an hour. Figures are exact to two digits.
const LONGEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 2;

/// The newest minutes, oldest first.
#[derive(Default)]
pub(crate) struct Latencies(VecDeque<Minute>);

struct Minute {
    start: DateTime<Utc>,
    answered: Histogram<u32>,
    applied: Histogram<u32>,
}

/// What a minute's times were, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// What was heard in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) minute: DateTime<Utc>,
    /// From an order's placing to the store's answer, by the times of both.
    pub(crate) answered: Spread,
    /// From when something came true until it was applied.
    pub(crate) applied: Spread,
}

impl Latencies {
    /// What is recorded from here on is heard in this minute.
    pub(crate) fn begin(&mut self, minute: DateTime<Utc>) {
        if self.0.back().is_some_and(|last| last.start >= minute) {
            return;
        }
        if self.0.len() >= MINUTES {
            self.0.pop_front();
        }
        let (answered, applied) = (histogram(), histogram());
        self.0.push_back(Minute { start: minute, answered, applied });
    }

    /// The store has answered an order after so long.
    pub(crate) fn answered(&mut self, span: TimeDelta) {
        if let Some(minute) = self.0.back_mut() {
            minute.answered.saturating_record(micros(span));
        }
    }

    /// Something is applied that came true so long ago.
    pub(crate) fn applied(&mut self, span: TimeDelta) {
        if let Some(minute) = self.0.back_mut() {
            minute.applied.saturating_record(micros(span));
        }
    }

    /// The minutes, newest first.
    pub(crate) fn minutes(&self) -> impl Iterator<Item = Heard> {
        self.0.iter().rev().map(|minute| Heard {
            minute: minute.start,
            answered: Spread::of(&minute.answered),
            applied: Spread::of(&minute.applied),
        })
    }
}

impl Spread {
    fn of(times: &Histogram<u32>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile);
        Self { count: times.len(), p50: at(0.5), p99: at(0.99) }
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_max(LONGEST_US, DIGITS).expect("the bounds are right")
}

/// Clocks of two services differ: what seems to come before its cause took no time.
fn micros(span: TimeDelta) -> u64 {
    span.num_microseconds().unwrap_or(i64::MAX).max(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::at;

    #[test]
    fn a_minute_has_its_own_times_and_the_oldest_goes() {
        let mut latencies = Latencies::default();
        latencies.answered(TimeDelta::seconds(1));
        assert_eq!(latencies.minutes().count(), 0, "no minute has begun");
        for minute in 0..70 {
            latencies.begin(at(60 * minute));
            for n in 1..=100 {
                latencies.answered(TimeDelta::milliseconds(n));
            }
            latencies.applied(TimeDelta::seconds(-5));
            latencies.applied(TimeDelta::days(9));
            // A clock that is set back begins no minute again.
            latencies.begin(at(60 * minute - 60));
        }
        let minutes: Vec<_> = latencies.minutes().collect();
        assert_eq!(minutes.len(), MINUTES);
        assert_eq!((minutes[0].minute, minutes[59].minute), (at(60 * 69), at(60 * 10)));
        for Heard { answered, applied, .. } in minutes {
            assert_eq!(answered.count, 100);
            assert!((49_500..=50_500).contains(&answered.p50), "{answered:?}");
            assert!((98_000..=100_000).contains(&answered.p99), "{answered:?}");
            assert_eq!((applied.count, applied.p50), (2, 0));
            assert!(applied.p99 >= LONGEST_US, "{applied:?}");
        }
    }
}
