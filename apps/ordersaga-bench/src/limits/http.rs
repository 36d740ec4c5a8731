//! The HTTP server of create-order with nothing behind it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Service, free_port, is_ready, service_env};
use ordersaga_figures::{Process, Run};
use tokio::process::{Child, Command};

use super::Bench;
use crate::load;
use crate::run::{self, LOAD};
use crate::sampler::{Group, Sampler};
use crate::scenario;

const PROGRAM: &str = "create-order-http-only";
/// How long it may take to listen.
const READY: Duration = Duration::from_secs(20);

pub(super) async fn run(bench: &Bench<'_>) -> Result<Run> {
    let Bench { system, binaries, length, .. } = *bench;
    let port = free_port()?;
    let server = start(bench, port)?;
    wait_ready(port).await?;
    let mut load = run::load_of(system, &scenario::typical(), length, 0.0);
    load.create = vec![format!("http://127.0.0.1:{port}")];
    load.follow = false;
    let running = load.start(binaries, &system.stack.parts().folder)?;
    let groups = [Group::new("create-order", server.id()), Group::new(LOAD, running.pid())];
    let sampler = Sampler::start(groups.to_vec());
    let report = running.report().await?;
    let used = sampler.stop()?;
    let mut run = load::figures(&report);
    let (begin, end) = (i64::try_from(report.started_us)?, i64::try_from(report.ended_us)?);
    // Nothing is done with these orders: an acknowledged one is done.
    run.orders = report.orders.acknowledged;
    run.missing = 0;
    let processes = groups.into_iter().enumerate().map(|(at, group)| Process {
        name: group.name,
        cpu_seconds: used.cpu_seconds(at, begin, end),
        resident_peak_bytes: used.resident_peak(at),
        ..Process::default()
    });
    run.processes = processes.collect();
    Ok(run)
}

/// Starts it with the settings of the service.
fn start(bench: &Bench<'_>, port: u16) -> Result<Child> {
    let parts = bench.system.stack.parts();
    let (broker, redis) = (parts.broker_address(), parts.redis_url());
    let databases = &bench.system.databases;
    let environment = service_env(Service::CreateOrder, databases, &broker, &redis, "", port);
    let log = std::fs::File::create(parts.folder.join("logs/http-only.log"))?;
    Command::new(bench.binaries.join(PROGRAM))
        .envs(environment)
        .env_remove("DATABASE_MIGRATION_URL")
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {PROGRAM}"))
}

async fn wait_ready(port: u16) -> Result<()> {
    let deadline = tokio::time::Instant::now() + READY;
    while !is_ready(port).await {
        ensure!(tokio::time::Instant::now() < deadline, "{PROGRAM} does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
