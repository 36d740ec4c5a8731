//! The SQL of the job: the tables are those of `sql/shard`.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use ordersaga_contract::Fact;
use ordersaga_runtime::postgres;
use sagabus::within;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};

/// One run at a time ("retent" as a number).
const LOCK: i64 = 0x7265_7465_6e74;
/// How long the database may take; its own limit for a statement comes first.
const LIMIT: Duration = Duration::from_secs(10);

/// The table of a partition on its shard.
pub(crate) fn table(partition: u32) -> String {
    format!("order_event_{partition:02}")
}

/// How much longer than its pauses a run may be silent, as when whoever reads what it says does not.
const SILENCE: Duration = Duration::from_secs(5);

/// Connects under the limits that services have: no statement and no lock is waited for long. A run
/// that is frozen loses its connection, and the next one may work.
pub(crate) async fn connect(url: &str, pause: Duration) -> Result<PgConnection> {
    // A batch is read off the key's index, up to its last order and no further. Where statistics
    // are missing, sorting or hashing the whole of a table would look as good.
    let plans = [("enable_sort", "off"), ("enable_hashagg", "off")];
    let options = postgres::options(url, "ordersaga-retention")?.options(plans);
    let options = postgres::holding(options, pause + SILENCE);
    within(LIMIT, async { Ok(PgConnection::connect_with(&options).await?) }).await
}

/// Takes the lock of this job; false if another run has it.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<bool> {
    let query = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK);
    within(LIMIT, async { Ok(query.fetch_one(connection).await?) }).await
}

/// What was found: what went, and what was kept for which reason.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromRow, Serialize)]
pub(crate) struct Found {
    /// Orders that went, and their facts.
    pub(crate) orders: i64,
    pub(crate) facts: i64,
    /// Of which something was heard since.
    pub(crate) young: i64,
    /// Old, reserved and not cancelled.
    pub(crate) shipping: i64,
    /// Old and neither reserved nor cancelled.
    pub(crate) undecided: i64,
    /// Old and cancelled, with stock that nobody has said was given back.
    pub(crate) unreleased: i64,
}

impl Found {
    pub(crate) fn add(&mut self, other: &Self) {
        self.orders += other.orders;
        self.facts += other.facts;
        self.young += other.young;
        self.shipping += other.shipping;
        self.undecided += other.undecided;
        self.unreleased += other.unreleased;
    }
}

/// How a batch is dealt with.
pub(crate) struct Step {
    /// Orders looked at.
    pub(crate) orders: i64,
    /// An order goes if all that was heard of it is older than this.
    pub(crate) before: DateTime<Utc>,
    /// SHIPPING orders go, too.
    pub(crate) shipping: bool,
    /// Nothing goes.
    pub(crate) only_look: bool,
}

#[derive(FromRow)]
struct Row {
    last: Option<i64>,
    #[sqlx(flatten)]
    found: Found,
}

impl Step {
    /// Takes the next orders after an id: the last of them and what was found, none at the end. One
    /// statement, so that an order goes as a whole or not at all.
    pub(crate) async fn take(
        &self,
        connection: &mut PgConnection,
        table: &str,
        after: i64,
    ) -> Result<Option<(i64, Found)>> {
        let query = sqlx::query_as(AssertSqlSafe(self.statement(table)))
            .bind(after)
            .bind(self.orders)
            .bind(self.before)
            .bind(self.shipping);
        let row = within(LIMIT, async { anyhow::Ok(query.fetch_one(connection).await?) });
        let row: Row = row.await.with_context(|| format!("{table}, after order {after}"))?;
        Ok(row.last.map(|last| (last, row.found)))
    }

    /// What is over is what can say nothing more: a cancelled order whose stock, if it ever had
    /// any, is given back.
    fn statement(&self, table: &str) -> String {
        let (reserved, released) = (Fact::Reserved.code(), Fact::Released.code());
        let resets = [Fact::ResetByClient, Fact::ResetByStore, Fact::ResetByDeadline];
        let resets = resets.map(|fact| fact.code().to_string()).join(", ");
        let (take, returning) = if self.only_look {
            ("SELECT order_id FROM", "")
        } else {
            ("DELETE FROM", "RETURNING order_id")
        };
        format!(
            "WITH page AS MATERIALIZED ( \
                 SELECT order_id, max(at) < $3 AS old, \
                        bool_or(fact = {reserved}) AS reserved, \
                        bool_or(fact = {released}) AS released, \
                        bool_or(fact IN ({resets})) AS reset \
                 FROM {table} WHERE order_id > $1 \
                 GROUP BY order_id ORDER BY order_id LIMIT $2 \
             ), judged AS MATERIALIZED ( \
                 SELECT order_id, CASE \
                     WHEN NOT old THEN 'young' \
                     WHEN released OR reset AND NOT reserved THEN 'over' \
                     WHEN reset THEN 'unreleased' \
                     WHEN reserved THEN CASE WHEN $4 THEN 'over' ELSE 'shipping' END \
                     ELSE 'undecided' END AS verdict \
                 FROM page \
             ), gone AS ( \
                 {take} {table} \
                 WHERE order_id = ANY(ARRAY( \
                     SELECT order_id FROM judged WHERE verdict = 'over')) {returning} \
             ) \
             SELECT max(order_id) AS last, \
                    count(*) FILTER (WHERE verdict = 'over') AS orders, \
                    (SELECT count(*) FROM gone) AS facts, \
                    count(*) FILTER (WHERE verdict = 'young') AS young, \
                    count(*) FILTER (WHERE verdict = 'shipping') AS shipping, \
                    count(*) FILTER (WHERE verdict = 'undecided') AS undecided, \
                    count(*) FILTER (WHERE verdict = 'unreleased') AS unreleased \
             FROM judged"
        )
    }
}
