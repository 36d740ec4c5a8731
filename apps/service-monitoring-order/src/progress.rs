//! How far this instance has applied each partition, as a time: so that every list can say of when
//! it is, and what is late is told from what is stuck.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, PARTITIONS, Topic, partition_of};
use parking_lot::Mutex;

/// A partition that the consumer has not spoken of for so long is another instance's now.
const SILENCE: Duration = Duration::from_secs(10);

/// Of each partition of each topic.
#[derive(Default)]
pub(crate) struct Progress(Mutex<[[Option<Known>; PARTITIONS as usize]; Topic::EVENTS.len()]>);

#[derive(Debug, Clone, Copy)]
struct Known {
    /// All that came true before is applied; `None` while it is behind and nothing was applied.
    until: Option<DateTime<Utc>>,
    /// When the consumer spoke of it.
    told: Instant,
}

impl Progress {
    /// The consumer says how many records of a partition are yet to be applied, if it knows.
    pub(crate) fn observed(
        &self,
        (topic, partition): (&str, u32),
        lag: Option<i64>,
        now: DateTime<Utc>,
    ) {
        let Some(topic) = Topic::EVENTS.iter().position(|known| known.name() == topic) else {
            return;
        };
        let mut all = self.0.lock();
        let Some(known) = all[topic].get_mut(partition as usize) else { return };
        let known = known.get_or_insert(Known { until: None, told: Instant::now() });
        known.told = Instant::now();
        if lag == Some(0) {
            known.until = known.until.max(Some(now));
        }
    }

    /// These events are committed.
    pub(crate) fn applied<'a>(&self, events: impl Iterator<Item = &'a Event>, now: DateTime<Utc>) {
        let mut all = self.0.lock();
        for event in events {
            let topic = event.kind.fact().topic();
            let Some(topic) = Topic::EVENTS.iter().position(|known| *known == topic) else {
                continue;
            };
            // A writer's clock may be fast.
            let time = event.time.min(now);
            let partition = partition_of(event.order.order_id) as usize;
            let known = all[topic][partition]
                .get_or_insert_with(|| Known { until: None, told: Instant::now() });
            known.until = known.until.max(Some(time));
        }
    }

    /// Until when all is applied, by the slowest of the partitions that this instance follows;
    /// `None` if it follows none, or is behind in one by it does not know how much.
    pub(crate) fn until(&self) -> Option<DateTime<Utc>> {
        let all = self.0.lock();
        all.iter().flatten().flatten().filter(|known| known.is_here()).map(|k| k.until).min()?
    }

    /// The same of one partition in all topics.
    pub(crate) fn until_in(&self, partition: u32) -> Option<DateTime<Utc>> {
        let all = self.0.lock();
        let known = all.iter().filter_map(|topic| topic[partition as usize]);
        known.filter(Known::is_here).map(|known| known.until).min()?
    }

    /// Whether this instance follows a partition.
    pub(crate) fn follows(&self, partition: u32) -> bool {
        let all = self.0.lock();
        all.iter().filter_map(|topic| topic[partition as usize]).any(|known| known.is_here())
    }
}

impl Known {
    fn is_here(&self) -> bool {
        self.told.elapsed() < SILENCE
    }
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::{EventKind, OrderId};

    use super::*;
    use crate::examples::{at, event};

    fn placed(order: i64, seconds: i64) -> Event {
        event(order, EventKind::OrderPlaced, seconds)
    }

    #[test]
    fn it_is_as_far_as_its_slowest_partition() {
        let progress = Progress::default();
        assert_eq!(progress.until(), None);
        let partition = partition_of(OrderId::try_from(1).unwrap());
        let other = (partition + 1) % PARTITIONS;
        progress.observed(("incoming", partition), Some(0), at(100));
        progress.observed(("incoming", other), Some(9), at(100));
        assert_eq!(progress.until(), None, "nobody knows how far the other is");
        progress.observed(("incoming", other), Some(0), at(100));
        // The one gets on, the other has records that it does not apply.
        progress.observed(("incoming", partition), Some(0), at(160));
        progress.observed(("incoming", other), Some(9), at(160));
        assert_eq!(progress.until(), Some(at(100)));
        progress.observed(("incoming", other), None, at(170));
        assert_eq!(progress.until(), Some(at(100)), "what is not known is no progress");
    }

    #[test]
    fn behind_it_is_as_far_as_its_newest_record_and_never_ahead_of_now() {
        let progress = Progress::default();
        progress.applied([placed(1, 50), placed(1, 40)].iter(), at(100));
        assert_eq!(progress.until(), Some(at(50)), "an old record again takes nothing back");
        progress.applied([placed(1, 900)].iter(), at(100));
        assert_eq!(progress.until(), Some(at(100)));
        let partition = partition_of(OrderId::try_from(1).unwrap());
        assert_eq!(progress.until_in(partition), Some(at(100)));
        let other = (partition + 1) % PARTITIONS;
        assert!(progress.follows(partition) && !progress.follows(other), "another's");
        let topic = ("dead-letter", 0);
        progress.observed(topic, Some(0), at(10));
        assert_eq!(progress.until(), Some(at(100)), "no topic of events");
    }
}
