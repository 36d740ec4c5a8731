//! `ordersaga load` against a real system: what it counts is what the databases have, and it tells
//! when orders do not end.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ordersaga_devstack::{Cluster, Service};
use ordersaga_load::{Errors, Phase, Plan, Progress, Report, Watch};

use crate::bed::{Bed, saga};
use crate::invariants;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
}

/// A run on this system, as the command line would have it.
pub(crate) fn run(bed: &Bed, words: &str, tell: impl FnMut(Progress)) -> Result<Report> {
    let url = |service| bed.services[&service].url();
    let (create, monitoring) = (url(Service::CreateOrder), url(Service::Monitoring));
    let target = ["load", "--create", &create, "--monitoring", &monitoring].into_iter().chain([
        "--brokers",
        &bed.broker,
        "--topic-prefix",
        &bed.prefix,
    ]);
    let store = url(Service::Store);
    let words = target.chain(["--store", &store]).chain(words.split(' '));
    let plan = Arguments::try_parse_from(words)?.plan;
    tokio::task::block_in_place(|| ordersaga_load::run(&plan, &Watch::default(), tell))
}

#[test]
fn a_load_counts_every_order_and_every_order_ends() -> Result<()> {
    saga(async |bed| {
        let words =
            "--orders 600 --warmup 0 --connections 8 --items 3 --hot 0.5 --cancel 0.25 --read 0.5";
        let report = run(bed, words, |_| {})?;
        let orders = &report.orders;
        ensure!(
            (orders.sent, orders.acknowledged, orders.terminal) == (600, 600, 600),
            "{orders:?}"
        );
        ensure!(report.cancels == 150, "{report:?}");
        // Who ends with the load reads no more.
        ensure!((292..=300).contains(&report.reads), "{report:?}");
        ensure!(report.refused.is_empty() && report.errors == Errors::default(), "{report:?}");
        ensure!(report.checks.as_ref().is_some_and(ordersaga_load::Checks::hold), "{report:?}");
        let count = |seconds: fn(&ordersaga_load::Second) -> u64| -> u64 {
            report.timeline.iter().map(seconds).sum()
        };
        ensure!(
            count(|second| second.acknowledged) == 600 && count(|second| second.terminal) == 600
        );
        // One more goes ahead of the others.
        let placed = bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await?;
        ensure!(placed == 601, "{placed} orders");
        let cancelled = "SELECT count(*) FROM orders WHERE ended_by = 4";
        ensure!(bed.number(Cluster::CreateOrder, cancelled).await? == 150);
        invariants::hold(bed).await
    })
}

#[test]
fn in_an_open_loop_orders_come_at_their_rate() -> Result<()> {
    saga(async |bed| {
        let words = "--rate 100 --seconds 3 --warmup 1 --connections 16 --items 3";
        let report = run(bed, words, |_| {})?;
        ensure!(report.orders.sent + report.orders.unsent == 300, "{report:?}");
        ensure!(report.checks.as_ref().is_some_and(ordersaga_load::Checks::hold), "{report:?}");
        invariants::hold(bed).await
    })
}

#[test]
fn orders_that_do_not_end_are_found() -> Result<()> {
    saga(async |bed| {
        let store = &bed.services[&Service::Store];
        let is_frozen = AtomicBool::new(false);
        let mut failed = None;
        let words = "--orders 500 --warmup 0 --connections 4 --items 1 --settle 1";
        let report = run(bed, words, |progress| {
            let frozen = match progress.phase {
                Phase::Load => progress.acknowledged > 50,
                // At the end the store is asked what it has.
                Phase::Checking => false,
                _ => return,
            };
            if is_frozen.swap(frozen, Ordering::Relaxed) != frozen {
                let done = if frozen { store.pause() } else { store.resume() };
                failed = failed.take().or(done.err());
            }
        })?;
        failed.map_or(Ok(()), Err)?;
        let checks = report.checks.context("nothing was checked")?;
        ensure!(checks.orders_not_ended.is_some_and(|count| count > 0), "{checks:?}");
        ensure!(!checks.hold() && !checks.examples_not_ended.is_empty(), "{checks:?}");
        invariants::hold(bed).await
    })
}
