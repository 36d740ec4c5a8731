//! The batch consumer. Offsets live in Postgres, in the transaction of the effects they stand for,
//! and move by compare-and-set: whatever a crash, a rebalance or a zombie repeats, an effect
//! happens once. The group's offsets in the broker follow behind, so that lag tools show the truth.
//!
//! A thread of its own polls librdkafka and sorts records into *lanes*; each lane is a task that
//! takes what has arrived, up to a cap, and applies it in one transaction. A lane that cannot go on
//! (its database is away) retries for ever and holds up no other lane: once its queue is long, its
//! partitions are paused. Records that are no events, and those that can never be applied, go to
//! the dead-letter outbox in the same transaction, and the partition goes on. What stands still
//! shows: a partition in which librdkafka does not get on, a batch that is retried for long.

mod assignment;
mod failure;
mod lane;
mod observe;
mod packed;
mod poison;
mod poll;
mod progress;
mod step_over;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use ordersaga_contract::{Event, Topic};
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec};
use sqlx::postgres::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::config::KafkaConfig;
use crate::health::Dependency;
use crate::kafka::Refusal;
use crate::outbox::{Batch, Outbox};
pub use failure::ApplyError;
use lane::Lane;
use progress::Seen;
pub use step_over::step_over;

/// Records of one transaction, at the most.
const BATCH: usize = 2_000;
/// Records that may wait in a lane before its partitions are paused, and below which they go on.
const PAUSE_ABOVE: usize = 20_000;
const RESUME_BELOW: usize = 5_000;
/// How long records that nobody waits for may wait for others.
const ASIDE: Duration = Duration::from_millis(50);
/// How long a rebalance waits for a transaction in flight, so that the next owner starts behind it.
const HANDOVER: Duration = Duration::from_secs(5);

static RECORDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    prometheus::register_int_counter_vec!(
        "consumer_records_total",
        "Records consumed, by what became of them: applied or dead_lettered.",
        &["topic", "result"]
    )
    .expect("registered once")
});
static LAG: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    prometheus::register_int_gauge_vec!(
        "consumer_lag_records",
        "Records in the partition that this consumer has yet to apply.",
        &["topic", "partition"]
    )
    .expect("registered once")
});
static NEXT_OFFSET: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    prometheus::register_int_gauge_vec!(
        "consumer_next_offset",
        "Offset of the next record of the partition that this consumer has to apply.",
        &["topic", "partition"]
    )
    .expect("registered once")
});
static STALLED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    prometheus::register_int_gauge_vec!(
        "consumer_partition_stalled",
        "1 for a partition whose next record cannot be read, else 0.",
        &["topic", "partition"]
    )
    .expect("registered once")
});
static ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    prometheus::register_int_counter_vec!(
        "consumer_errors_total",
        "Errors that the Kafka client reported instead of a record, by its name for them.",
        &["error"]
    )
    .expect("registered once")
});
static LOST: LazyLock<IntCounterVec> = LazyLock::new(|| {
    prometheus::register_int_counter_vec!(
        "consumer_lost_records_total",
        "Offsets that the topic had removed before this consumer read them.",
        &["topic"]
    )
    .expect("registered once")
});
static RETRYING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    prometheus::register_int_gauge_vec!(
        "consumer_retry_seconds",
        "How long the batch at hand of a lane has been retried; 0 if it has not failed.",
        &["lane"]
    )
    .expect("registered once")
});
static BATCH_SIZE: LazyLock<Histogram> = LazyLock::new(|| {
    prometheus::register_histogram!(
        "consumer_batch_records",
        "Records applied by one transaction.",
        vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0]
    )
    .expect("registered once")
});

static TRANSIT: LazyLock<HistogramVec> = LazyLock::new(|| {
    prometheus::register_histogram_vec!(
        "consumer_transit_seconds",
        "Time from when a producer was given a record to when this consumer has read it.",
        &["topic"],
        vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 60.0]
    )
    .expect("registered once")
});
static BATCH_TIME: LazyLock<HistogramVec> = LazyLock::new(|| {
    prometheus::register_histogram_vec!(
        "consumer_batch_seconds",
        "Time from when a lane takes a batch to its commit, repetitions included.",
        &["lane"],
        vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]
    )
    .expect("registered once")
});

/// An event as consumed.
#[derive(Debug, Clone)]
pub struct Record {
    /// The event.
    pub event: Event,
    /// The W3C trace context it came with.
    pub traceparent: Option<String>,
}

/// What a service does with events.
pub trait Handler: Send + Sync + 'static {
    /// What [`Handler::apply`] leaves for [`Handler::committed`].
    type Applied: Send;

    /// The lane that a partition's records go through, below [`Handler::lanes`]. Partitions share
    /// a lane if they share their fate: the node their effects are written to.
    fn lane_of(&self, _partition: u32) -> usize {
        0
    }

    /// How many lanes there are.
    fn lanes(&self) -> usize {
        1
    }

    /// Whether nobody ever waits for the effects: then records may come a tenth of a second late.
    fn is_aside(&self) -> bool {
        false
    }

    /// Whether somebody waits for this record's effects. A lane whose records can all wait gathers
    /// them for [`ASIDE`].
    fn is_urgent(&self, _record: &Record) -> bool {
        true
    }

    /// Writes the records' effects in the transaction that also moves their offsets, and adds the
    /// events that follow from them to `batch`. Called again with the same records if the
    /// transaction fails, and with some of them if one can never be applied.
    fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
        batch: &mut Batch,
    ) -> impl Future<Output = Result<Self::Applied, ApplyError>> + Send;

    /// The transaction has committed.
    fn committed(&self, applied: Self::Applied, records: &[Record]);
}

/// Where and as what to consume.
pub struct Consumer {
    /// The broker, the group and the topics' prefix.
    pub kafka: KafkaConfig,
    /// The database of offsets and effects.
    pub pool: PgPool,
    /// Its outbox.
    pub outbox: Outbox,
    /// What to follow.
    pub topics: &'static [Topic],
    /// How the consumer's state shows: up once it has its partitions and reads all of them.
    pub broker: Dependency,
    /// How applying shows: up unless a batch has been retried for a minute.
    pub processing: Dependency,
}

/// A topic's partition.
type Place = (Topic, u32);

/// What the polling thread, the rebalance callback and the lanes share.
struct Shared<H> {
    handler: H,
    consumer: Consumer,
    lanes: Vec<Lane>,
    /// The next offset of each assigned partition: applied, and fetched.
    applied: Mutex<HashMap<Place, i64>>,
    fetched: Mutex<HashMap<Place, i64>>,
    /// What librdkafka has told last, until the polling thread looks at it.
    told: Mutex<Option<Told>>,
    /// The lanes whose batch has failed: since when, and the newest reason.
    retried: Mutex<BTreeMap<usize, (Instant, &'static str)>>,
    /// The group has not been told of everything applied.
    group_is_behind: AtomicBool,
    /// The group has given this consumer its partitions.
    assigned: AtomicBool,
    /// Counts assignments: what was queued under an earlier one is void.
    epoch: AtomicU64,
    /// The database has moved an offset without us: start again from its offsets.
    out_of_step: AtomicBool,
    refusal: Refusal,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
}

/// A report of librdkafka.
struct Told {
    broker_is_up: bool,
    partitions: HashMap<Place, Seen>,
}

impl Consumer {
    /// Consumes until `stop` is cancelled; a transaction in flight is finished. Ends by an error if
    /// it cannot go on.
    pub async fn run<H: Handler>(self, handler: H, stop: CancellationToken) -> anyhow::Result<()> {
        // A counter that is first seen at 1 has not risen, to whoever watches it.
        for topic in self.topics {
            LOST.with_label_values(&[topic.name()]);
            for result in ["applied", "dead_lettered"] {
                RECORDS.with_label_values(&[topic.name(), result]);
            }
        }
        // A token of its own: when one part ends, the others must.
        let stop = stop.child_token();
        let shared = Arc::new(Shared {
            lanes: (0..handler.lanes()).map(|_| Lane::default()).collect(),
            handler,
            consumer: self,
            applied: Mutex::default(),
            fetched: Mutex::default(),
            told: Mutex::default(),
            retried: Mutex::default(),
            group_is_behind: AtomicBool::new(false),
            assigned: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            out_of_step: AtomicBool::new(false),
            refusal: Refusal::default(),
            runtime: tokio::runtime::Handle::current(),
            stop: stop.clone(),
        });
        let mut lanes = tokio::task::JoinSet::new();
        for number in 0..shared.lanes.len() {
            let shared = shared.clone();
            lanes.spawn(async move { shared.run_lane(number).await });
        }
        let (ended, mut end) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("consumer".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                let _ = ended.send(poll::run(&shared));
            }
        })?;
        let polled = tokio::select! {
            polled = &mut end => polled,
            lane = lanes.join_next() => {
                stop.cancel();
                lane.transpose().context("a lane died")?;
                (&mut end).await
            }
        };
        stop.cancel();
        while let Some(lane) = lanes.join_next().await {
            lane.context("a lane died")?;
        }
        polled.context("the polling thread died")?
    }
}

impl<H> Shared<H> {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}
