//! The services as child processes, and the one place that knows their environment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::databases::{Database, Databases};
use crate::free_port;
use crate::logs::tail;
use crate::names::{Cluster, Service};
use crate::process::Launch;
use crate::runner::Runner;

const STOP: Duration = Duration::from_secs(30);
/// Variables with an owner's password: for a migration, never for the process that serves.
const OWNERS: [&str; 2] = ["DATABASE_MIGRATION_URL", "SHARDS_MIGRATION"];

/// The environment of a service and of its migration: the single source of the variables' names.
/// `prefix` is that of the topics and of the consumer group, so that systems sharing a broker do not
/// share those.
pub fn service_env(
    service: Service,
    databases: &Databases,
    broker: &str,
    redis: &str,
    prefix: &str,
    port: u16,
) -> BTreeMap<String, String> {
    let own = &databases[service.cluster()];
    let mut variables = vec![
        ("HTTP_LISTEN", format!("127.0.0.1:{port}")),
        ("DATABASE_URL", own.service_url()),
        ("DATABASE_MIGRATION_URL", own.owner_url()),
        ("KAFKA_BROKERS", broker.to_owned()),
        ("KAFKA_TOPIC_PREFIX", prefix.to_owned()),
        ("KAFKA_GROUP", format!("{prefix}{}", service.group())),
        ("LOG_FORMAT", "json".to_owned()),
        // With RUST_BACKTRACE set, every error of an outage would otherwise collect a backtrace.
        ("RUST_LIB_BACKTRACE", "0".to_owned()),
    ];
    match service {
        Service::CreateOrder => {
            variables.push(("STATUS_URL", status_url(Service::Monitoring.port())));
        }
        Service::Store => variables.push(("REDIS_URL", redis.to_owned())),
        Service::Monitoring => variables.extend([
            ("SHARDS", shards(databases, Database::fdw_url)),
            ("SHARDS_MIGRATION", shards(databases, Database::owner_url)),
        ]),
    }
    let variables = variables.into_iter();
    variables.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn shards(databases: &Databases, url: fn(&Database) -> String) -> String {
    [Cluster::Shard1, Cluster::Shard2]
        .map(|shard| format!("{shard}={}", url(&databases[shard])))
        .join(",")
}

fn status_url(port: u16) -> String {
    format!("http://localhost:{port}/api/v1/status")
}

/// The binary of a service, beside the running one (a test's lies one folder below).
pub fn binary(service: Service) -> Result<PathBuf> {
    program_beside(service.name())
}

/// The program of the workspace that lies beside the running one.
pub(crate) fn program_beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut folders = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    folders.find(|file| file.is_file()).with_context(|| {
        format!("{name} is not built: cargo build --package {name} (cargo ordersaga does it)")
    })
}

/// A service that runs, or will.
pub struct ServiceProcess {
    runner: Runner,
    service: Service,
    environment: BTreeMap<String, String>,
    port: u16,
    /// Where its binary is, if not beside the running one.
    binaries: Option<PathBuf>,
    /// It brings the databases up to date, and ends.
    migrates: bool,
}

impl std::fmt::Debug for ServiceProcess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} on port {}", self.service, self.port)
    }
}

impl ServiceProcess {
    /// Not started yet. `HTTP_LISTEN` of the environment says its port; output is appended to `log`.
    pub fn new(service: Service, environment: BTreeMap<String, String>, log: PathBuf) -> Self {
        let listen = environment.get("HTTP_LISTEN").map(String::as_str);
        let port = listen.and_then(|address| address.rsplit(':').next()?.parse().ok());
        Self {
            runner: Runner::new(service.name(), log),
            service,
            environment,
            port: port.unwrap_or_else(|| service.port()),
            binaries: None,
            migrates: false,
        }
    }

    /// The process that migrates for it, not started yet. It has the same log.
    #[must_use]
    pub fn migration(&self) -> Self {
        Self {
            runner: Runner::new(format!("{} migrate", self.service), self.log().to_owned()),
            service: self.service,
            environment: self.environment.clone(),
            port: self.port,
            binaries: self.binaries.clone(),
            migrates: true,
        }
    }

    /// Brings its databases up to date.
    pub async fn migrate(&self, within: Duration) -> Result<()> {
        let migration = self.migration();
        migration.start()?;
        let status = migration.wait_exit(within).await?;
        ensure!(
            status.success(),
            "{} ended ({status}); its log ends:\n{}",
            migration.name(),
            tail(self.log())
        );
        Ok(())
    }

    /// Takes the binary from this folder for the next start.
    pub fn take_binary_from(&mut self, folder: &Path) {
        self.binaries = Some(folder.to_owned());
    }

    /// All three on free ports, not started, each with its log in the folder `logs`.
    pub fn trio(
        databases: &Databases,
        broker: &str,
        redis: &str,
        prefix: &str,
        logs: &Path,
    ) -> Result<BTreeMap<Service, Self>> {
        let mut services = BTreeMap::new();
        for service in Service::ALL {
            let port = free_port()?;
            let environment = service_env(service, databases, broker, redis, prefix, port);
            let log = logs.join(format!("{service}.log"));
            services.insert(service, Self::new(service, environment, log));
        }
        let status = status_url(services[&Service::Monitoring].port);
        if let Some(create) = services.get_mut(&Service::CreateOrder) {
            create.set("STATUS_URL", &status);
        }
        Ok(services)
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Takes a variable away for the next start.
    pub fn unset(&mut self, name: &str) {
        self.environment.remove(name);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.runner.name
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.runner.pid()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        self.runner.log()
    }

    /// How it ended, if it was started and has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.runner.exited()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Starts its process; see [`ServiceProcess::wait_ready`].
    pub fn start(&self) -> Result<()> {
        let mut environment = self.environment.clone();
        if !self.migrates {
            environment.retain(|name, _| !OWNERS.contains(&name.as_str()));
        }
        let launch = Launch {
            program: match &self.binaries {
                Some(folder) => folder.join(self.service.name()),
                None => binary(self.service)?,
            },
            arguments: if self.migrates { vec!["migrate".into()] } else { Vec::new() },
            environment,
            folder: None,
            log: self.log().to_owned(),
            death_signal: "KILL",
            user: None,
        };
        self.runner.start(&launch).map(drop)
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        let ready = || is_ready(self.port);
        self.runner.wait_until(within, ready).await
    }

    /// Asks it to stop, and waits until it has.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        let status = self.runner.stop(Signal::TERM, STOP).await?;
        status.with_context(|| format!("{} was not started", self.name()))
    }

    /// Kills it with SIGKILL; it is gone when this returns.
    pub async fn kill9(&self) -> Result<()> {
        self.runner.kill().await
    }

    /// Waits until it has ended by itself.
    pub async fn wait_exit(&self, within: Duration) -> Result<ExitStatus> {
        self.runner.wait_exit(within).await
    }

    /// Freezes it (SIGSTOP).
    pub fn pause(&self) -> Result<()> {
        self.runner.signal_tree(Signal::STOP)
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        self.runner.signal_tree(Signal::CONT)
    }
}

/// Whether the service on this port answers `/ready` with 200.
pub async fn is_ready(port: u16) -> bool {
    tokio::time::timeout(Duration::from_secs(5), ask_ready(port))
        .await
        .is_ok_and(|answer| answer.is_ok())
}

async fn ask_ready(port: u16) -> Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await?;
    let mut begin = [0; 12];
    connection.read_exact(&mut begin).await?;
    if !begin.ends_with(b" 200") {
        bail!("not ready");
    }
    Ok(())
}
