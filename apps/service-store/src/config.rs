//! Settings of service-store.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use ordersaga_runtime::config::{self, IdempotencyConfig, Secret, SecretParser};
use ordersaga_runtime::service::ServiceConfig;

use crate::cache::MARK_TTL;

const REDIS_URL: SecretParser = SecretParser { prefixes: &["redis://", "rediss://"] };

/// Reserves stock for orders, the pivot transaction of the saga, and answers for items.
#[derive(Parser, Clone, Debug)]
#[command(name = "service-store", version, about, after_help = config::MIGRATE_HELP)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) service: ServiceConfig,
    #[command(flatten)]
    pub(crate) idempotency: IdempotencyConfig,
    /// Redis URL, as redis://user:password@host:port/database; rediss:// encrypts and checks the
    /// server's certificate. The service works without Redis, only slower.
    #[arg(long, env = "REDIS_URL", default_value = "redis://127.0.0.1:6379/0",
          hide_env_values = true, value_parser = REDIS_URL)]
    pub(crate) redis_url: Secret,
    /// PEM file of the authorities that may have signed Redis' certificate, for a rediss:// URL
    /// [default: those the system trusts].
    #[arg(long, env = "REDIS_CA_FILE", value_parser = config::readable_file)]
    pub(crate) redis_ca_file: Option<PathBuf>,
    /// Seconds an item stays cached, from 120.
    #[arg(long, env = "CACHE_TTL_SECONDS", default_value = "900", value_parser = cache_ttl)]
    pub(crate) cache_ttl_seconds: Duration,
    /// Items kept; then adding one is answered 503. Estimated once a second: what comes meanwhile
    /// goes over it.
    #[arg(long, env = "ITEMS_LIMIT", default_value = "10000000",
          value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) items_limit: i64,
    /// Items that one principal, or with AUTH=off one address, may add in a second, after up to ten
    /// seconds' at once; more are answered 429. 0 for no limit, as behind a proxy, where all clients have one address.
    #[arg(long, env = "ITEMS_PER_SECOND", default_value = "100",
          value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) items_per_second: u32,
}

impl Config {
    /// From the environment; ends the process with a clear message if a setting is wrong.
    pub(crate) fn from_environment() -> Self {
        let config: Self =
            config::parse(&[("http_listen", "127.0.0.1:8002"), ("kafka_group", "storage")]);
        if config.redis_ca_file.is_some() && !config.redis_url.expose().starts_with("rediss://") {
            let text = "REDIS_CA_FILE is set, and REDIS_URL does not begin with rediss://";
            Self::command().error(ErrorKind::ArgumentConflict, text).exit();
        }
        config
    }
}

/// What is cached must outlive any load that began before it.
fn cache_ttl(value: &str) -> Result<Duration, String> {
    let ttl = config::seconds(value)?;
    if ttl < 2 * MARK_TTL { Err("120 or more is expected".to_owned()) } else { Ok(ttl) }
}
