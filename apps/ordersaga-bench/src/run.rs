//! One run: the load, and what everything used for it.

use std::path::Path;

use anyhow::{Context, Result};
use ordersaga_devstack::Service;
use ordersaga_figures::{Cache, Log, Process, Run};
use ordersaga_runtime::clock;

use crate::load::{self, Load};
use crate::meters::{self, Meters};
use crate::sampler::{Group, Sampler};
use crate::scenario::{Pace, Scenario};
use crate::system::{System, written};

/// Under overload there are enough clients to keep more requests in hand than a service allows.
const OVERLOAD_CONNECTIONS: u32 = 2_048;
/// Clients that share an ordinary rate.
const RATE_CONNECTIONS: u32 = 64;
/// The same where each waits for its order: as many orders as may be open at once. A service serves
/// no more requests of one address at the same time.
const WAITING_CONNECTIONS: u32 = 768;
/// The load generator's group.
pub(crate) const LOAD: &str = "load";

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) seconds: u32,
    pub(crate) warmup_seconds: u32,
}

/// The load of a scenario on this system, whose capacity is known to be `capacity` orders a second.
pub(crate) fn load_of(system: &System, scenario: &Scenario, length: Length, capacity: f64) -> Load {
    let (connections, rate) = match scenario.pace {
        Pace::Clients(connections) => (connections, None),
        Pace::Rate(rate) if scenario.wait => (WAITING_CONNECTIONS, Some(rate)),
        Pace::Rate(rate) => (RATE_CONNECTIONS, Some(rate)),
        Pace::Overload(times) => (OVERLOAD_CONNECTIONS, Some((capacity * times).round())),
    };
    Load {
        create: system.urls(Service::CreateOrder),
        store: system.urls(Service::Store).swap_remove(0),
        monitoring: system.urls(Service::Monitoring),
        broker: system.stack.parts().broker_address(),
        connections,
        rate,
        seconds: length.seconds,
        warmup_seconds: length.warmup_seconds,
        first_item: system.first_item,
        items: scenario.items,
        cancel: scenario.cancel,
        read: scenario.read,
        find: scenario.find,
        wait: scenario.wait,
        follow: !scenario.wait,
        check: matches!(scenario.pace, Pace::Overload(_)),
    }
}

/// Runs a load from rest to rest.
pub(crate) async fn run(system: &System, load: &Load, binaries: &Path) -> Result<Run> {
    let begins = system.at_rest().await?;
    let mut groups = system.groups();
    let memory_before = meters::memory(&groups);
    let before = Meters::read(system, &groups).await?;

    let running = load.start(binaries, &system.stack.parts().folder)?;
    groups.extend([Group::new(LOAD, running.pid()), Group::own()]);
    let sampler = Sampler::start(groups.clone());
    let report = running.report().await?;
    let memory_after = meters::memory(&groups);
    let ends = system.at_rest().await?;
    let rest = clock::now().timestamp_micros();
    let used = sampler.stop()?;
    let after = Meters::read(system, &groups).await?;

    let mut run = load::figures(&report);
    let begin = i64::try_from(report.started_us).context("the load's clock")?;
    let ended = i64::try_from(report.ended_us).context("the load's clock")?;
    run.rest_seconds = (rest - ended).max(0) as f64 / 1e6;
    run.all_orders = u64::try_from(written(&ends, "incoming") - written(&begins, "incoming"))
        .unwrap_or_default();
    run.topics = after
        .topics
        .iter()
        .map(|(topic, after)| {
            let records = written(&ends, topic) - written(&begins, topic);
            let before = before.topics.get(topic).copied().unwrap_or_default();
            let log = Log {
                records: u64::try_from(records).unwrap_or_default(),
                bytes: after.bytes.saturating_sub(before.bytes),
                batches: after.batches.saturating_sub(before.batches),
            };
            (topic.clone(), log)
        })
        .collect();
    run.cache = Some(Cache { entries: after.cache.entries, bytes: after.cache.bytes });
    run.kafka_bytes = run.topics.values().map(|log| log.bytes).sum();
    let nodes = after.nodes.iter().zip(&before.nodes);
    run.databases = nodes.map(|(after, before)| after.since(before)).collect();
    run.processes = groups
        .into_iter()
        .enumerate()
        .map(|(at, group)| {
            let of = |values: &[u64]| values.get(at).copied().unwrap_or_default();
            Process {
                name: group.name,
                cpu_seconds: used.cpu_seconds(at, begin, rest),
                written_bytes: of(&after.written_bytes).saturating_sub(of(&before.written_bytes)),
                memory_before_bytes: of(&memory_before),
                memory_after_bytes: of(&memory_after),
                resident_peak_bytes: used.resident_peak(at),
            }
        })
        .collect();
    Ok(run)
}
