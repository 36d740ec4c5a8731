//! Following the topics: every event becomes a fact, on the node that owns its order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, Fact, partition_of};
use ordersaga_runtime::clock;
use ordersaga_runtime::event::{Record, SagaEvent, failure};
use sagabus::{Batch, Failure, Handler, Reach};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::db::{self, Count};
use crate::in_flight::InFlight;
use crate::progress::Progress;
use crate::shards::Shards;
use crate::stream::Hub;
use crate::waiters::Waiters;

/// How long counts of minutes are kept, and how often old ones are looked for.
const COUNTS_KEPT: Duration = Duration::from_hours(7 * 24);
const FORGET: Duration = Duration::from_mins(10);

pub(crate) struct Follower {
    shards: Arc<Shards>,
    waiters: Arc<Waiters>,
    progress: Arc<Progress>,
    in_flight: Arc<InFlight>,
    hub: Arc<Hub>,
    /// Who counts: a number for each lane, drawn by chance, so that no two batches that commit at
    /// the same time wait for each other's rows.
    counters: Vec<i16>,
}

impl Follower {
    pub(crate) fn new(
        shards: Arc<Shards>,
        waiters: Arc<Waiters>,
        progress: Arc<Progress>,
        in_flight: Arc<InFlight>,
        hub: Arc<Hub>,
    ) -> Self {
        let counters = (0..shards.count()).map(|_| fastrand::i16(0..)).collect();
        Self { shards, waiters, progress, in_flight, hub, counters }
    }
}

impl Handler for Follower {
    type Message = SagaEvent;
    type Applied = ();

    /// One lane per node: a transaction touches one node, and a node that is away holds up its own
    /// partitions only.
    fn lane_of(&self, partition: u32) -> usize {
        self.shards.owner_of(partition)
    }

    fn lanes(&self) -> usize {
        self.shards.count()
    }

    /// What nobody waits for may be known a moment later, with more of its kind.
    fn is_urgent(&self, record: &Record) -> bool {
        self.waiters.wait_for(&record.message.0)
    }

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
        _: &mut Batch,
    ) -> Result<(), Failure> {
        let events: Vec<_> = records.iter().map(|record| &record.message.0).collect();
        let Some(first) = events.first() else { return Ok(()) };
        let lane = self.lane_of(partition_of(first.order.order_id));
        let counter = self.counters[lane];
        db::insert_facts(transaction, &events, counter, &tally(&events)).await.map_err(failure)
    }

    fn committed(&self, (): (), records: &[Record]) {
        let events = || records.iter().map(|record| &record.message.0);
        let now = clock::now();
        self.progress.applied(events(), now);
        self.in_flight.tell(events(), now);
        self.waiters.tell(events());
        self.hub.tell(events());
    }

    fn observed(&self, topic: &str, partition: u32, reach: Reach) {
        self.progress.observed((topic, partition), reach, clock::now());
    }
}

/// Counts events by the minute in which their fact came true.
fn tally(events: &[&Event]) -> BTreeMap<(DateTime<Utc>, Fact), Count> {
    let mut counts: BTreeMap<_, Count> = BTreeMap::new();
    for event in events {
        let order = event.order.order_id;
        let key = (minute_of(event.time), event.kind.fact());
        let count = counts.entry(key).or_insert(Count { records: 0, first: order, last: order });
        count.records += 1;
        count.first = count.first.min(order);
        count.last = count.last.max(order);
    }
    counts
}

pub(crate) fn minute_of(time: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = time.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(60), 0).unwrap_or(time)
}

/// Forgets counts of minutes that are old, until stopped.
pub(crate) async fn forget_counts(pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
    let forget = async {
        loop {
            if let Err(error) = db::forget_counts(&pool, clock::now() - COUNTS_KEPT).await {
                // Some more are kept until the next time.
                tracing::warn!(error = format!("{error:#}"), "old counts stay");
            }
            tokio::time::sleep(FORGET).await;
        }
    };
    stop.run_until_cancelled(forget).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::EventKind;

    use super::*;
    use crate::examples::event;

    #[test]
    fn events_are_counted_by_minute_and_fact_with_the_orders_they_are_about() {
        let events = [
            event(8, EventKind::OrderPlaced, 119),
            event(5, EventKind::OrderPlaced, 60),
            event(9, EventKind::OrderPlaced, 120),
            event(5, EventKind::ItemReserved, 61),
            // Before 1970 minutes begin at the same seconds.
            event(7, EventKind::OrderPlaced, -1),
        ];
        let counted: Vec<_> = tally(&events.each_ref())
            .into_iter()
            .map(|((minute, fact), count)| {
                let Count { records, first, last } = count;
                (minute.timestamp(), fact, records, first.get(), last.get())
            })
            .collect();
        assert_eq!(
            counted,
            [
                (-60, Fact::Placed, 1, 7, 7),
                (60, Fact::Placed, 2, 5, 8),
                (60, Fact::Reserved, 1, 5, 5),
                (120, Fact::Placed, 1, 9, 9),
            ]
        );
    }
}
