//! The figures of a run of the benchmark. Every field says its unit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Spread;

/// The form of the file; it rises when an older reader would misunderstand.
pub const VERSION: u32 = 1;

/// Everything one run of the benchmark found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// [`VERSION`].
    pub version: u32,
    /// What to type to measure the same again.
    pub command: String,
    /// RFC 3339.
    pub started_at: String,
    /// How long all of it took.
    pub seconds: f64,
    /// What it ran on.
    pub machine: Machine,
    /// Of each program, by name.
    pub versions: BTreeMap<String, String>,
    /// What decides about durability and speed, by part.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Scenarios and limits, in the order they are shown.
    pub series: Vec<Series>,
}

/// What the figures were taken on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that everything shared.
    pub cores: usize,
    /// Their model, as the kernel names it.
    pub cpu: String,
    /// Main memory.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
}

/// What a series of runs is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The whole system under some load.
    Scenario,
    /// One part of the work alone: what the machine would allow.
    Limit,
}

/// Runs of the same thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    /// As `--only` takes it.
    pub name: String,
    /// For people.
    pub title: String,
    /// What it is about.
    pub kind: Kind,
    /// One after the other, others between them.
    pub runs: Vec<Run>,
}

/// One run. What is counted in the window, from the first create measured until everything was at
/// rest, stands beside what is counted over the whole run, warm-up included.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// From the first create measured to the last order's terminal status.
    pub seconds: f64,
    /// Orders of the window that became terminal.
    pub orders: u64,
    /// Those, by that time.
    pub orders_per_second: f64,
    /// Creates acknowledged, by the time creates were sent.
    pub acknowledged_per_second: f64,
    /// Until outboxes were empty and consumers had caught up, after the last order was terminal.
    pub rest_seconds: f64,
    /// By what was timed: `create`, `terminal` (create to terminal status, on the topics or, where
    /// clients wait for it, as they are told), `read`, `cancel`.
    pub latency_ms: BTreeMap<String, Latency>,
    /// Answers other than success, by status or `error`.
    pub refused: BTreeMap<String, u64>,
    /// Acknowledged orders that did not become terminal.
    pub missing: u64,
    /// Items of which more was reserved than there is.
    pub oversold: u64,
    /// Orders of the whole run, warm-up included: what the bytes below are to be divided by.
    pub all_orders: u64,
    /// By process group.
    pub processes: Vec<Process>,
    /// By Postgres node.
    pub databases: Vec<Database>,
    /// What the topics' segments grew by, over the whole run.
    pub kafka_bytes: u64,
    /// Status or item requests answered in the window.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reads: u64,
    /// What the topics grew by, by topic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topics: BTreeMap<String, Log>,
    /// What Redis holds of items at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Each second of the window; only where it is plotted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Second>,
}

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half were as fast.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// A process with all below it, or several that do the same.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Process {
    /// As `create-order` or `postgres store`.
    pub name: String,
    /// CPU time in the window, of user and kernel, ended children included.
    pub cpu_seconds: f64,
    /// What it gave the kernel to write to disk, over the whole run.
    pub written_bytes: u64,
    /// Memory before the run, shared pages in proportion.
    pub memory_before_bytes: u64,
    /// Memory after the load, before everything was at rest.
    pub memory_after_bytes: u64,
    /// Most resident memory seen; of several processes the sum, shared pages counted for each.
    pub resident_peak_bytes: u64,
}

/// One Postgres node, over the whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Database {
    /// Name of the cluster.
    pub name: String,
    /// Write-ahead log.
    pub wal_bytes: u64,
    /// Transactions that wrote.
    pub transactions: u64,
    /// What tables and indexes grew by.
    pub stored_bytes: u64,
    /// The same by table (without its indexes) and by index; those of a table's partitions
    /// together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<String, u64>,
}

/// Records of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// How many.
    pub records: u64,
    /// In the segments, compressed.
    pub bytes: u64,
    /// Batches that they were written in.
    pub batches: u64,
}

/// What Redis holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Entries.
    pub entries: u64,
    /// Memory of keys, values and expiry.
    pub bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Second {
    /// Creates acknowledged.
    pub acknowledged: u64,
    /// Orders that became terminal.
    pub terminal: u64,
    /// Requests refused or failed.
    pub refused: u64,
    /// 99th percentile of the creates' latencies, in milliseconds.
    pub create_p99_ms: f64,
}

impl Figures {
    /// A series by its name.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }
}

impl Series {
    /// Median and spread of something over the runs that have it.
    pub fn spread(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(value))
    }

    /// Orders a second.
    pub fn rate(&self) -> Option<Spread> {
        self.spread(|run| Some(run.orders_per_second))
    }

    /// CPU seconds per 1,000 orders of the processes that `counts` picks by name.
    pub fn cpu_per_thousand(&self, counts: impl Fn(&str) -> bool) -> Option<Spread> {
        self.spread(|run| run.cpu_per_thousand(&counts))
    }

    /// The run whose rate is the median, or just below it.
    pub fn typical(&self) -> Option<&Run> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by(|a, b| a.orders_per_second.total_cmp(&b.orders_per_second));
        runs.get(runs.len().checked_sub(1)? / 2).copied()
    }
}

impl Run {
    /// CPU seconds per 1,000 orders of the processes that `counts` picks by name; none without
    /// orders or such processes.
    pub fn cpu_per_thousand(&self, counts: impl Fn(&str) -> bool) -> Option<f64> {
        let mut counted = self.processes.iter().filter(|process| counts(&process.name)).peekable();
        counted.peek()?;
        let seconds: f64 = counted.map(|process| process.cpu_seconds).sum();
        (self.orders > 0).then(|| seconds * 1000.0 / self.orders as f64)
    }

    /// Some bytes of the whole run, by order.
    pub fn per_order(&self, bytes: u64) -> Option<f64> {
        (self.all_orders > 0).then(|| bytes as f64 / self.all_orders as f64)
    }

    /// A process group by name.
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// A Postgres node by name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(orders: u64, rate: f64, cpu: &[(&str, f64)]) -> Run {
        let process = |(name, seconds): &(&str, f64)| Process {
            name: (*name).to_owned(),
            cpu_seconds: *seconds,
            ..Process::default()
        };
        Run {
            orders,
            orders_per_second: rate,
            processes: cpu.iter().map(process).collect(),
            ..Run::default()
        }
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn cpu_is_summed_over_the_processes_asked_for() {
        let run = run(2_000, 1.0, &[("store", 1.0), ("postgres store", 3.0), ("load", 9.0)]);
        assert!(close(run.cpu_per_thousand(|name| name == "store"), 0.5));
        assert!(close(run.cpu_per_thousand(|name| name != "load"), 2.0));
        assert_eq!(run.cpu_per_thousand(|name| name == "redis"), None);
        let idle = Run { orders: 0, ..run };
        assert_eq!(idle.cpu_per_thousand(|_| true), None);
    }

    #[test]
    fn the_typical_run_is_that_of_the_median() {
        let runs = [50.0, 10.0, 30.0, 20.0].map(|rate| run(1, rate, &[])).into();
        let (name, title) = (String::new(), String::new());
        let mut series = Series { name, title, kind: Kind::Scenario, runs };
        assert!(close(series.typical().map(|run| run.orders_per_second), 20.0));
        assert!(close(series.rate().map(|rate| rate.median), 25.0));
        series.runs.clear();
        assert!(series.typical().is_none() && series.rate().is_none());
    }
}
