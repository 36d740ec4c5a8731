//! One part of the stack: a Postgres cluster, Redis or the broker.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::broker::{self, Kit};
use crate::databases::Server;
use crate::parts::Passwords;
use crate::runner::Runner;
use crate::{Security, TemporaryFolder, free_port, is_free, postgres, redis};

/// A start may have to repair what a kill left behind, on a busy machine.
const START: Duration = Duration::from_mins(2);
const STOP: Duration = Duration::from_mins(1);

enum Recipe {
    Postgres(Passwords, Vec<String>),
    Redis(Option<Arc<Security>>),
    Broker(broker::Ports),
}

/// A part owned by whoever started it; dropping it kills it.
pub struct Part {
    // Dropped before the folder its process works in.
    runner: Runner,
    recipe: Recipe,
    folder: PathBuf,
    port: u16,
    _temporary: Option<TemporaryFolder>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} on port {}", self.name(), self.port)
    }
}

impl Part {
    pub(crate) fn postgres(
        name: &str,
        folder: PathBuf,
        port: u16,
        passwords: Passwords,
        log: PathBuf,
    ) -> Self {
        Self::new(name, Recipe::Postgres(passwords, Vec::new()), folder, port, log)
    }

    pub(crate) fn redis(folder: PathBuf, port: u16, log: PathBuf) -> Self {
        Self::new("redis", Recipe::Redis(None), folder, port, log)
    }

    pub(crate) fn broker(folder: PathBuf, ports: broker::Ports, log: PathBuf) -> Self {
        let port = ports.listen;
        Self::new("broker", Recipe::Broker(ports), folder, port, log)
    }

    fn new(name: &str, recipe: Recipe, folder: PathBuf, port: u16, log: PathBuf) -> Self {
        Self { runner: Runner::new(name, log), recipe, folder, port, _temporary: None }
    }

    /// A private Postgres cluster in a temporary folder, started.
    pub async fn temporary_postgres() -> Result<Self> {
        let temporary = TemporaryFolder::new("postgres")?;
        let folder = temporary.path().join("postgres/private");
        let log = temporary.path().join("log");
        let part = Self::postgres("postgres", folder, free_port()?, Passwords::random()?, log);
        part.begin(temporary).await
    }

    /// A private Redis, started.
    pub async fn temporary_redis() -> Result<Self> {
        let temporary = TemporaryFolder::new("redis")?;
        let folder = temporary.path().join("redis");
        let log = temporary.path().join("log");
        let part = Self::redis(folder, free_port()?, log);
        part.begin(temporary).await
    }

    /// A private broker, started. `advertised` is the port it tells clients to use, when that is
    /// a proxy's; the proxy forwards to [`Part::port`].
    pub async fn temporary_broker(advertised: Option<u16>) -> Result<Self> {
        let temporary = TemporaryFolder::new("broker")?;
        let ports = broker::Ports::free(advertised)?;
        let folder = temporary.path().join("broker");
        let part = Self::broker(folder, ports, temporary.path().join("log"));
        part.begin(temporary).await
    }

    /// The same three, as production has them: encrypted, and for known users only. Postgres takes
    /// no connection in clear.
    pub async fn secured_postgres(security: &Arc<Security>) -> Result<Self> {
        let temporary = TemporaryFolder::new("postgres")?;
        let folder = temporary.path().join("postgres/private");
        let log = temporary.path().join("log");
        let recipe = Recipe::Postgres(Passwords::random()?, security.postgres_settings());
        let part = Self::new("postgres", recipe, folder, free_port()?, log);
        part.begin(temporary).await
    }

    /// A private Redis for the user `store` only, encrypted, started.
    pub async fn secured_redis(security: &Arc<Security>) -> Result<Self> {
        let temporary = TemporaryFolder::new("redis")?;
        let folder = temporary.path().join("redis");
        let recipe = Recipe::Redis(Some(Arc::clone(security)));
        let part = Self::new("redis", recipe, folder, free_port()?, temporary.path().join("log"));
        part.begin(temporary).await
    }

    /// A private broker that asks for users and grants nothing of itself, encrypted, started. Its
    /// superuser is `admin`.
    pub async fn secured_broker(security: &Arc<Security>) -> Result<Self> {
        let temporary = TemporaryFolder::new("broker")?;
        let secured = broker::Secured { security: Arc::clone(security), sasl: free_port()? };
        let ports = broker::Ports { secured: Some(secured), ..broker::Ports::free(None)? };
        let folder = temporary.path().join("broker");
        let part = Self::broker(folder, ports, temporary.path().join("log"));
        part.begin(temporary).await
    }

    async fn begin(self, temporary: TemporaryFolder) -> Result<Self> {
        let part = Self { _temporary: Some(temporary), ..self };
        part.start().await?;
        Ok(part)
    }

    /// Its name: a cluster's, `redis` or `broker`.
    pub fn name(&self) -> &str {
        &self.runner.name
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.runner.pid()
    }

    /// How it ended, if it was started and has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.runner.exited()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        self.runner.log()
    }

    /// The Postgres server this part is.
    ///
    /// # Panics
    /// When it is Redis or the broker.
    pub fn server(&self) -> Server {
        match &self.recipe {
            Recipe::Postgres(passwords, _) => {
                Server { port: self.port, passwords: passwords.clone() }
            }
            Recipe::Redis(_) | Recipe::Broker(_) => panic!("{} is no Postgres server", self.name()),
        }
    }

    /// What a client connects to: host and port, for Redis as a URL.
    pub fn url(&self) -> String {
        match &self.recipe {
            Recipe::Redis(None) => format!("redis://127.0.0.1:{}/0", self.port),
            Recipe::Redis(Some(security)) => {
                format!("rediss://store:{}@127.0.0.1:{}/0", security.redis_password, self.port)
            }
            Recipe::Broker(ports) => format!("127.0.0.1:{}", ports.advertised),
            Recipe::Postgres(..) => format!("127.0.0.1:{}", self.port),
        }
    }

    /// Starts it, on its data if it has any; it is ready when this returns.
    pub async fn start(&self) -> Result<()> {
        match &self.recipe {
            Recipe::Postgres(passwords, settings) => self.start_postgres(passwords, settings).await,
            Recipe::Redis(security) => self.start_redis(security.as_deref()).await,
            Recipe::Broker(ports) => self.start_broker(ports).await,
        }
    }

    /// Starts it after it has ended, on the data it had; it is ready when this returns. An error if
    /// they are gone: in their place [`Part::start`] would begin with none, and what was
    /// acknowledged would be lost without a word.
    pub async fn start_again(&self) -> Result<()> {
        let has_data = match &self.recipe {
            Recipe::Postgres(..) => postgres::exists(&self.folder),
            Recipe::Broker(_) => broker::exists(&self.folder),
            // It keeps none.
            Recipe::Redis(_) => true,
        };
        ensure!(has_data, "its data are gone from {}", self.folder.display());
        self.start().await
    }

    async fn start_postgres(&self, passwords: &Passwords, settings: &[String]) -> Result<()> {
        let folders = [self.folder.clone()];
        let password = passwords.superuser.clone();
        tokio::task::spawn_blocking(move || postgres::create(&folders, &password)).await??;
        // The server knows its folder by its real path.
        let folder = self.folder.canonicalize()?;
        postgres::clear(&folder).await?;
        let launch = postgres::launch(&folder, self.port, settings, self.log())?;
        let pid = self.runner.start(&launch)?.pid();
        let ready = || std::future::ready(postgres::is_ready(&folder, pid));
        self.runner.wait_until(START, ready).await
    }

    async fn start_redis(&self, security: Option<&Security>) -> Result<()> {
        let launch = redis::launch(&self.folder, self.port, security, self.log())?;
        self.runner.start(&launch)?;
        let ready = async || match security {
            None => redis::is_ready(self.port).await,
            // It listens only when it is.
            Some(_) => !is_free(self.port),
        };
        self.runner.wait_until(START, ready).await
    }

    async fn start_broker(&self, ports: &broker::Ports) -> Result<()> {
        let kit = tokio::task::spawn_blocking(Kit::get).await??;
        let offset = std::fs::metadata(self.log()).map_or(0, |file| file.len());
        let launch = kit.launch(&self.folder, ports, self.log())?;
        self.runner.start(&launch)?;
        let ready = || std::future::ready(broker::started(self.log(), offset));
        self.runner.wait_until(START, ready).await
    }

    /// Stops it cleanly; nothing to do when it does not run.
    pub async fn stop(&self) -> Result<()> {
        let signal = match &self.recipe {
            // Fast shutdown: does not wait for clients to go.
            Recipe::Postgres(..) => Signal::INT,
            Recipe::Redis(_) | Recipe::Broker(_) => Signal::TERM,
        };
        self.runner.stop(signal, STOP).await.map(drop)
    }

    /// Kills it and its children with SIGKILL; they are gone when this returns.
    pub async fn kill9(&self) -> Result<()> {
        self.runner.kill().await
    }

    /// Moves a Postgres cluster to another file system: into `folder`, which must not be there
    /// yet. `settings`, as `name=value`, are added to its own. It runs when this returns.
    ///
    /// # Panics
    /// When it is Redis or the broker.
    pub async fn move_to(&mut self, folder: PathBuf, settings: Vec<String>) -> Result<()> {
        let Recipe::Postgres(_, further) = &mut self.recipe else {
            panic!("{} is no Postgres server", self.runner.name);
        };
        further.extend(settings);
        self.stop().await?;
        let old = self.folder.canonicalize()?;
        tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || postgres::copy(&old, &folder)
        })
        .await??;
        self.folder = folder;
        self.start().await
    }

    /// Stops and starts it.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Freezes it and its children (SIGSTOP): its connections stay open and fall silent.
    pub fn pause(&self) -> Result<()> {
        self.runner.signal_tree(Signal::STOP)
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        self.runner.signal_tree(Signal::CONT)
    }
}
