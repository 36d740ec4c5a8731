//! The library's examples, on real parts.

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::Cluster;
use tokio::process::Command;

use crate::bed::{Bed, Plan, WITHIN, block_on};

/// Runs an example on a database that has nothing of ours, and tells what it prints.
async fn run(bed: &Bed, example: &str) -> Result<String> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("this program is in no folder of a build")?;
    let mut command = Command::new(folder.join("examples").join(example));
    command
        .env("DATABASE_URL", bed.databases[Cluster::Shard1].owner_url())
        .env("KAFKA_BROKERS", &bed.broker)
        .kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, command.output()).await;
    let output = output.with_context(|| format!("{example} does not end"))??;
    let (text, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "{example}: {}: {text}{error}", output.status);
    Ok(text)
}

#[test]
fn a_transfer_moves_money_once() -> Result<()> {
    block_on(Plan::default().idle().run(async |bed| {
        for _ in 0..2 {
            let text = run(bed, "transfer").await?;
            ensure!(text.contains("balances: [70, 30]"), "{text}");
        }
        Ok(())
    }))
}

#[test]
fn an_outbox_publishes_what_is_committed_and_nothing_else() -> Result<()> {
    block_on(Plan::default().idle().run(async |bed| {
        let text = run(bed, "outbox").await?;
        ensure!(text.contains("2: rolled back"), "{text}");
        for (number, is_read) in [(1, true), (2, false), (3, true)] {
            let read = format!("read {number}\n");
            ensure!(text.contains(&read) == is_read, "{number}: {text}");
        }
        Ok(())
    }))
}
