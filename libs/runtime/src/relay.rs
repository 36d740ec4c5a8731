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

mod dead_letter;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use ordersaga_contract::{Fact, OrderId, Topic, cloud_event, partition_of};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};
use rdkafka::message::{Header, OwnedHeaders};
use sqlx::FromRow;
use sqlx::postgres::PgPool;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::config::KafkaConfig;
use crate::crash;
use crate::health::Dependency;
use crate::outbox::{Batch, Outbox, Published};
use crate::postgres::{Lease as Connection, within};
use crate::producer::{Outgoing, Publisher};
use crate::trace;

/// How often the lease is renewed, what waits is counted, and rows are deleted and taken over.
const LOOK: Duration = Duration::from_millis(500);
/// How long a lease lasts after it was renewed.
const TERM: Duration = Duration::from_millis(1_400);
/// Events on their way to the broker from memory, at the most: it bounds memory. What comes while
/// there are more is left to the table, and read back when there is room.
const IN_FLIGHT: usize = 50_000;
/// Rows taken over by one statement. A row is a batch of up to two thousand events.
const ADOPTED_ROWS: i64 = 32;
/// How long a stopping relay waits for the broker, and how often it looks meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_LOOK: Duration = Duration::from_millis(20);
/// A lease that was held for so long was lost by chance: the next is taken at once.
const LONG: Duration = Duration::from_secs(10);
/// How long the statements of a look may take.
const LIMIT: Duration = Duration::from_secs(8);

static WAITING: LazyLock<IntGauge> = LazyLock::new(|| {
    prometheus::register_int_gauge!("outbox_pending", "Events committed and not yet published.")
        .expect("registered once")
});
static OLDEST: LazyLock<Gauge> = LazyLock::new(|| {
    prometheus::register_gauge!(
        "outbox_oldest_seconds",
        "Age of the oldest event not yet published; 0 if there is none."
    )
    .expect("registered once")
});
static PUBLISHED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    prometheus::register_int_counter_vec!(
        "outbox_published_total",
        "Events handed to the broker, repetitions included.",
        &["topic"]
    )
    .expect("registered once")
});
static LEASE: LazyLock<IntGauge> = LazyLock::new(|| {
    prometheus::register_int_gauge!(
        "outbox_lease",
        "1 while this instance holds a lease to publish what it commits, else 0."
    )
    .expect("registered once")
});
static ADOPTED: LazyLock<IntCounter> = LazyLock::new(|| {
    prometheus::register_int_counter!(
        "outbox_adopted_rows_total",
        "Rows of the outbox taken over from an instance whose lease has ended."
    )
    .expect("registered once")
});

/// Told of changed things before the events of the change go out, and again after a crash between.
pub trait Invalidate: Send + Sync + 'static {
    /// Makes caches forget what is older than the given versions (`id`, `version`).
    fn invalidate(
        &self,
        changed: Vec<(i64, i64)>,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + '_>>;
}

/// The relay of one process.
pub struct Relay {
    /// The database of the outbox.
    pub pool: PgPool,
    /// The outbox as the writers of this process see it.
    pub outbox: Outbox,
    /// The broker.
    pub kafka: KafkaConfig,
    /// The service, as `ce_source` names it.
    pub source: String,
    /// How the producer's state shows.
    pub broker: Dependency,
    /// Caches to tell of changes.
    pub caches: Option<Arc<dyn Invalidate>>,
}

/// What a look found.
#[derive(FromRow)]
struct Seen {
    /// Events that wait, and the age of the oldest in seconds.
    events: i64,
    oldest: f64,
    /// Rows whose lease nobody holds.
    orphans: i64,
    /// Of all processes that hold a lease, this one sends the dead letters.
    leads: bool,
}

impl Relay {
    /// Publishes until `stop` is cancelled and everything committed by then is published, if the
    /// broker takes it in time; another process, or the next start, finds what is left.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        LazyLock::force(&LEASE);
        LazyLock::force(&ADOPTED);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut publisher = Arc::new(Publisher::new(&self.kafka, self.broker.clone())?);
        publisher.learn(self.topics().to_vec()).await;
        let mut begun = Instant::now();
        while let Err(error) = self.hold(&publisher, &stop).await {
            tracing::warn!(error = format!("{error:#}"), "the relay takes another lease");
            if stop.is_cancelled() {
                break;
            }
            if !publisher.is_sound() {
                publisher.give_up();
                publisher = Arc::new(Publisher::new(&self.kafka, self.broker.clone())?);
            }
            if begun.elapsed() > LONG {
                backoff.reset();
            }
            backoff.wait().await;
            begun = Instant::now();
        }
        Ok(())
    }

    /// The topics of events under their full names, by [`Topic`].
    fn topics(&self) -> [String; 3] {
        Topic::EVENTS.map(|topic| self.kafka.topic(topic))
    }

    /// Takes a lease and keeps it until it is given up or all is done.
    async fn hold(
        &self,
        publisher: &Arc<Publisher>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let lease = Arc::new(LeaseHeld {
            number: fastrand::i64(1..),
            publisher: publisher.clone(),
            topics: self.topics(),
            source: self.source.clone(),
            caches: self.caches.clone(),
            outbox: self.outbox.clone(),
            is_given_up: AtomicBool::new(false),
        });
        let mut letters = None;
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let _published = Publishing(&self.outbox);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // A look that failed may have taken rows over, or forgotten which to delete: whoever holds
            // a lease when this one has ended finds them.
            let seen = within(LIMIT, self.look(&lease)).await?;
            // Only now: rows of a lease that the table lacks would be taken over.
            self.outbox.publish_by(Some(lease.clone()));
            LEASE.set(1);
            letters = letters.filter(|_| seen.leads);
            if seen.leads && letters.is_none() {
                letters = Some(self.letters(publisher));
            }
            ensure!(lease.is_sound(), "a row may be there that this process does not know");
        }
        self.outbox.publish_by(None);
        let give_up = Instant::now() + LAST_WORDS;
        while Instant::now() < give_up && !self.is_at_end(&lease).await? {
            tokio::time::sleep(LAST_LOOK).await;
        }
        within(LIMIT, self.end(&lease)).await
    }

    /// When stopping: whether everything committed by then is acknowledged.
    async fn is_at_end(&self, lease: &Arc<LeaseHeld>) -> anyhow::Result<bool> {
        // Before the look, so that it deletes what has been acknowledged.
        let is_acknowledged = lease.in_flight() == 0;
        let seen = within(LIMIT, self.look(lease)).await?;
        ensure!(lease.is_sound(), "the broker did not take a record");
        Ok(is_acknowledged && seen.orphans == 0)
    }

    /// Renews the lease, deletes what is published, counts what waits, and takes over what nobody
    /// publishes.
    async fn look(&self, lease: &Arc<LeaseHeld>) -> anyhow::Result<Seen> {
        let mut connection = Connection::take(&self.pool).await?;
        let published = self.outbox.take_published();
        if !published.is_empty() {
            crash::point("relay.after_publish");
            let (rows, leases): (Vec<_>, Vec<_>) =
                published.iter().map(|published| (published.row, published.lease)).unzip();
            let delete = sqlx::query(
                "DELETE FROM outbox o USING unnest($1::bigint[], $2::bigint[]) p (id, lease) \
                 WHERE o.id = p.id AND o.lease = p.lease",
            );
            let delete = delete.bind(rows).bind(leases).execute(&mut *connection);
            delete.await.context("deleting published events")?;
        }
        let seen: Seen = sqlx::query_as(
            "WITH ended AS (DELETE FROM outbox_lease WHERE lease = ANY(ARRAY( \
                                SELECT lease FROM outbox_lease WHERE lease <> $1 AND ends_at < now() \
                                FOR UPDATE SKIP LOCKED))), \
                  renewed AS (INSERT INTO outbox_lease (lease, ends_at) \
                              VALUES ($1, now() + $2 * interval '1 second') \
                              ON CONFLICT (lease) DO UPDATE SET ends_at = excluded.ends_at) \
             SELECT coalesce(sum(o.events), 0) AS events, \
                    greatest(coalesce(extract(epoch FROM now() - min(o.at)), 0), 0)::float8 AS oldest, \
                    count(*) FILTER (WHERE o.id IS NOT NULL AND l.lease IS NULL \
                                           AND o.lease IS DISTINCT FROM $1) AS orphans, \
                    $1 <= ALL (SELECT lease FROM outbox_lease WHERE ends_at > now()) AS leads \
             FROM outbox o LEFT JOIN outbox_lease l ON l.lease = o.lease AND l.ends_at > now()",
        )
        .bind(lease.number)
        .bind(TERM.as_secs_f64())
        .fetch_one(&mut *connection)
        .await
        .context("renewing the lease")?;
        self.outbox.set_waiting(seen.events);
        WAITING.set(seen.events);
        OLDEST.set(seen.oldest);
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
    async fn adopt(
        &self,
        connection: &mut Connection,
        lease: &Arc<LeaseHeld>,
    ) -> anyhow::Result<i64> {
        let rows: Vec<Adopted> = sqlx::query_as(
            "UPDATE outbox SET lease = $1 WHERE id = ANY(ARRAY( \
                 SELECT id FROM outbox o WHERE lease IS DISTINCT FROM $1 AND NOT EXISTS ( \
                     SELECT FROM outbox_lease l WHERE l.lease = o.lease AND l.ends_at > now()) \
                 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)) \
             RETURNING id, at, facts, order_ids, payloads, traceparents, cache_ids, cache_versions",
        )
        .bind(lease.number)
        .bind(ADOPTED_ROWS)
        .fetch_all(&mut **connection)
        .await
        .context("taking rows over")?;
        let count = rows.len();
        tracing::info!(rows = count, "taking over what nobody publishes");
        ADOPTED.inc_by(count as u64);
        for row in rows {
            lease.publish(row.id, row.batch);
        }
        Ok(i64::try_from(count)?)
    }

    /// Lets others take over at once what is left.
    async fn end(&self, lease: &LeaseHeld) -> anyhow::Result<()> {
        let mut connection = Connection::take(&self.pool).await?;
        let end = sqlx::query("DELETE FROM outbox_lease WHERE lease = $1").bind(lease.number);
        end.execute(&mut *connection).await.context("ending the lease")?;
        connection.keep();
        Ok(())
    }

    fn letters(&self, publisher: &Arc<Publisher>) -> AbortOnDropHandle<()> {
        let letters = dead_letter::Letters {
            pool: self.pool.clone(),
            publisher: publisher.clone(),
            topic: self.kafka.topic(Topic::DeadLetter),
            consumer: self.source.clone(),
        };
        AbortOnDropHandle::new(tokio::spawn(letters.run()))
    }
}

#[derive(FromRow)]
struct Adopted {
    id: i64,
    #[sqlx(flatten)]
    batch: Batch,
}

/// While this lives, batches are published from memory.
struct Publishing<'a>(&'a Outbox);

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.publish_by(None);
        LEASE.set(0);
    }
}

/// A lease, and what publishes under it.
pub(crate) struct LeaseHeld {
    number: i64,
    publisher: Arc<Publisher>,
    /// The topics of events under their full names, by [`Topic`].
    topics: [String; 3],
    source: String,
    caches: Option<Arc<dyn Invalidate>>,
    outbox: Outbox,
    /// It is not to be renewed: others are to look for its rows.
    is_given_up: AtomicBool,
}

impl LeaseHeld {
    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    /// Whether as many events more may be on their way.
    pub(crate) fn has_room(&self, events: usize) -> bool {
        !self.is_given_up.load(Ordering::Acquire) && self.in_flight() + events <= IN_FLIGHT
    }

    fn in_flight(&self) -> usize {
        self.publisher.in_flight.load(Ordering::Acquire)
    }

    fn is_sound(&self) -> bool {
        !self.is_given_up.load(Ordering::Acquire) && self.publisher.is_sound()
    }

    /// Lets the lease end, so that all of its rows are looked for.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// Publishes a committed row, behind what it means to caches.
    pub(crate) fn publish(self: &Arc<Self>, row: i64, batch: Batch) {
        crash::point("relay.before_publish");
        self.publisher.in_flight.fetch_add(batch.events(), Ordering::AcqRel);
        let changed = batch.cache_ids.iter().copied().zip(batch.cache_versions.iter().copied());
        let changed: Vec<_> = changed.collect();
        match &self.caches {
            Some(caches) if !changed.is_empty() => {
                let (lease, caches) = (self.clone(), caches.clone());
                tokio::spawn(async move {
                    match caches.invalidate(changed).await {
                        Ok(()) => lease.send(row, &batch),
                        Err(error) => lease.settle(row, batch.events(), Err(error)),
                    }
                });
            }
            _ => self.send(row, &batch),
        }
    }

    fn send(self: &Arc<Self>, row: i64, batch: &Batch) {
        let events = batch.events();
        let keys = match keys(batch) {
            Ok(keys) => keys,
            Err(error) => return self.settle(row, events, Err(error)),
        };
        let time = cloud_event::time(batch.time);
        let mut sending = Vec::new();
        let records = keys.iter().zip(&batch.payloads).zip(&batch.traceparents);
        let records = records.map(|(((order, fact, key), payload), traceparent)| {
            let topic = &self.topics[fact.topic() as usize];
            let span = trace::Sending::begin(topic, *order, traceparent.as_deref());
            let own = span.as_ref().map(trace::Sending::traceparent);
            sending.extend(span);
            let traceparent = own.as_deref().or(traceparent.as_deref());
            Outgoing {
                topic,
                partition: Some(partition_of(*order)),
                key: Some(key.as_bytes()),
                payload: Some(payload),
                headers: headers(*order, *fact, &self.source, &time, traceparent),
            }
        });
        let records: Vec<_> = records.collect();
        let lease = self.clone();
        self.publisher.publish(records, move |outcome| {
            if let Err(error) = &outcome {
                for span in &mut sending {
                    span.fail(&error.to_string());
                }
            }
            lease.settle(row, events, outcome);
        });
        for topic in Topic::EVENTS {
            let events = keys.iter().filter(|(_, fact, _)| fact.topic() == topic).count();
            PUBLISHED.with_label_values(&[topic.name()]).inc_by(events as u64);
        }
    }

    fn settle(&self, row: i64, events: usize, outcome: anyhow::Result<()>) {
        self.publisher.in_flight.fetch_sub(events, Ordering::AcqRel);
        match outcome {
            Ok(()) => self.outbox.published(Published { row, lease: self.number }),
            Err(error) => {
                tracing::debug!(row, error = format!("{error:#}"), "events are published again");
                self.give_up();
            }
        }
    }
}

/// What each event is about, and its record's key.
fn keys(batch: &Batch) -> anyhow::Result<Vec<(OrderId, Fact, String)>> {
    let events = batch.order_ids.iter().zip(&batch.facts);
    let keys = events.map(|(order, fact)| {
        let fact = Fact::from_code(*fact).context("an unknown fact in the outbox")?;
        let order = OrderId::try_from(*order).context("a bad order id in the outbox")?;
        Ok((order, fact, order.to_string()))
    });
    keys.collect()
}

fn headers(
    order: OrderId,
    fact: Fact,
    source: &str,
    time: &str,
    traceparent: Option<&str>,
) -> OwnedHeaders {
    let id = cloud_event::id(order, fact);
    let mut headers = OwnedHeaders::new_with_capacity(7);
    for (key, value) in [
        (cloud_event::SPEC_VERSION, "1.0"),
        (cloud_event::ID, &id),
        (cloud_event::TYPE, cloud_event::event_type(fact)),
        (cloud_event::SOURCE, source),
        (cloud_event::TIME, time),
        (cloud_event::CONTENT_TYPE, "application/json"),
    ]
    .into_iter()
    .chain(traceparent.map(|value| (cloud_event::TRACEPARENT, value)))
    {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    headers
}
