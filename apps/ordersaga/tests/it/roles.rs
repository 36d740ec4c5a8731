//! Least privilege, and stopping in good order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_devstack::{Cluster, Database, Service};
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

/// Whether Postgres lets somebody in. It refuses by class 28, invalid authorization, or for lack of
/// the right to connect.
async fn is_let_in(url: &str) -> Result<bool> {
    match PgConnection::connect(url).await {
        Ok(connection) => {
            connection.close().await?;
            Ok(true)
        }
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| code.starts_with("28") || code == "42501") =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_login_opens_its_own_database_and_no_other() -> Result<()> {
    type Url = fn(&Database) -> String;
    saga(async |bed| {
        for home in Cluster::ALL {
            let second = if home.is_shard() {
                ("ordersaga_fdw", Database::fdw_url as Url)
            } else {
                ("ordersaga_service", Database::service_url as Url)
            };
            for (role, url) in [("ordersaga_owner", Database::owner_url as Url), second] {
                let own = &bed.databases[home];
                for cluster in Cluster::ALL {
                    let passwords = own.passwords.clone();
                    let tried = Database { passwords, ..bed.databases[cluster].clone() };
                    let let_in = is_let_in(&url(&tried)).await?;
                    ensure!(let_in == (cluster == home), "{role} of {home} on {cluster}: {let_in}");
                }
                let other = Database { name: "postgres".to_owned(), ..own.clone() };
                ensure!(!is_let_in(&url(&other)).await?, "{role} of {home} on postgres");
            }
        }
        Ok(())
    })
}

#[test]
fn a_serving_process_has_the_passwords_it_logs_in_with_and_no_others() -> Result<()> {
    saga(async |bed| {
        for service in Service::ALL {
            let pid = bed.services[&service].pid().context("it does not run")?;
            let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
            let environment = String::from_utf8_lossy(&environment);
            for cluster in Cluster::ALL {
                let passwords = &bed.databases[cluster].passwords;
                let shards = service == Service::Monitoring && cluster.is_shard();
                for (role, password, logs_in) in [
                    ("superuser", &passwords.superuser, false),
                    ("owner", &passwords.owner, false),
                    ("service", &passwords.service, cluster == service.cluster()),
                    ("fdw", &passwords.fdw, shards),
                ] {
                    let has = environment.contains(password.as_str());
                    ensure!(has == logs_in, "{service}, {role} of {cluster}: {has}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn no_role_makes_large_objects() -> Result<()> {
    const MAKE: [&str; 5] = [
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_import('/etc/hostname')",
        "CREATE TEMPORARY TABLE mine (x int)",
    ];
    saga(async |bed| {
        for cluster in Cluster::ALL {
            let database = &bed.databases[cluster];
            let second =
                if cluster.is_shard() { database.fdw_url() } else { database.service_url() };
            refused(&second, &MAKE).await?;
            refused(&database.owner_url(), &MAKE[..4]).await?;
        }
        Ok(())
    })
}

#[test]
fn the_service_role_has_no_ddl_and_deletes_no_orders() -> Result<()> {
    const DDL: [&str; 4] = [
        "CREATE TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE sagabus.outbox ADD COLUMN mine int",
        "DROP TABLE sagabus.consumer_offset",
    ];
    saga(async |bed| {
        for service in Service::ALL {
            refused(&bed.databases[service.cluster()].service_url(), &DDL).await?;
        }
        let url = |cluster| bed.databases[cluster].service_url();
        let orders = [
            "DELETE FROM orders",
            "TRUNCATE orders",
            "TRUNCATE sagabus.outbox",
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
