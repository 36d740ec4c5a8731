//! `capacity`: what a load needs, by the figures of the benchmark.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use comfy_table::{ContentArrangement, presets};
use ordersaga_capacity::{Costs, Overrides, Parameters, Plan, block};
use ordersaga_figures::{Figures, Table, VERSION, document};

/// What `bench` found of single costs.
const FIGURES: &str = include_str!("../../../docs/design/capacity.json");
/// Folders below the checkout whose documents embed tables.
const DOCUMENTS: [&str; 2] = ["docs", "docs/design"];

/// The sections of a plan.
const SECTIONS: [&str; 10] = [
    "parameters",
    "load",
    "network",
    "storage",
    "cache",
    "topics",
    "shards",
    "servers",
    "money",
    "limits",
];

/// Arguments of `capacity`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The load to begin with; the parameters below change it
    #[arg(long, default_value = "today", value_parser = Parameters::SCENARIOS)]
    scenario: String,
    #[command(flatten)]
    overrides: Overrides,
    /// Only these sections
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = SECTIONS)]
    section: Vec<String>,
    /// How it is shown
    #[arg(long, default_value = "table", value_enum)]
    format: Format,
    /// Every constant with where it is from, instead of a plan
    #[arg(long)]
    constants: bool,
    /// Figures of another run of the benchmark than those of docs/design/capacity.json
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// Write the tables that documents embed, in this checkout
    #[arg(long, conflicts_with_all = ["figures", "constants"])]
    document: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Format {
    /// For a terminal
    Table,
    /// Numbers without units: bytes, seconds, US dollars
    Json,
    /// For a document
    Markdown,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let costs = costs(arguments.figures.as_deref())?;
    if arguments.document {
        return write(&costs);
    }
    let scenario = Parameters::scenario(&arguments.scenario).context("no such scenario")?;
    let plan = Plan::of(&arguments.overrides.apply(scenario), &costs);
    let sections = if arguments.constants {
        vec![("constants", costs.table())]
    } else {
        let mut sections = plan.sections();
        sections.retain(|(name, _)| {
            arguments.section.is_empty() || arguments.section.iter().any(|wanted| wanted == name)
        });
        sections
    };
    match arguments.format {
        Format::Json if arguments.constants => {
            say!("{}", serde_json::to_string_pretty(costs.constants())?);
        }
        Format::Json => say!("{}", serde_json::to_string_pretty(&plan)?),
        Format::Markdown => {
            for (name, table) in sections {
                say!("## {name}\n\n{}", table.markdown());
            }
        }
        Format::Table => {
            for (name, table) in sections {
                say!("{name}\n{}\n", shown(&table));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn costs(file: Option<&Path>) -> Result<Costs> {
    let text = match file {
        None => FIGURES.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
    };
    let figures: Figures = serde_json::from_str(&text).context("these are no figures")?;
    ensure!(
        figures.version == VERSION,
        "figures of version {} are not understood",
        figures.version
    );
    Costs::of(&figures).map_err(|missing| anyhow!(missing))
}

/// Documents whose embedded tables are not what the code says, with what they should be.
fn outdated(costs: &Costs) -> Result<Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut outdated = Vec::new();
    for folder in DOCUMENTS {
        for entry in std::fs::read_dir(root.join(folder))? {
            let file = entry?.path();
            if file.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&file)?;
            let content = |name: &str| block(name, costs);
            let replaced = document::replace(&text, "capacity", content)
                .map_err(|error| anyhow!("{}: {error}", file.display()))?;
            if replaced != text {
                outdated.push((file, replaced));
            }
        }
    }
    Ok(outdated)
}

fn write(costs: &Costs) -> Result<ExitCode> {
    for (file, text) in outdated(costs)? {
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        say!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn shown(table: &Table) -> String {
    let mut shown = comfy_table::Table::new();
    shown.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    shown.set_header(table.header.clone());
    for row in &table.rows {
        shown.add_row(row.clone());
    }
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_the_code_says() -> Result<()> {
        let files = outdated(&costs(None)?)?;
        let files: Vec<_> = files.iter().map(|(file, _)| file).collect();
        assert!(files.is_empty(), "`cargo ordersaga capacity --document` changes {files:?}");
        Ok(())
    }

    #[test]
    fn a_parameter_changes_its_part_of_the_plan_alone() -> Result<()> {
        let costs = costs(None)?;
        let today = Parameters::default();
        let plan = Plan::of(&today, &costs);
        let longer = Plan::of(&Parameters { retention_days: 730.0, ..today.clone() }, &costs);
        let size = |plan: &Plan, name: &str| {
            plan.storage.iter().find(|stored| stored.relation == name).map_or(0.0, |s| s.bytes)
        };
        for (name, times) in [("orders", 2.0), ("order_event", 2.0), ("item", 1.0)] {
            let grown = size(&longer, name) / size(&plan, name);
            assert!((grown - times).abs() < 1e-9, "{name} grew {grown} times");
        }
        assert_eq!(longer.load, plan.load);
        assert_eq!(longer.topics, plan.topics);
        Ok(())
    }

    #[test]
    fn sections_are_those_of_a_plan() -> Result<()> {
        let today = Parameters::scenario("today").context("no such scenario")?;
        let sections = Plan::of(&today, &costs(None)?).sections();
        assert!(sections.iter().map(|(name, _)| *name).eq(SECTIONS));
        Ok(())
    }

    #[test]
    fn more_load_needs_no_less() -> Result<()> {
        let costs = costs(None)?;
        let plans = ["today", "tenfold", "hundredfold"]
            .map(|name| Plan::of(&Parameters::scenario(name).unwrap_or_default(), &costs));
        for pair in plans.windows(2) {
            assert!(pair[0].dollars() < pair[1].dollars());
            for (less, more) in pair[0].tiers.iter().zip(&pair[1].tiers) {
                assert!(
                    less.cores <= more.cores && less.machines <= more.machines,
                    "{}",
                    less.name
                );
            }
        }
        let limits = &plans[0].limits;
        assert!(limits.is_sorted_by(|a, b| a.orders_per_second <= b.orders_per_second));
        assert!(limits.iter().all(|limit| limit.orders_per_second.is_finite()), "{limits:?}");
        Ok(())
    }
}
