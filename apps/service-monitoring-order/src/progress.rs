//! How far this instance has applied each partition, as a time: so that every list can say of when
//! it is, and what is late is told from what is stuck.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, OrderId, PARTITIONS, Topic, partition_of};
use parking_lot::Mutex;
use sagabus::Reach;

/// A partition that the consumer has not spoken of for so long is another instance's now.
const SILENCE: Duration = Duration::from_secs(10);

/// Of each partition of each topic.
#[derive(Default)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    known: [[Option<Known>; PARTITIONS as usize]; Topic::EVENTS.len()],
    /// The highest order of each partition of which something was applied.
    newest: [Option<OrderId>; PARTITIONS as usize],
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// All that came true before is applied; `None` while it is behind and nothing was applied.
    until: Option<DateTime<Utc>>,
    /// When the consumer spoke of it.
    told: Instant,
    /// What it said.
    reach: Option<Reach>,
    /// Since when records have waited without a pause, as far as it was told once a second.
    behind_since: Option<DateTime<Utc>>,
}

/// How far a partition of a topic is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) reach: Option<Reach>,
    /// All that came true before is applied; `None` if that is not known.
    pub(crate) until: Option<DateTime<Utc>>,
    /// Since when records have waited; `None` if none do.
    pub(crate) behind_since: Option<DateTime<Utc>>,
}

impl Progress {
    /// The consumer says how far it is in a partition.
    pub(crate) fn observed(
        &self,
        (topic, partition): (&str, u32),
        reach: Reach,
        now: DateTime<Utc>,
    ) {
        let Some(topic) = Topic::EVENTS.iter().position(|known| known.name() == topic) else {
            return;
        };
        let mut state = self.0.lock();
        let Some(known) = state.known[topic].get_mut(partition as usize) else { return };
        let known = known.get_or_insert_with(Known::unknown);
        if !known.is_here() {
            // It was another instance's meanwhile.
            known.behind_since = None;
        }
        (known.told, known.reach) = (Instant::now(), Some(reach));
        match reach.lag {
            Some(0) => {
                known.until = known.until.max(Some(now));
                known.behind_since = None;
            }
            Some(_) => known.behind_since = known.behind_since.or(Some(now)),
            None => {}
        }
    }

    /// These events are committed.
    pub(crate) fn applied<'a>(&self, events: impl Iterator<Item = &'a Event>, now: DateTime<Utc>) {
        let mut state = self.0.lock();
        for event in events {
            let topic = event.kind.fact().topic();
            let Some(topic) = Topic::EVENTS.iter().position(|known| *known == topic) else {
                continue;
            };
            // A writer's clock may be fast.
            let time = event.time.min(now);
            let order = event.order.order_id;
            let partition = partition_of(order) as usize;
            state.newest[partition] = state.newest[partition].max(Some(order));
            let known = state.known[topic][partition].get_or_insert_with(Known::unknown);
            known.until = known.until.max(Some(time));
        }
    }

    /// Until when all is applied, by the slowest of the partitions that this instance follows;
    /// `None` if it follows none, or is behind in one by it does not know how much.
    pub(crate) fn until(&self) -> Option<DateTime<Utc>> {
        let state = self.0.lock();
        state
            .known
            .iter()
            .flatten()
            .flatten()
            .filter(|known| known.is_here())
            .map(|k| k.until)
            .min()?
    }

    /// The same of one partition in all topics.
    pub(crate) fn until_in(&self, partition: u32) -> Option<DateTime<Utc>> {
        self.0.lock().known_in(partition).map(|known| known.until).min()?
    }

    /// Each topic's partition of this number, as far as this instance follows it.
    pub(crate) fn standings(&self, partition: u32) -> Vec<(Topic, Standing)> {
        let state = self.0.lock();
        let known = Topic::EVENTS.into_iter().zip(&state.known);
        let here = known.filter_map(|(topic, partitions)| {
            let known = partitions.get(partition as usize)?.filter(Known::is_here)?;
            let Known { until, reach, behind_since, .. } = known;
            Some((topic, Standing { reach, until, behind_since }))
        });
        here.collect()
    }

    /// Whether this instance follows a partition.
    pub(crate) fn follows(&self, partition: u32) -> bool {
        self.0.lock().known_in(partition).next().is_some()
    }

    /// Whether the first that is heard of an order is likely to come to this instance, and soon: ids
    /// rise, and of its partition only lower ones have been heard of here.
    pub(crate) fn expects(&self, order: OrderId) -> bool {
        let (state, partition) = (self.0.lock(), partition_of(order));
        let is_newer = state.newest[partition as usize].is_some_and(|newest| newest < order);
        is_newer && state.known_in(partition).next().is_some()
    }
}

impl State {
    /// What is known of a partition, by topic, if this instance follows it.
    fn known_in(&self, partition: u32) -> impl Iterator<Item = &Known> {
        let known = self.known.iter().filter_map(move |topic| topic[partition as usize].as_ref());
        known.filter(|known| known.is_here())
    }
}

impl Known {
    fn unknown() -> Self {
        Self { until: None, told: Instant::now(), reach: None, behind_since: None }
    }

    fn is_here(&self) -> bool {
        self.told.elapsed() < SILENCE
    }
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::{EventKind, OrderId};

    use super::*;
    use crate::examples::{at, event};

    fn lag(lag: Option<i64>) -> Reach {
        Reach { applied: 7, end: lag.map(|lag| 7 + lag), lag }
    }

    fn placed(order: i64, seconds: i64) -> Event {
        event(order, EventKind::OrderPlaced, seconds)
    }

    #[test]
    fn it_is_as_far_as_its_slowest_partition() {
        let progress = Progress::default();
        assert_eq!(progress.until(), None);
        let partition = partition_of(OrderId::try_from(1).unwrap());
        let other = (partition + 1) % PARTITIONS;
        progress.observed(("incoming", partition), lag(Some(0)), at(100));
        progress.observed(("incoming", other), lag(Some(9)), at(100));
        assert_eq!(progress.until(), None, "nobody knows how far the other is");
        progress.observed(("incoming", other), lag(Some(0)), at(100));
        // The one gets on, the other has records that it does not apply.
        progress.observed(("incoming", partition), lag(Some(0)), at(160));
        progress.observed(("incoming", other), lag(Some(9)), at(160));
        assert_eq!(progress.until(), Some(at(100)));
        progress.observed(("incoming", other), lag(None), at(170));
        assert_eq!(progress.until(), Some(at(100)), "what is not known is no progress");
    }

    #[test]
    fn an_order_is_expected_where_its_partition_is_followed_and_only_lower_ones_were_heard_of() {
        let progress = Progress::default();
        let order = |id| OrderId::try_from(id).unwrap();
        let partition = partition_of(order(1));
        let mut later = (2..).map(order).filter(|order| partition_of(*order) == partition);
        let (second, third) = (later.next().unwrap(), later.next().unwrap());
        progress.observed(("incoming", partition), lag(Some(0)), at(0));
        assert!(!progress.expects(second), "nobody knows what was heard of");
        progress.applied([placed(1, 0)].iter(), at(0));
        assert!(progress.expects(second) && !progress.expects(order(1)));
        progress.applied([event(third.get(), EventKind::ItemReserved, 0)].iter(), at(0));
        assert!(!progress.expects(second), "it may have been heard of");
        let elsewhere = (1..100).map(order).find(|order| partition_of(*order) != partition);
        assert!(!progress.expects(elsewhere.unwrap()));
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
        progress.observed(topic, lag(Some(0)), at(10));
        assert_eq!(progress.until(), Some(at(100)), "no topic of events");
    }
    #[test]
    fn a_partition_is_behind_from_when_records_wait_until_none_does() {
        let progress = Progress::default();
        let since = |partition| {
            let standings = progress.standings(partition);
            standings
                .iter()
                .map(|(topic, standing)| (*topic, standing.behind_since))
                .collect::<Vec<_>>()
        };
        assert!(progress.standings(3).is_empty(), "another instance's");
        for (told, at_second, expected) in [
            (lag(Some(0)), 10, None),
            (lag(Some(5)), 11, Some(at(11))),
            (lag(Some(9)), 12, Some(at(11))),
            (lag(None), 13, Some(at(11))),
            (lag(Some(0)), 14, None),
            (lag(Some(1)), 15, Some(at(15))),
        ] {
            progress.observed(("reservation", 3), told, at(at_second));
            assert_eq!(since(3), [(Topic::Reservation, expected)]);
        }
        let (_, standing) = progress.standings(3)[0];
        assert_eq!(standing.reach, Some(lag(Some(1))));
        assert_eq!(standing.until, Some(at(14)));
    }
}
