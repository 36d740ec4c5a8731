//! The figures as pictures: SVG files that a page shows, in light and dark.

use maud::{Markup, PreEscaped, html};
use ordersaga_figures::number::{short, whole};
use ordersaga_figures::{Figures, Kind, Run, Second, Series, Spread};

use crate::tables::is_system;

const WIDTH: f64 = 860.0;
/// Names stand left of this.
const LEFT: f64 = 250.0;
/// Numbers stand right of this.
const RIGHT: f64 = 740.0;
/// Scenarios of so few orders that most of what they cost is what each process costs while it waits.
const LIGHT: [&str; 3] = ["light", "rate-100", "rate-500"];
/// Height of a bar with the space around it.
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const TOP: f64 = 34.0;

/// Colours of the processes, those that belong together alike.
const COLOURS: [(&str, &str); 10] = [
    ("create-order", "#0969da"),
    ("store", "#54aeff"),
    ("monitoring", "#b6e3ff"),
    ("postgres create-order", "#1a7f37"),
    ("postgres store", "#2da44e"),
    ("postgres monitoring", "#4ac26b"),
    ("postgres shard1", "#6fdd8b"),
    ("postgres shard2", "#aceebb"),
    ("broker", "#bf8700"),
    ("redis", "#cf222e"),
];

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#57606a}\
    .title{font-weight:600;fill:#24292f}.end{text-anchor:end}.middle{text-anchor:middle}\
    .grid{stroke:#8c959f;stroke-opacity:.3}.bar{fill:#0969da}.limit{fill:#bf8700}\
    .spread{stroke:#24292f;stroke-width:1.5}path{fill:none;stroke-width:1.8}\
    .acknowledged{stroke:#0969da}.terminal{stroke:#1a7f37}.refused{stroke:#cf222e}\
    .latency{stroke:#8250df}\
    @media(prefers-color-scheme:dark){text{fill:#9198a1}.title{fill:#f0f6fc}\
    .spread{stroke:#f0f6fc}}";

/// A picture with everything it needs.
fn picture(height: f64, about: &str, content: &Markup) -> String {
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (height) } role="img" aria-label=(about) {
            style { (PreEscaped(STYLE)) }
            (content)
        }
    };
    picture.into_string() + "\n"
}

/// Where a value lies between the names and the numbers.
fn x(value: f64, most: f64) -> f64 {
    round(LEFT + (RIGHT - LEFT) * (value / most).clamp(0.0, 1.0))
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn y_of(row: usize) -> f64 {
    TOP + ROW * row as f64
}

/// Orders a second of each scenario and limit: the median, and a line from the least to the most.
pub(crate) fn rates(figures: &Figures) -> String {
    let rows: Vec<(&Series, Spread)> =
        figures.series.iter().filter_map(|series| Some((series, series.rate()?))).collect();
    let most = rows.iter().map(|(_, rate)| rate.max).fold(1.0, f64::max);
    let content = html! {
        text class="title" x="0" y="16" { "Orders a second: median, least and most" }
        @for (row, (series, rate)) in rows.iter().enumerate() {
            @let y = y_of(row);
            @let middle = y + BAR / 2.0;
            text class="end" x=(LEFT - 8.0) y=(middle + 4.0) { (name(series)) }
            rect class=(if series.kind == Kind::Limit { "limit" } else { "bar" }) x=(LEFT) y=(y) width=(round(x(rate.median, most) - LEFT)) height=(BAR) {}
            line class="spread" x1=(x(rate.min, most)) x2=(x(rate.max, most)) y1=(middle) y2=(middle) {}
            text x=(x(rate.max, most) + 6.0) y=(middle + 4.0) { (whole(rate.median)) }
        }
    };
    picture(y_of(rows.len()), "Orders a second by scenario", &content)
}

/// A limit's title tells more than there is room for.
fn name(series: &Series) -> &str {
    match series.kind {
        Kind::Scenario => &series.title,
        Kind::Limit => series.title.split(',').next().unwrap_or(&series.name),
    }
}

/// CPU of each process for an order, stacked, for each scenario that saturates the machine: at
/// little load it is mostly what each process costs while it waits.
pub(crate) fn cpu(figures: &Figures) -> String {
    let micros = |series: &Series, name: &str| {
        series.cpu_per_thousand(|other| other == name).map_or(0.0, |cpu| cpu.median * 1000.0)
    };
    let all = |series: &Series| series.cpu_per_thousand(is_system).map(|cpu| cpu.median * 1000.0);
    let scenarios = figures.series.iter().filter(|series| series.kind == Kind::Scenario);
    let rows: Vec<(&Series, f64)> = scenarios
        .filter(|series| !LIGHT.contains(&series.name.as_str()))
        .filter_map(|series| Some((series, all(series)?)))
        .collect();
    let most = rows.iter().map(|(_, all)| *all).fold(1.0, f64::max);
    let legend = y_of(rows.len()) + 8.0;
    let content = html! {
        text class="title" x="0" y="16" { "CPU per order, µs" }
        @for (row, (series, all)) in rows.iter().enumerate() {
            @let y = y_of(row);
            text class="end" x=(LEFT - 8.0) y=(y + BAR / 2.0 + 4.0) { (series.title) }
            @let parts = COLOURS.map(|(name, colour)| (name, colour, micros(series, name)));
            @for (part, (name, colour, value)) in parts.iter().enumerate() {
                @let before: f64 = parts[..part].iter().map(|(_, _, value)| value).sum();
                @let (begin, end) = (x(before, most), x(before + value, most));
                rect x=(begin) y=(y) width=(round(end - begin)) height=(BAR) fill=(colour) {
                    title { (name) ": " (short(*value)) " µs" }
                }
            }
            text x=(x(*all, most) + 6.0) y=(y + BAR / 2.0 + 4.0) { (short(*all)) }
        }
        @for (at, (name, colour)) in COLOURS.iter().enumerate() {
            @let (column, line) = ((at % 5) as f64, (at / 5) as f64);
            @let (left, top) = (column * 172.0, legend + line * 20.0);
            rect x=(left) y=(top) width="11" height="11" fill=(colour) {}
            text x=(left + 16.0) y=(top + 10.0) { (name) }
        }
    };
    picture(legend + 44.0, "CPU per order by process and scenario", &content)
}

/// A run over time: what was acknowledged, what became terminal, what was refused; below it the
/// creates' latency.
pub(crate) fn timeline(run: &Run) -> String {
    let seconds = &run.timeline;
    let rate =
        |second: &Second| second.acknowledged.max(second.terminal).max(second.refused) as f64;
    let most = seconds.iter().map(rate).fold(1.0, f64::max);
    let slowest = seconds.iter().map(|second| second.create_p99_ms).fold(1.0, f64::max);
    let line = |most: f64, top: f64, height: f64, value: &dyn Fn(&Second) -> f64| {
        let step = (WIDTH - 80.0) / (seconds.len().max(2) - 1) as f64;
        let point = |(at, second): (usize, &Second)| {
            let pen = if at == 0 { 'M' } else { 'L' };
            let (x, y) = (70.0 + step * at as f64, top + height * (1.0 - value(second) / most));
            format!("{pen}{x:.1} {y:.1}")
        };
        seconds.iter().enumerate().map(point).collect::<String>()
    };
    let frame = |title: &str, top: f64, height: f64, most: f64| {
        html! {
            text class="title" x="0" y=(top - 12.0) { (title) }
            @for part in [0.0, 0.5, 1.0] {
                @let y = round(top + height * (1.0 - part));
                line class="grid" x1="70" x2=(WIDTH - 10.0) y1=(y) y2=(y) {}
                text class="end" x="62" y=(y + 4.0) { (short(most * part)) }
            }
        }
    };
    let content = html! {
        (frame("Orders a second: acknowledged (blue), terminal (green), refused (red)", 30.0, 180.0, most))
        path class="acknowledged" d=(line(most, 30.0, 180.0, &|s| s.acknowledged as f64)) {}
        path class="terminal" d=(line(most, 30.0, 180.0, &|s| s.terminal as f64)) {}
        path class="refused" d=(line(most, 30.0, 180.0, &|s| s.refused as f64)) {}
        (frame("p99 of creates, ms", 260.0, 90.0, slowest))
        path class="latency" d=(line(slowest, 260.0, 90.0, &|s| s.create_p99_ms)) {}
        text x="70" y="372" { "0 s" }
        text class="end" x=(WIDTH - 10.0) y="372" { (seconds.len()) " s" }
    };
    picture(380.0, "Throughput and latency over time", &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_a_point_for_each_second() {
        let second = Second { acknowledged: 10, terminal: 5, refused: 0, create_p99_ms: 2.0 };
        let run = Run { timeline: vec![second; 4], ..Run::default() };
        let picture = timeline(&run);
        let path = picture.split("class=\"terminal\" d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!(path.matches(['M', 'L']).count(), 4, "{path}");
        // Half as many as the most: in the middle of the chart.
        assert!(path.starts_with("M70.0 120.0L"), "{path}");
        assert!(timeline(&Run::default()).contains("<svg"));
    }
}
