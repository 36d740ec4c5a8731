//! What cannot be tried on one machine: a load of a hundred thousand orders a second over three
//! data centres, a data centre lost, something hot, one size too small.

use std::collections::{BTreeMap, BTreeSet};

use ordersaga_figures::Table;
use ordersaga_figures::number::{short, whole};
use serde::Serialize;

use crate::engine::{Interval, Report, Span, simulate};
use crate::fit::Costs;
use crate::network::{Clients, Length, Loss, Network, SECOND};
use crate::pipeline::{Delays, Shape, pipeline};

/// How long a sync of the log takes with a standby that has it, and a record's way through the
/// broker with its copies, in microseconds. Assumed: half a millisecond between data centres of one
/// region (AWS promises single-digit milliseconds between its zones), and disks as on the machine
/// that was measured on.
const DELAYS: Delays = Delays {
    commit: Length { fixed: 900.0, random: 250.0 },
    hop: Length { fixed: 1_700.0, random: 1_300.0 },
    network: 500.0,
};
const SPAN: Span =
    Span { warm_up: 5 * SECOND, measured: 20 * SECOND, drain: 120 * SECOND, interval: SECOND };
/// The loss of a data centre: when, and for how long.
const LOSS: (u64, u64) = (10 * SECOND, 60 * SECOND);
const SPAN_OF_LOSS: Span =
    Span { warm_up: 5 * SECOND, measured: 95 * SECOND, drain: 300 * SECOND, interval: SECOND };

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// As it was sized: half of each part's cores used.
    Steady,
    /// A data centre is lost for a minute.
    LostDataCentre,
    /// A fifth of all orders want one item.
    HotItem,
    /// A fifth of all orders fall into one partition of one system.
    HotPartition,
    /// Every machine a little slower than the load needs.
    TooSmall,
}

/// How large the system is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Size {
    /// Orders a second.
    pub orders_per_second: f64,
    /// Whole systems, orders divided among them.
    pub systems: usize,
    /// Instances of each service of a system.
    pub instances: usize,
    /// Nodes with status of a system.
    pub shards: usize,
    /// Brokers, for all systems.
    pub brokers: usize,
    /// Cores of each machine.
    pub cores: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            orders_per_second: 100_000.0,
            systems: 3,
            instances: 3,
            shards: 2,
            brokers: 9,
            cores: 2,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was asked.
    pub experiment: Experiment,
    /// Of the simulation.
    pub seed: u64,
    /// How large it was.
    pub size: Size,
    /// Orders ended a second while there was load.
    pub orders_per_second: f64,
    /// Milliseconds from create to its answer: half, 99 of 100.
    pub create_ms: [f64; 2],
    /// Milliseconds from create to the end.
    pub terminal_ms: [f64; 2],
    /// Of the worst second.
    pub worst_p99_ms: f64,
    /// Most orders on their way at a time.
    pub most_in_flight: u64,
    /// Seconds with more than twice as many orders on their way as before.
    pub seconds_above_usual: usize,
    /// Share of its cores that the busiest machine of each part used.
    pub busiest: BTreeMap<String, f64>,
    /// Most orders held by each part at the end of a second.
    pub queues: BTreeMap<&'static str, u64>,
    /// Each second since the begin.
    pub timeline: Vec<Second>,
}

/// A second of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Second {
    /// Orders acknowledged.
    pub acknowledged: u64,
    /// Orders ended.
    pub terminal: u64,
    /// Orders on their way at its end.
    pub in_flight: u64,
    /// Milliseconds from create to the end, 99 of 100 of those ended.
    pub p99_ms: f64,
}

impl Experiment {
    /// All, in the order they are shown.
    pub const ALL: [Self; 5] =
        [Self::Steady, Self::LostDataCentre, Self::HotItem, Self::HotPartition, Self::TooSmall];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::LostDataCentre => "lost-data-centre",
            Self::HotItem => "hot-item",
            Self::HotPartition => "hot-partition",
            Self::TooSmall => "too-small",
        }
    }

    fn network(self, costs: &Costs, size: Size) -> Network {
        let Size { systems, instances, shards, brokers, cores, .. } = size;
        let shape = Shape { systems, instances, shards, brokers, partitions: 16 };
        let speed = if self == Self::TooSmall { TOO_SMALL } else { 1.0 };
        let sizes = |part: &str| match part {
            "all" => None,
            "redis" => Some((1, speed)),
            _ => Some((cores, speed)),
        };
        let clients = Clients::Open(size.orders_per_second);
        let network = pipeline(costs, shape, DELAYS, &sizes).under(clients);
        match self {
            Self::Steady | Self::TooSmall => network,
            Self::HotItem => Network { hot_item: 0.2, ..network },
            Self::HotPartition => Network { hot_partition: 0.2, ..network },
            Self::LostDataCentre => {
                network.without(Loss { datacentre: 0, from: LOSS.0, until: LOSS.0 + LOSS.1 })
            }
        }
    }

    /// Simulates it.
    pub fn run(self, costs: &Costs, size: Size, seed: u64) -> Outcome {
        let is_loss = self == Self::LostDataCentre;
        let span = if is_loss { SPAN_OF_LOSS } else { SPAN };
        let report = simulate(&self.network(costs, size), span, seed);
        Outcome::of(self, size, seed, &report, (span.warm_up + span.measured) / SECOND)
    }
}

/// How fast machines are in [`Experiment::TooSmall`].
const TOO_SMALL: f64 = 0.4;

impl Outcome {
    /// The load ends with second `ends`.
    fn of(experiment: Experiment, size: Size, seed: u64, report: &Report, ends: u64) -> Self {
        let ms = |histogram: &hdrhistogram::Histogram<u64>, quantile: f64| {
            histogram.value_at_quantile(quantile) as f64 / 1_000.0
        };
        let loaded =
            &report.intervals[..report.intervals.len().min(usize::try_from(ends).unwrap_or(0))];
        let worst = report.intervals.iter().filter(|second| !second.end.is_empty());
        let worst = worst.map(|second| ms(&second.end, 0.99)).fold(0.0, f64::max);
        let most = |second: &Interval| second.in_flight;
        let usual = loaded.get(..8).and_then(|first| first.iter().map(most).max()).unwrap_or(0);
        let above = report.intervals.iter().filter(|second| second.in_flight > usual * 2).count();
        let timeline = report.intervals.iter().map(|second| Second {
            acknowledged: second.acknowledged,
            terminal: second.terminal,
            in_flight: second.in_flight,
            p99_ms: ms(&second.end, 0.99),
        });
        let mut queues = BTreeMap::new();
        for second in &report.intervals {
            for (part, held) in &second.queues {
                let most: &mut u64 = queues.entry(*part).or_default();
                *most = (*most).max(*held);
            }
        }
        let ended: u64 = loaded.iter().skip(5).map(|second| second.terminal).sum();
        let seconds = loaded.len().saturating_sub(5).max(1) as f64;
        Self {
            experiment,
            seed,
            size,
            orders_per_second: ended as f64 / seconds,
            create_ms: [0.5, 0.99].map(|quantile| ms(&report.create, quantile)),
            terminal_ms: [0.5, 0.99].map(|quantile| ms(&report.end, quantile)),
            worst_p99_ms: worst,
            most_in_flight: report.intervals.iter().map(most).max().unwrap_or(0),
            seconds_above_usual: above,
            busiest: report.busiest.clone(),
            queues,
            timeline: timeline.collect(),
        }
    }
}

/// The outcomes side by side.
pub fn table(outcomes: &[Outcome]) -> Table {
    let names = outcomes.iter().map(|outcome| outcome.experiment.name());
    let mut table = Table::new([""].into_iter().chain(names));
    let mut row = |what: &str, of: &dyn Fn(&Outcome) -> String| {
        let values: Vec<_> = outcomes.iter().map(of).collect();
        table.row([vec![what.to_owned()], values].concat());
    };
    row("orders/s", &|one| whole(one.orders_per_second));
    row("create p50 / p99, ms", &|one| pair(one.create_ms));
    row("create → terminal p50 / p99, ms", &|one| pair(one.terminal_ms));
    row("p99 of the worst second, ms", &|one| short(one.worst_p99_ms));
    row("most orders on their way", &|one| whole(one.most_in_flight as f64));
    row("seconds with twice the usual on their way", &|one| one.seconds_above_usual.to_string());
    row("busiest part", &|one| {
        let most = one.busiest.iter().max_by(|a, b| a.1.total_cmp(b.1));
        most.map_or_else(String::new, |(part, used)| format!("{part}, {:.0} %", used * 100.0))
    });
    row("longest queue", &|one| {
        let most = one.queues.iter().max_by_key(|(_, held)| **held);
        most.map_or_else(String::new, |(part, held)| format!("{part}, {}", whole(*held as f64)))
    });
    table
}

/// How busy the busiest machine of each part is, by experiment.
pub fn load(outcomes: &[Outcome]) -> Table {
    let names = outcomes.iter().map(|outcome| outcome.experiment.name());
    let mut table = Table::new(["busiest machine of"].into_iter().chain(names));
    let parts: BTreeSet<_> = outcomes.iter().flat_map(|one| one.busiest.keys()).collect();
    for part in parts {
        let used = |one: &Outcome| {
            let used = one.busiest.get(part).copied().unwrap_or_default();
            format!("{:.0} %", used * 100.0)
        };
        table.row([part.clone()].into_iter().chain(outcomes.iter().map(used)));
    }
    table
}

/// The most orders that each part held, by experiment.
pub fn queues(outcomes: &[Outcome]) -> Table {
    let names = outcomes.iter().map(|outcome| outcome.experiment.name());
    let mut table = Table::new(["most orders held by"].into_iter().chain(names));
    let parts: BTreeSet<_> = outcomes.iter().flat_map(|one| one.queues.keys()).collect();
    for part in parts {
        let held = |one: &Outcome| one.queues.get(part).copied().unwrap_or_default();
        let row = outcomes.iter().map(|one| whole(held(one) as f64));
        table.row([(*part).to_owned()].into_iter().chain(row));
    }
    table
}

/// Some seconds of an experiment.
pub fn timeline(outcome: &Outcome) -> Table {
    let mut table = Table::new([
        "second",
        "acknowledged",
        "ended",
        "on their way",
        "create → terminal p99, ms",
    ]);
    for (at, second) in outcome.timeline.iter().enumerate().skip(8).step_by(4).take(22) {
        table.row([
            at.to_string(),
            whole(second.acknowledged as f64),
            whole(second.terminal as f64),
            whole(second.in_flight as f64),
            short(second.p99_ms),
        ]);
    }
    table
}

fn pair([half, most]: [f64; 2]) -> String {
    format!("{} / {}", short(half), short(most))
}
