//! The transactional outbox, writing side: state and the events that tell of it commit together.
//! One row holds a whole batch of events, ready encoded; the [relay](crate::relay) publishes them.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, EventKind, Order};
use prometheus::IntGauge;
use sqlx::postgres::PgConnection;
use tokio::sync::Notify;

static RELAYING: LazyLock<IntGauge> = LazyLock::new(|| {
    prometheus::register_int_gauge!(
        "outbox_relaying",
        "1 while this instance publishes what the outbox holds; one of a database's instances does."
    )
    .expect("registered once")
});

/// Shows the metric from the start, at zero.
pub(crate) fn show_metrics() {
    LazyLock::force(&RELAYING);
}

/// The channel on which an instance that is not relaying tells the one that is.
pub(crate) const CHANNEL: &str = "outbox";

/// The events of one transaction.
#[derive(Debug)]
pub struct Batch {
    time: DateTime<Utc>,
    facts: Vec<i16>,
    order_ids: Vec<i64>,
    payloads: Vec<Vec<u8>>,
    traceparents: Vec<Option<String>>,
    cache_ids: Vec<i64>,
    cache_versions: Vec<i64>,
}

impl Batch {
    /// An empty batch whose events were all decided at `time`.
    pub fn new(time: DateTime<Utc>) -> Self {
        Self {
            time,
            facts: Vec::new(),
            order_ids: Vec::new(),
            payloads: Vec::new(),
            traceparents: Vec::new(),
            cache_ids: Vec::new(),
            cache_versions: Vec::new(),
        }
    }

    /// When the batch's events were decided.
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// Adds an event, in the trace of the request that placed the order.
    pub fn push(&mut self, order: Order, kind: EventKind, traceparent: Option<&str>) {
        self.facts.push(kind.fact().code());
        self.order_ids.push(order.order_id.get());
        self.payloads.push(Event { order, kind, time: self.time }.encode());
        self.traceparents.push(traceparent.map(str::to_owned));
    }

    /// Notes that what is cached under `id` has a newer version: caches are told before the
    /// batch's events go out.
    pub fn changed(&mut self, id: i64, version: i64) {
        self.cache_ids.push(id);
        self.cache_versions.push(version);
    }

    fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.cache_ids.is_empty()
    }
}

/// A database's outbox, as this process sees it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Outbox(Arc<State>);

#[derive(Default)]
struct State {
    committed: Notify,
    relaying: AtomicBool,
    waiting: AtomicI64,
}

impl Outbox {
    /// Writes the batch as part of the caller's transaction. After the commit the caller says so
    /// by [`Outbox::committed`].
    pub async fn append(&self, connection: &mut PgConnection, batch: &Batch) -> sqlx::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO outbox (at, events, facts, order_ids, payloads, traceparents, \
                                 cache_ids, cache_versions) \
             VALUES ($1, cardinality($2), $2, $3, $4, $5, $6, $7)",
        )
        .bind(batch.time)
        .bind(&batch.facts)
        .bind(&batch.order_ids)
        .bind(&batch.payloads)
        .bind(&batch.traceparents)
        .bind(&batch.cache_ids)
        .bind(&batch.cache_versions)
        .execute(&mut *connection)
        .await?;
        if !self.0.relaying.load(Ordering::Acquire) {
            // Committing a notification takes a cluster-wide lock: only who must pays for it.
            sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(connection).await?;
        }
        Ok(())
    }

    /// Wakes this process's relay: a transaction of this database has ended. Said after *every*
    /// commit, since a transaction without events may have held the relay's horizon back.
    pub fn committed(&self) {
        self.0.committed.notify_one();
    }

    /// Events that wait to be published, as counted within the last second: what admission
    /// control bounds while the broker is away. What is written in that second goes over a bound;
    /// to be exact, every writer would have to hear of every other's.
    pub fn waiting(&self) -> i64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    pub(crate) async fn woken(&self) {
        self.0.committed.notified().await;
    }

    pub(crate) fn set_waiting(&self, events: i64) {
        self.0.waiting.store(events, Ordering::Relaxed);
    }

    /// Marks this process as the one that relays until the mark is dropped.
    pub(crate) fn relaying(&self) -> Relaying {
        self.0.relaying.store(true, Ordering::Release);
        RELAYING.set(1);
        Relaying(self.clone())
    }
}

pub(crate) struct Relaying(Outbox);

impl Drop for Relaying {
    fn drop(&mut self) {
        self.0.0.relaying.store(false, Ordering::Release);
        RELAYING.set(0);
    }
}
