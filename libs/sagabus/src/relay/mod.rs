//! The relay: sees to it that everything in the outbox is published. A crash anywhere repeats events
//! and never loses or skips one.
//!
//! Each process holds a *lease*, a number with a time at which it ends, and renews it. What the
//! process commits it publishes itself, from memory; the rows name the lease. Rows whose lease has
//! ended, since the process died or was frozen or may not know of a row of its own, are taken over
//! by whichever process finds them first, [`TERM`] and a [`LOOK`] later at the latest. A process that
//! was frozen and goes on may publish once more what another has taken over: the events were
//! committed, and change nothing when said again.
//!
//! Published rows are deleted in bulk, within a look. Deleting them late repeats nothing: only a
//! process that takes rows over reads them.

mod dead_letters;
mod lease;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::FromRow;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::bus::Inner;
use crate::database::within;
use crate::error::with_sources;
use crate::outbox::Batch;
use crate::producer::Publisher;
use crate::{BoxError, Checkout, Error, Watcher, crash};
pub(crate) use lease::LeaseHeld;

/// How often the lease is renewed, what waits is counted, and rows are deleted and taken over.
const LOOK: Duration = Duration::from_millis(500);
/// How long a lease lasts after it was renewed.
const TERM: Duration = Duration::from_millis(1_400);
/// Rows taken over by one statement. A row is a batch of up to two thousand messages.
const ADOPTED_ROWS: i64 = 32;
/// How long a stopping relay waits for the broker, and how often it looks meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_LOOK: Duration = Duration::from_millis(20);
/// A lease that was held for so long was lost by chance: the next is taken at once.
const LONG: Duration = Duration::from_secs(10);
/// How long the statements of a look may take.
const LIMIT: Duration = Duration::from_secs(8);

/// Told of changed things before the events of the change go out, and again after a crash between.
pub trait Invalidate: Send + Sync + 'static {
    /// Makes caches forget what is older than the given versions (`id`, `version`).
    fn invalidate(&self, changed: Vec<(i64, i64)>) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// The relay of one process.
pub struct Relay {
    bus: Arc<Inner>,
    broker: Arc<dyn Watcher>,
    caches: Option<Arc<dyn Invalidate>>,
    topics: Vec<String>,
}

/// What a look found.
#[derive(FromRow)]
struct Seen {
    /// Messages that wait, and the age of the oldest in seconds.
    waiting: i64,
    oldest: f64,
    /// Rows whose lease nobody holds, of the form that this version reads.
    orphans: i64,
    /// Of all processes that hold a lease, this one sends the dead letters.
    leads: bool,
}

impl Relay {
    pub(crate) fn new(bus: Arc<Inner>) -> Self {
        Self { bus, broker: Arc::new(()), caches: None, topics: Vec::new() }
    }

    /// Told of the broker, as the producer sees it.
    #[must_use]
    pub fn watched_by(mut self, watcher: impl Watcher) -> Self {
        self.broker = Arc::new(watcher);
        self
    }

    /// Caches to tell of changes.
    #[must_use]
    pub fn invalidating(mut self, caches: Arc<dyn Invalidate>) -> Self {
        self.caches = Some(caches);
        self
    }

    /// Topics whose partitions are learnt at the start, so that the first message does not wait for it.
    #[must_use]
    pub fn learning(mut self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for topic in topics {
            // A counter that is first seen at 1 has not risen, to whoever watches it.
            self.bus.metrics.published.with_label_values(&[topic.as_ref()]);
            self.topics.push(self.bus.full_name(topic.as_ref()));
        }
        self
    }

    /// Publishes until `stop` is cancelled and everything committed by then is published, if the
    /// broker takes it in time; another process, or the next start, finds what is left.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut publisher = self.publisher()?;
        publisher.learn(self.topics.clone()).await;
        let mut begun = Instant::now();
        while let Err(error) = self.hold(&publisher, &stop).await {
            tracing::warn!(error = with_sources(&error), "the relay takes another lease");
            if stop.is_cancelled() {
                break;
            }
            if !publisher.is_sound() {
                publisher.give_up();
                publisher = self.publisher()?;
            }
            if begun.elapsed() > LONG {
                backoff.reset();
            }
            backoff.wait().await;
            begun = Instant::now();
        }
        publisher.give_up();
        Ok(())
    }

    fn publisher(&self) -> Result<Arc<Publisher>, Error> {
        Ok(Arc::new(Publisher::new(&self.bus.kafka, self.broker.clone())?))
    }

    /// Takes a lease and keeps it until it is given up or all is done.
    async fn hold(
        &self,
        publisher: &Arc<Publisher>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let (metrics, outbox) = (&self.bus.metrics, &self.bus.outbox);
        let lease =
            Arc::new(LeaseHeld::new(self.bus.clone(), publisher.clone(), self.caches.clone()));
        let mut letters = None;
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let _published = Publishing(&self.bus);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // A look that failed may have taken rows over, or forgotten which to delete: whoever holds
            // a lease when this one has ended finds them.
            let seen = within(LIMIT, self.look(&lease)).await?;
            // Only now: rows of a lease that the table lacks would be taken over.
            outbox.publish_by(Some(lease.clone()));
            metrics.lease.set(1);
            letters = letters.filter(|_| seen.leads);
            if seen.leads && letters.is_none() {
                letters = Some(self.letters(publisher));
            }
            ensure_sound(&lease, "a row may be there that this process does not know")?;
        }
        outbox.publish_by(None);
        let give_up = Instant::now() + LAST_WORDS;
        while Instant::now() < give_up && !self.is_at_end(&lease).await? {
            tokio::time::sleep(LAST_LOOK).await;
        }
        within(LIMIT, self.end(&lease)).await
    }

    /// When stopping: whether everything committed by then is acknowledged.
    async fn is_at_end(&self, lease: &Arc<LeaseHeld>) -> Result<bool, Error> {
        // Before the look, so that it deletes what has been acknowledged.
        let is_acknowledged = lease.in_flight() == 0;
        let seen = within(LIMIT, self.look(lease)).await?;
        ensure_sound(lease, "the broker did not take a record")?;
        Ok(is_acknowledged && seen.orphans == 0)
    }

    /// Renews the lease, deletes what is published, counts what waits, and takes over what nobody
    /// publishes.
    async fn look(&self, lease: &Arc<LeaseHeld>) -> Result<Seen, Error> {
        let mut connection = Checkout::take(&self.bus.pool).await?;
        let published = self.bus.outbox.take_published();
        if !published.is_empty() {
            crash::point("relay.after_publish");
            let (rows, leases): (Vec<_>, Vec<_>) =
                published.iter().map(|published| (published.row, published.lease)).unzip();
            let delete = sqlx::query(
                "DELETE FROM sagabus.outbox o USING unnest($1::bigint[], $2::bigint[]) p (id, lease) \
                 WHERE o.id = p.id AND o.lease = p.lease",
            );
            let delete = delete.bind(rows).bind(leases).execute(&mut *connection);
            delete.await?;
        }
        let seen: Seen = sqlx::query_as(
            "WITH ended AS (DELETE FROM sagabus.outbox_lease WHERE lease = ANY(ARRAY( \
                                SELECT lease FROM sagabus.outbox_lease WHERE lease <> $1 AND ends_at < now() \
                                FOR UPDATE SKIP LOCKED))), \
                  renewed AS (INSERT INTO sagabus.outbox_lease (lease, ends_at) \
                              VALUES ($1, now() + $2 * interval '1 second') \
                              ON CONFLICT (lease) DO UPDATE SET ends_at = excluded.ends_at) \
             SELECT coalesce(sum(o.messages), 0) AS waiting, \
                    greatest(coalesce(extract(epoch FROM now() - min(o.at)), 0), 0)::float8 AS oldest, \
                    count(*) FILTER (WHERE o.id IS NOT NULL AND l.lease IS NULL \
                                           AND o.lease IS DISTINCT FROM $1 \
                                           AND substr(o.records, 1, 1) IN ('', '\\x01')) AS orphans, \
                    $1 <= ALL (SELECT lease FROM sagabus.outbox_lease WHERE ends_at > now()) AS leads \
             FROM sagabus.outbox o LEFT JOIN sagabus.outbox_lease l ON l.lease = o.lease AND l.ends_at > now()",
        )
        .bind(lease.number())
        .bind(TERM.as_secs_f64())
        .fetch_one(&mut *connection)
        .await?;
        self.bus.outbox.set_waiting(seen.waiting);
        self.bus.metrics.outbox_pending.set(seen.waiting);
        self.bus.metrics.outbox_oldest.set(seen.oldest);
        // Not for longer than the lease lasts.
        let (mut left, begun) = (seen.orphans, Instant::now());
        while left > 0 && lease.has_room(0) && begun.elapsed() < LOOK {
            let rows = self.adopt(&mut connection, lease).await?;
            left = if rows == 0 { 0 } else { left - rows };
        }
        connection.keep();
        Ok(seen)
    }

    /// Takes over some rows and publishes them; how many.
    async fn adopt(&self, connection: &mut Checkout, lease: &Arc<LeaseHeld>) -> Result<i64, Error> {
        let rows: Vec<Adopted> = sqlx::query_as(
            "UPDATE sagabus.outbox SET lease = $1 WHERE id = ANY(ARRAY( \
                 SELECT id FROM sagabus.outbox o WHERE lease IS DISTINCT FROM $1 \
                     AND substr(records, 1, 1) IN ('', '\\x01') AND NOT EXISTS ( \
                     SELECT FROM sagabus.outbox_lease l WHERE l.lease = o.lease AND l.ends_at > now()) \
                 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)) \
             RETURNING id, at, messages, records, cache_ids, cache_versions",
        )
        .bind(lease.number())
        .bind(ADOPTED_ROWS)
        .fetch_all(&mut **connection)
        .await?;
        let count = rows.len();
        tracing::info!(rows = count, "taking over what nobody publishes");
        self.bus.metrics.adopted_rows.inc_by(count as u64);
        for row in rows {
            lease.publish(row.id, row.batch);
        }
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Lets others take over at once what is left.
    async fn end(&self, lease: &LeaseHeld) -> Result<(), Error> {
        let mut connection = Checkout::take(&self.bus.pool).await?;
        let end =
            sqlx::query("DELETE FROM sagabus.outbox_lease WHERE lease = $1").bind(lease.number());
        end.execute(&mut *connection).await?;
        connection.keep();
        Ok(())
    }

    fn letters(&self, publisher: &Arc<Publisher>) -> AbortOnDropHandle<()> {
        let letters = dead_letters::Letters { bus: self.bus.clone(), publisher: publisher.clone() };
        AbortOnDropHandle::new(tokio::spawn(letters.run()))
    }
}

fn ensure_sound(lease: &LeaseHeld, why: &str) -> Result<(), Error> {
    if lease.is_sound() { Ok(()) } else { Err(Error::other(why)) }
}

#[derive(FromRow)]
struct Adopted {
    id: i64,
    #[sqlx(flatten)]
    batch: Batch,
}

/// While this lives, batches are published from memory.
struct Publishing<'a>(&'a Inner);

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.outbox.publish_by(None);
        self.0.metrics.lease.set(0);
    }
}
