//! `ordersaga load` against a real system: what it counts is what the databases have, clients that
//! wait are told of every end, and it tells when orders do not end.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ordersaga_devstack::{Cluster, Service};
use ordersaga_load::{Errors, Orders, Phase, Plan, Progress, Report, Watch};

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
fn clients_that_wait_are_told_of_every_end() -> Result<()> {
    saga(async |bed| {
        let words = "--wait --orders 300 --warmup 0 --connections 8 --items 3 --cancel 0.25";
        let report = run(bed, words, |_| {})?;
        let orders = &report.orders;
        ensure!(
            (orders.sent, orders.acknowledged, orders.terminal) == (300, 300, 300),
            "{orders:?}"
        );
        // Each was told how its order ended, and long after the create was answered.
        let Orders { reserved, refused_by_store, cancelled_first, expired, .. } = *orders;
        ensure!(reserved + refused_by_store + cancelled_first + expired == 300, "{orders:?}");
        let end = report.terminal_ms.context("no latency to the end")?;
        ensure!(end.count == 300 && report.create_ms.count == 300, "{report:?}");
        ensure!(end.p50 > report.create_ms.p50 && end.max >= report.create_ms.max, "{report:?}");
        let waits = report.waits.context("nobody has waited")?;
        ensure!(waits.answers - waits.open - waits.unheard == 300, "{waits:?}");
        ensure!(waits.given_up == 0 && report.follow_delay_ms.is_none(), "{report:?}");
        ensure!(report.refused.is_empty() && report.errors == Errors::default(), "{report:?}");
        ensure!(report.cancels == 75, "{report:?}");
        let checks = report.checks.context("nothing was checked")?;
        ensure!(checks.hold() && checks.orders_not_ended == Some(0), "{checks:?}");
        // One more goes ahead of the others.
        let placed = bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await?;
        ensure!(placed == 301, "{placed} orders");
        invariants::hold(bed).await
    })
}

#[test]
fn in_an_open_loop_clients_wait_for_orders_that_come_at_their_rate() -> Result<()> {
    saga(async |bed| {
        let words = "--wait --rate 50 --seconds 3 --warmup 1 --connections 64 --items 3";
        let report = run(bed, words, |_| {})?;
        let orders = &report.orders;
        ensure!(orders.sent + orders.unsent == 150, "{report:?}");
        ensure!(orders.terminal > 0 && orders.terminal == orders.acknowledged, "{report:?}");
        ensure!(report.checks.as_ref().is_some_and(ordersaga_load::Checks::hold), "{report:?}");
        invariants::hold(bed).await
    })
}

/// A run during which the store stands still from so many acknowledged orders on.
fn run_without_store(bed: &Bed, words: &str, from: u64) -> Result<Report> {
    let store = &bed.services[&Service::Store];
    let is_frozen = AtomicBool::new(false);
    let mut failed = None;
    let report = run(bed, words, |progress| {
        let frozen = match progress.phase {
            Phase::Load => progress.acknowledged > from,
            // At the end the store is asked what it has.
            Phase::Checking => false,
            _ => return,
        };
        if is_frozen.swap(frozen, Ordering::Relaxed) != frozen {
            let done = if frozen { store.pause() } else { store.resume() };
            failed = failed.take().or(done.err());
        }
    })?;
    failed.map_or(Ok(report), Err)
}

#[test]
fn clients_give_up_on_orders_that_do_not_end() -> Result<()> {
    saga(async |bed| {
        let words = "--wait --rate 20 --seconds 3 --warmup 0 --connections 64 --items 1 --settle 1";
        let report = run_without_store(bed, words, 10)?;
        let waits = report.waits.context("nobody has waited")?;
        let checks = report.checks.context("nothing was checked")?;
        ensure!(waits.given_up > 0 && !checks.hold(), "{checks:?}");
        ensure!(checks.orders_not_ended == Some(waits.given_up), "{waits:?} {checks:?}");
        ensure!(!checks.examples_not_ended.is_empty(), "{checks:?}");
        invariants::hold(bed).await
    })
}

#[test]
fn orders_that_do_not_end_are_found() -> Result<()> {
    saga(async |bed| {
        let words = "--orders 500 --warmup 0 --connections 4 --items 1 --settle 1";
        let report = run_without_store(bed, words, 50)?;
        let checks = report.checks.context("nothing was checked")?;
        ensure!(checks.orders_not_ended.is_some_and(|count| count > 0), "{checks:?}");
        ensure!(!checks.hold() && !checks.examples_not_ended.is_empty(), "{checks:?}");
        invariants::hold(bed).await
    })
}
