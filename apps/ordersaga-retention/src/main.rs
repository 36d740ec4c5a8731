//! Removes the facts of old, finished orders from the shards. Their status is 404 from then on;
//! the orders themselves and what the store decided stay where they are.

#[macro_use]
extern crate ordersaga_terminal;

mod config;
mod db;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{CommandFactory, Parser};
use ordersaga_contract::{PARTITIONS, cloud_event};
use ordersaga_runtime::clock;
use serde::Serialize;
use sqlx::PgConnection;

use config::{Config, Shard};
use db::{Found, Step};

/// How often a long table says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(Config::command).complete();
    match run(&Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error!("ordersaga-retention: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `--json` says.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Orders that ended before were looked at, by the time of their newest fact.
    before: String,
    /// Nothing was removed.
    is_dry_run: bool,
    shards: BTreeMap<String, Found>,
    total: Found,
}

async fn run(config: &Config) -> Result<()> {
    config.check()?;
    let shards = config.shards()?;
    let before = clock::now()
        .checked_sub_signed(TimeDelta::from_std(config.older_than)?)
        .context("--older-than reaches beyond the calendar")?;
    let mut outcome = Outcome {
        before: cloud_event::time(before),
        is_dry_run: config.dry_run,
        shards: BTreeMap::new(),
        total: Found::default(),
    };
    tell(config, || format!("Orders that ended before {}", outcome.before));
    for shard in &shards {
        let found = sweep(config, shard, before).await;
        let found = found.with_context(|| shard.name.clone())?;
        outcome.total.add(&found);
        outcome.shards.insert(shard.name.clone(), found);
    }
    tell(config, || format!("Total: {}", summary(config, &outcome.total)));
    if config.json {
        say!("{}", ordersaga_terminal::json(&serde_json::to_string_pretty(&outcome)?));
    }
    Ok(())
}

/// Says how far it is, to people.
fn tell(config: &Config, text: impl FnOnce() -> String) {
    if !config.json {
        say!("{}", text());
    }
}

/// Goes through one shard, table by table. One run at a time: the lock ends with the connection,
/// on which all of the work is done.
async fn sweep(config: &Config, shard: &Shard, before: DateTime<Utc>) -> Result<Found> {
    let mut connection = db::connect(shard.url.expose(), config.pause_ms).await?;
    ensure!(db::lock(&mut connection).await?, "another run is at work here");
    let mut total = Found::default();
    for partition in 0..PARTITIONS {
        let found = clear(config, shard, &mut connection, partition, before).await?;
        total.add(&found);
    }
    Ok(total)
}

/// Goes through one table in the order of its ids, a batch of orders and one transaction at a time.
async fn clear(
    config: &Config,
    shard: &Shard,
    connection: &mut PgConnection,
    partition: u32,
    before: DateTime<Utc>,
) -> Result<Found> {
    let table = db::table(partition);
    let step = Step {
        orders: config.batch,
        before,
        shipping: config.include_shipping,
        only_look: config.dry_run,
    };
    let (mut total, mut after, mut said) = (Found::default(), 0, Instant::now());
    while let Some((last, found)) = step.take(connection, &table, after).await? {
        after = last;
        total.add(&found);
        if said.elapsed() > PROGRESS {
            tell(config, || {
                format!("{} {table}, up to order {last}: {}", shard.name, summary(config, &total))
            });
            said = Instant::now();
        }
        if found.orders > 0 && !config.dry_run {
            tokio::time::sleep(config.pause_ms).await;
        }
    }
    if total != Found::default() {
        tell(config, || format!("{} {table}: {}", shard.name, summary(config, &total)));
    }
    Ok(total)
}

fn summary(config: &Config, found: &Found) -> String {
    let done = if config.dry_run { "would be removed" } else { "removed" };
    let Found { orders, facts, young, shipping, undecided, unreleased } = found;
    format!(
        "{orders} orders with {facts} facts {done}; kept: {young} younger, {shipping} shipping, \
         {undecided} undecided, {unreleased} cancelled without their release"
    )
}
