//! The co-partitioner computes what Postgres computes.

use anyhow::{Result, ensure};
use ordersaga_contract::PARTITIONS;
use ordersaga_contract::partition::remainder_of;
use ordersaga_devstack::{Cluster, shared};
use sqlx::{Connection, PgConnection};

use crate::bed::block_on;

/// Ids near every power of two, the ends of the range, and at random; of either sign, though
/// orders only use the positive.
fn ids() -> Vec<i64> {
    let edges = (0..63).flat_map(|bit| [-1, 0, 1].map(|near| (1_i64 << bit) + near));
    let edges: Vec<_> = edges.chain([i64::MAX, i64::MIN, i64::MIN + 1, 0]).collect();
    let negated = edges.iter().map(|id| id.wrapping_neg());
    let random = (0..12_000).map(|_| fastrand::i64(..));
    edges.iter().copied().chain(negated).chain(random).chain(1..=2_000).collect()
}

#[test]
fn agrees_with_postgres_for_any_id_and_partition_count() -> Result<()> {
    block_on(async {
        let server = shared().await?.server(Cluster::Shard1);
        let name = format!("partitioner_{}", std::process::id());
        let database = server.create_database(Cluster::Shard1, &name).await?;
        let mut connection = PgConnection::connect(&database.superuser_url()).await?;
        sqlx::raw_sql("CREATE TABLE probe (id bigint) PARTITION BY HASH (id)")
            .execute(&mut connection)
            .await?;
        let ids = ids();
        ensure!(ids.len() > 10_000);
        for modulus in 2..=64_u32 {
            let ours: Vec<i32> = ids
                .iter()
                .map(|id| i32::try_from(remainder_of(*id, modulus)))
                .collect::<Result<_, _>>()?;
            let astray: Vec<(i64, i32)> = sqlx::query_as(
                "SELECT id, r FROM unnest($1::bigint[], $2::int[]) u (id, r) \
                 WHERE NOT satisfies_hash_partition('probe'::regclass, $3, r, id)",
            )
            .bind(&ids)
            .bind(ours)
            .bind(i32::try_from(modulus)?)
            .fetch_all(&mut connection)
            .await?;
            ensure!(astray.is_empty(), "modulus {modulus}: {:?}", &astray[..astray.len().min(5)]);
        }
        ensure!(PARTITIONS == 16, "as many as the topics have");
        connection.close().await?;
        server.drop_database(&name).await
    })
}
