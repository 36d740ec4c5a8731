//! The transactional outbox: state and the events that tell of it commit together. One row holds a
//! whole batch of events, ready encoded. Whoever has committed a row publishes it from memory, at
//! once; the row is there for the case that it does not come to that.
//!
//! A row names the *lease* of the process that publishes it. Rows whose lease nobody holds any more
//! are taken over by whoever does hold one: see [`relay`](crate::relay).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, EventKind, Order};
use parking_lot::{Mutex, RwLock};
use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::QueryScalar;
use sqlx::{AssertSqlSafe, FromRow, SqlSafeStr, Transaction};

use crate::crash;
use crate::postgres::{self, Unconfirmed};
use crate::relay::LeaseHeld;

/// Inserts a row. Parameters $1 to $8 are its own.
const INSERT: &str = "INSERT INTO outbox (lease, at, events, facts, order_ids, payloads, \
     traceparents, cache_ids, cache_versions) \
     VALUES ($1, $2, cardinality($3), $3, $4, $5, $6, $7, $8) RETURNING id";

/// The events of one transaction.
#[derive(Debug, FromRow)]
pub struct Batch {
    #[sqlx(rename = "at")]
    pub(crate) time: DateTime<Utc>,
    pub(crate) facts: Vec<i16>,
    pub(crate) order_ids: Vec<i64>,
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) traceparents: Vec<Option<String>>,
    pub(crate) cache_ids: Vec<i64>,
    pub(crate) cache_versions: Vec<i64>,
}

impl Batch {
    /// An empty batch whose events are all decided at `time`.
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

    /// How many events it has.
    pub(crate) fn events(&self) -> usize {
        self.facts.len()
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
    lease: RwLock<Option<Arc<LeaseHeld>>>,
    /// Rows that the broker has acknowledged and that are to be deleted.
    published: Mutex<Vec<Published>>,
    waiting: AtomicI64,
}

impl Outbox {
    /// Writes the batch into the transaction, commits it and publishes the batch. An error that is
    /// [`Unconfirmed`] leaves open whether all of that is going to happen; any other says that none
    /// of it will.
    pub async fn commit(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        batch: Batch,
    ) -> anyhow::Result<()> {
        if batch.is_empty() {
            return postgres::commit(transaction).await;
        }
        let lease = self.lease_for(&batch);
        let row = insert(INSERT, lease.as_deref(), &batch);
        let row = row.fetch_one(&mut *transaction).await?;
        crash::point("outbox.before_commit");
        let in_doubt = InDoubt(lease);
        let committed = postgres::commit(transaction).await;
        in_doubt.settle(row, batch, committed)
    }

    /// The same in one round trip: a statement that commits by itself. `effects` are the common
    /// table expressions that change the state, with parameters from $9 on, which `bind` binds. All
    /// of it happens, or none.
    pub async fn commit_at_once(
        &self,
        connection: &mut PgConnection,
        effects: &str,
        bind: impl for<'q> FnOnce(Insert<'q>) -> Insert<'q>,
        batch: Batch,
    ) -> anyhow::Result<()> {
        let lease = self.lease_for(&batch);
        let sql = AssertSqlSafe(format!("WITH {effects} {INSERT}"));
        let insert = bind(insert(sql, lease.as_deref(), &batch));
        let in_doubt = InDoubt(lease);
        let (row, committed) = match insert.fetch_one(connection).await {
            Ok(row) => (row, Ok(())),
            Err(error) => (0, Err(postgres::of_commit(error))),
        };
        in_doubt.settle(row, batch, committed)
    }

    /// Events that wait to be published, as counted within the last second: what admission
    /// control bounds while the broker is away. What is written in that second goes over a bound;
    /// to be exact, every writer would have to hear of every other's.
    pub fn waiting(&self) -> i64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waiting(&self, events: i64) {
        self.0.waiting.store(events, Ordering::Relaxed);
    }

    /// The lease under which the batch is written. Without one it is anybody's: its row is read back
    /// by whoever has room for it.
    fn lease_for(&self, batch: &Batch) -> Option<Arc<LeaseHeld>> {
        let lease = self.0.lease.read().clone()?;
        lease.has_room(batch.events()).then_some(lease)
    }

    /// From now on batches are published by `lease`, or by nobody of this process.
    pub(crate) fn publish_by(&self, lease: Option<Arc<LeaseHeld>>) {
        *self.0.lease.write() = lease;
    }

    /// Notes that a row has been published and can be deleted.
    pub(crate) fn published(&self, row: Published) {
        self.0.published.lock().push(row);
    }

    /// The rows to be deleted.
    pub(crate) fn take_published(&self) -> Vec<Published> {
        std::mem::take(&mut *self.0.published.lock())
    }
}

/// A published row, with the lease that it names: a database that was restored gives out numbers of
/// rows again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) row: i64,
    pub(crate) lease: i64,
}

/// A statement that inserts a row.
pub type Insert<'q> = QueryScalar<'q, Postgres, i64, PgArguments>;

fn insert<'q>(sql: impl SqlSafeStr, lease: Option<&LeaseHeld>, batch: &'q Batch) -> Insert<'q> {
    sqlx::query_scalar(sql)
        .bind(lease.map(LeaseHeld::number))
        .bind(batch.time)
        .bind(&batch.facts)
        .bind(&batch.order_ids)
        .bind(&batch.payloads)
        .bind(&batch.traceparents)
        .bind(&batch.cache_ids)
        .bind(&batch.cache_versions)
}

/// A commit whose end is not known, also when nobody waits for it any more: a row may be there that
/// no process has in memory.
struct InDoubt(Option<Arc<LeaseHeld>>);

impl InDoubt {
    fn settle(
        mut self,
        row: i64,
        batch: Batch,
        committed: anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if committed.as_ref().is_err_and(anyhow::Error::is::<Unconfirmed>) {
            return committed;
        }
        if let Some(lease) = self.0.take()
            && committed.is_ok()
        {
            lease.publish(row, batch);
        }
        committed
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        if let Some(lease) = &self.0 {
            lease.give_up();
        }
    }
}
