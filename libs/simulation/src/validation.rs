//! The machine of the benchmark, simulated: what is said of it beside what was measured.

use ordersaga_figures::number::short;
use ordersaga_figures::{Figures, Series, Table};

use crate::engine::{Report, Span, simulate};
use crate::fit::{Costs, FITTED};
use crate::network::{Clients, Length, Network, SECOND};
use crate::pipeline::{Delays, Shape, pipeline};

/// The series, and who places orders in them.
const SERIES: [(&str, Clients); 6] = [
    ("light", Clients::Open(100.0)),
    ("saturation-16", Clients::Closed(16)),
    ("saturation-256", Clients::Closed(256)),
    ("saturation-64", Clients::Closed(64)),
    ("hot-item", Clients::Closed(256)),
    ("10000-items", Clients::Closed(256)),
];
/// As the benchmark has it.
const SHAPE: Shape = Shape { systems: 1, instances: 1, shards: 2, brokers: 1, partitions: 16 };
const SPAN: Span =
    Span { warm_up: 2 * SECOND, measured: 6 * SECOND, drain: 30 * SECOND, interval: SECOND };

/// What was not CPU on this machine, in microseconds: a sync of the log and, for a record, the
/// broker's and its reader's waiting. Chosen so that the fitted series come near; no other series
/// had a say.
const DELAYS: Delays = Delays {
    commit: Length { fixed: 150.0, random: 250.0 },
    hop: Length { fixed: 700.0, random: 1_300.0 },
    network: 0.0,
};

/// A figure as it was simulated and measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The series.
    pub series: &'static str,
    /// The figure.
    pub what: &'static str,
    /// Simulated.
    pub simulated: f64,
    /// Measured; the median of the runs.
    pub measured: f64,
}

impl Compared {
    /// How far off the simulation is, relative to what was measured.
    pub fn error(&self) -> f64 {
        self.simulated / self.measured - 1.0
    }

    /// Whether the costs were fitted to this series.
    pub fn is_fitted(&self) -> bool {
        FITTED.contains(&self.series)
    }
}

/// This machine under one of the series' loads.
pub fn machine(costs: &Costs, series: &str, clients: Clients) -> Network {
    let one = |part: &str| (part == "all").then_some((2, 1.0));
    let mut network = pipeline(costs, SHAPE, DELAYS, &one).under(clients);
    network.items = match series {
        "hot-item" => 1.0,
        "10000-items" => 10_000.0,
        _ => 1_000.0,
    };
    network
}

/// All series, simulated and measured.
pub fn compare(figures: &Figures, costs: &Costs, seed: u64) -> Vec<Compared> {
    let mut all = Vec::new();
    for (name, clients) in SERIES {
        let Some(series) = figures.series(name) else { continue };
        let report = simulate(&machine(costs, name, clients), SPAN, seed);
        all.extend(figures_of(name, &report, series));
    }
    all
}

fn figures_of(name: &'static str, report: &Report, series: &Series) -> Vec<Compared> {
    let seconds = report.last_end.saturating_sub(SPAN.warm_up) as f64 / SECOND as f64;
    let rate = report.orders as f64 / seconds;
    let latency = |what: &'static str, quantile: f64, of: &str| {
        let histogram = if of == "create" { &report.create } else { &report.end };
        let measured = series.spread(|run| {
            let latency = run.latency_ms.get(of)?;
            Some(if quantile < 0.9 { latency.p50 } else { latency.p99 })
        });
        let simulated = histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Some(Compared { series: name, what, simulated, measured: measured?.median })
    };
    let measured = series.rate().map_or(0.0, |rate| rate.median);
    let throughput = Compared { series: name, what: "orders/s", simulated: rate, measured };
    [
        Some(throughput),
        latency("create p50, ms", 0.5, "create"),
        latency("create p99, ms", 0.99, "create"),
        latency("to terminal p50, ms", 0.5, "terminal"),
        latency("to terminal p99, ms", 0.99, "terminal"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How far off throughput may be: what the model reaches, so that it cannot rot.
pub const BOUND: f64 = 0.2;

/// The comparison as a table.
pub fn table(compared: &[Compared]) -> Table {
    let mut table = Table::new(["series", "figure", "simulated", "measured", "error", "costs"]);
    for one in compared {
        table.row([
            one.series.to_owned(),
            one.what.to_owned(),
            short(one.simulated),
            short(one.measured),
            format!("{:+.0} %", one.error() * 100.0),
            if one.is_fitted() { "fitted to it" } else { "not fitted to it" }.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: &str = include_str!("../../../docs/performance.json");

    #[test]
    fn throughput_is_near_what_was_measured() {
        let figures: Figures = serde_json::from_str(FIGURES).unwrap();
        let costs = Costs::of(&figures).unwrap();
        let compared = compare(&figures, &costs, 1);
        let rates: Vec<_> = compared.iter().filter(|one| one.what == "orders/s").collect();
        assert_eq!(rates.len(), SERIES.len());
        assert!(rates.iter().filter(|one| !one.is_fitted()).count() >= 3);
        for rate in rates {
            assert!(rate.error().abs() <= BOUND, "{rate:?}: {:.2}", rate.error());
        }
    }
}
