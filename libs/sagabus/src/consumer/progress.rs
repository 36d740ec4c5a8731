//! Whether partitions go on, judged from what librdkafka tells once a second: lag, records that were
//! lost, and partitions that stand still though they hold records.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Place;

/// How long a partition may stand still after the client has reported an error.
const AFTER_ERROR: Duration = Duration::from_secs(3);
/// How long it may stand still without any: a slow broker is no fault of a record.
const IN_SILENCE: Duration = Duration::from_secs(30);

/// What the client knows of a partition. Offsets it does not know are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The first offset the broker still has.
    pub(super) start: Option<i64>,
    /// The offset behind the last record that may be read.
    pub(super) end: Option<i64>,
    /// The offset that is fetched next: behind transaction markers and compacted records too, which
    /// are never delivered.
    pub(super) next: Option<i64>,
}

/// Where a consumer is in a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The next offset to be applied.
    pub(super) applied: i64,
    /// The next offset expected of the client.
    pub(super) fetched: i64,
    /// Everything before this offset that can be delivered has been.
    pub(super) drained: i64,
}

impl Position {
    /// The offset up to which nothing is left to do.
    fn done(self) -> i64 {
        if self.applied == self.fetched { self.fetched.max(self.drained) } else { self.applied }
    }
}

/// Records that wait to be applied: gaps in the offsets are none. `None` if the end is not known.
pub(super) fn lag(position: Position, seen: Seen) -> Option<i64> {
    Some((seen.end? - position.done()).max(0))
}

/// How many of the offsets skipped between `from` and `to` had been removed before they were read.
/// Offsets that the topic still covers hold no record: a transaction's marker, or one compacted.
pub(super) fn lost(from: i64, to: i64, seen: Seen) -> i64 {
    seen.start.map_or(0, |start| start.min(to) - from).max(0)
}

/// A partition in which the client does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stalled {
    pub(super) place: Place,
    /// The offset that cannot be passed.
    pub(super) offset: i64,
    /// The newest error reported meanwhile.
    pub(super) error: Option<String>,
    /// The partition's end, if it is known.
    pub(super) end: Option<i64>,
}

/// An error the client reported, which does not say of which partition.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) error: String,
}

/// Since when partitions stand still.
#[derive(Debug, Default)]
pub(super) struct Watch(HashMap<Place, (i64, Instant)>);

impl Watch {
    /// The partitions that stand still, of those given: each with its position and what the client
    /// knows of it. Whoever is left out, since it is paused, begins anew.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        partitions: &HashMap<Place, (Position, Seen)>,
        heard: Option<&Heard>,
    ) -> Vec<Stalled> {
        self.0.retain(|place, _| partitions.contains_key(place));
        let mut stalled = Vec::new();
        for (place, (position, seen)) in partitions {
            let at = position.fetched.max(position.drained);
            let (offset, since) = self.0.entry(*place).or_insert((at, now));
            if *offset != at || seen.end.is_some_and(|end| end <= at) {
                (*offset, *since) = (at, now);
                continue;
            }
            let error = heard.filter(|heard| heard.at >= *since).map(|heard| heard.error.clone());
            let stands = now.duration_since(*since);
            // Without an end it may be empty; whoever looks will see.
            let patience = if error.is_some() { AFTER_ERROR } else { IN_SILENCE };
            if stands >= patience {
                stalled.push(Stalled { place: *place, offset: at, error, end: seen.end });
            }
        }
        stalled.sort_by_key(|stalled| stalled.place);
        stalled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = (0, 3);

    fn at(fetched: i64) -> Position {
        Position { applied: fetched, fetched, drained: 0 }
    }

    fn ends_at(end: i64) -> Seen {
        Seen { start: Some(0), end: Some(end), next: Some(end) }
    }

    /// What is judged second by second, of one partition; with an error at that second, or none.
    fn judged(seconds: u64, position: Position, seen: Seen, error: Option<u64>) -> Vec<bool> {
        let begin = Instant::now();
        let mut watch = Watch::default();
        let mut heard = None;
        (0..seconds)
            .map(|second| {
                let now = begin + Duration::from_secs(second);
                if error == Some(second) {
                    heard = Some(Heard { at: now, error: "BadCompression".to_owned() });
                }
                let partitions = [(PLACE, (position, seen))].into();
                !watch.judge(now, &partitions, heard.as_ref()).is_empty()
            })
            .collect()
    }

    fn first(judged: &[bool]) -> Option<usize> {
        judged.iter().position(|stalled| *stalled)
    }

    #[test]
    fn a_partition_with_records_that_stands_still_is_found() {
        assert_eq!(first(&judged(20, at(7), ends_at(8), Some(5))), Some(5));
        assert_eq!(first(&judged(20, at(7), ends_at(8), Some(1))), Some(3));
        assert_eq!(first(&judged(60, at(7), ends_at(8), None)), Some(30), "a silent broker");
        let unknown = Seen::default();
        assert_eq!(first(&judged(60, at(7), unknown, Some(1))), Some(3), "no right to read");
        assert_eq!(first(&judged(60, at(7), unknown, None)), Some(30), "no leader");
    }

    #[test]
    fn a_partition_that_has_nothing_or_goes_on_is_left_alone() {
        assert_eq!(first(&judged(60, at(8), ends_at(8), Some(5))), None, "read to its end");
        let marker = Position { drained: 8, ..at(7) };
        assert_eq!(first(&judged(60, marker, ends_at(8), Some(5))), None, "a marker at its end");
        let (begin, mut watch) = (Instant::now(), Watch::default());
        for second in 0..60_u32 {
            let now = begin + Duration::from_secs(1) * second;
            let heard = Heard { at: now, error: "another partition's".to_owned() };
            let partitions = [(PLACE, (at(i64::from(second)), ends_at(100)))].into();
            assert!(watch.judge(now, &partitions, Some(&heard)).is_empty(), "it goes on");
        }
    }

    #[test]
    fn what_is_no_record_is_no_lag() {
        assert_eq!(lag(at(0), ends_at(3)), Some(3));
        assert_eq!(lag(Position { drained: 3, ..at(2) }, ends_at(3)), Some(0), "a marker");
        let behind = Position { applied: 1, fetched: 2, drained: 3 };
        assert_eq!(lag(behind, ends_at(3)), Some(2), "what is fetched is not applied yet");
        assert_eq!(lag(at(5), Seen::default()), None);
    }

    #[test]
    fn only_what_was_removed_is_lost() {
        assert_eq!(lost(4, 5, ends_at(9)), 0, "a marker");
        assert_eq!(lost(4, 9, Seen { start: Some(9), ..ends_at(12) }), 5);
        assert_eq!(lost(4, 9, Seen { start: Some(7), ..ends_at(12) }), 3, "a marker at 8");
        assert_eq!(lost(4, 9, Seen::default()), 0);
    }

    proptest! {
        #[test]
        fn neither_lag_nor_loss_exceeds_what_the_partition_holds(
            applied in 0..50_i64, ahead in 0..50_i64, drained in 0..100_i64,
            start in 0..100_i64, length in 0..100_i64, to in 0..100_i64,
        ) {
            let position = Position { applied, fetched: applied + ahead, drained };
            let end = start + length;
            let seen = Seen { start: Some(start), end: Some(end), next: Some(end) };
            prop_assert!((0..=(end - applied).max(0)).contains(&lag(position, seen).unwrap()));
            prop_assert!((0..=(to - applied).max(0)).contains(&lost(applied, to, seen)));
        }
    }
}
