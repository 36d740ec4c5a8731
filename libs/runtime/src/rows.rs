//! How many rows a table has, and whether it may have more. The server's own estimate is asked for:
//! counting costs time in proportion to what is counted, and a limit need not be exact.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use prometheus::IntGaugeVec;
use sagabus::{Checkout, within};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// How often the server is asked, and how long the answer may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(8);

/// Live rows are what vacuum or analyze last found, and what was inserted less what was deleted
/// since. A server that crashed counts from zero; until one of them has run again, what they found
/// before is left in `reltuples`. So is what CREATE INDEX found: whoever builds one analyzes the table.
const ESTIMATE: &str = "SELECT pg_stat_get_live_tuples(oid) + CASE WHEN coalesce( \
         pg_stat_get_last_vacuum_time(oid), pg_stat_get_last_autovacuum_time(oid), \
         pg_stat_get_last_analyze_time(oid), pg_stat_get_last_autoanalyze_time(oid)) IS NULL \
     THEN greatest(reltuples, 0)::bigint ELSE 0 END \
     FROM pg_class WHERE oid = to_regclass($1)";

static ROWS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    prometheus::register_int_gauge_vec!(
        "table_rows",
        "Rows of the tables that have a limit, as the server estimates them.",
        &["table"]
    )
    .expect("registered once")
});

/// A table that has a limit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rows {
    table: &'static str,
    limit: i64,
    estimate: Arc<AtomicI64>,
}

impl Rows {
    /// A table that may have `limit` rows.
    pub fn new(table: &'static str, limit: i64) -> Self {
        ROWS.with_label_values(&[table]).set(0);
        Self { table, limit, estimate: Arc::default() }
    }

    /// Whether the table has as many rows as it may, as the server last estimated. Servers hear of
    /// rows within a second under load and within ten at rest; what is written meanwhile goes over
    /// the limit.
    pub fn is_full(&self) -> bool {
        self.estimate.load(Ordering::Relaxed) >= self.limit
    }

    /// Looks once a second until stopped.
    pub async fn watch(self, pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(&pool).await;
        }
        Ok(())
    }

    /// Asks the server. A failed look is made up for by the next.
    pub(crate) async fn look(&self, pool: &PgPool) {
        let (table, limit) = (self.table, self.limit);
        let rows = match within(LIMIT, self.ask(pool)).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(table, error = format!("{error:#}"), "rows are not counted");
                return;
            }
        };
        let was_full = self.is_full();
        self.estimate.store(rows, Ordering::Relaxed);
        ROWS.with_label_values(&[table]).set(rows);
        match (was_full, self.is_full()) {
            (false, true) => tracing::warn!(table, rows, limit, "the table takes no more rows"),
            (true, false) => tracing::info!(table, rows, limit, "the table takes rows again"),
            _ => {}
        }
    }

    async fn ask(&self, pool: &PgPool) -> anyhow::Result<i64> {
        let mut connection = Checkout::take(pool).await?;
        let rows: i64 = sqlx::query_scalar(ESTIMATE)
            .bind(self.table)
            .fetch_one(&mut *connection)
            .await
            .context("estimating rows")?;
        connection.keep();
        Ok(rows)
    }
}
