//! service-monitoring-order: follows every topic and answers for the status of each order, from a
//! table hash-partitioned over several nodes.

mod api;
mod budget;
mod config;
mod coordinator;
mod cursor;
mod db;
mod desk;
mod dry_run;
mod evidence;
#[cfg(test)]
mod examples;
mod follower;
mod in_flight;
mod latency;
mod letters;
mod lists;
mod page;
mod progress;
mod shards;
mod shown;
mod stream;
mod stuck;
mod waiters;

use std::process::ExitCode;
use std::sync::Arc;

use ordersaga_contract::Topic;
use ordersaga_runtime::http::{self, Access, HttpService, Scope};
use ordersaga_runtime::lifecycle::Stage;
use ordersaga_runtime::postgres;
use ordersaga_runtime::service::{self, Service};
use tokio::task::JoinSet;

use crate::api::Api;
use crate::api::dry_run::DryRunApi;
use crate::api::evidence::EvidenceApi;
use crate::api::fold::FoldApi;
use crate::api::letters::LetterApi;
use crate::api::lists::{ListApi, Views};
use crate::api::partitions::PartitionApi;
use crate::config::{Config, Migration, Node};
use crate::evidence::Evidence;
use crate::follower::Follower;
use crate::in_flight::InFlight;
use crate::letters::Letters;
use crate::lists::Lists;
use crate::progress::Progress;
use crate::shards::Shards;
use crate::stream::Hub;
use crate::stuck::Stuck;
use crate::waiters::Waiters;

const NAME: &str = "service-monitoring-order";

/// All operations.
type Operations = (Api, ListApi, EvidenceApi, FoldApi, LetterApi, DryRunApi, PartitionApi);

fn main() -> anyhow::Result<ExitCode> {
    if http::print_spec::<Operations>(&api::ABOUT) {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(migration) = Migration::from_environment() {
        return migrate(&migration);
    }
    let config = Config::from_environment();
    service::run(NAME, &config.service.clone(), run(config))
}

/// All databases at the same time: one that is away keeps no other from it.
fn migrate(config: &Migration) -> anyhow::Result<ExitCode> {
    let nodes = config.nodes.nodes()?;
    let owners = config.owners(&nodes)?;
    service::run_migration(&config.coordinator.log, async move {
        let mut shards = JoinSet::new();
        for (name, url) in owners {
            shards.spawn(async move {
                postgres::migrate(&name, url.expose(), &[db::SHARD_MIGRATIONS]).await;
            });
        }
        coordinator::migrate(config.coordinator.owner.expose(), &nodes).await;
        shards.join_all().await;
    })
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let service = Service::new(NAME, config.service.clone())?;
    let (nodes, http) = (config.nodes.nodes()?, &config.service.http);
    let connections = config.service.postgres.connections;
    let shards = Shards::new(&nodes, &service.health, service.pool.clone(), connections)?;
    let (shards, waiters) = (Arc::new(shards), Arc::new(Waiters::default()));
    let (progress, in_flight) = (Arc::new(Progress::default()), Arc::new(InFlight::default()));

    let stop = service.stop(Stage::Intake);
    let (told, expected) = (waiters.clone(), progress.clone());
    let status = Api::new(shards.clone(), told, expected, config.status_grace_ms, stop);
    let lists = Lists::new(shards.clone(), service.pool.clone(), progress.clone());
    let (lists, patience) = (Arc::new(lists), config.stuck_after_ms);
    let stuck = Arc::new(Stuck::new(lists.clone(), progress.clone(), in_flight.clone(), patience));
    let views = Arc::new(Views::new(lists, stuck.clone(), in_flight.clone()));
    let (bus, group) = (service.bus.clone(), config.service.kafka.group.clone());
    let letters = Arc::new(Letters::new(bus.dead_letters()));
    let dry_run = DryRunApi::new(letters.clone(), shards.clone());
    let partitions = PartitionApi::new(progress.clone(), shards.clone());
    let evidence = EvidenceApi::new(Evidence::new(shards.clone(), bus, group));
    let (lists, letters) = (ListApi::new(views.clone()), LetterApi::new(letters));
    let api: Operations = (status, lists, evidence, FoldApi, letters, dry_run, partitions);
    let stop = service.stop(Stage::Intake);
    let hub = Arc::new(Hub::new(views, shards.clone(), progress.clone(), stop));
    let opened = hub.clone();
    let api = HttpService::new(api::ABOUT, api, service.health.clone(), http)
        .long_poll("/api/v1/status", api::LONGEST_WAIT + http.timeout)
        .stream("/api/v1/stream", Access::Needs(Scope::OrdersRead), move |request| {
            opened.open(request)
        })
        .site(desk::FILES);
    service.serve(api).await?;

    for Node { name, .. } in nodes {
        let (kept, read) = (shards.clone(), shards.clone());
        service.spawn(Stage::Intake, name, |stop| async move { kept.keep(name, stop).await });
        service.spawn(Stage::Drain, name, |stop| async move { read.read(name, stop).await });
    }
    let (located, database) = (shards.clone(), service.database.clone());
    service.spawn(Stage::Intake, "coordinator", |stop| async move {
        located.keep_coordinator(database, stop).await
    });
    let follower = Follower::new(shards, waiters, progress, in_flight, hub.clone());
    service.consume(&Topic::EVENTS, follower);
    service.spawn(Stage::Intake, "streams", |_| async move { hub.keep().await });
    service.spawn_when_ready(
        Stage::Intake,
        "in-flight",
        |stop| async move { stuck.keep(stop).await },
    );
    let counts = service.pool.clone();
    service.spawn_when_ready(Stage::Intake, "counts", |stop| follower::forget_counts(counts, stop));
    // Monitoring says nothing of its own, but it too has dead letters to send.
    service.relay(None);
    Ok(service.run().await)
}
