//! The load generator as a child process, and what it reports.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use ordersaga_figures::{Latency, Run, Second};
use ordersaga_load::Report;
use tokio::process::{Child, Command};

const PROGRAM: &str = "ordersaga-load";

/// What the load generator is to do, and to whom.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) create: Vec<String>,
    pub(crate) store: String,
    pub(crate) monitoring: Vec<String>,
    pub(crate) broker: String,
    pub(crate) connections: u32,
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: u32,
    pub(crate) warmup_seconds: u32,
    pub(crate) first_item: i64,
    pub(crate) items: u32,
    pub(crate) cancel: f64,
    pub(crate) read: f64,
    pub(crate) find: f64,
    /// Whether clients wait for the end of their orders.
    pub(crate) wait: bool,
    /// Whether topics are followed: HTTP alone has none, and whoever waits needs none.
    pub(crate) follow: bool,
    /// Whether it looks at every item at the end, which costs CPU that is measured.
    pub(crate) check: bool,
}

/// A load generator at work. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Load {
    /// Starts the program of the folder `binaries`; it leaves report and output in `folder`.
    pub(crate) fn start(&self, binaries: &Path, folder: &Path) -> Result<Running> {
        let (report, log) = (folder.join("load.json"), folder.join("load.log"));
        // A report that is not written must not be taken for the last one.
        let _ = std::fs::remove_file(&report);
        let output = std::fs::File::create(&log).context("cannot make the load's log")?;
        let child = Command::new(binaries.join(PROGRAM))
            .args(self.arguments())
            .arg("--json")
            .arg(&report)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C ends it through this program, which drops it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        Ok(Running { child, report, log })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        for url in &self.create {
            add("create", url.clone());
        }
        for url in &self.monitoring {
            add("monitoring", url.clone());
        }
        add("store", self.store.clone());
        add("brokers", self.broker.clone());
        add("connections", self.connections.to_string());
        if let Some(rate) = self.rate {
            add("rate", rate.to_string());
        }
        add("seconds", self.seconds.to_string());
        add("warmup", self.warmup_seconds.to_string());
        add("first-item", self.first_item.to_string());
        add("items", self.items.to_string());
        add("cancel", self.cancel.to_string());
        let (reads, each) = if self.find > 0.0 { ("find", self.find) } else { ("read", self.read) };
        add(reads, each.to_string());
        let flags = [
            ("--wait", self.wait),
            ("--no-follow", !self.follow && !self.wait),
            ("--no-check", !self.check),
        ];
        let given = flags.into_iter().filter(|(_, is_given)| *is_given);
        arguments.extend(given.map(|(name, _)| name.to_owned()));
        arguments
    }
}

impl Running {
    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it has ended; its report. That a check failed is in the report as well.
    pub(crate) async fn report(mut self) -> Result<Report> {
        let status = self.child.wait().await?;
        match std::fs::read(&self.report) {
            Ok(text) => serde_json::from_slice(&text).context("the load's report"),
            Err(_) => self.failed(status),
        }
    }

    fn failed(&self, status: ExitStatus) -> Result<Report> {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        bail!("{PROGRAM} ended without a report ({status}):\n{said}")
    }
}

/// What the report says of the run, as figures.
pub(crate) fn figures(report: &Report) -> Run {
    let mut run = Run {
        seconds: report.seconds,
        orders: report.orders.terminal,
        orders_per_second: report.orders_per_second,
        acknowledged_per_second: report.acknowledged_per_second,
        missing: report.orders.acknowledged.saturating_sub(report.orders.terminal),
        ..Run::default()
    };
    let timed = [
        ("create", Some(report.create_ms)),
        ("terminal", report.terminal_ms),
        ("cancel", report.cancel_ms),
        ("read", report.read_ms),
    ];
    for (name, latency) in timed {
        if let Some(ordersaga_load::Latency { p50, p90, p99, p999, max, .. }) = latency {
            run.latency_ms.insert(name.to_owned(), Latency { p50, p90, p99, p999, max });
        }
    }
    run.refused = report.refused.iter().map(|(code, count)| (code.to_string(), *count)).collect();
    for (name, count) in [("no answer", report.errors.total()), ("unsent", report.orders.unsent)] {
        if count > 0 {
            run.refused.insert(name.to_owned(), count);
        }
    }
    run.reads = report.reads;
    if let Some(checks) = &report.checks {
        run.missing = run.missing.max(checks.orders_not_ended.unwrap_or(0));
        run.oversold = checks.oversold_items;
    }
    run.timeline = report.timeline.iter().map(second).collect();
    run
}

fn second(second: &ordersaga_load::Second) -> Second {
    Second {
        acknowledged: second.acknowledged,
        terminal: second.terminal,
        refused: second.refused + second.errors,
        create_p99_ms: second.create_p99_ms.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ordersaga_load::Plan;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        plan: Plan,
    }

    fn load(wait: bool, follow: bool) -> Load {
        Load {
            create: vec!["http://127.0.0.1:1".to_owned()],
            store: "http://127.0.0.1:2".to_owned(),
            monitoring: vec!["http://127.0.0.1:3".to_owned()],
            broker: "127.0.0.1:4".to_owned(),
            connections: 16,
            rate: Some(100.0),
            seconds: 1,
            warmup_seconds: 1,
            first_item: 1,
            items: 1,
            cancel: 0.0,
            read: 0.0,
            find: 0.0,
            wait,
            follow,
            check: false,
        }
    }

    #[test]
    fn the_load_generator_takes_what_it_is_told() {
        for (wait, follow) in [(true, true), (true, false), (false, true), (false, false)] {
            let words = ["load".to_owned()].into_iter().chain(load(wait, follow).arguments());
            let plan = Program::parse_from(words).plan;
            assert_eq!((plan.wait, plan.no_follow), (wait, !wait && !follow));
        }
    }
}
