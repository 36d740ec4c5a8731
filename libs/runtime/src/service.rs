//! A service put together: what all of them start, stop and depend on in the same way. A service
//! adds its API, its event handler and whatever else it runs.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ordersaga_contract::Topic;
use poem_openapi::OpenApi;
use sagabus::{Bus, Handler, Invalidate, Watcher};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{
    self, HttpConfig, KafkaConfig, LogConfig, MigrationConfig, PostgresConfig, ShutdownConfig,
    TraceConfig,
};
use crate::event::SagaEvent;
use crate::health::{Dependency, Health};
use crate::http::{self, HttpService};
use crate::lifecycle::{Lifecycle, Stage};
use crate::{clock, files, former_outbox, postgres, telemetry, trace};

/// The settings every service has.
#[derive(Args, Clone, Debug)]
pub struct ServiceConfig {
    /// The HTTP server.
    #[command(flatten)]
    pub http: HttpConfig,
    /// The service's database.
    #[command(flatten)]
    pub postgres: PostgresConfig,
    /// The broker.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// Logs.
    #[command(flatten)]
    pub log: LogConfig,
    /// Traces.
    #[command(flatten)]
    pub trace: TraceConfig,
    /// Stopping.
    #[command(flatten)]
    pub shutdown: ShutdownConfig,
    /// Threads that work on requests and records; as many as the machine has cores unless set. Fewer
    /// cost less CPU an order where databases and broker are on the same machine.
    #[arg(long, env = "WORKER_THREADS")]
    pub threads: Option<usize>,
}

/// A service being put together, and then running.
pub struct Service {
    config: ServiceConfig,
    lifecycle: Lifecycle,
    /// What the service depends on, as `/ready` shows it.
    pub health: Health,
    /// The service's database: up once its schema is there.
    pub database: Dependency,
    /// Connections to it.
    pub pool: PgPool,
    /// The bus over that database and the broker.
    pub bus: Bus,
}

impl Watcher for Dependency {
    fn up(&self) {
        Self::up(self);
    }

    fn down(&self, why: &str) {
        Self::down(self, why);
    }
}

/// How long blocking work may take after the service has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs a service's `main` on a runtime of its own, with logs and traces as configured.
pub fn run<F: Future<Output = anyhow::Result<ExitCode>>>(
    name: &'static str,
    config: &ServiceConfig,
    service: F,
) -> anyhow::Result<ExitCode> {
    config::hold(config.http.auth.check(config.http.listen));
    config::hold(http::auth::check_files(&config.http));
    telemetry::init(&config.log)?;
    files::raise_limit();
    // The last spans leave when the service has ended.
    let _exporting = trace::init(name, &config.trace)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(service);
    // A thread that reads a topic may wait for a broker that is away: nobody wants what it brings.
    runtime.shutdown_timeout(FAREWELL);
    outcome
}

/// Brings the service's database up to date if the process was started as `SERVICE migrate`: the
/// one that serves is not given the owner's password.
pub fn migrate(name: &str, migrations: &Migrator) -> Option<anyhow::Result<ExitCode>> {
    let config: MigrationConfig = config::migration(name)?;
    let all = [sagabus::migrations(), migrations];
    let work = postgres::migrate("postgres", config.owner.expose(), &all);
    Some(run_migration(&config.log, work))
}

/// Runs migrations to their end, or until told to stop.
pub fn run_migration(log: &LogConfig, work: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    telemetry::init(log)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        // The first process of a container hears no signal that it does not ask for.
        let mut stop = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            () = work => anyhow::Ok(ExitCode::SUCCESS),
            _ = stop.recv() => Ok(ExitCode::FAILURE),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
        }
    })
}

impl Service {
    /// A service with nothing running yet.
    pub fn new(name: &'static str, config: ServiceConfig) -> anyhow::Result<Self> {
        let health = Health::default();
        let url = config.postgres.url.expose();
        let pool = postgres::pool(url, name, config.postgres.connections)?;
        let kafka = &config.kafka;
        let bus = Bus::builder(pool.clone(), kafka.security.client(&kafka.brokers))
            .topic_prefix(&kafka.topic_prefix)
            .dead_letter_topic(Topic::DeadLetter.name())
            .source(format!("/{name}"))
            .clock(clock::now)
            .registry(prometheus::default_registry())
            .traces(trace::of_bus())
            .build()?;
        Ok(Self {
            lifecycle: Lifecycle::new(config.shutdown.timeout),
            database: health.required("postgres"),
            pool,
            bus,
            health,
            config,
        })
    }

    /// Cancelled when a stage is to stop.
    pub fn stop(&self, stage: Stage) -> CancellationToken {
        self.lifecycle.token(stage)
    }

    /// Runs a task from now until its stage stops.
    pub fn spawn<F>(
        &self,
        stage: Stage,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.lifecycle.spawn(stage, name, task(self.stop(stage)));
    }

    /// Runs a task from when the database is there until its stage stops.
    pub fn spawn_when_ready<F>(
        &self,
        stage: Stage,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let database = self.database.clone();
        self.spawn(stage, name, |stop| async move {
            if database.wait(&stop).await { task(stop).await } else { Ok(()) }
        });
    }

    /// Serves an API. The address is taken before anything else runs: a port in use is an error at
    /// once.
    pub async fn serve<A: OpenApi + Send + 'static>(
        &self,
        api: HttpService<A>,
    ) -> anyhow::Result<()> {
        if let Some(address) = self.config.http.admin_listen {
            let (listener, pages) = (http::bind(address).await?, api.admin_pages());
            self.spawn(Stage::Publish, "admin", |stop| http::serve_admin(listener, pages, stop));
        }
        let listener = http::bind(self.config.http.listen).await?;
        self.spawn(Stage::Intake, "http", |stop| http::serve(listener, api, stop));
        Ok(())
    }

    /// Keeps the database's state: up as soon as this query succeeds.
    pub fn keep_database(&self, query: &'static str) {
        let (pool, database) = (self.pool.clone(), self.database.clone());
        self.spawn(Stage::Intake, "database", |stop| postgres::keep(pool, database, query, stop));
    }

    /// Applies the events of `topics`.
    pub fn consume<H: Handler<Message = SagaEvent>>(&self, topics: &[Topic], handler: H) {
        let kafka = &self.config.kafka;
        let topics = topics.iter().map(|topic| topic.name());
        let consumer = self
            .bus
            .consumer(&kafka.group, topics, handler)
            .session_timeout(kafka.session_timeout)
            .watched_by(self.health.required("kafka-consumer"))
            // Not required: what a batch waits for shows, and gates traffic, under its own name.
            .processing_watched_by(self.health.optional("kafka-processing"));
        self.spawn_when_ready(Stage::Intake, "consumer", |stop| async move {
            Ok(consumer.run(stop).await?)
        });
    }

    /// Publishes what the outbox holds, dead letters included.
    pub fn relay(&self, caches: Option<Arc<dyn Invalidate>>) {
        let relay = self.bus.relay().watched_by(self.health.required("kafka-producer"));
        let relay = relay.learning(Topic::EVENTS.map(Topic::name));
        let relay = match caches {
            Some(caches) => relay.invalidating(caches),
            None => relay,
        };
        self.spawn_when_ready(
            Stage::Publish,
            "relay",
            |stop| async move { Ok(relay.run(stop).await?) },
        );
        let (pool, outbox) = (self.pool.clone(), self.bus.outbox().clone());
        self.spawn_when_ready(Stage::Intake, "former-outbox", |stop| {
            former_outbox::empty(pool, outbox, stop)
        });
    }

    /// Runs until told to stop or until a task fails.
    pub async fn run(self) -> ExitCode {
        self.lifecycle.run().await
    }
}
