//! What a run was and found, as JSON and for people.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use ordersaga_checker::Violation;
use serde::Serialize;

/// A run from its begin to its end. Times are seconds since its begin.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// What to type to have the same schedule again.
    pub(crate) command: String,
    /// RFC 3339.
    pub(crate) started_at: String,
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
    pub(crate) orders: Orders,
    pub(crate) faults: Vec<FaultReport>,
    /// By kind of fault.
    pub(crate) recovery: Vec<Recovery>,
    pub(crate) timeline: Vec<Second>,
    /// Services and parts that ended by themselves and were started again.
    pub(crate) restarts: BTreeMap<String, u32>,
    /// Faults that could not happen, and why.
    pub(crate) not_injected: Vec<String>,
    pub(crate) violations: Vec<Broken>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) ordersaga: &'static str,
    /// The services' build: debug or release.
    pub(crate) build: &'static str,
}

/// What clients wanted and what became of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Orders {
    /// Orders that clients wanted.
    pub(crate) wanted: usize,
    /// Orders beside them, to see whether orders flow again.
    pub(crate) probes: usize,
    /// Requests sent to create them, repetitions included.
    pub(crate) requests: usize,
    /// Orders that were acknowledged to a client.
    pub(crate) acknowledged: usize,
    /// Orders there are in the end, acknowledged or not.
    pub(crate) made: usize,
    pub(crate) shipping: usize,
    /// Cancelled orders by reason.
    pub(crate) cancelled: BTreeMap<String, usize>,
    /// Acknowledged cancellations.
    pub(crate) cancellations: usize,
    pub(crate) reads: usize,
    /// Answers other than success, by status; 0 is no answer.
    pub(crate) refused: BTreeMap<u16, usize>,
    /// Records on the topics, repetitions included.
    pub(crate) records: usize,
    pub(crate) dead_letters: usize,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct FaultReport {
    pub(crate) kind: String,
    pub(crate) target: String,
    /// Overlapped with another.
    pub(crate) overlapped: bool,
    pub(crate) started: f64,
    /// When whatever was wrong was put right.
    pub(crate) healed: f64,
    /// From then until orders of every partition went through from create to SHIPPING; of all
    /// faults that overlapped. None if they did not in time.
    pub(crate) recovery: Option<f64>,
    /// Creates acknowledged while it lasted.
    pub(crate) acknowledged: usize,
    /// Orders that ended while it lasted.
    pub(crate) ended: usize,
}

/// How soon orders flowed again after faults of a kind that did not overlap with others.
#[derive(Debug, Serialize)]
pub(crate) struct Recovery {
    pub(crate) kind: String,
    pub(crate) target: String,
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

/// One second of the run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Second {
    /// Creates acknowledged.
    pub(crate) created: usize,
    /// Orders reserved or ended: first answers of the store, and resets.
    pub(crate) ended: usize,
    /// Requests refused or unanswered.
    pub(crate) errors: usize,
    /// 99th percentile of the creates' latencies, those answered, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// A promise that was not kept, with all that is known of the order.
#[derive(Debug, Serialize)]
pub(crate) struct Broken {
    #[serde(flatten)]
    pub(crate) violation: Violation,
    pub(crate) history: Vec<String>,
}

impl FaultReport {
    /// It in one line.
    pub(crate) fn line(&self) -> String {
        let Self { kind, target, started, healed, recovery, .. } = self;
        let length = healed - started;
        let after = match recovery {
            Some(seconds) => format!("orders flowed again after {seconds:.1} s"),
            None => "orders did not flow again in time".to_owned(),
        };
        format!("{started:7.1} s  {kind}, {target}, for {length:.1} s: {after}")
    }
}

impl Report {
    /// The result for people.
    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "fault",
            "of",
            "times",
            "orders flow again after",
            "at most",
        ]);
        for Recovery { kind, target, count, median, most } in &self.recovery {
            let (median, most) = (format!("{median:.1} s"), format!("{most:.1} s"));
            table.add_row([kind, target, &count.to_string(), &median, &most]);
        }
        say!("{table}");
        let Orders { wanted, probes, requests, acknowledged, made, shipping, cancelled, .. } =
            &self.orders;
        say!(
            "{wanted} orders wanted and {probes} probes, {requests} requests, {acknowledged} acknowledged."
        );
        say!("{made} orders made: {shipping} are SHIPPING, the others {cancelled:?}.");
        say!("{} faults in {:.0} s.", self.faults.len(), self.seconds);
        for error in &self.not_injected {
            say!("Not injected: {error}");
        }
        for Broken { violation, history } in self.violations.iter().take(10) {
            let order = violation.order.map(|order| format!(", order {order}")).unwrap_or_default();
            say!("{}{order}: {}", violation.invariant, violation.what);
            for line in history {
                say!("    {line}");
            }
        }
        match self.violations.len() {
            0 => say!("No promise was broken."),
            count => say!("{count} VIOLATIONS. Again: {}", self.command),
        }
    }

    /// Recovery by kind and target, from faults that happened alone.
    pub(crate) fn recovery_of(faults: &[FaultReport]) -> Vec<Recovery> {
        let mut by_kind: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for fault in faults.iter().filter(|fault| !fault.overlapped) {
            if let Some(recovery) = fault.recovery {
                let kind = (fault.kind.clone(), fault.target.clone());
                by_kind.entry(kind).or_default().push(recovery);
            }
        }
        by_kind
            .into_iter()
            .map(|((kind, target), mut times)| {
                times.sort_by(f64::total_cmp);
                let (count, most) = (times.len(), times.last().copied().unwrap_or_default());
                Recovery { kind, target, count, median: times[count / 2], most }
            })
            .collect()
    }
}
