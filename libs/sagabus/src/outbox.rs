//! The transactional outbox: state and the messages that tell of it commit together. One row holds
//! a whole batch of messages, ready encoded. Whoever has committed a row publishes it from memory, at
//! once; the row is there for the case that it does not come to that.
//!
//! A row names the *lease* of the process that publishes it. Rows whose lease nobody holds any more
//! are taken over by whoever does hold one: see `relay`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use parking_lot::{Mutex, RwLock};
use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::QueryScalar;
use sqlx::{AssertSqlSafe, FromRow, SqlSafeStr, Transaction};

use crate::relay::LeaseHeld;
use crate::wire::{self, Stored};
use crate::{CommitError, Message, crash, database};

/// Inserts a row.
const INSERT: &str = "INSERT INTO sagabus.outbox (lease, at, messages, records, cache_ids, \
     cache_versions) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
/// The number of the first parameter that a statement given to [`Outbox::commit_at_once`] may use.
pub const FIRST_PARAMETER: usize = 7;
/// Rows that are looked at, to tell whether some messages wait.
const LOOKED_AT: i64 = 1_000;

/// The messages of one transaction.
#[derive(Debug, FromRow)]
pub struct Batch {
    #[sqlx(rename = "at")]
    pub(crate) time: DateTime<Utc>,
    pub(crate) messages: i32,
    pub(crate) records: Vec<u8>,
    pub(crate) cache_ids: Vec<i64>,
    pub(crate) cache_versions: Vec<i64>,
}

impl Batch {
    /// An empty batch, whose messages all have this time.
    pub fn new(time: DateTime<Utc>) -> Self {
        Self {
            time,
            messages: 0,
            records: Vec::new(),
            cache_ids: Vec::new(),
            cache_versions: Vec::new(),
        }
    }

    /// The time of the batch's messages.
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// Adds a message, in the trace of what caused it: a W3C `traceparent`.
    pub fn publish(&mut self, message: &impl Message, traceparent: Option<&str>) {
        let (key, id, payload) = (message.key(), message.id(), message.encode());
        let stored = Stored {
            topic: message.topic(),
            partition: message.partition(),
            key: &key,
            kind: message.kind(),
            id: &id,
            payload: &payload,
            traceparent,
        };
        wire::write(&mut self.records, &stored);
        self.messages += 1;
    }

    /// Notes that what is cached under `id` has a newer version: caches are told before the
    /// batch's messages go out.
    pub fn changed(&mut self, id: i64, version: i64) {
        self.cache_ids.push(id);
        self.cache_versions.push(version);
    }

    /// How many messages it has.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.messages).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.messages == 0 && self.cache_ids.is_empty()
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
    /// Writes the batch into the transaction, commits it and publishes the batch.
    pub async fn commit(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        batch: Batch,
    ) -> Result<(), CommitError> {
        if batch.is_empty() {
            return database::commit(transaction).await;
        }
        let lease = self.lease_for(&batch);
        let row = insert(INSERT, lease.as_deref(), &batch).fetch_one(&mut *transaction).await;
        let row = row.map_err(CommitError::RolledBack)?;
        crash::point("outbox.before_commit");
        let in_doubt = InDoubt(lease);
        let committed = database::commit(transaction).await;
        in_doubt.settle(row, batch, committed)
    }

    /// The same in one round trip: a statement that commits by itself. `effects` are the common
    /// table expressions that change the state, with parameters from [`FIRST_PARAMETER`] on, which
    /// `bind` binds. `$2` is the time of the batch. All of it happens, or none.
    pub async fn commit_at_once(
        &self,
        connection: &mut PgConnection,
        effects: &str,
        bind: impl for<'q> FnOnce(Insert<'q>) -> Insert<'q>,
        batch: Batch,
    ) -> Result<(), CommitError> {
        let lease = self.lease_for(&batch);
        let sql = AssertSqlSafe(format!("WITH {effects} {INSERT}"));
        let insert = bind(insert(sql, lease.as_deref(), &batch));
        let in_doubt = InDoubt(lease);
        let (row, committed) = match insert.fetch_one(connection).await {
            Ok(row) => (row, Ok(())),
            Err(error) => (0, Err(database::of_commit(error))),
        };
        in_doubt.settle(row, batch, committed)
    }

    /// Messages that wait to be published, as counted within the last second: what admission
    /// control bounds while the broker is away. What is written in that second goes over a bound;
    /// to be exact, every writer would have to hear of every other's.
    pub fn waiting(&self) -> i64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether messages of these times are still among those that wait: written, and not known to be
    /// published. A row is deleted up to half a second after it was published. Of more than
    /// a thousand rows the oldest are looked at, and what is younger than they are counts as waiting.
    pub async fn may_hold(
        connection: &mut PgConnection,
        times: &[DateTime<Utc>],
    ) -> sqlx::Result<bool> {
        sqlx::query_scalar(
            "SELECT coalesce(bool_or(at = ANY($1)) OR count(*) = $2 AND max(at) <= ANY($1), false) \
             FROM (SELECT at FROM sagabus.outbox ORDER BY id LIMIT $2) oldest",
        )
        .bind(times)
        .bind(LOOKED_AT)
        .fetch_one(connection)
        .await
    }

    pub(crate) fn set_waiting(&self, messages: i64) {
        self.0.waiting.store(messages, Ordering::Relaxed);
    }

    /// The lease under which the batch is written. Without one it is anybody's: its row is read back
    /// by whoever has room for it.
    fn lease_for(&self, batch: &Batch) -> Option<Arc<LeaseHeld>> {
        let lease = self.0.lease.read().clone()?;
        lease.has_room(batch.count()).then_some(lease)
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
        .bind(batch.messages)
        .bind(&batch.records)
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
        committed: Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        if matches!(committed, Err(CommitError::Unconfirmed(_))) {
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
