//! Rebalances: an assignment starts from the database's offsets, never from the group's.
//!
//! librdkafka's callbacks only send what they are told to the consumer's [`owner`](super::owner);
//! the group waits until that has assigned or unassigned.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};

use super::owner::{Event, Events, Owner};
use super::queue::Queue;
use super::{Consumer, HANDOVER, Handler, Place};
use crate::backoff::Backoff;
use crate::database::within;
use crate::error::with_sources;
use crate::kafka::{self, Refusal};
use crate::{Checkout, Error};

/// How long reading the offsets may take before it is tried again.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// The callbacks of librdkafka.
pub(super) struct Callbacks {
    pub(super) events: Events,
    pub(super) refusal: Arc<Refusal>,
    /// The consumer leaves the group: nobody listens any more.
    pub(super) is_leaving: AtomicBool,
    /// How often it was called: a poll that calls back may leave records behind.
    pub(super) calls: AtomicU64,
}

impl ClientContext for Callbacks {
    fn stats(&self, statistics: Statistics) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        let _ = self.events.send(Event::Statistics(Box::new(statistics)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        tracing::debug!(%error, reason, "consumer");
        self.refusal.note(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        kafka::log(level, facility, message);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        client: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        let is_assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let event = if is_assigned { Event::Assigned(partitions.clone()) } else { Event::Revoked };
        if self.is_leaving.load(Ordering::Acquire) || self.events.send(event).is_err() {
            let _ = client.unassign();
        }
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.calls.fetch_add(1, Ordering::AcqRel);
    }
}

/// What is done once the batches in flight have ended.
pub(super) struct Handover {
    /// When they are waited for no longer: the offsets fence whatever becomes of them.
    pub(super) until: Instant,
    next: Next,
}

pub(super) enum Next {
    Assign(TopicPartitionList),
    Unassign,
}

/// The database's offsets on their way.
pub(super) type Loading<'c> = BoxFuture<'c, HashMap<Place, i64>>;

impl<H: Handler> Owner<'_, H> {
    /// Voids what is queued and lets batches in flight end, then does what is next.
    pub(super) fn hand_over(&mut self, next: Next) {
        self.revoke();
        self.handover = Some(Handover { until: Instant::now() + HANDOVER, next });
    }

    /// Starts again from the database's offsets.
    pub(super) fn start_over(&mut self) -> Result<(), Error> {
        let assigned = self.client.assignment()?;
        // Nothing more is read that would only be dropped.
        self.client.unassign()?;
        self.hand_over(Next::Assign(assigned));
        // As far as the group is concerned.
        self.is_assigned = true;
        Ok(())
    }

    fn revoke(&mut self) {
        self.is_assigned = false;
        self.loading = None;
        self.void.cancel();
        self.void = self.stop.child_token();
        for lane in &mut self.lanes {
            lane.queue = Queue::default();
            if let Some(paused) = lane.paused.take()
                && let Err(error) = self.client.resume(&paused)
            {
                tracing::debug!(%error, "a partition that is no longer here stays paused");
            }
        }
        let metrics = &self.consumer.bus.metrics;
        for place in self.applied.drain().map(|(place, _)| place) {
            let labels = [self.consumer.name(place), &place.1.to_string()];
            for gauge in [&metrics.lag, &metrics.next_offset, &metrics.stalled] {
                let _ = gauge.remove_label_values(&labels);
            }
        }
        self.fetched.clear();
        self.forget();
    }

    /// Goes on with a handover whose time has come.
    pub(super) fn go_on(&mut self) {
        let is_due =
            |handover: &mut Handover| self.running.is_empty() || Instant::now() >= handover.until;
        let Some(Handover { next, .. }) = self.handover.take_if(is_due) else { return };
        self.late.extend(std::mem::take(&mut self.running));
        for lane in &mut self.lanes {
            lane.is_busy = false;
            lane.retried = None;
        }
        match next {
            Next::Unassign => {
                if let Err(error) = self.client.unassign() {
                    tracing::error!(%error, "a rebalance failed");
                }
            }
            Next::Assign(partitions) => {
                let consumer = self.consumer;
                let places = consumer.places(&partitions);
                self.loading = Some(Box::pin(consumer.load_positions(places)));
            }
        }
    }

    /// Consumes from these offsets.
    pub(super) fn begin(&mut self, positions: HashMap<Place, i64>) -> Result<(), Error> {
        self.loading = None;
        let mut from = TopicPartitionList::with_capacity(positions.len());
        for (place, position) in &positions {
            let topic = &self.consumer.topics[place.0].full_name;
            from.add_partition_offset(topic, number(*place), Offset::Offset(*position))?;
        }
        tracing::info!(partitions = positions.len(), "consuming from the database's offsets");
        self.fetched.clone_from(&positions);
        self.applied = positions;
        self.client.assign(&from)?;
        self.is_assigned = true;
        Ok(())
    }
}

/// A partition's number, as librdkafka has it.
pub(super) fn number(place: Place) -> i32 {
    i32::try_from(place.1).expect("it came as an i32")
}

impl<H: Handler> Consumer<H> {
    pub(super) fn topic_of(&self, full_name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| topic.full_name == full_name)
    }

    fn places(&self, partitions: &TopicPartitionList) -> Vec<Place> {
        let elements = partitions.elements();
        let place =
            |topic: &str, partition: i32| Some((self.topic_of(topic)?, partition.try_into().ok()?));
        elements.iter().filter_map(|it| place(it.topic(), it.partition())).collect()
    }

    /// The database's offsets, however long the database takes.
    async fn load_positions(&self, places: Vec<Place>) -> HashMap<Place, i64> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match self.positions(&places).await {
                Ok(positions) => return positions,
                Err(error) => {
                    let error = with_sources(&error);
                    tracing::warn!(error, "offsets cannot be read; trying again");
                }
            }
            backoff.wait().await;
        }
    }

    /// The database's offsets, if it tells them in time.
    pub(super) async fn positions(&self, places: &[Place]) -> Result<HashMap<Place, i64>, Error> {
        within(QUERY_LIMIT, self.query_positions(places)).await
    }

    async fn query_positions(&self, places: &[Place]) -> Result<HashMap<Place, i64>, Error> {
        let mut connection = Checkout::take(&self.bus.pool).await?;
        let topics: Vec<_> = places.iter().map(|place| self.name(*place)).collect();
        let partitions: Vec<_> = places.iter().map(|place| number(*place)).collect();
        sqlx::query(
            "INSERT INTO sagabus.consumer_offset (topic, partition, next_offset) \
             SELECT t, p, 0 FROM unnest($1::text[], $2::int[]) u (t, p) ON CONFLICT DO NOTHING",
        )
        .bind(&topics)
        .bind(&partitions)
        .execute(&mut *connection)
        .await?;
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT u.place, c.next_offset \
             FROM unnest($1::text[], $2::int[]) WITH ORDINALITY u (topic, partition, place) \
             JOIN sagabus.consumer_offset c USING (topic, partition)",
        )
        .bind(&topics)
        .bind(&partitions)
        .fetch_all(&mut *connection)
        .await?;
        connection.keep();
        let place = |place: i64| places.get(usize::try_from(place).ok()?.checked_sub(1)?).copied();
        Ok(rows.into_iter().filter_map(|(at, offset)| Some((place(at)?, offset))).collect())
    }
}
