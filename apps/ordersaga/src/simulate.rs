//! `simulate`: what queues do past one machine, by the figures of the benchmark.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::builder::PossibleValuesParser;
use ordersaga_figures::{Figures, Table, document};
use ordersaga_simulation::experiment::{self, Experiment, Outcome, Size};
use ordersaga_simulation::fit::Costs;
use ordersaga_simulation::validation;

use crate::capacity::{Format, shown};

const FIGURES: &str = include_str!("../../../docs/performance.json");
const DOCUMENT: &str = "../../docs/design/simulation.md";

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these; validation is this machine beside its benchmark
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = scenarios())]
    scenario: Vec<String>,
    /// Orders a second
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders_per_second: u32,
    /// Whole systems, orders divided among them
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    systems: u32,
    /// Instances of each service of a system
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=16))]
    instances: u32,
    /// Nodes with status of a system
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(1..=16))]
    shards: u32,
    /// Brokers, for all systems
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u32).range(1..=100))]
    brokers: u32,
    /// Cores of each machine, as fast as those that were measured on
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(1..=256))]
    cores: u32,
    /// The same seed gives the same orders at the same moments
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// How it is shown
    #[arg(long, default_value = "table", value_enum)]
    format: Format,
    /// Write the tables of docs/design/simulation.md, in this checkout
    #[arg(long)]
    document: bool,
}

const SEED: u64 = 1;
const VALIDATION: &str = "validation";

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.document {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, documented(&text)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (figures, costs) = costs()?;
    if arguments.scenario.iter().any(|name| name == VALIDATION) {
        let compared = validation::compare(&figures, &costs, arguments.seed);
        say!("{}", shown(&validation::table(&compared)));
        return Ok(ExitCode::SUCCESS);
    }
    let outcomes: Vec<_> = chosen(&arguments.scenario)?
        .into_iter()
        .map(|experiment| experiment.run(&costs, arguments.size(), arguments.seed))
        .collect();
    match arguments.format {
        Format::Json => say!("{}", serde_json::to_string_pretty(&outcomes)?),
        format => {
            for table in tables(&outcomes) {
                let text =
                    if matches!(format, Format::Table) { shown(&table) } else { table.markdown() };
                say!("{text}\n");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn size(&self) -> Size {
        Size {
            orders_per_second: self.orders_per_second.into(),
            systems: self.systems as usize,
            instances: self.instances as usize,
            shards: self.shards as usize,
            brokers: self.brokers as usize,
            cores: self.cores as usize,
        }
    }
}

fn scenarios() -> PossibleValuesParser {
    let names = Experiment::ALL.into_iter().map(Experiment::name);
    names.chain([VALIDATION]).into()
}

fn costs() -> Result<(Figures, Costs)> {
    let figures: Figures = serde_json::from_str(FIGURES).context("these are no figures")?;
    let costs = Costs::of(&figures).map_err(|missing| anyhow!(missing))?;
    Ok((figures, costs))
}

fn chosen(names: &[String]) -> Result<Vec<Experiment>> {
    if names.is_empty() {
        return Ok(Experiment::ALL.to_vec());
    }
    let of = |name: &String| {
        let found = Experiment::ALL.into_iter().find(|experiment| experiment.name() == name);
        found.with_context(|| format!("no scenario is called {name}"))
    };
    names.iter().map(of).collect()
}

fn tables(outcomes: &[Outcome]) -> Vec<Table> {
    let mut tables =
        vec![experiment::table(outcomes), experiment::load(outcomes), experiment::queues(outcomes)];
    let lost = outcomes.iter().find(|one| one.experiment == Experiment::LostDataCentre);
    tables.extend(lost.map(experiment::timeline));
    tables
}

/// The document with its tables as they are to be.
fn documented(text: &str) -> Result<String> {
    let (figures, costs) = costs()?;
    let outcomes = Experiment::ALL.map(|one| one.run(&costs, Size::default(), SEED));
    let [table, load, queues, timeline] = &tables(&outcomes)[..] else {
        return Err(anyhow!("a table is missing"));
    };
    let content = |name: &str| {
        let table = match name {
            "fit" => &costs.table(),
            VALIDATION => &validation::table(&validation::compare(&figures, &costs, SEED)),
            "experiments" => table,
            "load" => load,
            "queues" => queues,
            "lost-data-centre" => timeline,
            _ => return None,
        };
        Some(table.markdown())
    };
    document::replace(text, "simulate", content).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_what_the_simulation_does() -> Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let text = std::fs::read_to_string(file)?;
        assert!(documented(&text)? == text, "run `cargo ordersaga simulate --document`");
        Ok(())
    }
}
