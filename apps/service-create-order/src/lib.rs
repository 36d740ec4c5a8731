//! service-create-order: takes and cancels orders. It is where the saga begins, and where an order
//! that nobody answers ends.

mod api;
mod closing;
mod config;
mod db;
mod desk;
mod http_only;
mod ids;
mod sweeper;

use std::process::ExitCode;

use ordersaga_contract::Topic;
use ordersaga_runtime::http::{self, HttpService};
use ordersaga_runtime::idempotency::Keys;
use ordersaga_runtime::lifecycle::Stage;
use ordersaga_runtime::service::{self, Service};
use sagabus::group_commit;

pub use http_only::main as http_only_main;

use crate::api::find::FindApi;
use crate::config::Config;

const NAME: &str = "service-create-order";

/// The service's `main`.
pub fn main() -> anyhow::Result<ExitCode> {
    if http::print_spec::<(api::Api, FindApi)>(&api::ABOUT) {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(migrated) = service::migrate(NAME, db::MIGRATIONS) {
        return migrated;
    }
    let config = Config::from_environment();
    service::run(NAME, &config.service.clone(), run(config))
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let service = Service::new(NAME, config.service.clone())?;
    db::show_metrics();
    let (pool, outbox) = (service.pool.clone(), service.bus.outbox().clone());

    let (group, batches) = group_commit(desk::QUEUE, desk::BATCH);
    let (bulk_group, bulks) = group_commit(desk::BULKS, 1);
    let api = api::Api::new(&config, group, bulk_group, outbox.clone());
    let api = (api, FindApi::new(pool.clone(), config.order_deadline_seconds)?);
    let http = HttpService::new(api::ABOUT, api, service.health.clone(), &config.service.http);
    service.serve(http.large_body(api::BULK_PATH, api::BULK_BYTES)).await?;
    let keys = Keys::new("order_id", &config.idempotency);
    let desk = desk::Desk::new(pool.clone(), outbox.clone(), keys.clone());
    let of_bulks = desk.clone();
    service.spawn(Stage::Drain, "orders", |stop| desk.serve(batches, stop));
    service.spawn(Stage::Drain, "bulks", |stop| of_bulks.serve_bulks(bulks, stop));

    service.keep_database(
        "SELECT FROM orders, sagabus.outbox, sagabus.consumer_offset, public.outbox LIMIT 0",
    );
    service.consume(&[Topic::Reservation, Topic::Reset], closing::Closing);
    let of_keys = pool.clone();
    service.spawn_when_ready(Stage::Intake, "keys", |stop| keys.forget(of_keys, stop));
    let sweeper = sweeper::Sweeper::new(&config, pool, outbox);
    service.spawn_when_ready(Stage::Intake, "sweeper", |stop| sweeper.run(stop));
    service.relay(None);
    Ok(service.run().await)
}
