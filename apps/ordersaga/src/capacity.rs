//! `capacity`: what a load needs, by the figures of the benchmark.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use comfy_table::{ContentArrangement, presets};
use ordersaga_figures::capacity::{Assumptions, Costs};
use ordersaga_figures::number::whole;
use ordersaga_figures::{Figures, Table, VERSION};

const PUBLISHED: &str = include_str!("../../../docs/performance.json");

/// Arguments of `capacity`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Orders a second; may be given several times
    #[arg(long, value_name = "N", default_values = ["1000", "10000", "100000"],
          value_parser = clap::value_parser!(u32).range(1..))]
    orders_per_second: Vec<u32>,
    /// Percent of a core that may be used; the rest is headroom for peaks and for what fails
    #[arg(long, value_name = "PERCENT", default_value = "50",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    utilisation: u32,
    /// Cores of a machine, as fast as those the figures were taken on
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    cores: u32,
    /// Copies of each record in the broker
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=9))]
    replicas: u32,
    /// Days that records, orders and facts are kept
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Figures of another run of the benchmark than that of docs/performance.md
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let figures = figures(arguments)?;
    let costs = Costs::of(&figures).map_err(|missing| anyhow!(missing))?;
    let assumed = Assumptions {
        utilisation: f64::from(arguments.utilisation) / 100.0,
        cores: arguments.cores.into(),
        replicas: arguments.replicas.into(),
        days: arguments.days.into(),
    };
    say!("{}", costs.basis());
    for rate in arguments.orders_per_second.iter().copied().map(f64::from) {
        say!("\n{} orders/s\n{}", whole(rate), shown(&costs.needs(rate, &assumed)));
        for ceiling in costs.exceeded(rate, &assumed) {
            let most = whole(ceiling.orders_per_second);
            say!(" Beyond {}, {most}/s at most. Add: {}.", ceiling.what, ceiling.remedy);
        }
    }
    say!("\nWhat limits first\n{}", shown(&costs.limits(&assumed)));
    Ok(ExitCode::SUCCESS)
}

fn figures(arguments: &Arguments) -> Result<Figures> {
    let text = match &arguments.figures {
        None => PUBLISHED.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
    };
    let figures: Figures = serde_json::from_str(&text).context("these are no figures")?;
    ensure!(
        figures.version == VERSION,
        "figures of version {} are not understood",
        figures.version
    );
    Ok(figures)
}

fn shown(table: &Table) -> String {
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
    fn the_published_figures_say_what_loads_need() -> Result<()> {
        let figures: Figures = serde_json::from_str(PUBLISHED)?;
        let costs = Costs::of(&figures).map_err(|missing| anyhow!(missing))?;
        let ceilings = costs.ceilings(&Assumptions::default());
        assert!(ceilings.iter().all(|ceiling| ceiling.orders_per_second.is_finite()));
        assert!(ceilings.len() > 10, "{ceilings:?}");
        Ok(())
    }
}
