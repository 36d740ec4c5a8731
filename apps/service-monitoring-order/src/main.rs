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
use ordersaga_runtime::http::{self, HttpService};
use ordersaga_runtime::lifecycle::Stage;
use ordersaga_runtime::service::{self, Service};

use crate::config::Config;
use crate::shards::Shards;
use crate::waiters::Waiters;

const NAME: &str = "service-monitoring-order";

fn main() -> anyhow::Result<ExitCode> {
    if http::print_spec::<api::Api>(&api::ABOUT) {
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::from_environment();
    service::run(NAME, &config.service.clone(), run(config))
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let service = Service::new(NAME, config.service.clone())?;
    let (nodes, http) = (config.nodes()?, &config.service.http);
    let connections = config.service.postgres.connections;
    let shards = Shards::new(&nodes, &service.health, service.pool.clone(), connections)?;
    let (shards, waiters) = (Arc::new(shards), Arc::new(Waiters::default()));

    let stop = service.stop(Stage::Intake);
    let api = api::Api::new(shards.clone(), waiters.clone(), config.status_grace_ms, stop);
    let api = HttpService::new(api::ABOUT, api, service.health.clone(), http)
        .long_poll("/api/v1/status", api::LONGEST_WAIT + http.timeout);
    service.serve(api).await?;

    for node in nodes.clone() {
        let shards = shards.clone();
        service.spawn(
            Stage::Intake,
            node.name,
            |stop| async move { shards.keep(node, stop).await },
        );
    }
    let coordinator = coordinator::Coordinator {
        owner: config.service.postgres.migration_url.clone(),
        nodes,
        shards: shards.clone(),
        pool: service.pool.clone(),
    };
    let database = service.database.clone();
    service.spawn(Stage::Intake, "coordinator", |stop| coordinator.keep(database, stop));
    service.consume(&Topic::EVENTS, follower::Follower::new(shards, waiters));
    // Monitoring says nothing of its own, but it too has dead letters to send.
    service.relay(None)?;
    Ok(service.run().await)
}
