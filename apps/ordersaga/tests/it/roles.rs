//! Least privilege, and stopping in good order.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_devstack::{Cluster, Service};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::bed::{Bed, Plan, block_on, saga};
use crate::client::order_for;
use crate::invariants;

/// Runs statements as a role; each must be refused for lack of rights.
async fn refused(url: &str, statements: &[&str]) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    for statement in statements {
        let outcome =
            sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await;
        let code = match &outcome {
            Err(sqlx::Error::Database(error)) => error.code().map(|code| code.to_string()),
            _ => None,
        };
        // insufficient_privilege, and invalid catalog for objects one may not even see.
        ensure!(code.as_deref() == Some("42501"), "{statement}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn the_service_role_has_no_ddl_and_deletes_no_orders() -> Result<()> {
    const DDL: [&str; 4] = [
        "CREATE TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE outbox ADD COLUMN mine int",
        "DROP TABLE consumer_offset",
    ];
    saga(async |bed| {
        for service in Service::ALL {
            refused(&bed.databases[service.cluster()].service_url(), &DDL).await?;
        }
        let url = |cluster| bed.databases[cluster].service_url();
        let orders = [
            "DELETE FROM orders",
            "TRUNCATE orders",
            "TRUNCATE outbox",
            "SELECT setval('order_id_seq', 1)",
        ];
        refused(&url(Cluster::CreateOrder), &orders).await?;
        let store = [
            "DELETE FROM item",
            "DELETE FROM reservation",
            "TRUNCATE item",
            "SELECT setval('item_item_id_seq', 1)",
        ];
        refused(&url(Cluster::Store), &store).await?;
        let coordinator = [
            "UPDATE order_event SET fact = 1",
            "DELETE FROM order_event",
            "TRUNCATE order_event",
            "ALTER SERVER shard1 OPTIONS (SET host 'elsewhere')",
            "CREATE SERVER mine FOREIGN DATA WRAPPER postgres_fdw",
            "SELECT umoptions FROM pg_user_mapping",
        ];
        refused(&url(Cluster::Monitoring), &coordinator).await
    })
}

#[test]
fn the_fdw_role_can_only_select_and_insert_facts() -> Result<()> {
    saga(async |bed| {
        for shard in [Cluster::Shard1, Cluster::Shard2] {
            let url = bed.databases[shard].fdw_url();
            refused(
                &url,
                &[
                    "UPDATE order_event_00 SET fact = 1",
                    "DELETE FROM order_event_00",
                    "TRUNCATE order_event_00",
                    "ALTER TABLE order_event_00 ADD COLUMN mine int",
                    "DROP TABLE order_event_00",
                    "CREATE TABLE mine (x int)",
                    "SELECT * FROM _sqlx_migrations",
                ],
            )
            .await?;
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::raw_sql("SELECT FROM order_event_00").execute(&mut connection).await?;
            // Not even it can put a row where its hash does not say.
            let astray =
                sqlx::raw_sql("INSERT INTO order_event_00 VALUES (1, 1, 1, 1, 1, 1, NULL, now())");
            let error = astray.execute(&mut connection).await.err();
            ensure!(error.is_some(), "order 1 belongs to partition 8");
        }
        Ok(())
    })
}

/// Ends a service by SIGTERM while orders are on their way, and starts it again.
async fn stops_in_good_order(bed: &Bed, service: Service, round: usize) -> Result<()> {
    let item = bed.add_item(100).await?;
    let order = order_for(item);
    let orders = async {
        let keys: Vec<_> = (0..100).map(|number| format!("round {round}, {number}")).collect();
        try_join_all(keys.iter().map(|key| bed.insist(key, &order))).await
    };
    let stop = async {
        let asked = Instant::now();
        let status = bed.services[&service].terminate().await?;
        ensure!(status.success(), "{service} ended with {status}");
        ensure!(asked.elapsed() < Duration::from_secs(10), "{service}: {:?}", asked.elapsed());
        // It has left its group: the next one need not wait for its session to run out.
        let started = Instant::now();
        bed.start(service).await?;
        ensure!(started.elapsed() < Duration::from_secs(5), "{service}: {:?}", started.elapsed());
        Ok(())
    };
    tokio::try_join!(orders, stop)?;
    invariants::hold(bed).await?;
    ensure!(bed.item(item).await?["available"] == 0, "all are sold");
    Ok(())
}

#[test]
fn sigterm_ends_each_service_well_and_soon_with_work_in_flight() -> Result<()> {
    block_on(Plan::default().alone().run(async |bed| {
        for (round, service) in Service::ALL.into_iter().enumerate() {
            stops_in_good_order(bed, service, round).await?;
        }
        Ok(())
    }))
}
