//! The deadline sweeper: no order waits for ever on a store that is silent. It also forgets
//! idempotency keys whose time is over.

use std::time::Duration;

use chrono::TimeDelta;
use ordersaga_runtime::clock;
use ordersaga_runtime::outbox::{Batch, Outbox};
use ordersaga_saga::order::Input;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db;

/// Orders reset by one transaction.
const BATCH: i64 = 1_000;

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
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = format!("{error:#}"), "a sweep failed");
            }
        }
    }

    async fn sweep(&self) -> anyhow::Result<()> {
        while self.reset_overdue().await? == BATCH {}
        db::forget_keys(&self.pool, clock::now()).await?;
        Ok(())
    }

    async fn reset_overdue(&self) -> anyhow::Result<i64> {
        let mut batch = Batch::new(clock::now());
        let placed_before = batch.time() - TimeDelta::from_std(self.deadline)?;
        let mut transaction = self.pool.begin().await?;
        let overdue = db::overdue(&mut transaction, placed_before, BATCH).await?;
        if overdue.is_empty() {
            return Ok(0);
        }
        let inputs: Vec<_> = overdue.iter().map(|id| (*id, Input::DeadlinePassed)).collect();
        let advanced = db::advance(&mut transaction, &inputs, &mut batch).await?;
        self.outbox.append(&mut transaction, &batch).await?;
        transaction.commit().await?;
        advanced.committed();
        self.outbox.committed();
        tracing::info!(orders = overdue.len(), "orders reset: the store did not answer in time");
        Ok(i64::try_from(overdue.len())?)
    }
}
