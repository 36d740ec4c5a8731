//! service-store: reserves stock for orders, the saga's pivot transaction, and answers for items.

mod api;
mod cache;
mod config;
mod db;
mod items;
mod reservations;

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

use crate::cache::Cache;
use crate::config::Config;

const NAME: &str = "service-store";

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
    let redis = health.optional("redis");
    let url = config.postgres.url.expose();
    let pool = postgres::pool(url, NAME, config.postgres.connections)?;
    let outbox = Outbox::default();
    let cache = Arc::new(Cache::new(&config, pool.clone(), redis)?);

    let api = api::Api::new(items::Items::new(pool.clone(), cache.clone()));
    let listener = http::bind(config.http.listen).await?;
    let service = HttpService::new(api::ABOUT, api, health.clone(), &config.http);
    let stop = lifecycle.token(Stage::Intake);
    lifecycle.spawn(Stage::Intake, "http", http::serve(listener, service, stop));

    let schema = postgres::Schema {
        migrations: db::MIGRATIONS,
        owner: config.postgres.migration_url.clone(),
        probe: "SELECT FROM item, outbox, consumer_offset, cache_state LIMIT 0",
    };
    let stop = lifecycle.token(Stage::Intake);
    lifecycle.spawn(Stage::Intake, "schema", schema.keep(pool.clone(), database.clone(), stop));

    let consume = Consumer {
        kafka: config.kafka.clone(),
        pool: pool.clone(),
        topics: &[Topic::Incoming, Topic::Reset],
        broker: consumer,
    };
    let reservations = reservations::Reservations::new(outbox.clone());
    let (stop, ready) = (lifecycle.token(Stage::Intake), database.clone());
    lifecycle.spawn(Stage::Intake, "consumer", async move {
        if ready.wait(&stop).await { consume.run(reservations, stop).await } else { Ok(()) }
    });

    let (stop, kept) = (lifecycle.token(Stage::Publish), cache.clone());
    lifecycle.spawn(Stage::Publish, "cache", async move { kept.keep(stop).await });

    let relay = Relay {
        database: postgres::options(url, NAME)?,
        pool,
        outbox,
        kafka: config.kafka,
        source: "/service-store",
        broker: producer,
        caches: Some(cache),
    };
    let stop = lifecycle.token(Stage::Publish);
    lifecycle.spawn(Stage::Publish, "relay", async move {
        if database.wait(&stop).await { relay.run(stop).await } else { Ok(()) }
    });
    Ok(lifecycle.run().await)
}
