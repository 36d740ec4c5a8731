//! The batch consumer. Offsets live in Postgres, in the transaction of the effects they stand for,
//! and move by compare-and-set: whatever a crash, a rebalance or a zombie repeats, an effect
//! happens once. The group's offsets in the broker follow behind, so that lag tools show the truth.
//!
//! One task, the [`owner`], has all that the consumer knows: it takes records from librdkafka, sorts
//! them into *lanes*, and begins for each lane one batch after the other, which applies what has
//! arrived in one transaction. A lane that cannot go on (its database is away) retries for ever and
//! holds up no other lane: once its queue is long, its partitions are paused. Records that are no
//! messages, and those that can never be applied, go to the table of dead letters in the same
//! transaction, and the partition goes on. What stands still shows: a partition in which librdkafka
//! does not get on, a batch that is retried for long.

mod batch;
mod dead_letter;
mod observe;
mod owner;
mod progress;
mod queue;
mod rebalance;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::bus::Inner;
use crate::{Batch, Error, Failure, Message, Watcher};
pub(crate) use dead_letter::DeadLetter;

/// Records of one transaction, at the most.
const BATCH: usize = 2_000;
/// Records that may wait in a lane before its partitions are paused, and below which they go on.
const PAUSE_ABOVE: usize = 20_000;
const RESUME_BELOW: usize = 5_000;
/// How long records that nobody waits for may wait for others.
const ASIDE: Duration = Duration::from_millis(50);
/// How long a rebalance waits for a transaction in flight, so that the next owner starts behind it.
const HANDOVER: Duration = Duration::from_secs(5);

/// A message as consumed.
#[derive(Debug, Clone)]
pub struct Record<M> {
    /// The message.
    pub message: M,
    /// The W3C trace context it came with.
    pub traceparent: Option<String>,
}

/// What a service does with messages.
pub trait Handler: Send + Sync + 'static {
    /// What the topics carry.
    type Message: Message;
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
    /// them for 50 ms.
    fn is_urgent(&self, _record: &Record<Self::Message>) -> bool {
        true
    }

    /// Writes the records' effects in the transaction that also moves their offsets, and adds the
    /// messages that follow from them to `batch`. Called again with the same records if the
    /// transaction fails, and with some of them if one can never be applied.
    fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record<Self::Message>],
        batch: &mut Batch,
    ) -> impl Future<Output = Result<Self::Applied, Failure>> + Send;

    /// The transaction has committed.
    fn committed(&self, _applied: Self::Applied, _records: &[Record<Self::Message>]) {}

    /// Once a second, of each partition that is here: how far it is.
    fn observed(&self, _topic: &str, _partition: u32, _reach: Reach) {}
}

/// How far a consumer is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The offset of the record that is applied next.
    pub applied: i64,
    /// The offset behind the last record that may be read; `None` while the broker has not told it.
    pub end: Option<i64>,
    /// How many records are yet to be applied, if that is known. Gaps in the offsets are none.
    pub lag: Option<i64>,
}

/// A member of a consumer group that applies records: see [`Bus::consumer`](crate::Bus::consumer).
pub struct Consumer<H> {
    bus: Arc<Inner>,
    group: String,
    topics: Vec<Topic>,
    handler: H,
    session_timeout: Duration,
    broker: Arc<dyn Watcher>,
    processing: Arc<dyn Watcher>,
}

/// A topic, as the table of offsets and as the broker name it.
struct Topic {
    name: String,
    full_name: String,
}

/// A partition: the index of its topic among the consumer's, and its number.
type Place = (usize, u32);

impl<H: Handler> Consumer<H> {
    pub(crate) fn new(bus: Arc<Inner>, group: String, topics: Vec<String>, handler: H) -> Self {
        let topic = |name: String| Topic { full_name: bus.full_name(&name), name };
        Self {
            topics: topics.into_iter().map(topic).collect(),
            bus,
            group,
            handler,
            session_timeout: Duration::from_secs(6),
            broker: Arc::new(()),
            processing: Arc::new(()),
        }
    }

    /// How long the group waits for a heartbeat before it gives the partitions to others [default:
    /// 6 s].
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Told of the broker: up once the consumer has its partitions and reads all of them.
    #[must_use]
    pub fn watched_by(mut self, watcher: impl Watcher) -> Self {
        self.broker = Arc::new(watcher);
        self
    }

    /// Told of the processing: up unless a batch has been retried for a minute.
    #[must_use]
    pub fn processing_watched_by(mut self, watcher: impl Watcher) -> Self {
        self.processing = Arc::new(watcher);
        self
    }

    /// Consumes until `stop` is cancelled; a transaction in flight is finished. Ends by an error if
    /// it cannot go on.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        // What is put into a statement, as a topic's name is.
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if let Some(topic) = self.topics.iter().find(|topic| !topic.name.chars().all(is_legal)) {
            return Err(Error::other(format!("{:?} is no name of a topic", topic.name)));
        }
        // A counter that is first seen at 1 has not risen, to whoever watches it.
        let metrics = &self.bus.metrics;
        for topic in &self.topics {
            metrics.lost.with_label_values(&[&topic.name]);
            for result in ["applied", "dead_lettered"] {
                metrics.records.with_label_values(&[&*topic.name, result]);
            }
        }
        owner::run(&self, stop).await
    }

    fn name(&self, place: Place) -> &str {
        &self.topics[place.0].name
    }
}
