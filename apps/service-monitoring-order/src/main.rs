//! service-monitoring-order: follows every topic and answers for the status of each order, from a
//! table hash-partitioned over several nodes.

mod api;
mod config;
mod coordinator;
mod db;
mod follower;
mod shards;
mod waiters;

use std::process::ExitCode;
use std::sync::Arc;

use ordersaga_contract::Topic;
use ordersaga_runtime::consumer::Consumer;
use ordersaga_runtime::health::Health;
use ordersaga_runtime::http::{self, HttpService};
use ordersaga_runtime::lifecycle::{Lifecycle, Stage};
use ordersaga_runtime::outbox::Outbox;
use ordersaga_runtime::relay::Relay;
use ordersaga_runtime::{postgres, telemetry};

use crate::config::Config;
use crate::shards::Shards;
use crate::waiters::Waiters;

const NAME: &str = "service-monitoring-order";

fn main() -> anyhow::Result<ExitCode> {
    if http::print_spec::<api::Api>(&api::ABOUT) {
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::from_environment();
    telemetry::init(&config.log)?;
    tokio::runtime::Runtime::new()?.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let lifecycle = Lifecycle::new(config.shutdown.timeout);
    let health = Health::default();
    let database = health.required("postgres");
    let producer = health.required("kafka-producer");
    let consumer = health.required("kafka-consumer");
    let nodes = config.nodes()?;
    let url = config.postgres.url.expose();
    let pool = postgres::pool(url, NAME, config.postgres.connections)?;
    let shards = Arc::new(Shards::new(&nodes, &health, pool.clone(), config.postgres.connections)?);
    let waiters = Arc::new(Waiters::default());

    let stop = lifecycle.token(Stage::Intake);
    let api = api::Api::new(shards.clone(), waiters.clone(), config.status_grace_ms, stop.clone());
    let listener = http::bind(config.http.listen).await?;
    let service = HttpService::new(api::ABOUT, api, health.clone(), &config.http)
        .long_poll("/api/v1/status", api::LONGEST_WAIT + config.http.timeout);
    lifecycle.spawn(Stage::Intake, "http", http::serve(listener, service, stop));

    for node in &nodes {
        let (shards, stop) = (shards.clone(), lifecycle.token(Stage::Intake));
        let node = node.clone();
        lifecycle.spawn(Stage::Intake, "shard", async move { shards.keep(node, stop).await });
    }
    let coordinator = coordinator::Coordinator {
        owner: config.postgres.migration_url.clone(),
        nodes,
        shards: shards.clone(),
        pool: pool.clone(),
    };
    let (stop, kept) = (lifecycle.token(Stage::Intake), database.clone());
    lifecycle.spawn(Stage::Intake, "coordinator", coordinator.keep(kept, stop));

    let consume = Consumer {
        kafka: config.kafka.clone(),
        pool: pool.clone(),
        topics: &Topic::EVENTS,
        broker: consumer,
    };
    let follower = follower::Follower::new(shards, waiters);
    let (stop, ready) = (lifecycle.token(Stage::Intake), database.clone());
    lifecycle.spawn(Stage::Intake, "consumer", async move {
        if ready.wait(&stop).await { consume.run(follower, stop).await } else { Ok(()) }
    });

    // Monitoring says nothing of its own, but it too has dead letters to send.
    let relay = Relay {
        database: postgres::options(url, NAME)?,
        pool,
        outbox: Outbox::default(),
        kafka: config.kafka,
        source: "/service-monitoring-order",
        broker: producer,
        caches: None,
    };
    let stop = lifecycle.token(Stage::Publish);
    lifecycle.spawn(Stage::Publish, "relay", async move {
        if database.wait(&stop).await { relay.run(stop).await } else { Ok(()) }
    });
    Ok(lifecycle.run().await)
}
