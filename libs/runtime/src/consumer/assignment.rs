//! Rebalances: an assignment starts from the database's offsets, never from the group's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ordersaga_contract::Topic;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};

use super::progress::Seen;
use super::{HANDOVER, Handler, LAG, NEXT_OFFSET, Place, STALLED, Shared, Told};
use crate::backoff::Backoff;
use crate::kafka;
use crate::postgres::{self, Lease};

/// How long reading the offsets may take before it is tried again.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// The callbacks of librdkafka. All of them run on the polling thread.
pub(super) struct Callbacks<H>(pub(super) Arc<Shared<H>>);

impl<H: Handler> ClientContext for Callbacks<H> {
    fn stats(&self, statistics: Statistics) {
        let known = |offset: i64| (offset >= 0).then_some(offset);
        let mut partitions = HashMap::new();
        for place in self.0.applied.lock().keys() {
            let told = statistics
                .topics
                .get(&self.0.topic_name(place.0))
                .and_then(|topic| topic.partitions.get(&i32::try_from(place.1).unwrap_or(-1)));
            // Of a partition without a leader, what was known last is told again and again.
            let told = told.filter(|told| told.leader >= 0);
            let seen = told.map_or_else(Seen::default, |told| Seen {
                start: known(told.lo_offset),
                // Records of a transaction that is not over may not be read yet.
                end: known(told.ls_offset).or(known(told.hi_offset)),
                next: known(told.next_offset),
            });
            partitions.insert(*place, seen);
        }
        let broker_is_up = kafka::broker_is_up(&statistics);
        *self.0.told.lock() = Some(Told { broker_is_up, partitions });
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "consumer");
        self.0.refusal.note(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }
}

impl<H: Handler> ConsumerContext for Callbacks<H> {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let result = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.0.assign(consumer, partitions)
        } else {
            self.0.revoke(consumer);
            consumer.unassign()
        };
        if let Err(error) = result {
            tracing::error!(%error, "a rebalance failed");
        }
    }
}

impl<H: Handler> Shared<H> {
    pub(super) fn topic_name(&self, topic: Topic) -> String {
        self.consumer.kafka.topic(topic)
    }

    pub(super) fn topic_of(&self, name: &str) -> Option<Topic> {
        let name = name.strip_prefix(&self.consumer.kafka.topic_prefix)?;
        Topic::EVENTS.into_iter().find(|topic| topic.name() == name)
    }

    /// Starts consuming `partitions` from the database's offsets.
    pub(super) fn assign(
        &self,
        consumer: &BaseConsumer<Callbacks<H>>,
        partitions: &TopicPartitionList,
    ) -> Result<(), KafkaError> {
        self.revoke(consumer);
        let places: Vec<Place> = partitions
            .elements()
            .iter()
            .filter_map(|e| Some((self.topic_of(e.topic())?, u32::try_from(e.partition()).ok()?)))
            .collect();
        let Some(positions) = self.runtime.block_on(self.load_positions(&places)) else {
            return consumer.unassign();
        };
        let mut from = TopicPartitionList::with_capacity(positions.len());
        for (place, position) in &positions {
            let partition = i32::try_from(place.1).expect("it came as an i32");
            from.add_partition_offset(
                &self.topic_name(place.0),
                partition,
                Offset::Offset(*position),
            )?;
        }
        self.fetched.lock().clone_from(&positions);
        *self.applied.lock() = positions;
        self.out_of_step.store(false, Ordering::Release);
        consumer.assign(&from)?;
        self.assigned.store(true, Ordering::Release);
        tracing::info!(partitions = places.len(), "consuming from the database's offsets");
        Ok(())
    }

    /// Voids what is queued, and waits a while for what is being applied.
    pub(super) fn revoke(&self, consumer: &BaseConsumer<Callbacks<H>>) {
        self.assigned.store(false, Ordering::Release);
        for lane in &self.lanes {
            lane.queue.lock().clear();
            if let Some(paused) = lane.paused.lock().take()
                && let Err(error) = consumer.resume(&paused)
            {
                tracing::debug!(%error, "a partition that is no longer here stays paused");
            }
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for (topic, partition) in self.applied.lock().drain().map(|(place, _)| place) {
            let labels = [topic.name(), &partition.to_string()];
            for gauge in [&LAG, &NEXT_OFFSET, &STALLED] {
                let _ = gauge.remove_label_values(&labels);
            }
        }
        self.wait_for_lanes();
    }

    /// Waits, on a thread that is none of the runtime's, for what is being applied. Not waiting
    /// longer is safe: the offsets fence whatever ends late.
    pub(super) fn wait_for_lanes(&self) {
        let idle = async {
            for lane in &self.lanes {
                drop(lane.turn.lock().await);
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(HANDOVER, idle).await.ok() });
    }

    /// The database's offsets of `places`, however long the database takes; `None` when stopping.
    async fn load_positions(&self, places: &[Place]) -> Option<HashMap<Place, i64>> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match postgres::within(QUERY_LIMIT, self.query_positions(places)).await {
                Ok(positions) => return Some(positions),
                Err(error) => tracing::warn!(%error, "offsets cannot be read; trying again"),
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// The database's offsets of `places`, if it tells them in time. Blocks; not for a thread of
    /// the runtime.
    pub(super) fn positions_now(&self, places: &[Place]) -> anyhow::Result<HashMap<Place, i64>> {
        self.runtime.block_on(postgres::within(QUERY_LIMIT, self.query_positions(places)))
    }

    async fn query_positions(&self, places: &[Place]) -> anyhow::Result<HashMap<Place, i64>> {
        let mut lease = Lease::take(&self.consumer.pool).await?;
        let topics: Vec<_> = places.iter().map(|(topic, _)| topic.name()).collect();
        let partitions: Vec<_> =
            places.iter().map(|(_, p)| i32::try_from(*p)).collect::<Result<_, _>>()?;
        sqlx::query(
            "INSERT INTO consumer_offset (topic, partition, next_offset) \
             SELECT t, p, 0 FROM unnest($1::text[], $2::int[]) u (t, p) ON CONFLICT DO NOTHING",
        )
        .bind(&topics)
        .bind(&partitions)
        .execute(&mut *lease)
        .await?;
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT u.place, c.next_offset \
             FROM unnest($1::text[], $2::int[]) WITH ORDINALITY u (topic, partition, place) \
             JOIN consumer_offset c USING (topic, partition)",
        )
        .bind(&topics)
        .bind(&partitions)
        .fetch_all(&mut *lease)
        .await?;
        lease.keep();
        rows.into_iter()
            .map(|(place, offset)| Ok((places[usize::try_from(place)? - 1], offset)))
            .collect()
    }
}
