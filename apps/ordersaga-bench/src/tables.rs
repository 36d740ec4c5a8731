//! The figures as tables.

use comfy_table::{CellAlignment, presets};
use ordersaga_figures::number::{short, whole};
use ordersaga_figures::{Database, Figures, Kind, Latency, Process, Run, Series, Spread, Table};

use crate::run::LOAD;
use crate::sampler::BENCH;
use crate::scenario;

/// Whether a process is part of the system, and not what measures it.
pub(crate) fn is_system(name: &str) -> bool {
    name != LOAD && name != BENCH
}

/// A table for people at a terminal: numbers at the right.
pub(crate) fn terminal(table: &Table) -> String {
    let mut shown = comfy_table::Table::new();
    shown.load_style(presets::NOTHING).set_header(table.header.clone());
    for row in &table.rows {
        shown.add_row(row.clone());
    }
    for column in shown.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    shown.to_string()
}

/// A median, and its spread where there is one.
fn spread(spread: Option<Spread>, number: fn(f64) -> String) -> String {
    spread.map_or_else(nothing, |Spread { median, min, max }| {
        let (median, min, max) = (number(median), number(min), number(max));
        if min == max { median } else { format!("{median} ({min}–{max})") }
    })
}

fn median(series: &Series, value: impl Fn(&Run) -> Option<f64>) -> String {
    series.spread(value).map_or_else(nothing, |spread| short(spread.median))
}

/// Percentiles 50, 99 and 99.9 of what was timed.
fn latency(series: &Series, what: &str) -> String {
    let of = |value: fn(&Latency) -> f64| median(series, |run| run.latency_ms.get(what).map(value));
    let all = [of(|l| l.p50), of(|l| l.p99), of(|l| l.p999)];
    if all.iter().all(|value| value == "–") { nothing() } else { all.join(" / ") }
}

fn of_kind(figures: &Figures, kind: Kind) -> impl Iterator<Item = &Series> {
    figures.series.iter().filter(move |series| series.kind == kind && !series.runs.is_empty())
}

/// Throughput, latency and cost of each scenario whose clients wait for their orders.
pub(crate) fn waiting(figures: &Figures) -> Table {
    loads(figures, scenario::waits)
}

/// The same of all others.
pub(crate) fn scenarios(figures: &Figures) -> Table {
    loads(figures, |name| !scenario::waits(name))
}

fn loads(figures: &Figures, is_shown: impl Fn(&str) -> bool) -> Table {
    let mut table = Table::new([
        "scenario",
        "orders/s",
        "create p50 / p99 / p99.9, ms",
        "create → terminal p50 / p99 / p99.9, ms",
        "CPU s per 1,000 orders",
        "… load generator",
    ]);
    for series in of_kind(figures, Kind::Scenario).filter(|series| is_shown(&series.name)) {
        table.row([
            series.title.clone(),
            spread(series.rate(), whole),
            latency(series, "create"),
            latency(series, "terminal"),
            spread(series.cpu_per_thousand(is_system), three),
            spread(series.cpu_per_thousand(|name| name == LOAD), three),
        ]);
    }
    table
}

fn three(value: f64) -> String {
    format!("{value:.3}")
}

/// CPU by process, in microseconds per order.
pub(crate) fn cpu(figures: &Figures) -> Table {
    let series: Vec<_> = of_kind(figures, Kind::Scenario).collect();
    let first = series.first().and_then(|series| series.runs.first());
    let names = || first.into_iter().flat_map(|run| &run.processes).map(|p: &Process| &p.name);
    let header = ["scenario".to_owned()].into_iter().chain(names().cloned());
    let header = header.chain(["all but load".to_owned()]);
    let mut table = Table { header: header.collect(), rows: Vec::new() };
    let micros = |series: &Series, counts: &dyn Fn(&str) -> bool| {
        median(series, |run| run.cpu_per_thousand(counts).map(micros_per_order))
    };
    for series in series {
        let each = names().map(|name| micros(series, &|other| other == name));
        let all = micros(series, &is_system);
        table.row([series.title.clone()].into_iter().chain(each).chain([all]));
    }
    table
}

/// Seconds per 1,000 orders as microseconds per order.
fn micros_per_order(seconds_per_thousand: f64) -> f64 {
    seconds_per_thousand * 1000.0
}

/// What each limit allows, and how near the system comes to it: in orders a second, and in CPU of
/// the processes that both use.
pub(crate) fn limits(figures: &Figures) -> Table {
    let mut table = Table::new([
        "limit",
        "orders/s",
        "the system, as a share",
        "CPU, µs per order",
        "the same processes in the system",
    ]);
    let typical = figures.series(scenario::TYPICAL);
    for limit in of_kind(figures, Kind::Limit) {
        let names: Vec<_> = limit.runs[0].processes.iter().map(|p| p.name.as_str()).collect();
        let both = |name: &str| is_system(name) && names.contains(&name);
        let micros = |series: &Series| {
            median(series, |run| run.cpu_per_thousand(both).map(micros_per_order))
        };
        let rate = |series: &Series| series.rate().map(|rate| rate.median);
        let share = typical.and_then(rate).zip(rate(limit)).map(|(of, all)| of / all);
        table.row([
            limit.title.clone(),
            spread(limit.rate(), whole),
            share.map_or_else(nothing, |share| format!("{:.0} %", share * 100.0)),
            micros(limit),
            typical.map_or_else(nothing, micros),
        ]);
    }
    table
}

fn nothing() -> String {
    "–".to_owned()
}

/// What became of requests when more came than could be done.
pub(crate) fn overload(series: &Series) -> Table {
    let mut table = Table::new([
        "run",
        "acknowledged/s",
        "terminal/s",
        "refused or failed",
        "create p50 / p99, ms",
        "all ended after, s",
        "orders lost",
        "items oversold",
    ]);
    for (number, run) in (1..).zip(&series.runs) {
        let Latency { p50, p99, .. } = run.latency_ms.get("create").copied().unwrap_or_default();
        let refused = run.refused.iter();
        let refused = refused.map(|(what, count)| format!("{what}: {}", whole(*count as f64)));
        let refused: Vec<_> = refused.collect();
        table.row([
            number.to_string(),
            whole(run.acknowledged_per_second),
            whole(run.orders_per_second),
            if refused.is_empty() { "none".to_owned() } else { refused.join(", ") },
            format!("{} / {}", short(p50), short(p99)),
            short(run.seconds),
            run.missing.to_string(),
            run.oversold.to_string(),
        ]);
    }
    table
}

/// What the figures were taken on, and with.
pub(crate) fn machine(figures: &Figures) -> Table {
    let machine = &figures.machine;
    let mut table = Table::new(["", ""]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    let gigabytes = short(machine.memory_bytes as f64 / 1e9);
    row("machine", format!("{} cores, {}, {gigabytes} GB", machine.cores, machine.cpu));
    row("kernel", machine.kernel.clone());
    for (program, version) in &figures.versions {
        row(program, version.clone());
    }
    for (part, settings) in &figures.settings {
        let settings = settings.iter().map(|(name, value)| format!("{name} = {value}"));
        row(&format!("settings of {part}"), settings.collect::<Vec<_>>().join(", "));
    }
    row("measured", format!("{}, in {:.0} minutes", figures.started_at, figures.seconds / 60.0));
    row("again", format!("`{}`", figures.command));
    table
}

/// Bytes per order, by node.
pub(crate) fn bytes(series: &Series) -> Table {
    let mut table = Table::new([
        "node",
        "log (WAL, segments), bytes per order",
        "written to disk, bytes per order",
        "stored, bytes per order",
        "transactions per 1,000 orders",
    ]);
    let Some(first) = series.runs.first() else { return table };
    for node in &first.databases {
        let of = |value: fn(&Database) -> u64| {
            median(series, |run| run.per_order(value(run.database(&node.name)?)))
        };
        let process = format!("postgres {}", node.name);
        table.row([
            process.clone(),
            of(|node| node.wal_bytes),
            median(series, |run| run.per_order(run.process(&process)?.written_bytes)),
            of(|node| node.stored_bytes),
            median(series, |run| {
                run.per_order(run.database(&node.name)?.transactions).map(|per| per * 1000.0)
            }),
        ]);
    }
    table.row([
        "broker".to_owned(),
        median(series, |run| run.per_order(run.kafka_bytes)),
        median(series, |run| run.per_order(run.process("broker")?.written_bytes)),
        median(series, |run| run.per_order(run.kafka_bytes)),
        nothing(),
    ]);
    table
}

/// Memory of each process before and after a run, and the most of it.
pub(crate) fn memory(series: &Series) -> Table {
    let mut table = Table::new(["process", "before, MB", "after, MB", "resident at most, MB"]);
    let Some(first) = series.runs.first() else { return table };
    for process in first.processes.iter().filter(|process| is_system(&process.name)) {
        let of = |value: fn(&Process) -> u64| {
            median(series, |run| Some(value(run.process(&process.name)?) as f64 / 1e6))
        };
        table.row([
            process.name.clone(),
            of(|p| p.memory_before_bytes),
            of(|p| p.memory_after_bytes),
            of(|p| p.resident_peak_bytes),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_shown_where_there_is_one() {
        let of = |values: &[f64]| spread(Spread::of(values.iter().copied()), whole);
        assert_eq!(of(&[]), "–");
        assert_eq!(of(&[100.0]), "100");
        assert_eq!(of(&[1100.0, 1000.0, 1300.0]), "1,100 (1,000–1,300)");
    }

    #[test]
    fn clients_that_wait_have_a_table_of_their_own() {
        let series = |name: &str| Series {
            name: name.to_owned(),
            title: name.to_owned(),
            kind: Kind::Scenario,
            runs: vec![Run::default()],
        };
        let series = ["waiting-16", "saturation-16", "rate-100", "light"].map(series).into();
        let figures = Figures { series, ..Figures::default() };
        let names = |table: Table| -> Vec<String> {
            table.rows.into_iter().map(|row| row[0].clone()).collect()
        };
        assert_eq!(names(waiting(&figures)), ["waiting-16", "rate-100"]);
        assert_eq!(names(scenarios(&figures)), ["saturation-16", "light"]);
        assert!(waiting(&Figures::default()).rows.is_empty());
    }
}
