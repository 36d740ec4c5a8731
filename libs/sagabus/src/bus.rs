//! A bus: one database with its outbox and offsets, and one broker.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::Registry;
use rdkafka::ClientConfig;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnection, PgPool, Postgres};

use crate::consumer::Consumer;
use crate::dead_letters::DeadLetters;
use crate::metrics::Metrics;
use crate::{
    Batch, BuildError, CommitError, Error, Handler, Message, Outbox, Relay, Search, search, trace,
};

/// What brings the bus' tables up to date, in the schema `sagabus`, for a role that may create a
/// schema in the database. A role that is not their owner is given its rights by
/// `SELECT sagabus.grant_to('role')`.
pub fn migrations() -> &'static Migrator {
    static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
        let embedded = sqlx::migrate!("./migrations");
        let mut migrations = Migrator::with_migrations(embedded.iter().cloned().collect());
        migrations.dangerous_set_table_name("sagabus.migration");
        migrations.create_schema("sagabus");
        migrations
    });
    &MIGRATIONS
}

/// A bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) pool: PgPool,
    pub(crate) kafka: ClientConfig,
    pub(crate) topic_prefix: String,
    pub(crate) dead_letter_topic: String,
    pub(crate) source: String,
    pub(crate) content_type: String,
    pub(crate) clock: fn() -> DateTime<Utc>,
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Option<trace::Traces>,
}

/// A [`Bus`] to be.
pub struct Builder {
    pool: PgPool,
    kafka: ClientConfig,
    topic_prefix: String,
    dead_letter_topic: String,
    source: String,
    content_type: String,
    clock: fn() -> DateTime<Utc>,
    registry: Registry,
    traces: Option<trace::Traces>,
}

impl Bus {
    /// A bus over this database and this broker: settings as librdkafka has them, at the least
    /// `bootstrap.servers`. Neither needs to be there yet.
    pub fn builder(pool: PgPool, kafka: ClientConfig) -> Builder {
        Builder {
            pool,
            kafka,
            topic_prefix: String::new(),
            dead_letter_topic: "dead-letter".to_owned(),
            source: "/".to_owned(),
            content_type: "application/json".to_owned(),
            clock: now,
            registry: Registry::new(),
            traces: None,
        }
    }

    /// The outbox, for transactions that the caller begins.
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Begins a transaction that can publish.
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        Ok(Transaction {
            inner: self.0.pool.begin().await?,
            batch: Batch::new((self.0.clock)()),
            outbox: self.0.outbox.clone(),
        })
    }

    /// What publishes. Each process that commits to the outbox runs one.
    pub fn relay(&self) -> Relay {
        Relay::new(self.0.clone())
    }

    /// What applies the records of `topics` with `handler`, as a member of the consumer group `group`.
    pub fn consumer<H: Handler>(
        &self,
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
        handler: H,
    ) -> Consumer<H> {
        let topics = topics.into_iter().map(Into::into).collect();
        Consumer::new(self.0.clone(), group.into(), topics, handler)
    }

    /// The letters of this environment.
    pub fn dead_letters(&self) -> DeadLetters {
        let Inner { kafka, topic_prefix, dead_letter_topic, .. } = &*self.0;
        DeadLetters::new(kafka.clone(), topic_prefix, dead_letter_topic)
    }

    /// Looks for records in topics, for as long as `limit`, with a client that is made for it. The
    /// client insists on a group, and the broker may ask for a right to it; it is not joined. Blocks.
    pub fn search<T>(
        &self,
        group: &str,
        limit: Duration,
        look: impl FnOnce(&Search<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        search::run(&self.0, group, Instant::now() + limit, look)
    }
}

impl Builder {
    /// Put before the name of every topic, so that several systems can share a broker.
    #[must_use]
    pub fn topic_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.topic_prefix = prefix.into();
        self
    }

    /// Where records go that can never be applied [default: `dead-letter`].
    #[must_use]
    pub fn dead_letter_topic(mut self, topic: impl Into<String>) -> Self {
        self.dead_letter_topic = topic.into();
        self
    }

    /// Who publishes: the header `ce_source` [default: `/`].
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// The media type of what [`Message::encode`] returns [default: `application/json`].
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// The clock by which batches get their times [default: the system's].
    #[must_use]
    pub fn clock(mut self, clock: fn() -> DateTime<Utc>) -> Self {
        self.clock = clock;
        self
    }

    /// Where the metrics are registered [default: a registry that nobody reads].
    #[must_use]
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = registry.clone();
        self
    }

    /// Where spans go [default: nowhere].
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn traces(mut self, traces: impl Into<Option<trace::Traces>>) -> Self {
        self.traces = traces.into();
        self
    }

    /// Builds the bus. Nothing runs yet.
    pub fn build(self) -> Result<Bus, BuildError> {
        Ok(Bus(Arc::new(Inner {
            metrics: Metrics::new(&self.registry)?,
            pool: self.pool,
            kafka: self.kafka,
            topic_prefix: self.topic_prefix,
            dead_letter_topic: self.dead_letter_topic,
            source: self.source,
            content_type: self.content_type,
            clock: self.clock,
            outbox: Outbox::default(),
            traces: self.traces,
        })))
    }
}

impl Inner {
    /// A topic's name in the broker.
    pub(crate) fn full_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.topic_prefix)
    }
}

/// A transaction with an outbox in it: dereferences to the connection that statements run on. What
/// is dropped without [`commit`](Transaction::commit) never happened.
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    batch: Batch,
    outbox: Outbox,
}

impl Transaction {
    /// Publishes a message if, and only if, the transaction commits.
    pub fn publish(&mut self, message: &impl Message) {
        self.batch.publish(message, None);
    }

    /// What is published, to add to it.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Commits, and publishes at once.
    pub async fn commit(self) -> Result<(), CommitError> {
        self.outbox.commit(self.inner, self.batch).await
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

/// The time in microseconds: what Postgres keeps.
#[expect(clippy::disallowed_methods, reason = "the default clock")]
fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
