//! The system that is attacked: a stack of its own, and the services with their default settings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use ordersaga_devstack::{Cluster, Databases, Report, Service, ServiceProcess, Stack, Step};
use ordersaga_runtime::topics::{self, Target, TopicsFile};
use sqlx::{Connection, PgConnection};

/// How long a service may take to be ready.
const READY: Duration = Duration::from_mins(1);
/// Items that honest clients order, and units of each: more than any run orders.
const ITEMS: i32 = 50;
const UNITS: i64 = 1_000_000_000_000;

/// A running system. Dropping it kills all of it and removes its folder.
pub(crate) struct System {
    // Dropped before the stack.
    pub(crate) services: BTreeMap<Service, ServiceProcess>,
    /// What can be ordered.
    pub(crate) items: Vec<i64>,
    stack: Stack,
}

impl System {
    /// Starts everything; the services are ready when this returns.
    pub(crate) async fn start() -> Result<Self> {
        let report = steps();
        let stack = Stack::temporary_with(&report).await?;
        let parts = stack.parts();
        let databases = report.step("Databases", parts.provision("")).await?;
        let broker = parts.broker_address();
        let topics = async {
            topics::apply(&Target::open(&broker, ""), &TopicsFile::embedded()?).await.map(drop)
        };
        report.step("Topics", topics).await?;
        let logs = parts.folder.join("logs");
        let services = ServiceProcess::trio(&databases, &broker, &parts.redis_url(), "", &logs)?;
        let start = async {
            try_join_all(services.values().map(|service| service.migrate(READY))).await?;
            services.values().try_for_each(ServiceProcess::start)?;
            try_join_all(services.values().map(|service| service.wait_ready(READY))).await
        };
        report.step("Services", start).await?;
        let items = make_items(&databases).await.context("making items")?;
        Ok(Self { services, items, stack })
    }

    /// Stops everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        try_join_all(self.services.values().map(ServiceProcess::terminate)).await?;
        self.stack.stop(&Report::log()).await
    }
}

/// Puts items into the store's table: an attack on the API must not be in their way.
async fn make_items(databases: &Databases) -> Result<Vec<i64>> {
    let url = databases[Cluster::Store].superuser_url();
    let mut store = PgConnection::connect(&url).await?;
    let made = sqlx::query_scalar(
        "INSERT INTO item (seller_id, name, price, quantity) \
         SELECT 1, 'item ' || n, 1000, $1 FROM generate_series(1, $2) n RETURNING item_id",
    )
    .bind(UNITS)
    .bind(ITEMS)
    .fetch_all(&mut store)
    .await?;
    store.close().await?;
    Ok(made)
}

/// The steps of the start, a line for each.
fn steps() -> Report {
    Report::new(|step| match step {
        Step::Begin(_) => {}
        Step::End(name, time) => say!("{name}: {:.1} s", time.as_secs_f64()),
        Step::Failed(name) => say!("{name}: failed"),
        Step::Note(text) => say!("{text}"),
    })
}
