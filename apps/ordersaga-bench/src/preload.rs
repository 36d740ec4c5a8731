//! Rows of many orders that were made long ago, put straight into the tables.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use ordersaga_devstack::Cluster;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::system::System;

/// So many orders.
pub(crate) const ORDERS: i64 = 10_000_000;
/// Items they are about.
const ITEMS: i64 = 1_000;
/// Rows written by one transaction.
const CHUNK: i64 = 1_000_000;

/// Ids of the orders, first and last.
#[derive(Debug, Clone, Copy)]
struct Ids {
    first: i64,
    last: i64,
}

/// Puts them in. The services run and are idle.
pub(crate) async fn fill(system: &System) -> Result<()> {
    let create = system.onlooker.sql(Cluster::CreateOrder);
    let first: i64 = sqlx::query_scalar("SELECT nextval('order_id_seq')").fetch_one(create).await?;
    let ids = Ids { first, last: first + ORDERS - 1 };
    sqlx::query("SELECT setval('order_id_seq', $1)").bind(ids.last).execute(create).await?;
    let partitions = partitions(system.onlooker.sql(Cluster::Monitoring)).await?;
    let shards = [Cluster::Shard1, Cluster::Shard2].map(|shard| {
        let partitions = partitions.iter().filter(move |(node, _)| node == shard.name());
        let facts = partitions.map(|(_, remainder)| facts(*remainder)).collect::<Vec<_>>();
        insert(system, shard, ids, facts)
    });
    let first_item = system.first_item;
    tokio::try_join!(
        insert(system, Cluster::CreateOrder, ids, vec![orders(first_item)]),
        insert(system, Cluster::Store, ids, vec![reservations(first_item)]),
        try_join_all(shards),
    )?;
    sqlx::query(
        "UPDATE item i SET reserved = i.reserved + r.quantity \
         FROM (SELECT item_id, sum(quantity)::bigint AS quantity FROM reservation \
               WHERE order_id BETWEEN $1 AND $2 GROUP BY item_id) r WHERE i.item_id = r.item_id",
    )
    .bind(ids.first)
    .bind(ids.last)
    .execute(system.onlooker.sql(Cluster::Store))
    .await
    .context("counting what is reserved")?;
    let settle = Cluster::ALL.map(|cluster| settle(system.onlooker.sql(cluster)));
    try_join_all(settle).await.map(drop)
}

/// Node and remainder of each partition.
async fn partitions(coordinator: &PgPool) -> Result<Vec<(String, i32)>> {
    let partitions = sqlx::query_as(
        "SELECT s.srvname::text, \
                substring(pg_get_expr(c.relpartbound, c.oid) FROM 'remainder (\\d+)')::int \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         JOIN pg_foreign_table f ON f.ftrelid = c.oid \
         JOIN pg_foreign_server s ON s.oid = f.ftserver \
         WHERE i.inhparent = 'order_event'::regclass",
    );
    partitions.fetch_all(coordinator).await.context("reading where the partitions lie")
}

fn orders(first_item: i64) -> String {
    format!(
        "INSERT INTO orders (order_id, item_id, seller_id, client_id, quantity, state, \
                             created_at, updated_at) \
         SELECT n, {first_item} + n % {ITEMS}, 1, 1 + n % 1000000, 1, 2, now(), now() \
         FROM generate_series($1, $2) n"
    )
}

fn reservations(first_item: i64) -> String {
    format!(
        "INSERT INTO reservation (order_id, item_id, seller_id, client_id, quantity, state, \
                                  updated_at) \
         SELECT n, {first_item} + n % {ITEMS}, 1, 1 + n % 1000000, 1, 1, now() \
         FROM generate_series($1, $2) n"
    )
}

/// Placed and reserved, of the orders that Postgres' own hash puts into this partition.
fn facts(remainder: i32) -> String {
    format!(
        "INSERT INTO order_event_{remainder:02} (order_id, fact, item_id, seller_id, client_id, \
                                                 quantity, at) \
         SELECT n, fact, 1 + n % {ITEMS}, 1, 1 + n % 1000000, 1, now() \
         FROM generate_series($1, $2) n, generate_series(1, 2) fact \
         WHERE ((hashint8extended(n, 8816678312871386365) & 15) + 3) & 15 = {remainder}"
    )
}

/// Runs the statements over all ids, a part of them after the other.
async fn insert(
    system: &System,
    cluster: Cluster,
    ids: Ids,
    statements: Vec<String>,
) -> Result<()> {
    let mut connection = system.onlooker.sql(cluster).acquire().await?;
    for statement in statements {
        insert_all(&mut connection, ids, &statement)
            .await
            .with_context(|| format!("{cluster}: {statement}"))?;
    }
    Ok(())
}

async fn insert_all(connection: &mut PgConnection, ids: Ids, statement: &str) -> Result<()> {
    let mut from = ids.first;
    while from <= ids.last {
        let upto = ids.last.min(from + CHUNK - 1);
        sqlx::query(AssertSqlSafe(statement.to_owned()))
            .bind(from)
            .bind(upto)
            .execute(&mut *connection)
            .await?;
        from = upto + 1;
    }
    Ok(())
}

/// As after a night's rest: dead rows gone, statistics taken, pages on disk.
async fn settle(pool: &PgPool) -> Result<()> {
    for statement in ["VACUUM (FREEZE, ANALYZE)", "CHECKPOINT"] {
        sqlx::raw_sql(statement).execute(pool).await.context(statement)?;
    }
    Ok(())
}
