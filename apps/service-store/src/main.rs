//! service-store: reserves stock for orders, the saga's pivot transaction, and answers for items.

mod api;
mod cache;
mod config;
mod db;
mod items;
mod lists;
mod reservations;
mod view;
mod witness;

use std::process::ExitCode;
use std::sync::Arc;

use ordersaga_contract::Topic;
use ordersaga_runtime::http::{self, HttpService, RateLimit};
use ordersaga_runtime::idempotency::Keys;
use ordersaga_runtime::lifecycle::Stage;
use ordersaga_runtime::rows::Rows;
use ordersaga_runtime::service::{self, Service};

use crate::api::lists::ListApi;
use crate::api::witness::WitnessApi;
use crate::config::Config;
use crate::lists::Lists;
use crate::witness::Witness;

const NAME: &str = "service-store";

fn main() -> anyhow::Result<ExitCode> {
    if http::print_spec::<(api::Api, ListApi, WitnessApi)>(&api::ABOUT) {
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
    let redis = service.health.optional("redis");
    let cache = Arc::new(cache::Cache::new(&config, service.pool.clone(), redis)?);

    let keys = Keys::new("item_id", &config.idempotency);
    let rows = Rows::new("item", config.items_limit);
    let items = items::Items::new(service.pool.clone(), cache.clone(), keys.clone(), rows.clone());
    let api = api::Api::new(items, RateLimit::new(config.items_per_second));
    let lists = ListApi::new(Lists::new(service.pool.clone()));
    let witness = WitnessApi::new(Witness::new(service.pool.clone(), cache.clone()));
    let api = (api, lists, witness);
    let http = &config.service.http;
    service.serve(HttpService::new(api::ABOUT, api, service.health.clone(), http)).await?;

    service.keep_database(
        "SELECT FROM item, cache_state, idempotency_key, sagabus.outbox, sagabus.consumer_offset, \
         public.outbox LIMIT 0",
    );
    service.consume(&[Topic::Incoming, Topic::Reset], reservations::Reservations);
    let (of_keys, of_items) = (service.pool.clone(), service.pool.clone());
    service.spawn_when_ready(Stage::Intake, "keys", |stop| keys.forget(of_keys, stop));
    service.spawn_when_ready(Stage::Intake, "items", |stop| rows.watch(of_items, stop));
    let kept = cache.clone();
    service.spawn(Stage::Publish, "cache", |stop| async move { kept.keep(stop).await });
    service.relay(Some(cache));
    Ok(service.run().await)
}
