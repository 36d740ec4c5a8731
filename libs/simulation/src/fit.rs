//! What a batch, an order and a second of waiting cost each process, from the benchmark's figures.

use std::collections::BTreeMap;

use ordersaga_figures::number::short;
use ordersaga_figures::{Figures, Table};

/// Series that the costs are fitted to.
pub const FITTED: [&str; 3] = ["light", "saturation-16", "saturation-256"];
/// The process, and the database whose transactions count its batches.
const PROCESSES: [(&str, Option<&str>); 12] = [
    ("create-order", Some("create-order")),
    ("store", Some("store")),
    ("monitoring", Some("monitoring")),
    ("postgres create-order", Some("create-order")),
    ("postgres store", Some("store")),
    ("postgres monitoring", Some("monitoring")),
    ("postgres shard1", Some("shard1")),
    ("postgres shard2", Some("shard2")),
    ("broker", Some("store")),
    ("redis", Some("store")),
    ("load", None),
    ("bench", None),
];

/// Costs of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Microseconds of CPU for each order.
    pub order: f64,
    /// For each batch: a transaction of the process' database.
    pub batch: f64,
    /// CPU seconds a second, whatever the load.
    pub idle: f64,
    /// The largest relative error of the fit over [`FITTED`].
    pub error: f64,
}

/// The costs of all processes, and what the parts of the work cost alone.
#[derive(Debug, Clone)]
pub struct Costs {
    processes: BTreeMap<&'static str, Cost>,
    /// Microseconds of create-order for a request answered from memory (`limit-http`).
    pub http: f64,
}

/// A measured point: batches an order, seconds an order, microseconds an order.
type Point = [f64; 3];

impl Costs {
    /// Fits them; what the figures lack is the error.
    pub fn of(figures: &Figures) -> Result<Self, String> {
        let alone = |series, process| {
            micros(figures, series, process).ok_or_else(|| format!("no {process} in {series}"))
        };
        let (broker, http) =
            (alone("limit-kafka", "broker")?, alone("limit-http", "create-order")?);
        let mut processes = BTreeMap::new();
        for (process, database) in PROCESSES {
            let points = FITTED.map(|series| point(figures, series, process, database));
            let points = points.into_iter().collect::<Option<Vec<_>>>();
            let points = points.ok_or_else(|| format!("no {process} in one of {FITTED:?}"))?;
            // Requests hide what a record costs the broker: pauses make them few and alike.
            let least = if process == "broker" { broker } else { 0.0 };
            processes.insert(process, fit(&points, least));
        }
        Ok(Self { processes, http })
    }

    /// Of a process.
    pub fn get(&self, process: &str) -> Cost {
        self.processes.get(process).copied().unwrap_or_default()
    }

    /// All of them.
    pub fn table(&self) -> Table {
        let header =
            ["process", "µs per order", "µs per batch", "idle, CPU ms a second", "worst error"];
        let mut table = Table::new(header);
        for (process, _) in PROCESSES {
            let cost = self.get(process);
            let error = format!("{:.0} %", cost.error * 100.0);
            let values = [cost.order, cost.batch, cost.idle * 1_000.0].map(short);
            table.row([vec![process.to_owned()], values.to_vec(), vec![error]].concat());
        }
        table
    }
}

/// Median microseconds of CPU for an order.
pub fn micros(figures: &Figures, series: &str, process: &str) -> Option<f64> {
    let cpu = figures.series(series)?.cpu_per_thousand(|name| name == process)?;
    Some(cpu.median * 1_000.0)
}

fn point(figures: &Figures, series: &str, process: &str, database: Option<&str>) -> Option<Point> {
    let runs = figures.series(series)?;
    let batches = |name| {
        runs.spread(|run| run.per_order(run.database(name)?.transactions)).map(|all| all.median)
    };
    let batches = database.map_or(Some(0.0), batches)?;
    Some([batches, 1.0 / runs.rate()?.median, micros(figures, series, process)?])
}

/// Least squares of relative errors, no cost below zero: the best of the fits to some of the three
/// costs that has none. An order costs `least` at least.
fn fit(points: &[Point], least: f64) -> Cost {
    let error = |[order, batch, idle]: [f64; 3], [batches, seconds, measured]: &Point| {
        (order + batch * batches + idle * seconds) / measured - 1.0
    };
    let rows = |choice: usize| {
        let row = move |[batches, seconds, measured]: &Point| {
            let values = [1.0, *batches, *seconds].map(|value| value / measured);
            let chosen = |at: usize| if choice & (1 << at) > 0 { values[at] } else { 0.0 };
            ([0, 1, 2].map(chosen), (measured - least) / measured)
        };
        points.iter().map(row).collect::<Vec<_>>()
    };
    let candidates = (1..8).map(|choice| solve(&rows(choice)));
    let candidates = candidates.filter(|costs| costs.iter().all(|cost| *cost >= 0.0));
    let with_least = candidates.map(|[order, batch, idle]| [order + least, batch, idle]);
    let squares = |costs: &[f64; 3]| points.iter().map(|at| error(*costs, at).powi(2)).sum::<f64>();
    let best =
        with_least.min_by(|a, b| squares(a).total_cmp(&squares(b))).unwrap_or([least, 0.0, 0.0]);
    let worst = points.iter().map(|at| error(best, at).abs()).fold(0.0, f64::max);
    Cost { order: best[0], batch: best[1], idle: best[2] / 1e6, error: worst }
}

/// The normal equations, by Gauss and Jordan; a cost that nothing tells of stays zero.
fn solve(rows: &[([f64; 3], f64)]) -> [f64; 3] {
    let mut matrix = [[0.0; 4]; 3];
    for (values, target) in rows {
        for (line, left) in matrix.iter_mut().zip(values) {
            for (cell, right) in line.iter_mut().zip(values.iter().chain([target])) {
                *cell += left * right;
            }
        }
    }
    let scale = [0, 1, 2].map(|at| matrix[at][at]);
    for at in 0..3 {
        let pivot = matrix[at];
        if pivot[at] <= scale[at] * 1e-12 {
            continue;
        }
        for (line, cells) in matrix.iter_mut().enumerate() {
            let factor = if line == at { 1.0 - 1.0 / pivot[at] } else { cells[at] / pivot[at] };
            cells.iter_mut().zip(pivot).for_each(|(cell, value)| *cell -= factor * value);
        }
    }
    [0, 1, 2].map(|at| if scale[at] > 0.0 { matrix[at][3] } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_costs_are_found_again() {
        let cost = |batches, seconds| [batches, seconds, 10.0 + 500.0 * batches + 2e5 * seconds];
        let points = [cost(2.0, 0.01), cost(0.1, 2e-4), cost(0.01, 7e-5), cost(0.03, 1e-4)];
        let found = fit(&points, 0.0);
        assert!((found.order - 10.0).abs() < 1e-6 && (found.batch - 500.0).abs() < 1e-6);
        assert!((found.idle - 0.2).abs() < 1e-6 && found.error < 1e-6, "{found:?}");
    }

    #[test]
    fn no_cost_is_below_zero() {
        let found = fit(&[[1.0, 0.01, 5.0], [0.1, 0.001, 9.0], [0.2, 0.002, 8.0]], 0.0);
        assert!(found.order >= 0.0 && found.batch >= 0.0 && found.idle >= 0.0, "{found:?}");
        assert!(fit(&[[1.0, 0.01, 1.0]], 3.0).order >= 3.0);
    }
}
