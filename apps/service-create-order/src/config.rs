//! Settings of service-create-order.

use std::time::Duration;

use clap::Parser;
use ordersaga_runtime::config::{self, IdempotencyConfig};
use ordersaga_runtime::service::ServiceConfig;

/// Takes and cancels orders, and closes or expires them by what the other services answer.
#[derive(Parser, Clone, Debug)]
#[command(name = "service-create-order", version, about, after_help = config::MIGRATE_HELP)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) service: ServiceConfig,
    #[command(flatten)]
    pub(crate) idempotency: IdempotencyConfig,
    /// Seconds the store has to answer; then the order is reset.
    #[arg(long, env = "ORDER_DEADLINE_SECONDS", default_value = "60", value_parser = config::seconds)]
    pub(crate) order_deadline_seconds: Duration,
    /// Milliseconds between two looks for orders past their deadline.
    #[arg(long, env = "SWEEP_INTERVAL_MS", default_value = "1000", value_parser = config::milliseconds)]
    pub(crate) sweep_interval_ms: Duration,
    /// Events that may wait for the broker, some 260 bytes each; above this, orders are answered
    /// 503, and above twice this cancels too. Counted once a second: what comes within one goes over it.
    #[arg(long, env = "OUTBOX_LIMIT", default_value = "1000000")]
    pub(crate) outbox_limit: i64,
    /// URL of the status endpoint, for the Location of a new order.
    #[arg(long, env = "STATUS_URL", default_value = "http://localhost:8001/api/v1/status")]
    pub(crate) status_url: String,
}

impl Config {
    /// From the environment; ends the process with a clear message if a setting is wrong.
    pub(crate) fn from_environment() -> Self {
        config::parse(&[("http_listen", "127.0.0.1:8000"), ("kafka_group", "create-order")])
    }
}
