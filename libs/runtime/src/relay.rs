//! The relay: publishes what the outbox holds and deletes it behind the acknowledgements. A crash
//! anywhere repeats events and never loses or skips one.
//!
//! One process relays per database: the one that holds an advisory lock on the relay's own
//! connection. Another instance takes over as soon as that connection ends. Postgres ends it when it
//! has heard nothing for [`postgres::SILENCE`], so that a process that is frozen does not keep the
//! lock: the relay says something every `BEAT`, whatever else it waits for.
//!
//! One that was frozen and goes on may publish once more what it had read, which was committed and
//! changes nothing when said again. It deletes no event: that takes the connection it has lost. A
//! dead letter may be sent twice.

mod dead_letter;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use futures_util::future::OptionFuture;
use ordersaga_contract::{Fact, OrderId, Topic, cloud_event, partition_of};
use prometheus::{Gauge, IntCounterVec, IntGauge};
use rdkafka::message::{Header, OwnedHeaders};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection, FromRow};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::config::KafkaConfig;
use crate::crash;
use crate::health::Dependency;
use crate::outbox::{self, CHANNEL, Outbox};
use crate::pace::{self, Pace};
use crate::postgres::{self, Lease, within};
use crate::producer::{Delivery, Outgoing, Publisher};
use crate::trace;

/// Rows fetched at once, and rows that may be on their way to the broker at once. A row is a batch
/// of up to a thousand events, so this bounds memory; of a few events each, many rows come between
/// two looks.
const FETCH_ROWS: usize = 64;
const ROWS_IN_FLIGHT: usize = 256;
/// Published rows are deleted this much later at the latest, so that one commit deletes many.
const DELETE_DELAY: Duration = Duration::from_millis(50);
/// How soon the relay looks again after a look that found nothing, at first and at the latest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// How often the database hears of the relay, by such a look or by [`beat`], at the least.
const BEAT: Duration = Duration::from_millis(500);
/// How often what waits is counted.
const COUNT: Duration = Duration::from_secs(1);
/// How soon another instance takes over from one that died.
const TAKEOVER: Duration = Duration::from_millis(250);
/// How long a stopping relay waits for the broker.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a statement may take before the connection counts as dead.
const STATEMENT_LIMIT: Duration = Duration::from_secs(8);
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
    pub source: String,
    /// How the producer's state shows.
    pub broker: Dependency,
    /// Caches to tell of changes.
    pub caches: Option<Arc<dyn Invalidate>>,
}

impl Relay {
    /// Relays until `stop` is cancelled and everything committed by then is published, if the
    /// broker takes it in time; the next start finds what is left.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        outbox::show_metrics();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let counting = count_waiting(self.pool.clone(), self.outbox.clone());
        let _counting = AbortOnDropHandle::new(tokio::spawn(counting));
        let mut publisher = Arc::new(Publisher::new(&self.kafka, self.broker.clone())?);
        while let Err(error) = self.lead(&publisher, &stop).await {
            tracing::warn!(error = format!("{error:#}"), "the relay starts again");
            if stop.is_cancelled() {
                return Ok(());
            }
            if !publisher.is_sound() {
                publisher = Arc::new(Publisher::new(&self.kafka, self.broker.clone())?);
            }
            backoff.wait().await;
        }
        Ok(())
    }

    /// Waits to be the one that relays and then is, until something breaks or all is done.
    async fn lead(
        &self,
        publisher: &Arc<Publisher>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let database = postgres::holding(self.database.clone(), postgres::SILENCE);
        let connect = async {
            let mut connection = PgConnection::connect_with(&database).await?;
            // What cannot be deleted afterwards would be published again and again.
            postgres::ensure_writable(&mut connection).await?;
            Ok(connection)
        };
        let mut connection = within(STATEMENT_LIMIT, connect).await?;
        while !lock(&mut connection).await? {
            // Asking again, rather than waiting in a statement: that would hold back vacuum.
            if stop.run_until_cancelled(tokio::time::sleep(TAKEOVER)).await.is_none() {
                return Ok(());
            }
        }
        let topics = Topic::EVENTS.map(|topic| self.kafka.topic(topic));
        let learn = async {
            publisher.learn(topics.to_vec()).await;
            Ok(())
        };
        beating(&mut connection, learn).await?;
        let _relaying = self.outbox.relaying();
        let _listening = AbortOnDropHandle::new(tokio::spawn(self.listener()));
        let letters = dead_letter::Letters {
            pool: self.pool.clone(),
            publisher: publisher.clone(),
            topic: self.kafka.topic(Topic::DeadLetter),
            consumer: self.source.clone(),
        };
        let _letters = AbortOnDropHandle::new(tokio::spawn(letters.run()));
        tracing::info!("relaying the outbox");
        let drain = Drain {
            sender: Sender { relay: self, publisher, topics },
            connection,
            cursor: Cursor::default(),
            in_flight: VecDeque::new(),
            acknowledged: None,
            ending: None,
        };
        drain.run(stop).await
    }

    /// Hears of commits by instances that do not relay. If it ends, the regular sweep is left.
    fn listener(&self) -> impl Future<Output = ()> + Send + use<> {
        let (outbox, options) = (self.outbox.clone(), self.database.clone());
        async move {
            // A connection of its own: the services' pools are for work.
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
            let Ok(mut listener) = PgListener::connect_with(&pool).await else { return };
            if listener.listen(CHANNEL).await.is_ok() {
                while listener.recv().await.is_ok() {
                    outbox.committed();
                }
            }
        }
    }
}

async fn lock(connection: &mut PgConnection) -> anyhow::Result<bool> {
    let query = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK);
    within(STATEMENT_LIMIT, async { Ok(query.fetch_one(connection).await?) }).await
}

/// Waits for what is not the database's, and lets the database hear of the relay meanwhile.
async fn beating<T>(
    connection: &mut PgConnection,
    wait: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut wait = pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return done,
            () = tokio::time::sleep(BEAT) => beat(connection).await?,
        }
    }
}

async fn beat(connection: &mut PgConnection) -> anyhow::Result<()> {
    let beat = async { Ok(sqlx::query("SELECT").execute(connection).await?) };
    within(STATEMENT_LIMIT, beat).await.map(drop)
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

/// A row on its way to the broker.
struct InFlight {
    cursor: Cursor,
    delivery: Arc<Delivery>,
    /// Those of its events that are traced.
    sending: Vec<trace::Sending>,
}

/// What becomes of a row that was read.
struct Sender<'a> {
    relay: &'a Relay,
    publisher: &'a Publisher,
    /// The topics of events under their full names, by [`Topic`].
    topics: [String; 3],
}

struct Drain<'a> {
    sender: Sender<'a>,
    connection: PgConnection,
    /// The last row enqueued.
    cursor: Cursor,
    in_flight: VecDeque<InFlight>,
    /// The last row acknowledged with all before it, and when it is to be deleted.
    acknowledged: Option<(Cursor, Instant)>,
    /// When stopping: the last row still to be published, and until when that is tried.
    ending: Option<(Cursor, Instant)>,
}

impl Drain<'_> {
    async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut look = true;
        // A commit wakes the relay a moment before its row sinks below the horizon: it soon looks
        // again, then ever less often.
        let mut pause = FIRST_PAUSE;
        let mut pace = Pace::new(pace::SHARE, pace::LONGEST);
        loop {
            if stop.is_cancelled() && self.is_at_end().await? {
                return self.delete_acknowledged().await;
            }
            let room = self.in_flight.len() < ROWS_IN_FLIGHT;
            let rest = pace.rest();
            if look && room && rest.is_zero() {
                let (rows, events) = self.enqueue().await?;
                look = rows == FETCH_ROWS;
                if rows > 0 {
                    pause = FIRST_PAUSE;
                }
                // Whoever is behind makes no pause.
                if rows > 0 && !look {
                    pace.begin(events);
                }
                continue;
            }
            let front = self.in_flight.front().map(|row| row.delivery.clone());
            let acknowledged: OptionFuture<_> = front.map(Delivery::acknowledged).into();
            let delete: OptionFuture<_> =
                self.acknowledged.map(|(_, at)| tokio::time::sleep_until(at)).into();
            tokio::select! {
                biased;
                Some(()) = acknowledged => self.take_acknowledged()?,
                Some(()) = delete => self.delete_acknowledged().await?,
                () = stop.cancelled(), if self.ending.is_none() => {}
                () = self.sender.relay.outbox.woken(), if room && !look => (look, pause) = (true, FIRST_PAUSE),
                () = tokio::time::sleep(rest), if look && room => {}
                // Nothing is looked for while the broker has enough.
                () = tokio::time::sleep(BEAT), if !room => beat(&mut self.connection).await?,
                () = tokio::time::sleep(pause), if room && !look => {
                    (look, pause) = (true, (pause * 2).min(BEAT));
                }
            }
        }
    }

    /// When stopping: whether everything committed by then is acknowledged, or time is over.
    async fn is_at_end(&mut self) -> anyhow::Result<bool> {
        if self.ending.is_none() {
            self.ending = Some((self.last_row().await?, Instant::now() + LAST_WORDS));
        }
        let Some((last, give_up)) = self.ending else { return Ok(false) };
        let all = self.cursor >= last && self.in_flight.is_empty();
        Ok(all || Instant::now() >= give_up)
    }

    async fn last_row(&mut self) -> anyhow::Result<Cursor> {
        let last = sqlx::query_as(
            "SELECT tx::text::bigint, id FROM outbox ORDER BY outbox.tx DESC, id DESC LIMIT 1",
        );
        let last = async { Ok(last.fetch_optional(&mut self.connection).await?) };
        let last: Option<(i64, i64)> = within(STATEMENT_LIMIT, last).await?;
        Ok(last.map_or(self.cursor, |(tx, id)| Cursor { tx, id }))
    }

    /// Reads rows below the horizon, in commit order, and hands their events to the producer; how
    /// many of both.
    async fn enqueue(&mut self) -> anyhow::Result<(usize, usize)> {
        let rows = sqlx::query_as(
            "SELECT tx::text::bigint AS tx, id, at, facts, order_ids, payloads, traceparents, \
                    cache_ids, cache_versions \
             FROM outbox \
             WHERE (tx, id) > ($1::text::xid8, $2) \
               AND tx < pg_snapshot_xmin(pg_current_snapshot()) \
             ORDER BY outbox.tx, id LIMIT $3",
        )
        .bind(self.cursor.tx.to_string())
        .bind(self.cursor.id)
        .bind(i64::try_from(FETCH_ROWS)?);
        let rows = async { Ok(rows.fetch_all(&mut self.connection).await?) };
        let rows: Vec<Row> = within(STATEMENT_LIMIT, rows).await.context("reading the outbox")?;
        beating(&mut self.connection, self.sender.invalidate(&rows)).await?;
        if !rows.is_empty() {
            crash::point("relay.before_publish");
        }
        for row in &rows {
            let publish = self.sender.publish(row);
            let (delivery, sending) = beating(&mut self.connection, publish).await?;
            self.cursor = Cursor { tx: row.tx, id: row.id };
            self.in_flight.push_back(InFlight { cursor: self.cursor, delivery, sending });
        }
        Ok((rows.len(), rows.iter().map(|row| row.facts.len()).sum()))
    }

    fn take_acknowledged(&mut self) -> anyhow::Result<()> {
        while let Some(row) = self.in_flight.front_mut() {
            let Some(outcome) = row.delivery.outcome() else { break };
            if let Err(error) = &outcome {
                row.sending.iter_mut().for_each(|span| span.fail(&error.to_string()));
            }
            outcome?;
            let due = self.acknowledged.map_or_else(|| Instant::now() + DELETE_DELAY, |a| a.1);
            self.acknowledged = Some((row.cursor, due));
            self.in_flight.pop_front();
        }
        Ok(())
    }

    async fn delete_acknowledged(&mut self) -> anyhow::Result<()> {
        let Some((cursor, _)) = self.acknowledged.take() else { return Ok(()) };
        crash::point("relay.after_publish");
        let delete = sqlx::query("DELETE FROM outbox WHERE (tx, id) <= ($1::text::xid8, $2)")
            .bind(cursor.tx.to_string())
            .bind(cursor.id);
        let delete = async { Ok(delete.execute(&mut self.connection).await?) };
        within(STATEMENT_LIMIT, delete).await.context("deleting published events")?;
        Ok(())
    }
}

impl Sender<'_> {
    async fn invalidate(&self, rows: &[Row]) -> anyhow::Result<()> {
        let Some(caches) = &self.relay.caches else { return Ok(()) };
        let changed: Vec<_> = rows
            .iter()
            .flat_map(|row| row.cache_ids.iter().copied().zip(row.cache_versions.iter().copied()))
            .collect();
        if changed.is_empty() { Ok(()) } else { caches.invalidate(changed).await }
    }

    async fn publish(&self, row: &Row) -> anyhow::Result<(Arc<Delivery>, Vec<trace::Sending>)> {
        let time = cloud_event::time(row.at);
        let mut keys = Vec::with_capacity(row.order_ids.len());
        for (order, fact) in row.order_ids.iter().zip(&row.facts) {
            let fact = Fact::from_code(*fact).context("an unknown fact in the outbox")?;
            let order = OrderId::try_from(*order).context("a bad order id in the outbox")?;
            keys.push((order, fact, order.to_string()));
        }
        let mut sending = Vec::new();
        let records = keys.iter().zip(&row.payloads).zip(&row.traceparents);
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
                headers: headers(*order, *fact, &self.relay.source, &time, traceparent),
            }
        });
        let records = records.collect();
        let delivery = self.publisher.publish(records).await?;
        for topic in Topic::EVENTS {
            let events = keys.iter().filter(|(_, fact, _)| fact.topic() == topic).count();
            PUBLISHED.with_label_values(&[topic.name()]).inc_by(events as u64);
        }
        Ok((delivery, sending))
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

/// Counts once a second what waits: for the metrics, and for admission control.
async fn count_waiting(pool: PgPool, outbox: Outbox) {
    loop {
        let counted: anyhow::Result<(i64, f64)> = within(STATEMENT_LIMIT, async {
            let mut lease = Lease::take(&pool).await?;
            let counted = sqlx::query_as(
                "SELECT coalesce(sum(events), 0), \
                        coalesce(extract(epoch FROM now() - min(at)), 0)::float8 \
                 FROM outbox",
            )
            .fetch_one(&mut *lease)
            .await?;
            lease.keep();
            Ok(counted)
        })
        .await;
        if let Ok((events, oldest)) = counted {
            outbox.set_waiting(events);
            WAITING.set(events);
            OLDEST.set(oldest.max(0.0));
        }
        tokio::time::sleep(COUNT).await;
    }
}
