//! A test's own system: databases and topics of its own on the shared parts, a Redis of its own
//! (items of two systems would meet under one key), three services on free ports, a client. All of
//! it goes away with the test, however that ends.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use ordersaga_checker::{History, Log, Onlooker};
use ordersaga_devstack::{
    Cluster, Database, Databases, Part, Parts, Service, ServiceProcess, TemporaryFolder, free_port,
    service_env, shared,
};
use ordersaga_runtime::topics::{self, Target, TopicsFile};
use reqwest::Client;
use sqlx::PgPool;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long anything may take that must happen.
pub(crate) const WITHIN: Duration = Duration::from_secs(40);
/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Systems that run at once: more would only wait for each other on a small machine.
const MOST: u32 = 3;
static PLACES: Semaphore = Semaphore::const_new(MOST as usize);

/// Keeps every other system from running until the permit is dropped.
pub(crate) async fn alone() -> Result<SemaphorePermit<'static>> {
    Ok(PLACES.acquire_many(MOST).await?)
}

/// Runs a test's future on the runtime all tests share.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Runtime::new().unwrap_or_else(|error| panic!("no runtime: {error}")));
    RUNTIME.block_on(future)
}

/// Runs a test on an ordinary system, ready for orders.
pub(crate) fn saga(test: impl AsyncFnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    block_on(Plan::default().run(test))
}

/// Says that a test does nothing here, and why.
#[expect(clippy::print_stderr, reason = "shown by the test harness")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !is_so().await.with_context(|| what.to_owned())? {
        ensure!(Instant::now() < deadline, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// How a test's system differs from the ordinary.
#[derive(Default)]
pub(crate) struct Plan {
    settings: Vec<(Service, &'static str, String)>,
    databases: Vec<(Cluster, Database)>,
    broker: Option<String>,
    idle: bool,
    alone: bool,
}

impl Plan {
    /// A setting of one service.
    pub(crate) fn set(mut self, service: Service, name: &'static str, value: &str) -> Self {
        self.settings.push((service, name, value.to_owned()));
        self
    }

    /// Another database in the place of one.
    pub(crate) fn database(mut self, cluster: Cluster, database: Database) -> Self {
        self.databases.push((cluster, database));
        self
    }

    /// Another broker.
    pub(crate) fn broker(mut self, address: String) -> Self {
        self.broker = Some(address);
        self
    }

    /// Nothing is started and no topics are made.
    pub(crate) fn idle(mut self) -> Self {
        self.idle = true;
        self
    }

    /// No other system runs meanwhile: the test measures times, or asks for a status at once. (A
    /// relay waits for every transaction of its cluster, and dropping another test's databases
    /// takes one as long as a checkpoint.)
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Makes the system, runs the test on it and clears it away.
    pub(crate) async fn run(self, test: impl AsyncFnOnce(&mut Bed) -> Result<()>) -> Result<()> {
        let _places = PLACES.acquire_many(if self.alone { MOST } else { 1 }).await?;
        let idle = self.idle;
        let mut bed = Bed::new(self).await?;
        let outcome = AssertUnwindSafe(async {
            if !idle {
                bed.apply_topics().await?;
                bed.start_all().await?;
            }
            test(&mut bed).await
        })
        .catch_unwind()
        .await;
        if !matches!(outcome, Ok(Ok(()))) {
            bed.show_logs();
        }
        let cleared = bed.clear().await;
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        cleared
    }
}

/// A running system.
pub(crate) struct Bed {
    pub(crate) databases: Databases,
    pub(crate) services: BTreeMap<Service, ServiceProcess>,
    pub(crate) broker: String,
    /// What the topics' names begin with.
    pub(crate) prefix: String,
    pub(crate) http: Client,
    pub(crate) redis: Part,
    parts: &'static Parts,
    settings: Vec<(Service, &'static str, String)>,
    name: String,
    onlooker: Onlooker,
    folder: TemporaryFolder,
    pub(crate) book: Mutex<History>,
}

impl Bed {
    async fn new(plan: Plan) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parts = shared().await?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}", std::process::id());
        let mut databases = parts.provision(&name).await?;
        for (cluster, database) in plan.databases {
            databases.set(cluster, database);
        }
        let broker = plan.broker.unwrap_or_else(|| parts.broker_address());
        let prefix = format!("{name}.");
        let redis = Part::temporary_redis().await?;
        let log = Log { broker: broker.clone(), prefix: prefix.clone() };
        let onlooker = Onlooker::new(&databases, log, redis.url())?;
        let http = Client::builder().no_proxy().timeout(WITHIN).build()?;
        // On a busy machine the first news of an order may take longer than a client's patience.
        let patient = (Service::Monitoring, "STATUS_GRACE_MS", "5000".to_owned());
        let mut bed = Self {
            databases,
            services: BTreeMap::new(),
            broker,
            prefix,
            http,
            parts,
            redis,
            settings: [patient].into_iter().chain(plan.settings).collect(),
            name,
            onlooker,
            folder: TemporaryFolder::new("bed")?,
            book: Mutex::default(),
        };
        for service in Service::ALL {
            let mut process = bed.instance(service, free_port()?, service.name());
            process.set("ADMIN_LISTEN", &format!("127.0.0.1:{}", free_port()?));
            bed.services.insert(service, process);
        }
        // The Location of a new order names monitoring's port, chosen only now.
        let status = format!("{}/api/v1/status", bed.url(Service::Monitoring));
        bed.settings.push((Service::CreateOrder, "STATUS_URL", status.clone()));
        if let Some(create) = bed.services.get_mut(&Service::CreateOrder) {
            create.set("STATUS_URL", &status);
        }
        Ok(bed)
    }

    /// A further process of a service on this system; not started.
    pub(crate) fn instance(&self, service: Service, port: u16, name: &str) -> ServiceProcess {
        let redis = self.redis.url();
        let mut environment =
            service_env(service, &self.databases, &self.broker, &redis, &self.prefix, port);
        for (of, name, value) in &self.settings {
            if *of == service {
                environment.insert((*name).to_owned(), value.clone());
            }
        }
        let log = self.folder.path().join(format!("{name}.log"));
        ServiceProcess::new(service, environment, log)
    }

    /// Where the broker keeps its topics.
    pub(crate) fn broker_data(&self) -> std::path::PathBuf {
        self.parts.folder.join("broker/data")
    }

    fn topics(&self) -> Target {
        Target::open(&self.broker, &self.prefix)
    }

    /// Makes the topics.
    pub(crate) async fn apply_topics(&self) -> Result<()> {
        topics::apply(&self.topics(), &TopicsFile::embedded()?).await.map(drop)
    }

    /// Brings the databases up to date.
    pub(crate) async fn migrate(&self) -> Result<()> {
        try_join_all(self.services.values().map(|process| process.migrate(WITHIN))).await.map(drop)
    }

    /// Migrates, starts the three services and waits until each is ready.
    pub(crate) async fn start_all(&self) -> Result<()> {
        self.migrate().await?;
        for process in self.services.values() {
            process.start()?;
        }
        self.wait_ready().await
    }

    /// Waits until each of the three services is ready.
    pub(crate) async fn wait_ready(&self) -> Result<()> {
        for process in self.services.values() {
            process.wait_ready(WITHIN).await?;
        }
        Ok(())
    }

    /// Starts one service and waits until it is ready.
    pub(crate) async fn start(&self, service: Service) -> Result<()> {
        self.services[&service].start()?;
        self.services[&service].wait_ready(WITHIN).await
    }

    async fn clear(&mut self) -> Result<()> {
        for process in self.services.values() {
            process.kill9().await?;
        }
        self.onlooker.close().await;
        self.parts.drop_databases(&self.name).await?;
        if self.broker == self.parts.broker_address() {
            topics::delete(&self.topics(), &TopicsFile::embedded()?).await?;
        }
        Ok(())
    }

    #[expect(clippy::print_stderr, reason = "shown by the test harness when the test fails")]
    fn show_logs(&self) {
        let entries = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        for entry in entries {
            eprintln!("--- {}\n{}", entry.file_name().display(), end_of(&entry.path()));
        }
    }

    /// A database, as superuser.
    pub(crate) fn sql(&self, cluster: Cluster) -> &PgPool {
        self.onlooker.sql(cluster)
    }

    /// A number that a query of one database gives.
    pub(crate) async fn number(&self, cluster: Cluster, query: &'static str) -> Result<i64> {
        self.onlooker.number(cluster, query).await
    }

    /// The records of this system's topics.
    pub(crate) fn log(&self) -> &Log {
        &self.onlooker.log
    }

    /// Somebody who sees everything, and asks the services that run.
    pub(crate) fn onlooker(&self) -> Onlooker {
        let running = self.services.iter().filter(|(_, process)| process.is_running());
        let mut onlooker = self.onlooker.clone();
        onlooker.urls = running.map(|(service, process)| (*service, process.url())).collect();
        onlooker
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
