//! The producer: idempotent, `acks=all`, to the partition the contract names. Records are enqueued
//! in order and never awaited one by one; a [`Delivery`] stands for all records of a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Statistics, statistics};
use tokio::sync::Notify;

use crate::config::KafkaConfig;
use crate::health::Dependency;
use crate::kafka::{self, Refusal};

/// How long asking for one topic's partitions may take.
const LEARNING: Duration = Duration::from_secs(2);

/// A record to publish.
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    /// `None`: any partition.
    pub(crate) partition: Option<u32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) headers: OwnedHeaders,
}

/// The acknowledgement of a batch of records.
#[derive(Default)]
pub(crate) struct Delivery {
    /// Records not yet acknowledged, and one for the batch itself while it is being enqueued.
    open: AtomicUsize,
    failure: Mutex<Option<KafkaError>>,
    settled: Notify,
}

impl Delivery {
    fn settle_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_one();
        }
    }

    /// Waits until every record is acknowledged by all in-sync replicas, or given up.
    pub(crate) async fn acknowledged(self: Arc<Self>) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.settled.notified().await;
        }
    }

    /// How it went, once all records are settled.
    pub(crate) fn outcome(&self) -> Option<anyhow::Result<()>> {
        if self.open.load(Ordering::Acquire) > 0 {
            return None;
        }
        Some(match self.failure.lock().clone() {
            None => Ok(()),
            Some(error) => Err(anyhow!(error).context("the broker did not take a record")),
        })
    }
}

struct Watcher {
    broker: Dependency,
    refusal: Refusal,
    /// A record was given up: this producer is not to be trusted with the next.
    failed: AtomicBool,
}

impl ClientContext for Watcher {
    fn stats(&self, statistics: Statistics) {
        let missing = (!has_producer_id(&statistics)).then_some("no producer id yet");
        let is_up = kafka::broker_is_up(&statistics);
        kafka::report(&self.broker, is_up, &self.refusal, missing);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
        self.refusal.note(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }
}

impl ProducerContext for Watcher {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        if let Err((error, _)) = result {
            self.failed.store(true, Ordering::Release);
            *delivery.failure.lock() = Some(error.clone());
        }
        delivery.settle_one();
    }
}

fn has_producer_id(statistics: &Statistics) -> bool {
    matches!(
        &statistics.eos,
        Some(statistics::ExactlyOnceSemantics { idemp_state, .. }) if idemp_state == "Assigned"
    )
}

/// An idempotent producer.
pub(crate) struct Publisher {
    producer: Option<Arc<ThreadedProducer<Watcher>>>,
}

impl Publisher {
    /// A producer whose state shows as `broker`: up once it has its producer id, so that the first
    /// order does not pay for it.
    pub(crate) fn new(config: &KafkaConfig, broker: Dependency) -> anyhow::Result<Self> {
        let mut client = kafka::client(config);
        kafka::write_safely(&mut client)
            // Records wait for the broker as long as it takes: the outbox holds them anyway, and
            // giving one up would only mean reading it again.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536");
        let watcher =
            Watcher { broker, refusal: Refusal::default(), failed: AtomicBool::new(false) };
        let producer = ThreadedProducer::from_config_and_context(&client, watcher)
            .context("producer settings")?;
        Ok(Self { producer: Some(Arc::new(producer)) })
    }

    /// Learns where the topics' partitions are, so that the first order does not wait for it. A
    /// topic that is not there yet is learnt when it is first written to.
    pub(crate) async fn learn(&self, topics: Vec<String>) {
        let producer = self.producer().clone();
        let learn = move || {
            for topic in topics {
                let _ = producer.client().fetch_metadata(Some(&topic), LEARNING);
            }
        };
        let _ = tokio::task::spawn_blocking(learn).await;
    }

    /// Whether it has taken every record so far; if not, another one is to take its place.
    pub(crate) fn is_sound(&self) -> bool {
        !self.producer().context().failed.load(Ordering::Acquire)
            && self.producer().client().fatal_error().is_none()
    }

    fn producer(&self) -> &Arc<ThreadedProducer<Watcher>> {
        self.producer.as_ref().expect("taken only by drop")
    }

    /// Enqueues records in order. Waits only while the queue is full.
    pub(crate) async fn publish(
        &self,
        records: Vec<Outgoing<'_>>,
    ) -> anyhow::Result<Arc<Delivery>> {
        let delivery = Arc::new(Delivery::default());
        delivery.open.store(1, Ordering::Release);
        for record in records {
            delivery.open.fetch_add(1, Ordering::AcqRel);
            let mut record = BaseRecord {
                topic: record.topic,
                partition: record.partition.map(|p| i32::try_from(p).expect("a partition number")),
                payload: record.payload,
                key: record.key,
                timestamp: None,
                headers: Some(record.headers),
                delivery_opaque: delivery.clone(),
            };
            while let Err((error, refused)) = self.producer().send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(anyhow!(error).context("the producer refuses records"));
                }
                record = refused;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        delivery.settle_one();
        Ok(delivery)
    }
}

impl Drop for Publisher {
    /// Destroying a client joins threads and may wait for a broker that is gone: not on a runtime
    /// thread. What is unacknowledged is purged; the outbox still has it.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            std::thread::spawn(move || {
                producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                drop(producer);
            });
        }
    }
}
