//! The SQL of service-monitoring-order: facts in, facts out, and where the partitions lie.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};

use anyhow::Context;
use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, Fact, Order, OrderId, Reason, time};
use ordersaga_saga::status::Heard;
use sagabus::Checkout;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, FromRow};

/// The migrations of the coordinator.
pub(crate) static MIGRATIONS: &Migrator = {
    static MIGRATOR: Migrator = sqlx::migrate!("../../sql/monitoring");
    &MIGRATOR
};

/// The migrations of a node.
pub(crate) static SHARD_MIGRATIONS: &Migrator = {
    static MIGRATOR: Migrator = sqlx::migrate!("../../sql/shard");
    &MIGRATOR
};

/// A partition and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct Partition {
    pub(crate) remainder: i32,
    pub(crate) server: String,
    pub(crate) table: String,
}

/// The table of a partition, on the coordinator and on its node.
pub(crate) fn partition_table(remainder: u32) -> String {
    format!("order_event_{remainder:02}")
}

/// Where each partition lies, by the coordinator's catalog.
pub(crate) async fn partitions(connection: &mut PgConnection) -> anyhow::Result<Vec<Partition>> {
    sqlx::query_as(
        "SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'remainder (\\d+)')::int AS remainder, \
                s.srvname::text AS server, \
                coalesce((SELECT option_value FROM pg_options_to_table(f.ftoptions) \
                          WHERE option_name = 'table_name'), c.relname::text) AS \"table\" \
         FROM pg_inherits i \
         JOIN pg_class c ON c.oid = i.inhrelid \
         JOIN pg_foreign_table f ON f.ftrelid = c.oid \
         JOIN pg_foreign_server s ON s.oid = f.ftserver \
         WHERE i.inhparent = 'order_event'::regclass \
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .context("reading where the partitions lie")
}

/// Adds facts and counts them, in one statement. A fact that is known already stays as it is, and is
/// counted all the same.
pub(crate) async fn insert_facts(
    connection: &mut PgConnection,
    events: &[&Event],
    counter: i16,
    counts: &BTreeMap<(DateTime<Utc>, Fact), Count>,
) -> anyhow::Result<()> {
    let column =
        |value: fn(&Order) -> i64| events.iter().map(|e| value(&e.order)).collect::<Vec<_>>();
    let reason = |event: &&Event| event.kind.cancellation().map(|end| end.reason.code());
    sqlx::query(
        "WITH counted AS ( \
             INSERT INTO minute_count AS c (minute, fact, counter, records, first_order, last_order) \
             SELECT minute, fact, $14, records, first, last \
             FROM unnest($9::timestamptz[], $10::smallint[], $11::bigint[], $12::bigint[], \
                         $13::bigint[]) u (minute, fact, records, first, last) \
             ON CONFLICT (minute, fact, counter) DO UPDATE SET \
                 records = c.records + excluded.records, \
                 first_order = least(c.first_order, excluded.first_order), \
                 last_order = greatest(c.last_order, excluded.last_order)) \
         INSERT INTO order_event (order_id, fact, item_id, seller_id, client_id, quantity, reason, at) \
         SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], \
                              $5::bigint[], $6::int[], $7::smallint[], $8::timestamptz[]) \
         ON CONFLICT DO NOTHING",
    )
    .bind(column(|order| order.order_id.get()))
    .bind(events.iter().map(|e| e.kind.fact().code()).collect::<Vec<_>>())
    .bind(column(|order| order.item_id.get()))
    .bind(column(|order| order.seller_id.get()))
    .bind(column(|order| order.client_id.get()))
    .bind(events.iter().map(|e| i32::try_from(e.order.quantity.get())).collect::<Result<Vec<_>, _>>()?)
    .bind(events.iter().map(reason).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.time).collect::<Vec<_>>())
    .bind(counts.keys().map(|(minute, _)| *minute).collect::<Vec<_>>())
    .bind(counts.keys().map(|(_, fact)| fact.code()).collect::<Vec<_>>())
    .bind(counts.values().map(|count| count.records).collect::<Vec<_>>())
    .bind(counts.values().map(|count| count.first.get()).collect::<Vec<_>>())
    .bind(counts.values().map(|count| count.last.get()).collect::<Vec<_>>())
    .bind(counter)
    .execute(connection)
    .await
    .context("adding facts")?;
    Ok(())
}

/// What was heard of an order, with the identity its events carry. Facts may be in it twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) order: Order,
    pub(crate) heard: Vec<Heard>,
}

impl History {
    /// All that one event tells.
    pub(crate) fn of(event: &Event) -> Self {
        let reason = event.kind.cancellation().map(|end| end.reason);
        let heard = Heard { fact: event.kind.fact(), time: event.time, reason };
        Self { order: event.order, heard: vec![heard] }
    }

    /// Adds what else was heard of the order.
    pub(crate) fn add(&mut self, other: Self) {
        self.heard.extend(other.heard);
    }
}

#[derive(FromRow)]
struct FactRow {
    order_id: i64,
    fact: i16,
    item_id: i64,
    seller_id: i64,
    client_id: i64,
    quantity: i32,
    reason: Option<i16>,
    at: DateTime<Utc>,
}

/// Reads what was heard of orders from `table`: a partition on its node, or the whole of
/// `order_event` on the coordinator.
pub(crate) async fn histories(
    pool: &PgPool,
    table: &str,
    orders: &[OrderId],
) -> anyhow::Result<HashMap<OrderId, History>> {
    let mut connection = Checkout::take(pool).await?;
    let rows: Vec<FactRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT order_id, fact, item_id, seller_id, client_id, quantity, reason, at FROM {table} \
         WHERE order_id = ANY($1) ORDER BY order_id, fact"
    )))
    .bind(orders.iter().map(|order| order.get()).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await
    .context("reading facts")?;
    connection.keep();
    let mut histories: HashMap<OrderId, History> = HashMap::new();
    for row in rows {
        let (order, heard) = row.read()?;
        let history = histories.entry(order.order_id);
        history.or_insert_with(|| History { order, heard: Vec::new() }).heard.push(heard);
    }
    Ok(histories)
}

/// Orders of a node, newest first.
pub(crate) struct Newest {
    pub(crate) histories: Vec<History>,
    /// There are no older ones.
    pub(crate) is_all: bool,
}

/// Reads the newest orders of a node, of those within `orders`, from its `tables`: as many as have
/// `rows` facts. Their ids are their order, so it is a merge of the tables' primary keys.
pub(crate) async fn newest(
    pool: &PgPool,
    tables: &[String],
    orders: RangeInclusive<i64>,
    rows: usize,
) -> anyhow::Result<Newest> {
    let tables: Vec<_> = tables.iter().map(|table| format!("SELECT * FROM {table}")).collect();
    let mut connection = Checkout::take(pool).await?;
    // The limit is written out: of a parameter the planner would think that it is large.
    let found: Vec<FactRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT order_id, fact, item_id, seller_id, client_id, quantity, reason, at FROM ({}) e \
         WHERE order_id BETWEEN $1 AND $2 ORDER BY order_id DESC, fact DESC LIMIT {rows}",
        tables.join(" UNION ALL ")
    )))
    .bind(orders.start())
    .bind(orders.end())
    .fetch_all(&mut *connection)
    .await
    .context("reading the newest orders")?;
    connection.keep();
    let is_all = found.len() < rows;
    let mut histories: Vec<History> = Vec::new();
    for row in found {
        let (order, heard) = row.read()?;
        match histories.last_mut() {
            Some(last) if last.order.order_id == order.order_id => last.heard.push(heard),
            _ => histories.push(History { order, heard: vec![heard] }),
        }
    }
    if !is_all {
        // Some of its facts may be missing.
        histories.pop();
    }
    Ok(Newest { histories, is_all })
}

/// Records of a minute about one fact, and the orders they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) records: i64,
    pub(crate) first: OrderId,
    pub(crate) last: OrderId,
}

/// How many records of each fact there were in the newest `minutes` minutes within a time, newest
/// first; minutes without any are left out.
pub(crate) async fn counts(
    pool: &PgPool,
    time: Range<DateTime<Utc>>,
    minutes: usize,
) -> anyhow::Result<Vec<(DateTime<Utc>, BTreeMap<Fact, i64>)>> {
    let mut connection = Checkout::take(pool).await?;
    // No minute has more rows than there are facts.
    let rows = i64::try_from(minutes * Fact::ALL.len())?;
    let found: Vec<(DateTime<Utc>, i16, i64)> = sqlx::query_as(
        "SELECT minute, fact, sum(records)::bigint FROM minute_count \
         WHERE minute >= $1 AND minute < $2 \
         GROUP BY minute, fact ORDER BY minute DESC, fact DESC LIMIT $3",
    )
    .bind(time.start)
    .bind(time.end)
    .bind(rows)
    .fetch_all(&mut *connection)
    .await
    .context("reading counts")?;
    connection.keep();
    let mut counts: Vec<(DateTime<Utc>, BTreeMap<Fact, i64>)> = Vec::new();
    for (minute, fact, records) in found {
        let fact = Fact::from_code(fact).context("an unknown fact")?;
        match counts.last_mut() {
            Some((last, facts)) if *last == minute => _ = facts.insert(fact, records),
            _ => counts.push((minute, BTreeMap::from([(fact, records)]))),
        }
    }
    counts.truncate(minutes);
    Ok(counts)
}

/// The lowest and the highest id of the orders placed within a time, as far as the counts say; their
/// ids may be looked for within it. Counts that are forgotten, or did not yet begin, say nothing.
pub(crate) async fn placed_within(
    pool: &PgPool,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> anyhow::Result<(Option<i64>, Option<i64>)> {
    let mut connection = Checkout::take(pool).await?;
    let ids = sqlx::query_as(
        "SELECT CASE WHEN bool_or(minute < date_trunc('minute', $1::timestamptz)) \
                     THEN min(first_order) FILTER (WHERE minute >= date_trunc('minute', $1)) END, \
                max(last_order) FILTER (WHERE minute <= $2::timestamptz) \
         FROM minute_count WHERE fact = 1",
    )
    .bind(from)
    .bind(to)
    .fetch_one(&mut *connection)
    .await
    .context("reading which orders a time has")?;
    connection.keep();
    Ok(ids)
}

/// Forgets the counts of minutes before a time.
pub(crate) async fn forget_counts(pool: &PgPool, before: DateTime<Utc>) -> anyhow::Result<()> {
    let mut connection = Checkout::take(pool).await?;
    sqlx::query("DELETE FROM minute_count WHERE minute < $1")
        .bind(before)
        .execute(&mut *connection)
        .await
        .context("forgetting counts")?;
    connection.keep();
    Ok(())
}

impl FactRow {
    fn read(self) -> anyhow::Result<(Order, Heard)> {
        let order = Order {
            order_id: self.order_id.try_into()?,
            item_id: self.item_id.try_into()?,
            seller_id: self.seller_id.try_into()?,
            client_id: self.client_id.try_into()?,
            quantity: i64::from(self.quantity).try_into()?,
        };
        let fact = Fact::from_code(self.fact).context("an unknown fact")?;
        let time = time::within_years(self.at);
        Ok((order, Heard { fact, time, reason: self.reason.and_then(Reason::from_code) }))
    }
}
