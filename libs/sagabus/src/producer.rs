//! The producer: idempotent, `acks=all`, to the partition the message names. Records are enqueued
//! in order and never awaited one by one; a [`Delivery`] stands for all records of a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Statistics, statistics};

use crate::kafka::{self, Refusal};
use crate::{Error, Watcher as Watching};

/// How long the polling thread stays in one poll, and so outlives its producer. rdkafka spends the last
/// millisecond of each poll in a busy loop.
const POLL: Duration = Duration::from_secs(5);
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

/// What is told how a batch of records went, once all of them are acknowledged by all in-sync
/// replicas, or given up.
type Settled = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A batch of records on its way.
pub(crate) struct Delivery {
    /// Records not yet settled, and one for the batch itself while it is being enqueued.
    open: AtomicUsize,
    failure: Mutex<Option<KafkaError>>,
    settled: Mutex<Option<Settled>>,
}

impl Delivery {
    fn settle_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let outcome = match self.failure.lock().take() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        };
        if let Some(settled) = self.settled.lock().take() {
            settled(outcome);
        }
    }
}

struct Watcher {
    broker: Arc<dyn Watching>,
    refusal: Refusal,
    /// A record was given up: this producer is not to be trusted with the next.
    failed: AtomicBool,
}

impl ClientContext for Watcher {
    fn stats(&self, statistics: Statistics) {
        let missing = (!has_producer_id(&statistics)).then_some("no producer id yet");
        let is_up = kafka::broker_is_up(&statistics);
        kafka::report(&*self.broker, is_up, &self.refusal, missing);
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
    producer: Arc<BaseProducer<Watcher>>,
    is_given_up: Arc<AtomicBool>,
    /// Messages on their way.
    pub(crate) in_flight: AtomicUsize,
}

impl Publisher {
    /// A producer whose state shows as `broker`: up once it has its producer id, so that the first
    /// order does not pay for it.
    pub(crate) fn new(settings: &ClientConfig, broker: Arc<dyn Watching>) -> Result<Self, Error> {
        let mut client = kafka::client(settings);
        kafka::write_safely(&mut client)
            // Records wait for the broker as long as it takes: the outbox holds them anyway, and
            // giving one up would only mean reading it again.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536");
        let watcher =
            Watcher { broker, refusal: Refusal::default(), failed: AtomicBool::new(false) };
        let producer = Arc::new(BaseProducer::from_config_and_context(&client, watcher)?);
        let is_given_up = Arc::new(AtomicBool::new(false));
        let (polled, given_up) = (producer.clone(), is_given_up.clone());
        std::thread::Builder::new()
            .name("producer".to_owned())
            .spawn(move || poll(&polled, &given_up))?;
        Ok(Self { producer, is_given_up, in_flight: AtomicUsize::new(0) })
    }

    /// Gives up what is not acknowledged, soon; the outbox still has it.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// Learns where the topics' partitions are, so that the first order does not wait for it. A
    /// topic that is not there yet is learnt when it is first written to.
    pub(crate) async fn learn(&self, topics: Vec<String>) {
        let producer = self.producer.clone();
        let learn = move || {
            for topic in topics {
                let _ = producer.client().fetch_metadata(Some(&topic), LEARNING);
            }
        };
        let _ = tokio::task::spawn_blocking(learn).await;
    }

    /// Whether it has taken every record so far; if not, another one is to take its place.
    pub(crate) fn is_sound(&self) -> bool {
        !self.producer.context().failed.load(Ordering::Acquire)
            && self.producer.client().fatal_error().is_none()
    }

    /// Enqueues records in order; `settled` is told how it went, on a thread of the producer's.
    pub(crate) fn publish<'a>(
        &self,
        records: impl IntoIterator<Item = Outgoing<'a>>,
        settled: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let delivery = Arc::new(Delivery {
            open: AtomicUsize::new(1),
            failure: Mutex::default(),
            settled: Mutex::new(Some(Box::new(settled))),
        });
        for record in records {
            delivery.open.fetch_add(1, Ordering::AcqRel);
            let record = BaseRecord {
                topic: record.topic,
                partition: record.partition.map(|p| i32::try_from(p).expect("a partition number")),
                payload: record.payload,
                key: record.key,
                timestamp: None,
                headers: Some(record.headers),
                delivery_opaque: delivery.clone(),
            };
            if let Err((error, _)) = self.producer.send(record) {
                *delivery.failure.lock() = Some(error);
                delivery.settle_one();
                break;
            }
        }
        delivery.settle_one();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Delivers acknowledgements until the producer is given up and nobody has it any more. To destroy a
/// client joins threads and may wait for a broker that is gone: this thread does that, too.
fn poll(producer: &Arc<BaseProducer<Watcher>>, is_given_up: &AtomicBool) {
    let mut is_purged = false;
    loop {
        if is_given_up.load(Ordering::Acquire) {
            if Arc::strong_count(producer) == 1 {
                return;
            }
            if !std::mem::replace(&mut is_purged, true) {
                producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            }
        }
        producer.poll(POLL);
    }
}
