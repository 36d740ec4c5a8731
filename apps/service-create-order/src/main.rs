//! service-create-order: takes and cancels orders. It is where the saga begins, and where an order
//! that nobody answers ends.

mod api;
mod closing;
mod config;
mod db;
mod desk;
mod sweeper;

use std::process::ExitCode;

use ordersaga_contract::Topic;
use ordersaga_runtime::consumer::Consumer;
use ordersaga_runtime::group_commit::group_commit;
use ordersaga_runtime::health::Health;
use ordersaga_runtime::http::{self, HttpService};
use ordersaga_runtime::lifecycle::{Lifecycle, Stage};
use ordersaga_runtime::outbox::Outbox;
use ordersaga_runtime::relay::Relay;
use ordersaga_runtime::{postgres, telemetry};

use crate::config::Config;

const NAME: &str = "service-create-order";

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
    let url = config.postgres.url.expose();
    let pool = postgres::pool(url, NAME, config.postgres.connections)?;
    let outbox = Outbox::default();

    let (group, batches) = group_commit(desk::QUEUE, desk::BATCH);
    let api = api::Api::new(&config, group, outbox.clone());
    let listener = http::bind(config.http.listen).await?;
    let service = HttpService::new(api::ABOUT, api, health.clone(), &config.http);
    let stop = lifecycle.token(Stage::Intake);
    lifecycle.spawn(Stage::Intake, "http", http::serve(listener, service, stop));

    let desk = desk::Desk::new(pool.clone(), outbox.clone(), config.idempotency_ttl_seconds);
    lifecycle.spawn(Stage::Drain, "orders", desk.serve(batches, lifecycle.token(Stage::Drain)));

    let schema = postgres::Schema {
        migrations: db::MIGRATIONS,
        owner: config.postgres.migration_url.clone(),
        probe: "SELECT FROM orders, outbox, consumer_offset LIMIT 0",
    };
    let stop = lifecycle.token(Stage::Intake);
    lifecycle.spawn(Stage::Intake, "schema", schema.keep(pool.clone(), database.clone(), stop));

    let consume = Consumer {
        kafka: config.kafka.clone(),
        pool: pool.clone(),
        topics: &[Topic::Reservation, Topic::Reset],
        broker: consumer,
    };
    let closing = closing::Closing::new(outbox.clone());
    let (stop, ready) = (lifecycle.token(Stage::Intake), database.clone());
    lifecycle.spawn(Stage::Intake, "consumer", async move {
        if ready.wait(&stop).await { consume.run(closing, stop).await } else { Ok(()) }
    });

    let sweeper = sweeper::Sweeper::new(&config, pool.clone(), outbox.clone());
    let (stop, ready) = (lifecycle.token(Stage::Intake), database.clone());
    lifecycle.spawn(Stage::Intake, "sweeper", async move {
        if ready.wait(&stop).await {
            sweeper.run(stop).await;
        }
        Ok(())
    });

    let relay = Relay {
        database: postgres::options(url, NAME)?,
        pool,
        outbox,
        kafka: config.kafka,
        source: "/service-create-order",
        broker: producer,
        caches: None,
    };
    let stop = lifecycle.token(Stage::Publish);
    lifecycle.spawn(Stage::Publish, "relay", async move {
        if database.wait(&stop).await { relay.run(stop).await } else { Ok(()) }
    });
    Ok(lifecycle.run().await)
}
