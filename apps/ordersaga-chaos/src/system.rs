//! The system under test: all parts and services as processes of their own, and a proxy on every
//! link between them.

mod supervisor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_contract::PARTITIONS;
use ordersaga_devstack::{
    Cluster, Databases, Part, Parts, Report, Service, ServiceProcess, Stack, TemporaryFolder,
    free_port, service_env,
};
use ordersaga_links::Links;
use ordersaga_runtime::topics::{self, Target, TopicsFile};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::disk::Disk;
use supervisor::Processes;

/// How long a service may take to be ready.
const READY: Duration = Duration::from_mins(1);
/// The client whose rows the databases refuse: no client of the run has this number.
pub(crate) const REFUSED_CLIENT: i64 = i64::MAX;
/// The smallest that Postgres takes: two segments.
const LEAST_WAL: u64 = 32 << 20;

/// How a system differs from the ordinary.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// A folder with other binaries of the services (one, two or all three of them).
    pub(crate) services: Option<PathBuf>,
    /// A disk of so many bytes for one cluster; an empty cluster takes 60 MB of it.
    pub(crate) small_disk: Option<(Cluster, u64)>,
    /// Variables of a service's environment.
    pub(crate) settings: Vec<(Service, &'static str, String)>,
}

/// A running system. Dropping it kills all of it and removes its folder.
pub(crate) struct System {
    // In the order they are to be dropped.
    watchers: JoinSet<()>,
    processes: Arc<Processes>,
    /// A proxy on every link.
    pub(crate) links: Links,
    disk: Option<Disk>,
    way_in: WayIn,
    databases: Databases,
    instances: AtomicU32,
    _folder: TemporaryFolder,
}

/// What a service is told: where everything is, seen through the proxies.
struct WayIn {
    /// The databases behind their proxies.
    databases: Databases,
    redis: String,
    brokers: BTreeMap<Service, String>,
    options: Options,
    logs: PathBuf,
    status_url: String,
}

impl System {
    /// Starts everything; the three services are ready when this returns.
    pub(crate) async fn start(options: Options, report: &Report) -> Result<Self> {
        let folder = TemporaryFolder::new("chaos")?;
        let parts = Parts::open(folder.path(), None)?;
        let (links, listeners) = Links::start(&parts).await?;
        let mut stack = Stack::start_with(parts, listeners, report).await?;
        let disk = match options.small_disk {
            Some((cluster, bytes)) => Some(move_to_disk(&mut stack, cluster, bytes).await?),
            None => None,
        };
        let parts = stack.parts();
        let databases = report.step("Databases", parts.provision("")).await?;
        let broker = parts.broker_address();
        let topics = async {
            topics::apply(&Target::open(&broker, ""), &TopicsFile::embedded()?).await.map(drop)
        };
        report.step("Topics", topics).await?;
        let doors = Service::ALL.map(|service| Ok((service, free_port()?)));
        let doors: BTreeMap<_, _> = doors.into_iter().collect::<Result<_>>()?;
        let way_in = WayIn {
            databases: links.databases(&databases),
            redis: links.redis_url(),
            brokers: Service::ALL.map(|service| (service, links.broker(service))).into(),
            options,
            logs: parts.folder.join("logs"),
            status_url: format!("http://127.0.0.1:{}/api/v1/status", doors[&Service::Monitoring]),
        };
        let services = Service::ALL.map(|service| {
            Ok((service, way_in.instance(service, doors[&service], service.name())?))
        });
        let services = services.into_iter().collect::<Result<_>>()?;
        let processes = Arc::new(Processes::new(stack, services));
        let watchers = processes.watch();
        let system = Self {
            watchers,
            processes,
            links,
            disk,
            way_in,
            databases,
            instances: AtomicU32::new(1),
            _folder: folder,
        };
        report.step("Services", system.start_services()).await?;
        system.refuse_a_client().await?;
        Ok(system)
    }

    async fn start_services(&self) -> Result<()> {
        try_join_all(Service::ALL.map(|service| self.service(service).migrate(READY))).await?;
        try_join_all(Service::ALL.map(|service| self.start_service(service))).await?;
        let ready = Service::ALL.map(|service| self.service(service).wait_ready(READY));
        try_join_all(ready).await.map(drop)
    }

    /// Lets every consumer of `incoming` have a database that refuses a client's rows.
    async fn refuse_a_client(&self) -> Result<()> {
        let shard = (0..PARTITIONS).map(|p| format!("order_event_{p:02}")).collect::<Vec<_>>();
        let store = vec!["reservation".to_owned()];
        for (cluster, tables) in
            [(Cluster::Store, &store), (Cluster::Shard1, &shard), (Cluster::Shard2, &shard)]
        {
            let url = self.databases[cluster].superuser_url();
            let mut database = PgConnection::connect(&url).await?;
            for table in tables {
                let refuse = format!(
                    "ALTER TABLE {table} ADD CONSTRAINT refused CHECK (client_id <> {REFUSED_CLIENT})"
                );
                sqlx::query(sqlx::AssertSqlSafe(refuse)).execute(&mut database).await?;
            }
        }
        Ok(())
    }

    /// A part by name: `create-order`, `store`, `monitoring`, `shard1`, `shard2`, `redis` or
    /// `broker`. One that is killed by [`Part::kill9`] is started again as if it had crashed.
    ///
    /// # Panics
    /// When there is none of this name.
    pub(crate) fn part(&self, name: &str) -> &Part {
        self.processes.stack.part(name)
    }

    /// The first instance of a service; as with parts, `kill9` is a crash.
    pub(crate) fn service(&self, service: Service) -> &ServiceProcess {
        &self.processes.services[&service]
    }

    /// A further instance on a free port, through the same proxies; not started, and not started
    /// again when it ends.
    pub(crate) fn instance(
        &self,
        service: Service,
        extra: &[(&str, &str)],
    ) -> Result<ServiceProcess> {
        let number = self.instances.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{service}-{number}");
        let mut process = self.way_in.instance(service, free_port()?, &name)?;
        for (name, value) in extra {
            process.set(name, value);
        }
        Ok(process)
    }

    /// Kills the first instance of a service, which stays down until it is started.
    pub(crate) async fn kill_service(&self, service: Service) -> Result<()> {
        self.processes.kill(service.name()).await
    }

    /// Starts it again, and does not wait until it is ready.
    pub(crate) async fn start_service(&self, service: Service) -> Result<()> {
        self.processes.start(service.name()).await
    }

    /// Kills a part, which stays down until it is started.
    pub(crate) async fn kill_part(&self, name: &str) -> Result<()> {
        self.processes.kill(name).await
    }

    /// Starts it again; it is ready when this returns.
    pub(crate) async fn start_part(&self, name: &str) -> Result<()> {
        self.processes.start(name).await
    }

    /// How often something was started again because it had ended by itself, by name.
    pub(crate) fn restarts(&self) -> BTreeMap<String, u32> {
        self.processes.restarts()
    }

    /// The databases, past the proxies.
    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }

    /// The broker, past the proxies.
    pub(crate) fn broker(&self) -> String {
        self.processes.stack.parts().broker_address()
    }

    /// Redis, past the proxies.
    pub(crate) fn redis_url(&self) -> String {
        self.processes.stack.parts().redis_url()
    }

    /// Where the logs are: gone with the system.
    pub(crate) fn logs(&self) -> &Path {
        &self.way_in.logs
    }

    /// The small disk, if there is one.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Stops everything in order, paused or not.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.watchers.shutdown().await;
        self.links.set_all(None);
        if let Some(disk) = &self.disk {
            disk.free()?;
        }
        self.processes.resume_all();
        for service in self.processes.services.values() {
            if service.is_running() {
                service.terminate().await?;
            }
        }
        self.processes.stack.stop(&Report::log()).await
    }
}

impl WayIn {
    fn instance(&self, service: Service, port: u16, name: &str) -> Result<ServiceProcess> {
        let broker = &self.brokers[&service];
        let mut variables = service_env(service, &self.databases, broker, &self.redis, "", port);
        if service == Service::CreateOrder {
            variables.insert("STATUS_URL".to_owned(), self.status_url.clone());
        }
        for (of, name, value) in &self.options.settings {
            if *of == service {
                variables.insert((*name).to_owned(), value.clone());
            }
        }
        let log = self.logs.join(format!("{name}.log"));
        let mut process = ServiceProcess::new(service, variables, log);
        if let Some(folder) = &self.options.services {
            let there = |service: Service| folder.join(service.name()).is_file();
            ensure!(Service::ALL.into_iter().any(there), "no service in {}", folder.display());
            if there(service) {
                process.take_binary_from(folder);
            }
        }
        Ok(process)
    }
}

/// Gives one cluster a disk of its own.
async fn move_to_disk(stack: &mut Stack, cluster: Cluster, bytes: u64) -> Result<Disk> {
    let disk = Disk::mount(&stack.parts().folder.join("small-disk"), bytes)?;
    // Postgres' own log must not fill it: a checkpoint sets its space free.
    let wal = (bytes / 4).max(LEAST_WAL) >> 20;
    let least = LEAST_WAL >> 20;
    let settings = vec![format!("max_wal_size={wal}MB"), format!("min_wal_size={least}MB")];
    let to = stack.parts().folder.join("small-disk/data");
    stack.part_mut(cluster.name()).move_to(to, settings).await?;
    Ok(disk)
}
