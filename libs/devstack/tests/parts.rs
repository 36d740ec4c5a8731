//! The real parts start, end in every way, and come back with their data.

use std::time::Duration;

use anyhow::{Context, Result};
use ordersaga_devstack::{Cluster, Part, Stack};
use sqlx::{Connection, PgConnection, Row};

async fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::connect(url).await.context("cannot connect")
}

#[tokio::test]
async fn a_stack_starts_and_gives_each_role_its_way_in() -> Result<()> {
    let stack = Stack::temporary().await?;
    let databases = stack.parts().provision("t1").await?;
    // A second time changes nothing.
    stack.parts().provision("t1").await?;
    for cluster in Cluster::ALL {
        let database = &databases[cluster];
        assert_eq!(database.name, format!("t1_{}", cluster.database()));
        let mut owner = connect(&database.owner_url()).await?;
        sqlx::raw_sql("CREATE TABLE t (x int)").execute(&mut owner).await?;
        let second = if cluster.is_shard() { database.fdw_url() } else { database.service_url() };
        let mut second = connect(&second).await?;
        let refused = sqlx::raw_sql("CREATE TABLE u (x int)").execute(&mut second).await;
        assert!(refused.is_err(), "only the owner may create tables");
    }
    stack.parts().drop_databases("t1").await?;
    assert!(connect(&databases[Cluster::Store].owner_url()).await.is_err());

    let pids: Vec<_> = stack.all().iter().filter_map(Part::pid).collect();
    assert_eq!(pids.len(), 7);
    stack.stop(&ordersaga_devstack::Report::log()).await?;
    assert!(stack.all().iter().all(|part| part.pid().is_none()));
    Ok(())
}

#[tokio::test]
async fn postgres_keeps_its_data_over_every_way_of_ending() -> Result<()> {
    let part = Part::temporary_postgres().await?;
    let database = part.server().create_database(Cluster::Store, "store").await?;
    let mut owner = connect(&database.owner_url()).await?;
    sqlx::raw_sql("CREATE TABLE t (x int); INSERT INTO t VALUES (7)").execute(&mut owner).await?;

    part.kill9().await?;
    assert!(part.pid().is_none());
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut owner).await.is_err());
    part.start().await?;
    part.restart().await?;

    let mut owner = connect(&database.owner_url()).await?;
    let row = sqlx::query("SELECT x FROM t").fetch_one(&mut owner).await?;
    assert_eq!(row.get::<i32, _>(0), 7);
    Ok(())
}

/// Postgres lets every role change its own password (docs/security.md); the next start undoes it.
#[tokio::test]
async fn a_password_that_a_role_has_changed_is_set_again_by_the_next_start() -> Result<()> {
    let part = Part::temporary_postgres().await?;
    let database = part.server().create_database(Cluster::Store, "store").await?;
    let mut service = connect(&database.service_url()).await?;
    sqlx::raw_sql("ALTER ROLE ordersaga_service PASSWORD 'mine'").execute(&mut service).await?;
    assert!(connect(&database.service_url()).await.is_err());
    part.server().create_database(Cluster::Store, "store").await?;
    connect(&database.service_url()).await.map(drop)
}

#[tokio::test]
async fn a_paused_postgres_is_silent_until_it_is_resumed() -> Result<()> {
    let part = Part::temporary_postgres().await?;
    let mut connection =
        connect(&part.server().create_database(Cluster::Store, "store").await?.owner_url()).await?;
    part.pause()?;
    let answer = sqlx::raw_sql("SELECT 1").execute(&mut connection);
    let silent = tokio::time::timeout(Duration::from_millis(300), answer).await;
    assert!(silent.is_err());
    part.resume()?;
    part.kill9().await
}

#[tokio::test]
async fn redis_comes_back_on_its_port() -> Result<()> {
    let redis = Part::temporary_redis().await?;
    let port = redis.port();
    redis.kill9().await?;
    redis.start().await?;
    redis.restart().await?;
    assert_eq!(redis.port(), port);
    Ok(())
}

#[tokio::test]
async fn the_broker_comes_back() -> Result<()> {
    let broker = Part::temporary_broker(None).await?;
    broker.restart().await?;
    broker.kill9().await?;
    broker.start().await?;
    broker.stop().await
}
