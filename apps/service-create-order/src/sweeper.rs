//! The deadline sweeper: no order waits for ever on a store that is silent.

use std::time::Duration;

use chrono::TimeDelta;
use ordersaga_runtime::clock;
use ordersaga_runtime::outbox::{Batch, Outbox};
use ordersaga_runtime::postgres::{Lease, within};
use ordersaga_saga::order::Input;
use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db;

/// Orders reset by one transaction.
const ORDERS: i64 = 1_000;
/// How long a transaction may take.
const LIMIT: Duration = Duration::from_secs(8);

pub(crate) struct Sweeper {
    pool: PgPool,
    outbox: Outbox,
    deadline: Duration,
    interval: Duration,
}

impl Sweeper {
    pub(crate) fn new(config: &Config, pool: PgPool, outbox: Outbox) -> Self {
        Self {
            pool,
            outbox,
            deadline: config.order_deadline_seconds,
            interval: config.sweep_interval_ms,
        }
    }

    /// Sweeps until stopped. A failed sweep is made up for by the next.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            while self.step("resetting overdue orders", self.reset_overdue()).await
                && !stop.is_cancelled()
            {}
        }
        Ok(())
    }

    /// Does one bounded step; true if there may be more to do.
    async fn step(&self, what: &str, step: impl Future<Output = anyhow::Result<bool>>) -> bool {
        within(LIMIT, step).await.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "{what} failed");
            false
        })
    }

    async fn reset_overdue(&self) -> anyhow::Result<bool> {
        let mut batch = Batch::new(clock::now());
        let placed_before = batch.time() - TimeDelta::from_std(self.deadline)?;
        let mut lease = Lease::take(&self.pool).await?;
        let mut transaction = lease.begin().await?;
        let overdue = db::overdue(&mut transaction, placed_before, ORDERS).await?;
        let inputs: Vec<_> = overdue.iter().map(|id| (*id, Input::DeadlinePassed)).collect();
        let advanced = db::advance(&mut transaction, &inputs, &mut batch).await?;
        self.outbox.append(&mut transaction, &batch).await?;
        transaction.commit().await?;
        lease.keep();
        if !overdue.is_empty() {
            advanced.committed();
            self.outbox.committed();
            tracing::info!(
                orders = overdue.len(),
                "orders reset: the store did not answer in time"
            );
        }
        Ok(i64::try_from(overdue.len())? == ORDERS)
    }
}
