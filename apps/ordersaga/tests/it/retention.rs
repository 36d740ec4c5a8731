//! Old orders' facts: what `ordersaga retention` removes, and what it leaves alone.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use ordersaga_contract::{OrderId, partition_of};
use ordersaga_devstack::Cluster;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};

use crate::bed::{Bed, saga, until};
use crate::client::order_for;
use crate::dlq::{Said, program};
use crate::invariants;

const SHARDS: [Cluster; 2] = [Cluster::Shard1, Cluster::Shard2];

async fn retention(bed: &Bed, words: &str) -> Result<Said> {
    Said::by(job(bed, words)?).await
}

fn job(bed: &Bed, words: &str) -> Result<Command> {
    let shards = SHARDS.map(|shard| format!("{shard}={}", bed.databases[shard].owner_url()));
    let mut command = Command::new(program("ordersaga-retention")?);
    command.args(words.split(' ')).env("SHARDS_MIGRATION", shards.join(","));
    Ok(command)
}

async fn signal(signal: &str, process: &Child) -> Result<()> {
    let pid = process.id().context("it has ended")?.to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().await?;
    ensure!(sent.success(), "{signal}: {sent}");
    Ok(())
}

#[test]
fn a_frozen_run_holds_up_no_other() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(20).await?;
        let mut orders = Vec::new();
        for _ in 0..20 {
            let order = bed.place(&order_for(item)).await?;
            bed.reaches(order, "SHIPPING").await?;
            bed.cancel(order).await?;
            orders.push(order);
        }
        // At rest: nothing young is heard of them any more.
        invariants::hold(bed).await?;
        for order in orders {
            age(bed, order).await?;
        }
        let mut frozen = job(bed, "--batch 1 --pause-ms 500")?
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                    AND database = (SELECT oid FROM pg_database \
                                    WHERE datname = current_database())";
        until("the run is at work", async || Ok(bed.number(SHARDS[0], held).await? == 1)).await?;
        signal("-STOP", &frozen).await?;
        retention(bed, "--older-than 90d").await?.expect(1, "another run is at work here")?;
        until("another run may work", async || {
            Ok(retention(bed, "--older-than 90d").await?.expect(0, "Total").is_ok())
        })
        .await?;
        signal("-CONT", &frozen).await?;
        ensure!(!frozen.wait().await?.success(), "the frozen run goes on without its lock");
        Ok(())
    })
}

fn table(order: i64) -> Result<String> {
    Ok(format!("order_event_{:02}", partition_of(OrderId::try_from(order)?)))
}

/// Makes an order's facts older by a hundred days.
async fn age(bed: &Bed, order: i64) -> Result<()> {
    let table = table(order)?;
    let statement =
        format!("UPDATE {table} SET at = at - interval '100 days' WHERE order_id = {order}");
    let mut aged = 0;
    for shard in SHARDS {
        let update = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
        aged += update.execute(bed.sql(shard)).await?.rows_affected();
    }
    ensure!(aged > 0, "order {order} has no facts");
    Ok(())
}

/// Adds facts of an order, as old.
async fn say(bed: &Bed, order: i64, facts: &[i16]) -> Result<()> {
    let reason = |fact: i16| if fact >= 4 { "4" } else { "NULL" };
    let rows = facts.iter().map(|fact| {
        format!("({order}, {fact}, 1, 1, 1, 1, {}, now() - interval '100 days')", reason(*fact))
    });
    let rows: Vec<_> = rows.collect();
    let table = table(order)?;
    let owner: String = sqlx::query_scalar(
        "SELECT s.srvname::text FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid \
         JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE c.relname = $1",
    )
    .bind(&table)
    .fetch_one(bed.sql(Cluster::Monitoring))
    .await?;
    let shard = if owner == "shard1" { Cluster::Shard1 } else { Cluster::Shard2 };
    let statement = format!("INSERT INTO {table} VALUES {}", rows.join(", "));
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(bed.sql(shard)).await?;
    Ok(())
}

/// Every fact there is: order and code.
async fn facts(bed: &Bed) -> Result<BTreeSet<(i64, i16)>> {
    let mut facts = BTreeSet::new();
    for shard in SHARDS {
        for table in 0..16 {
            let query = format!("SELECT order_id, fact FROM order_event_{table:02}");
            let rows: Vec<(i64, i16)> =
                sqlx::query_as(AssertSqlSafe(query)).fetch_all(bed.sql(shard)).await?;
            facts.extend(rows);
        }
    }
    Ok(facts)
}

fn without(facts: &BTreeSet<(i64, i16)>, orders: &[i64]) -> BTreeSet<(i64, i16)> {
    facts.iter().filter(|(order, _)| !orders.contains(order)).copied().collect()
}

#[test]
fn old_ended_orders_go_and_everything_else_stays() -> Result<()> {
    const UNDECIDED: i64 = 900_001;
    const UNRELEASED: i64 = 900_002;
    const REMNANT: i64 = 900_003;
    saga(async |bed| {
        let item = bed.add_item(100).await?;
        let mut gone = Vec::new();
        for _ in 0..5 {
            let order = bed.place(&order_for(item)).await?;
            bed.reaches(order, "SHIPPING").await?;
            bed.cancel(order).await?;
            gone.push(order);
        }
        // Refused by the store: nothing was ever held.
        gone.push(bed.place(&json!({"item_id": item, "seller_id": 2, "client_id": 1})).await?);
        let young = bed.place(&order_for(item)).await?;
        bed.cancel(young).await?;
        let shipping = bed.place(&order_for(item)).await?;
        bed.reaches(shipping, "SHIPPING").await?;
        invariants::hold(bed).await?;
        for order in gone.iter().chain([&shipping]) {
            age(bed, *order).await?;
        }
        say(bed, UNDECIDED, &[1]).await?;
        say(bed, UNRELEASED, &[1, 2, 4]).await?;
        // What a replay brought back of an order removed before.
        say(bed, REMNANT, &[3]).await?;
        gone.push(REMNANT);
        let before = facts(bed).await?;
        let statuses =
            [bed.status(young).await?, bed.status(shipping).await?, bed.status(UNDECIDED).await?];

        // Nothing changes when the age is too short, when only looking, or beside another run.
        let refused = retention(bed, "--older-than 20d").await?;
        refused.expect(1, "--below-topic-retention")?;
        let looked = retention(bed, "--dry-run").await?.expect(0, "Total: 7 orders with")?;
        ensure!(looked.text.contains("would be removed"), "{}", looked.text);
        let mut other = PgConnection::connect(&bed.databases[Cluster::Shard1].owner_url()).await?;
        let lock = "SELECT pg_advisory_lock(x'726574656e74'::bigint)";
        sqlx::raw_sql(lock).execute(&mut other).await?;
        retention(bed, "--older-than 90d").await?.expect(1, "shard1: another run")?;
        other.close().await?;
        ensure!(facts(bed).await? == before, "something is gone already");

        // An order at a time: an end of a batch must not be taken for the end of a table.
        let done = retention(bed, "--batch 1 --pause-ms 1").await?.expect(0, "Total: 7 orders")?;
        let kept = "kept: 1 younger, 1 shipping, 1 undecided, 1 cancelled without their release";
        let total = done.text.lines().last().unwrap_or_default();
        ensure!(total.ends_with(kept), "{}", done.text);
        ensure!(facts(bed).await? == without(&before, &gone));
        let after =
            [bed.status(young).await?, bed.status(shipping).await?, bed.status(UNDECIDED).await?];
        ensure!(after == statuses, "{after:?} is not {statuses:?}");
        for order in &gone[..2] {
            let answer = bed.ask_status(*order, 0).await?;
            ensure!(answer.status == 404, "{answer:?}");
        }
        retention(bed, "--batch 2").await?.expect(0, "Total: 0 orders with 0 facts")?;

        // SHIPPING goes only when told; what follows is still told, and the step is right.
        retention(bed, "--include-shipping").await?.expect(0, "Total: 1 orders")?;
        ensure!(bed.ask_status(shipping, 0).await?.status == 404);
        bed.cancel(shipping).await?;
        bed.reaches(shipping, "CANCELLED").await?;
        invariants::at_rest(bed).await?;
        ensure!(facts(bed).await?.contains(&(shipping, 3)), "its stock was not given back");
        Ok(())
    })
}
