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

use super::{HANDOVER, Handler, LAG, Place, Shared};
use crate::backoff::Backoff;
use crate::kafka;
use crate::postgres::{self, Lease};

/// How long reading the offsets may take before it is tried again.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// The callbacks of librdkafka. All of them run on the polling thread.
pub(super) struct Callbacks<H>(pub(super) Arc<Shared<H>>);

impl<H: Handler> ClientContext for Callbacks<H> {
    fn stats(&self, statistics: Statistics) {
        let assigned = self.0.assigned.load(Ordering::Acquire);
        let missing = (!assigned).then_some("no partitions assigned yet");
        kafka::report(&self.0.consumer.broker, &statistics, &self.0.refusal, missing);
        let applied = self.0.applied.lock().clone();
        for ((topic, partition), applied) in applied {
            let end = statistics
                .topics
                .get(&self.0.topic_name(topic))
                .and_then(|t| t.partitions.get(&i32::try_from(partition).unwrap_or(-1)))
                .map_or(-1, |p| p.hi_offset);
            // Negative: not known yet.
            if end >= 0 {
                let lag = (end - applied).max(0);
                LAG.with_label_values(&[topic.name(), &partition.to_string()]).set(lag);
            }
        }
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
            let _ = LAG.remove_label_values(&[topic.name(), &partition.to_string()]);
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
