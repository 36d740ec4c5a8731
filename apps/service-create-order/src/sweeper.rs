//! The deadline sweeper: no order waits for ever on a store that is silent.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_contract::OrderId;
use ordersaga_runtime::clock;
use ordersaga_runtime::event::failure;
use ordersaga_saga::order::Input;
use prometheus::IntGauge;
use sagabus::{Batch, Checkout, Failure, Halves, Outbox, within};
use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db::{self, Told};

/// Orders reset by one transaction.
const ORDERS: i64 = 1_000;
/// How long a transaction may take.
const LIMIT: Duration = Duration::from_secs(8);

static REFUSED: LazyLock<IntGauge> = LazyLock::new(|| {
    prometheus::register_int_gauge!(
        "overdue_orders_refused",
        "Orders past their deadline that the database refuses to end, as of the last sweep."
    )
    .expect("registered once")
});

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
            if let Err(error) = self.reset_overdue(&stop).await {
                tracing::warn!(error = format!("{error:#}"), "resetting overdue orders failed");
            }
        }
        Ok(())
    }

    /// Resets all orders past their deadline. One that the database refuses holds up no other: it
    /// is counted, and tried again by the next sweep.
    async fn reset_overdue(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let placed_before = clock::now() - TimeDelta::from_std(self.deadline)?;
        let (mut refused, mut after, mut failed) = (0, None, Ok(()));
        while !stop.is_cancelled() {
            let overdue = within(LIMIT, self.overdue(placed_before, after)).await?;
            after = overdue.last().copied();
            let is_last_page = i64::try_from(overdue.len())? < ORDERS;
            // One that is locked for long holds up its page and no other.
            match self.reset(overdue).await {
                Ok(count) => refused += count,
                Err(error) => failed = failed.and(Err(error)),
            }
            if is_last_page {
                break;
            }
        }
        REFUSED.set(refused);
        failed
    }

    async fn overdue(
        &self,
        placed_before: DateTime<Utc>,
        after: Option<OrderId>,
    ) -> anyhow::Result<Vec<OrderId>> {
        let mut connection = Checkout::take(&self.pool).await?;
        let overdue = db::overdue(&mut connection, placed_before, after, ORDERS).await?;
        connection.keep();
        Ok(overdue)
    }

    /// Resets orders, as many in one transaction as the database lets; how many it refuses.
    async fn reset(&self, orders: Vec<OrderId>) -> anyhow::Result<i64> {
        let (mut halves, mut refused) = (Halves::new(orders), 0);
        while let Some(orders) = halves.take() {
            match within(LIMIT, self.reset_together(&orders)).await {
                Ok(()) => {}
                Err(Failure::Retry(error)) => return Err(anyhow::Error::from_boxed(error)),
                Err(poison @ Failure::Poison(_)) => {
                    if let Some(order) = halves.refused(orders) {
                        let error = poison.to_string();
                        tracing::error!(%order, error, "an order cannot be reset");
                        refused += 1;
                    }
                }
            }
        }
        Ok(refused)
    }

    async fn reset_together(&self, orders: &[OrderId]) -> Result<(), Failure> {
        let mut batch = Batch::new(clock::now());
        let mut connection = Checkout::take(&self.pool).await?;
        let mut transaction = connection.begin().await?;
        let (input, at) = (Input::DeadlinePassed, batch.time());
        let inputs: Vec<_> =
            orders.iter().map(|order| Told { order: *order, of: None, input, at }).collect();
        let advanced = db::advance(&mut transaction, &inputs, &mut batch).await.map_err(failure)?;
        self.outbox.commit(transaction, batch).await?;
        connection.keep();
        advanced.committed();
        let orders = advanced.changed();
        if orders > 0 {
            tracing::info!(orders, "orders reset: the store did not answer in time");
        }
        Ok(())
    }
}
