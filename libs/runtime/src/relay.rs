//! The relay: publishes what the outbox holds and deletes it behind the acknowledgements. A crash
//! anywhere repeats events and never loses or skips one.
//!
//! One process relays per database, held by an advisory lock on the relay's own connection; another
//! instance waits for the lock and takes over the moment that connection ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use futures_util::future::OptionFuture;
use ordersaga_contract::{Fact, OrderId, Topic, cloud_event, partition_of};
use prometheus::{Gauge, IntCounterVec, IntGauge};
use rdkafka::message::{Header, OwnedHeaders};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool};
use sqlx::{Connection, FromRow};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::config::KafkaConfig;
use crate::crash;
use crate::health::Dependency;
use crate::outbox::{CHANNEL, Outbox};
use crate::producer::{Delivery, Outgoing, Publisher};

/// Rows fetched at once, and rows that may be on their way to the broker at once. A row is a batch
/// of up to a thousand events, so this bounds memory, not throughput.
const FETCH_ROWS: usize = 8;
const ROWS_IN_FLIGHT: usize = 32;
/// Published rows are deleted this much later at the latest, so that one commit deletes many.
const DELETE_DELAY: Duration = Duration::from_millis(50);
/// How soon the relay looks again after a look that found nothing, at first and at the latest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const SWEEP: Duration = Duration::from_secs(1);
/// The advisory lock of the active relay ("outbox" as a number).
const LOCK: i64 = 0x6f75_7462_6f78;

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

/// Told of changed things before the events of the change go out, and again after a crash between.
pub trait Invalidate: Send + Sync + 'static {
    /// Makes caches forget what is older than the given versions (`id`, `version`).
    fn invalidate(
        &self,
        changed: Vec<(i64, i64)>,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + '_>>;
}

/// The relay of one database.
pub struct Relay {
    /// Where the outbox is; the relay opens connections of its own.
    pub database: PgConnectOptions,
    /// The pool for what is not bound to the relay's connection.
    pub pool: PgPool,
    /// The outbox as the writers of this process see it.
    pub outbox: Outbox,
    /// The broker.
    pub kafka: KafkaConfig,
    /// The service, as `ce_source` names it.
    pub source: &'static str,
    /// How the producer's state shows.
    pub broker: Dependency,
    /// Caches to tell of changes.
    pub caches: Option<Arc<dyn Invalidate>>,
}

impl Relay {
    /// Relays until `stop` is cancelled and everything committed by then is published.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let _counting = AbortOnDropHandle::new(tokio::spawn(count_waiting(
            self.pool.clone(),
            self.outbox.clone(),
        )));
        while let Err(error) = self.lead(&stop).await {
            tracing::warn!(error = format!("{error:#}"), "the relay starts again");
            if stop.is_cancelled() {
                // The next start finds what is left.
                return Ok(());
            }
            backoff.wait().await;
        }
        Ok(())
    }

    /// Waits to be the one that relays and then is, until something breaks or all is done.
    async fn lead(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let publisher = Publisher::new(&self.kafka, self.broker.clone())?;
        // The wait for the lock and an idle relay are no runaway statements.
        let options = self.database.clone().options([("statement_timeout", "0")]);
        let mut connection = PgConnection::connect_with(&options).await?;
        let lock = sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK);
        tokio::select! {
            locked = lock.execute(&mut connection) => locked.context("the relay's lock")?,
            () = stop.cancelled() => return Ok(()),
        };
        let _relaying = self.outbox.relaying();
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        let outbox = self.outbox.clone();
        let _listening = AbortOnDropHandle::new(tokio::spawn(async move {
            while listener.recv().await.is_ok() {
                outbox.committed();
            }
        }));
        tracing::info!("relaying the outbox");
        Drain {
            relay: self,
            publisher,
            connection,
            cursor: Cursor::default(),
            in_flight: VecDeque::new(),
            published: None,
        }
        .run(stop)
        .await
    }
}

/// A row's place in commit order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    tx: i64,
    id: i64,
}

#[derive(FromRow)]
struct Row {
    tx: i64,
    id: i64,
    at: DateTime<Utc>,
    facts: Vec<i16>,
    order_ids: Vec<i64>,
    payloads: Vec<Vec<u8>>,
    traceparents: Vec<Option<String>>,
    cache_ids: Vec<i64>,
    cache_versions: Vec<i64>,
}

struct Drain<'a> {
    relay: &'a Relay,
    publisher: Publisher,
    connection: PgConnection,
    /// The last row enqueued.
    cursor: Cursor,
    in_flight: VecDeque<(Cursor, Arc<Delivery>)>,
    /// The last row acknowledged with all before it, and when it is to be deleted.
    published: Option<(Cursor, Instant)>,
}

impl Drain<'_> {
    async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut look = true;
        // A commit wakes the relay a moment before its row sinks below the horizon: it soon looks
        // again, then ever less often.
        let mut pause = FIRST_PAUSE;
        let mut sweep_at = Instant::now();
        loop {
            if Instant::now() >= sweep_at {
                self.publish_dead_letters().await?;
                sweep_at = Instant::now() + SWEEP;
            }
            if look {
                let rows = self.enqueue().await?;
                if rows > 0 {
                    pause = FIRST_PAUSE;
                }
                look = rows == FETCH_ROWS;
                if rows == 0 && stop.is_cancelled() && self.is_done().await? {
                    return self.delete_published().await;
                }
            }
            let room = self.in_flight.len() < ROWS_IN_FLIGHT;
            if look && room {
                continue;
            }
            let front = self.in_flight.front().map(|(_, delivery)| delivery.clone());
            let acknowledged: OptionFuture<_> = front.map(Delivery::acknowledged).into();
            let delete: OptionFuture<_> =
                self.published.map(|(_, at)| tokio::time::sleep_until(at)).into();
            tokio::select! {
                biased;
                Some(()) = acknowledged => self.take_acknowledged()?,
                Some(()) = delete => self.delete_published().await?,
                () = self.relay.outbox.woken(), if room => (look, pause) = (true, FIRST_PAUSE),
                () = tokio::time::sleep(pause), if room => {
                    (look, pause) = (true, (pause * 2).min(SWEEP));
                }
            }
        }
    }

    /// Reads rows below the horizon, in commit order, and hands their events to the producer.
    async fn enqueue(&mut self) -> anyhow::Result<usize> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT tx::text::bigint AS tx, id, at, facts, order_ids, payloads, traceparents, \
                    cache_ids, cache_versions \
             FROM outbox \
             WHERE (tx, id) > ($1::text::xid8, $2) \
               AND tx < pg_snapshot_xmin(pg_current_snapshot()) \
             ORDER BY tx, id LIMIT $3",
        )
        .bind(self.cursor.tx.to_string())
        .bind(self.cursor.id)
        .bind(i64::try_from(FETCH_ROWS)?)
        .fetch_all(&mut self.connection)
        .await
        .context("reading the outbox")?;
        self.invalidate(&rows).await?;
        if !rows.is_empty() {
            crash::point("relay.before_publish");
        }
        for row in &rows {
            let delivery = self.publish(row).await?;
            self.cursor = Cursor { tx: row.tx, id: row.id };
            self.in_flight.push_back((self.cursor, delivery));
        }
        Ok(rows.len())
    }

    async fn invalidate(&self, rows: &[Row]) -> anyhow::Result<()> {
        let Some(caches) = &self.relay.caches else { return Ok(()) };
        let changed: Vec<_> = rows
            .iter()
            .flat_map(|row| row.cache_ids.iter().copied().zip(row.cache_versions.iter().copied()))
            .collect();
        if changed.is_empty() { Ok(()) } else { caches.invalidate(changed).await }
    }

    async fn publish(&self, row: &Row) -> anyhow::Result<Arc<Delivery>> {
        let time = cloud_event::time(row.at);
        let prefix = &self.relay.kafka.topic_prefix;
        let topics = Topic::EVENTS.map(|topic| format!("{prefix}{topic}"));
        let mut keys = Vec::with_capacity(row.order_ids.len());
        for (order, fact) in row.order_ids.iter().zip(&row.facts) {
            let fact = Fact::from_code(*fact).context("an unknown fact in the outbox")?;
            let order = OrderId::try_from(*order).context("a bad order id in the outbox")?;
            keys.push((order, fact, order.to_string()));
        }
        let records = keys.iter().zip(&row.payloads).zip(&row.traceparents);
        let records = records.map(|(((order, fact, key), payload), traceparent)| Outgoing {
            topic: &topics[fact.topic() as usize],
            partition: Some(partition_of(*order)),
            key: Some(key.as_bytes()),
            payload: Some(payload),
            headers: headers(*order, *fact, self.relay.source, &time, traceparent.as_deref()),
        });
        let delivery = self.publisher.publish(records.collect()).await?;
        for topic in Topic::EVENTS {
            let events = keys.iter().filter(|(_, fact, _)| fact.topic() == topic).count();
            PUBLISHED.with_label_values(&[topic.name()]).inc_by(events as u64);
        }
        Ok(delivery)
    }

    fn take_acknowledged(&mut self) -> anyhow::Result<()> {
        while let Some((cursor, delivery)) = self.in_flight.front() {
            let Some(outcome) = delivery.outcome() else { break };
            outcome?;
            let due = self.published.map_or_else(|| Instant::now() + DELETE_DELAY, |(_, due)| due);
            self.published = Some((*cursor, due));
            self.in_flight.pop_front();
        }
        Ok(())
    }

    async fn delete_published(&mut self) -> anyhow::Result<()> {
        let Some((cursor, _)) = self.published.take() else { return Ok(()) };
        crash::point("relay.after_publish");
        sqlx::query("DELETE FROM outbox WHERE (tx, id) <= ($1::text::xid8, $2)")
            .bind(cursor.tx.to_string())
            .bind(cursor.id)
            .execute(&mut self.connection)
            .await
            .context("deleting published events")?;
        Ok(())
    }

    /// Whether everything is acknowledged and nothing more is coming, visible yet or not.
    async fn is_done(&mut self) -> anyhow::Result<bool> {
        if !self.in_flight.is_empty() {
            return Ok(false);
        }
        let left: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM outbox WHERE (tx, id) > ($1::text::xid8, $2))",
        )
        .bind(self.cursor.tx.to_string())
        .bind(self.cursor.id)
        .fetch_one(&mut self.connection)
        .await?;
        Ok(!left)
    }

    async fn publish_dead_letters(&mut self) -> anyhow::Result<()> {
        let letters: Vec<DeadLetter> = sqlx::query_as(
            "SELECT id, topic, partition, \"offset\", key, payload, header_names, header_values, \
                    error, at \
             FROM dead_letter ORDER BY id LIMIT 500",
        )
        .fetch_all(&mut self.connection)
        .await?;
        if letters.is_empty() {
            return Ok(());
        }
        let topic = format!("{}{}", self.relay.kafka.topic_prefix, Topic::DeadLetter);
        let records = letters.iter().map(|letter| letter.record(&topic, self.relay.source));
        let delivery = self.publisher.publish(records.collect()).await?;
        delivery.clone().acknowledged().await;
        delivery.outcome().unwrap_or(Ok(()))?;
        PUBLISHED.with_label_values(&[Topic::DeadLetter.name()]).inc_by(letters.len() as u64);
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        sqlx::query("DELETE FROM dead_letter WHERE id = ANY($1)")
            .bind(ids)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
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

#[derive(FromRow)]
struct DeadLetter {
    id: i64,
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    header_names: Vec<String>,
    header_values: Vec<Option<Vec<u8>>>,
    error: String,
    at: DateTime<Utc>,
}

impl DeadLetter {
    /// The record as it was, its own headers first, then where it came from and what was wrong.
    fn record<'a>(&'a self, topic: &'a str, source: &str) -> Outgoing<'a> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in self.header_names.iter().zip(&self.header_values) {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        for (key, value) in [
            ("dead-letter-topic", self.topic.as_str()),
            ("dead-letter-partition", &self.partition.to_string()),
            ("dead-letter-offset", &self.offset.to_string()),
            ("dead-letter-error", &self.error),
            ("dead-letter-consumer", source),
            ("dead-letter-time", &cloud_event::time(self.at)),
        ] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        Outgoing {
            topic,
            partition: None,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers,
        }
    }
}

/// Counts once a second what waits: for the metrics, and for admission control.
async fn count_waiting(pool: PgPool, outbox: Outbox) {
    loop {
        let counted: sqlx::Result<(i64, f64)> = sqlx::query_as(
            "SELECT coalesce(sum(events), 0), \
                    coalesce(extract(epoch FROM now() - min(at)), 0)::float8 \
             FROM outbox",
        )
        .fetch_one(&pool)
        .await;
        if let Ok((events, oldest)) = counted {
            outbox.set_waiting(events);
            WAITING.set(events);
            OLDEST.set(oldest.max(0.0));
        }
        tokio::time::sleep(SWEEP).await;
    }
}
