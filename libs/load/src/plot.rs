//! The report as a picture: orders a second above latencies, over time. One SVG that needs nothing
//! else and follows its reader's choice of light or dark.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};
use ordersaga_figures::number::whole;

use crate::report::{Report, Second};
use crate::table::load;

const STYLE: &str = include_str!("plot.css");
const WIDTH: f64 = 960.0;
/// Names and scales stand left of this.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 16.0;
const HEIGHT: f64 = 500.0;
/// Most points of a line: a longer run shows several seconds as one.
const POINTS: usize = 400;

/// A line of a chart.
struct Line {
    class: &'static str,
    name: &'static str,
    /// `None` where there is nothing to show.
    value: fn(&Bin) -> Option<f64>,
}

/// Some seconds as one: rates, and the worst latency of them.
struct Bin {
    acknowledged: f64,
    ended: f64,
    troubles: f64,
    create: (Option<f64>, Option<f64>),
    end: (Option<f64>, Option<f64>),
}

const RATES: [Line; 3] = [
    Line { class: "create", name: "acknowledged", value: |bin| Some(bin.acknowledged) },
    Line { class: "end", name: "ended", value: |bin| Some(bin.ended) },
    Line {
        class: "trouble",
        name: "refused or unanswered",
        value: |bin| (bin.troubles > 0.0).then_some(bin.troubles),
    },
];
const LATENCIES: [Line; 4] = [
    Line { class: "create", name: "create, p50", value: |bin| bin.create.0 },
    Line { class: "create high", name: "p99", value: |bin| bin.create.1 },
    Line { class: "end", name: "create to end, p50", value: |bin| bin.end.0 },
    Line { class: "end high", name: "p99", value: |bin| bin.end.1 },
];

/// A chart's place and scale.
struct Chart {
    title: &'static str,
    top: f64,
    height: f64,
    least: f64,
    most: f64,
    /// Each tick is ten times the last.
    logarithmic: bool,
}

impl Chart {
    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    fn y(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value.max(self.least) / self.least).log10() / (self.most / self.least).log10()
        } else {
            value / self.most
        };
        self.bottom() - self.height * part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (-3..9).map(|power| 10_f64.powi(power));
            let within = |tick: &f64| (self.least * 0.99..=self.most * 1.01).contains(tick);
            powers.filter(within).collect()
        } else {
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| part * self.most).into()
        }
    }
}

/// Throughput and latency over time, as an SVG document.
pub fn plot(report: &Report) -> String {
    let step = report.timeline.len().div_ceil(POINTS).max(1);
    let bins: Vec<Bin> = report.timeline.chunks(step).map(joined).collect();
    let width = step as f64;
    let seconds = width * bins.len().max(1) as f64;
    let x = |second: f64| LEFT + (RIGHT - LEFT) * second / seconds;
    let rates = Chart {
        title: "Orders a second",
        top: 96.0,
        height: 150.0,
        least: 0.0,
        most: ceiling(values(&bins, &RATES).fold(0.0, f64::max)),
        logarithmic: false,
    };
    let most = values(&bins, &LATENCIES).fold(1.0, f64::max);
    let least = values(&bins, &LATENCIES).fold(most, f64::min).max(0.001);
    let latencies = Chart {
        title: "Latency, ms",
        top: 306.0,
        height: 150.0,
        least: power_of_ten(least, f64::floor),
        most: power_of_ten(most, f64::ceil).max(10.0),
        logarithmic: true,
    };
    let sending = x(report.sending_seconds.min(seconds));
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label="Throughput and latency over time" {
            style { (PreEscaped(STYLE)) }
            rect class="page" width=(WIDTH) height=(HEIGHT) {}
            text class="title" x="16" y="28" { (load(&report.plan)) }
            text x="16" y="48" { (told(report)) }
            @for (chart, lines) in [(&rates, &RATES[..]), (&latencies, &LATENCIES[..])] {
                (frame(chart, lines))
                // What comes after the load: orders that had not ended yet.
                rect class="after" x=(round(sending)) width=(round(RIGHT - sending)) y=(chart.top) height=(chart.height) {}
                @for line in lines {
                    path class={ "line " (line.class) } d=(path(chart, line, &bins, |at| x((at as f64 + 0.5) * width))) {}
                }
            }
            (times(seconds, x, latencies.bottom()))
        }
    };
    picture.into_string()
}

fn told(report: &Report) -> String {
    let mut text = format!("{} orders a second", whole(report.orders_per_second));
    let _ = write!(
        text,
        "; create p50 {:.1} ms, p99 {:.1} ms",
        report.create_ms.p50, report.create_ms.p99
    );
    if let Some(end) = report.terminal_ms {
        let _ = write!(text, "; create to end p50 {:.1} ms, p99 {:.1} ms", end.p50, end.p99);
    }
    text
}

fn joined(seconds: &[Second]) -> Bin {
    let rate = |count: fn(&Second) -> u64| {
        seconds.iter().map(count).sum::<u64>() as f64 / seconds.len().max(1) as f64
    };
    let worst = |latency: fn(&Second) -> Option<f64>| {
        seconds.iter().filter_map(latency).max_by(f64::total_cmp)
    };
    Bin {
        acknowledged: rate(|second| second.acknowledged),
        ended: rate(|second| second.terminal),
        troubles: rate(|second| second.refused + second.errors),
        create: (worst(|second| second.create_p50_ms), worst(|second| second.create_p99_ms)),
        end: (worst(|second| second.terminal_p50_ms), worst(|second| second.terminal_p99_ms)),
    }
}

fn values<'a>(bins: &'a [Bin], lines: &'a [Line]) -> impl Iterator<Item = f64> + 'a {
    bins.iter().flat_map(|bin| lines.iter().filter_map(|line| (line.value)(bin)))
}

fn frame(chart: &Chart, lines: &[Line]) -> Markup {
    html! {
        text class="title" x="16" y=(chart.top - 14.0) { (chart.title) }
        text class="legend" x=(RIGHT) y=(chart.top - 14.0) text-anchor="end" {
            @for line in lines {
                tspan class={ "key " (line.class) } { "\u{2003}" (if line.class.ends_with("high") { "┅ " } else { "━ " }) }
                tspan { (line.name) }
            }
        }
        @for tick in chart.ticks() {
            @let y = round(chart.y(tick));
            line class="grid" x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
            text x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (label(tick)) }
        }
    }
}

fn label(tick: f64) -> String {
    if tick >= 1.0 || tick == 0.0 { whole(tick) } else { tick.to_string() }
}

fn times(seconds: f64, x: impl Fn(f64) -> f64, top: f64) -> Markup {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    let step = steps.into_iter().find(|step| seconds / step <= 16.0).unwrap_or(1_200.0);
    let ticks = (0..=16_u8).map(|tick| f64::from(tick) * step);
    html! {
        @for second in ticks.take_while(|second| *second <= seconds) {
            @let x = round(x(second));
            line class="grid" x1=(x) x2=(x) y1=(top) y2=(top + 5.0) {}
            text x=(x) y=(top + 20.0) text-anchor="middle" { (second) @if second == 0.0 { " s" } }
        }
    }
}

/// A line through the middle of each bin; it breaks where there is no value.
fn path(chart: &Chart, line: &Line, bins: &[Bin], x: impl Fn(usize) -> f64) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (at, bin) in bins.iter().enumerate() {
        let Some(value) = (line.value)(bin) else {
            pen = 'M';
            continue;
        };
        // A point with nothing beside it is a short line, or it would not be seen.
        let dot = if pen == 'M' { "h0.8" } else { "" };
        let _ = write!(path, "{pen}{:.1} {:.1}{dot}", x(at), chart.y(value));
        pen = 'L';
    }
    path
}

/// The next round number.
fn ceiling(most: f64) -> f64 {
    let power = power_of_ten(most.max(1.0), f64::floor);
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0];
    power * steps.into_iter().find(|step| step * power >= most).unwrap_or(10.0)
}

fn power_of_ten(value: f64, round: fn(f64) -> f64) -> f64 {
    10_f64.powf(round(value.log10()))
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn scales_end_at_round_numbers() {
        for (most, end) in [(0.0, 1.0), (1.0, 1.0), (2.3, 2.4), (41.0, 50.0), (21_300.0, 24_000.0)]
        {
            assert!((ceiling(most) - end).abs() < 1e-6, "{most}: {}", ceiling(most));
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let mut report = example();
        let lone = Second { create_p50_ms: Some(5.0), ..Second::default() };
        report.timeline = vec![lone.clone(), Second::default(), lone];
        let bins: Vec<_> = report.timeline.chunks(1).map(joined).collect();
        let chart =
            Chart { title: "", top: 0.0, height: 10.0, least: 1.0, most: 10.0, logarithmic: true };
        assert_eq!(path(&chart, &LATENCIES[0], &bins, |at| at as f64).matches('M').count(), 2);
        assert_eq!(path(&chart, &LATENCIES[2], &bins, |at| at as f64), "");
    }

    #[test]
    fn every_value_lies_within_its_chart() {
        let report = example();
        let picture = plot(&report);
        assert!(picture.starts_with("<svg xmlns="), "{picture}");
        assert_eq!(picture.matches("class=\"line ").count(), RATES.len() + LATENCIES.len());
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn a_run_without_anything_has_a_picture_too() {
        let mut report = example();
        report.timeline.clear();
        let picture = plot(&report);
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
