//! The timeline: what clients saw, above the faults of the same time.

use std::collections::BTreeSet;
use std::fmt::Write;

use maud::{Markup, html};

use super::{Category, duration, number, whole};
use crate::report::{FaultReport, Report, Second};

const WIDTH: f64 = 1180.0;
/// Names and scales stand left of this.
const LEFT: f64 = 206.0;
const RIGHT: f64 = WIDTH - 10.0;
/// Most points of a line: a longer run shows several seconds as one.
const POINTS: usize = 550;
/// Height of a kind of fault.
const ROW: f64 = 19.0;
/// A fault of a moment is as wide as this.
const LEAST_WIDTH: f64 = 2.5;

/// A run's time on the page.
#[derive(Clone, Copy)]
struct Axis {
    seconds: f64,
}

impl Axis {
    fn x(self, second: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (second / self.seconds).clamp(0.0, 1.0)
    }
}

/// A chart's place and scale.
#[derive(Clone, Copy)]
struct Chart {
    top: f64,
    height: f64,
    most: f64,
    /// Each tick is ten times the last.
    logarithmic: bool,
}

impl Chart {
    fn bottom(self) -> f64 {
        self.top + self.height
    }

    fn y(self, value: f64) -> f64 {
        let part = if self.logarithmic {
            value.max(1.0).log10() / self.most.log10()
        } else {
            value / self.most
        };
        self.bottom() - self.height * part.clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (0..9).map(|power| 10_f64.powi(power));
            powers.take_while(|tick| *tick <= self.most).collect()
        } else {
            [0.0, 0.5, 1.0].map(|part| part * self.most).into()
        }
    }
}

/// The whole plot.
pub(super) fn timeline(report: &Report) -> Markup {
    let axis = Axis { seconds: report.seconds.max(1.0) };
    let step = report.timeline.len().div_ceil(POINTS).max(1);
    let bins: Vec<Second> = report.timeline.chunks(step).map(joined).collect();
    let rates = bins.iter().flat_map(|bin| [bin.created, bin.ended]).max().unwrap_or(0);
    let linear = |top, height, most: usize| Chart {
        top,
        height,
        most: ceiling(most as f64 / step as f64),
        logarithmic: false,
    };
    let orders = linear(28.0, 170.0, rates);
    let errors = linear(238.0, 56.0, bins.iter().map(|bin| bin.errors).max().unwrap_or(0));
    let slowest = bins.iter().map(|bin| bin.p99_ms).fold(10.0, f64::max);
    let most = 10_f64.powf(slowest.log10().ceil());
    let latency = Chart { top: 334.0, height: 90.0, most, logarithmic: true };
    let kinds: BTreeSet<_> = report.faults.iter().map(order_of).collect();
    let faults_top = 470.0;
    let faults_bottom = faults_top + ROW * kinds.len() as f64;
    let height = faults_bottom + 26.0;
    let width = step as f64;
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (round(height)) } role="img" aria-label="Timeline of the run" {
            @for fault in &report.faults {
                (rect("shade", axis, (fault.started, fault.healed), (orders.top, latency.bottom()), None))
            }
            (frame(orders, "Orders a second"))
            (frame(errors, "Errors a second"))
            (frame(latency, "p99 latency, ms"))
            path class="area" d=(area(axis, orders, width, &bins)) {}
            path class="created" d=(line(axis, orders, width, &bins, |bin| Some(bin.created as f64 / width))) {}
            path class="ended" d=(line(axis, orders, width, &bins, |bin| Some(bin.ended as f64 / width))) {}
            path class="latency" d=(line(axis, latency, width, &bins, |bin| (bin.p99_ms > 0.0).then_some(bin.p99_ms))) {}
            @for (at, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.errors > 0) {
                (rect("errors", axis, span(at, width), (errors.y(bin.errors as f64 / width), errors.bottom()), None))
            }
            @for (at, bin) in bins.iter().enumerate() {
                (rect("hover", axis, span(at, width), (orders.top, latency.bottom()), Some(&told(at, width, bin))))
            }
            text class="title" x="0" y=(round(faults_top - 12.0)) { "Faults" }
            @for (row, (_, kind)) in kinds.iter().enumerate() {
                (lane(report, axis, kind, faults_top + ROW * row as f64))
            }
            (times(axis, faults_bottom))
        }
    }
}

/// Kinds of one category stand together.
fn order_of(fault: &FaultReport) -> (Category, &str) {
    (Category::of(&fault.kind), &fault.kind)
}

/// Several seconds as one: counts are sums.
fn joined(seconds: &[Second]) -> Second {
    seconds.iter().fold(Second::default(), |sum, second| Second {
        created: sum.created + second.created,
        ended: sum.ended + second.ended,
        errors: sum.errors + second.errors,
        p99_ms: sum.p99_ms.max(second.p99_ms),
    })
}

fn span(at: usize, width: f64) -> (f64, f64) {
    (at as f64 * width, (at + 1) as f64 * width)
}

fn told(at: usize, width: f64, bin: &Second) -> String {
    let Second { created, ended, errors, p99_ms } = bin;
    let (begin, end) = span(at, width);
    let rate = |count: &usize| number(whole((*count as f64 / width).round()));
    let latency = if *p99_ms > 0.0 { format!("{p99_ms:.0} ms") } else { "no answer".to_owned() };
    format!(
        "{} to {}\ncreated {}/s, ended {}/s\nerrors {}/s\np99 {latency}",
        duration(begin),
        duration(end),
        rate(created),
        rate(ended),
        rate(errors),
    )
}

fn frame(chart: Chart, title: &str) -> Markup {
    html! {
        text class="title" x="0" y=(round(chart.top + 4.0)) { (title) }
        @for tick in chart.ticks() {
            @let y = round(chart.y(tick));
            line class="grid" x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
            text x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (label(tick)) }
        }
    }
}

fn label(tick: f64) -> String {
    if tick.fract() == 0.0 { number(whole(tick)) } else { format!("{tick:.1}") }
}

fn rect(
    class: &str,
    axis: Axis,
    (begin, end): (f64, f64),
    (top, bottom): (f64, f64),
    title: Option<&str>,
) -> Markup {
    let (left, right) = (axis.x(begin), axis.x(end));
    html! {
        rect class=(class) x=(round(left)) width=(round(right - left)) y=(round(top)) height=(round(bottom - top)) {
            @if let Some(title) = title { title { (title) } }
        }
    }
}

/// All faults of a kind, each with what followed until orders flowed again.
fn lane(report: &Report, axis: Axis, kind: &str, top: f64) -> Markup {
    let of_kind = || report.faults.iter().filter(|fault| fault.kind == kind);
    html! {
        line class="grid" x1=(LEFT) x2=(RIGHT) y1=(round(top + ROW)) y2=(round(top + ROW)) {}
        text x=(LEFT - 8.0) y=(round(top + ROW - 5.5)) text-anchor="end" { (kind) }
        @for fault in of_kind() {
            @let left = axis.x(fault.started);
            @let right = axis.x(fault.healed).max(left + LEAST_WIDTH);
            @let end = axis.x(fault.healed + fault.recovery.unwrap_or(report.seconds)).max(right);
            g class={ "fault " (Category::of(kind).class()) } {
                rect class="tail" x=(round(right)) width=(round(end - right)) y=(round(top + 6.0)) height=(ROW - 11.0) {}
                rect x=(round(left)) width=(round(right - left)) y=(round(top + 3.0)) height=(ROW - 6.0) rx="2" {}
                title { (fault_told(fault)) }
            }
        }
    }
}

fn fault_told(fault: &FaultReport) -> String {
    let FaultReport { kind, target, started, healed, recovery, acknowledged, ended, .. } = fault;
    let recovery = recovery.map_or_else(
        || "orders did not flow again in time".to_owned(),
        |seconds| format!("orders flow again {seconds:.1} s later"),
    );
    format!(
        "{kind}: {target}\n{} to {}, {:.1} s\n{recovery}\n{acknowledged} creates acknowledged, {ended} orders ended meanwhile",
        duration(*started),
        duration(*healed),
        healed - started,
    )
}

fn times(axis: Axis, top: f64) -> Markup {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];
    let fits = |step: &&f64| axis.seconds / **step <= 13.0;
    let step = steps.iter().find(fits).copied().unwrap_or(7200.0);
    let ticks = (0..=12_u8).map(|tick| f64::from(tick) * step);
    html! {
        @for second in ticks.take_while(|second| *second <= axis.seconds) {
            @let x = round(axis.x(second));
            line class="grid" x1=(x) x2=(x) y1=(round(top)) y2=(round(top + 5.0)) {}
            text x=(x) y=(round(top + 18.0)) text-anchor=(if second == 0.0 { "start" } else { "middle" }) { (duration(second)) }
        }
    }
}

/// A line through the middle of each bin; it breaks where there is no value.
fn line(
    axis: Axis,
    chart: Chart,
    width: f64,
    bins: &[Second],
    value: impl Fn(&Second) -> Option<f64>,
) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (at, bin) in bins.iter().enumerate() {
        let Some(value) = value(bin) else {
            pen = 'M';
            continue;
        };
        let (x, y) = (axis.x((at as f64 + 0.5) * width), chart.y(value));
        // A point with nothing beside it is a short line, or it would not be seen.
        let dot = if pen == 'M' { "h0.8" } else { "" };
        let _ = write!(path, "{pen}{x:.1} {y:.1}{dot}");
        pen = 'L';
    }
    path
}

fn area(axis: Axis, chart: Chart, width: f64, bins: &[Second]) -> String {
    let edge = line(axis, chart, width, bins, |bin| Some(bin.created as f64 / width));
    let (begin, end) = (axis.x(0.5 * width), axis.x((bins.len() as f64 - 0.5) * width));
    let bottom = chart.bottom();
    if bins.is_empty() {
        return String::new();
    }
    format!("{edge}L{end:.1} {bottom:.1}L{begin:.1} {bottom:.1}Z")
}

/// The next round number.
fn ceiling(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1.0).log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let fits = |step: &f64| step * power >= most;
    power * steps.into_iter().find(fits).unwrap_or(10.0)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        for (most, end) in [(0.0, 1.0), (1.0, 1.0), (2.5, 3.0), (41.0, 50.0), (100.0, 100.0)] {
            assert!((ceiling(most) - end).abs() < 1e-9, "{most}: {}", ceiling(most));
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let axis = Axis { seconds: 3.0 };
        let chart = Chart { top: 0.0, height: 10.0, most: 10.0, logarithmic: false };
        let bins = [5.0, 0.0, 5.0].map(|p99_ms| Second { p99_ms, ..Second::default() });
        let path = line(axis, chart, 1.0, &bins, |bin| (bin.p99_ms > 0.0).then_some(bin.p99_ms));
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 0, "{path}");
    }
}
