//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap_complete::engine::ArgValueCandidates;

use crate::scenario;

/// Measures the whole system: five Postgres nodes, Redis, the broker, the services and the load
/// generator on this machine, on a stack of its own that is removed afterwards. In the same run it
/// measures what the machine would allow at the most: SQL alone, the broker alone, HTTP alone.
///
/// Each figure is the median of several runs, which take turns so that a drift of the machine
/// spreads over all of them. A full run writes the tables, plots and figures of
/// docs/performance.md in about 50 minutes, and needs some 40 GB in the temporary folder ($TMPDIR).
/// Nothing else should run meanwhile.
#[derive(Parser, Debug)]
#[command(name = "ordersaga bench", version)]
pub(crate) struct Arguments {
    /// One short run of each scenario, without the ten million rows: under eight minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only scenarios or limits whose name contains this text; may be given several times
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(scenario::candidates))]
    pub(crate) only: Vec<String>,
    /// Runs of each scenario [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: Option<u32>,
    /// Seconds of load measured in each run [default: 10, or 5 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: Option<u32>,
    /// Let everything that services, databases, Redis and the broker say to each other be so many
    /// milliseconds late in each direction, as between data centres
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) link_delay: Option<u64>,
    /// Write performance.json, performance.md and the plots to this folder [default: docs for a
    /// full run, else target/bench]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Measure nothing: write tables and plots of these figures again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "runs", "seconds"])]
    pub(crate) from: Option<PathBuf>,
    /// List the names for --only
    #[arg(long)]
    pub(crate) list: bool,
    /// Folder of the services and the load generator [default: that of this program]
    #[arg(long, hide = true, value_name = "DIR")]
    pub(crate) services: Option<PathBuf>,
}

impl Arguments {
    /// Whether the series of this name is to be run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }

    /// Runs of each series.
    pub(crate) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// Seconds measured in a run.
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 5 } else { 10 })
    }

    /// What to type to measure the same again, wherever it is written.
    pub(crate) fn command(&self) -> String {
        let number =
            |name: &str, value: Option<u64>| value.map(|value| format!("--{name} {value}"));
        let quick = self.quick.then(|| "--quick".to_owned());
        let only = self.only.iter().map(|name| format!("--only {name}"));
        let options = quick.into_iter().chain(only);
        let options = options.chain(number("runs", self.runs.map(u64::from)));
        let options = options.chain(number("seconds", self.seconds.map(u64::from)));
        let options = options.chain(number("link-delay", self.link_delay));
        ["cargo ordersaga bench".to_owned()]
            .into_iter()
            .chain(options)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Whether all is measured, and as it should be: what docs/performance.md is written from.
    pub(crate) fn is_full(&self) -> bool {
        let is_whole = !self.quick && self.only.is_empty() && self.link_delay.is_none();
        is_whole && self.runs() >= 5 && self.seconds() >= 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Arguments {
        Arguments::parse_from(["bench"].iter().chain(arguments))
    }

    #[test]
    fn only_a_full_run_counts_as_one() {
        assert!(parsed(&[]).is_full());
        assert!(parsed(&["--runs=7"]).is_full());
        for less in ["--quick", "--only=light", "--runs=4", "--seconds=3", "--link-delay=1"] {
            assert!(!parsed(&[less]).is_full(), "{less}");
        }
    }

    #[test]
    fn the_command_can_be_typed_again() {
        let typed = ["--quick", "--only=light", "--runs=3", "--out=/somewhere"];
        let command = parsed(&typed).command();
        assert_eq!(command, "cargo ordersaga bench --quick --only light --runs 3");
        assert_eq!(parsed(&[]).command(), "cargo ordersaga bench");
    }

    #[test]
    fn names_are_chosen_by_any_of_several_texts() {
        let chosen = parsed(&["--only=saturation", "--only=light"]);
        assert!(chosen.wants("saturation-16") && chosen.wants("light"));
        assert!(!chosen.wants("hot-item"));
        assert!(parsed(&[]).wants("hot-item"));
    }
}
