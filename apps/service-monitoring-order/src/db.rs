//! The SQL of service-monitoring-order: facts in, facts out, and where the partitions lie.

use std::collections::HashMap;

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

/// Adds facts. What is known already stays as it is.
pub(crate) async fn insert_facts(
    connection: &mut PgConnection,
    events: &[&Event],
) -> anyhow::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let column =
        |value: fn(&Order) -> i64| events.iter().map(|e| value(&e.order)).collect::<Vec<_>>();
    let reason = |event: &&Event| event.kind.cancellation().map(|end| end.reason.code());
    sqlx::query(
        "INSERT INTO order_event (order_id, fact, item_id, seller_id, client_id, quantity, reason, at) \
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
        let order = Order {
            order_id: row.order_id.try_into()?,
            item_id: row.item_id.try_into()?,
            seller_id: row.seller_id.try_into()?,
            client_id: row.client_id.try_into()?,
            quantity: i64::from(row.quantity).try_into()?,
        };
        let fact = Fact::from_code(row.fact).context("an unknown fact")?;
        let time = time::within_years(row.at);
        let heard = Heard { fact, time, reason: row.reason.and_then(Reason::from_code) };
        let history = histories.entry(order.order_id);
        history.or_insert_with(|| History { order, heard: Vec::new() }).heard.push(heard);
    }
    Ok(histories)
}
