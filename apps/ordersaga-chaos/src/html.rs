//! The report as a page: one file that needs nothing else.

mod plot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::report::{Broken, FaultReport, Machine, Orders, Recovery, Report};

const STYLE: &str = include_str!("html/style.css");

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "ordersaga chaos, seed " (report.seed) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(report))
                    (tiles(report))
                    div class="again" {
                        span class="soft" { "The same schedule again" }
                        code { (report.command) }
                    }
                    @if !report.violations.is_empty() { (violations(&report.violations)) }
                    (timeline(report))
                    (faults(report))
                    (outcomes(&report.orders, &report.restarts))
                    (foot(&report.machine))
                }
            }
        }
    };
    page.into_string()
}

fn head(report: &Report) -> Markup {
    let broken = report.violations.len();
    html! {
        header {
            div {
                h1 { "Chaos run, seed " (report.seed) }
                p class="soft" { (report.started_at) ", " (length(report.seconds)) }
            }
            @if broken == 0 {
                span class="verdict good" { "✓ No promise was broken" }
            } @else {
                span class="verdict bad" { "✗ " (counted(broken, "violation")) }
            }
        }
    }
}

fn tiles(report: &Report) -> Markup {
    let orders = &report.orders;
    let cancelled: usize = orders.cancelled.values().sum();
    let alone = report.faults.iter().filter(|fault| !fault.overlapped).count();
    let slowest = report.faults.iter().filter_map(|fault| fault.recovery).fold(0.0, f64::max);
    let stuck = report.faults.iter().filter(|fault| fault.recovery.is_none()).count();
    html! {
        div class="tiles" {
            (tile("Orders made", &size(orders.made), &format!("{} acknowledged", size(orders.acknowledged))))
            (tile("Shipping", &size(orders.shipping), &share(orders.shipping, orders.made)))
            (tile("Cancelled", &size(cancelled), &share(cancelled, orders.made)))
            (tile("Faults", &size(report.faults.len()), &format!("{alone} alone, {} overlapped", report.faults.len() - alone)))
            @if stuck == 0 {
                (tile("Slowest recovery", &format!("{slowest:.1} s"), "for every partition"))
            } @else {
                (tile("No recovery in time", &size(stuck), &counted(report.faults.len(), "fault")))
            }
            (tile("Records", &size(orders.records), &counted(orders.dead_letters, "dead letter")))
        }
    }
}

fn tile(label: &str, value: &str, note: &str) -> Markup {
    html! {
        div class="tile" {
            div class="label" { (label) }
            div class="value" { (value) }
            div class="note" { (note) }
        }
    }
}

fn violations(all: &[Broken]) -> Markup {
    html! {
        section {
            h2 { "Violations" }
            p class="hint" { "Each with everything that is known of its order: what clients asked for and were told, the databases' rows, and the records of all topics." }
            @for Broken { violation, history } in all {
                div class="violation" {
                    h3 {
                        span { (violation.invariant) }
                        (promise(violation.invariant))
                        @if let Some(order) = violation.order { ", order " (order) }
                    }
                    p { (violation.what) }
                    @if !history.is_empty() {
                        ol class="history" { @for line in history { li { (line) } } }
                    }
                }
            }
        }
    }
}

/// What was promised, in a few words; ARCHITECTURE.md has the whole sentence.
fn promise(invariant: &str) -> &'static str {
    match invariant {
        "I1" => "Every acknowledged order ends",
        "I2" => "No item is sold twice",
        "I3" => "A cancelled order holds no stock",
        "I4" => "The status is what the topics say",
        "I5" => "One key, one order",
        "I6" => "Every acknowledged order is announced",
        "I7" => "Cancelled is final",
        "I8" => "The cache equals the database",
        "I9" => "Outbox and dedupe state stay bounded",
        "I10" => "Every record is applied once or buried",
        "I11" => "Replaying everything changes nothing",
        "I12" => "Each row lies on its shard",
        _ => "",
    }
}

fn timeline(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Timeline" }
            p class="hint" { "Point at a moment or a fault for its figures. A fault's bar lasts until whatever was wrong was put right; the pale part behind it until orders of every partition went through again." }
            div class="legend" {
                (key("c-created", "created")) (key("c-ended", "ended")) (key("c-errors", "refused or unanswered"))
                (key("c-latency", "p99 latency"))
            }
            div class="legend" {
                "Faults:"
                @for category in Category::ALL.into_iter().filter(|category| category.is_in(&report.faults)) {
                    (key(category.class(), category.name()))
                }
            }
            div class="scroll" { (plot::timeline(report)) }
        }
    }
}

fn key(class: &str, text: &str) -> Markup {
    html! { span { i class={ "dot " (class) } {} (text) } }
}

/// Which sort of thing goes wrong: the colour of a fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Category {
    Process,
    Network,
    Records,
    Other,
}

impl Category {
    const ALL: [Self; 4] = [Self::Process, Self::Network, Self::Records, Self::Other];

    fn of(kind: &str) -> Self {
        match kind {
            "kill -9" | "frozen" | "frozen and replaced" | "instances come and go" => Self::Process,
            "records repeated and reordered" | "poison records" => Self::Records,
            "clock off" | "disk full" => Self::Other,
            _ => Self::Network,
        }
    }

    /// Its class in the style sheet.
    const fn class(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Network => "network",
            Self::Records => "records",
            Self::Other => "other",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Process => "processes",
            Self::Network => "network",
            Self::Records => "records",
            Self::Other => "clock and disk",
        }
    }

    /// Whether any of these faults is of this category.
    fn is_in(self, faults: &[FaultReport]) -> bool {
        faults.iter().any(|fault| Self::of(&fault.kind) == self)
    }
}

/// What a kind of fault did.
#[derive(Default)]
struct Sum {
    count: usize,
    seconds: f64,
    acknowledged: usize,
    ended: usize,
    /// Of those that happened alone, sorted.
    recovery: Vec<f64>,
    stuck: usize,
}

fn by_kind(faults: &[FaultReport]) -> BTreeMap<(Category, &str), Sum> {
    let mut sums = BTreeMap::<_, Sum>::new();
    for fault in faults {
        let sum = sums.entry((Category::of(&fault.kind), fault.kind.as_str())).or_default();
        sum.count += 1;
        sum.seconds += fault.healed - fault.started;
        sum.acknowledged += fault.acknowledged;
        sum.ended += fault.ended;
        match fault.recovery {
            Some(recovery) if !fault.overlapped => sum.recovery.push(recovery),
            Some(_) => {}
            None => sum.stuck += 1,
        }
    }
    for sum in sums.values_mut() {
        sum.recovery.sort_by(f64::total_cmp);
    }
    sums
}

fn faults(report: &Report) -> Markup {
    let sums = by_kind(&report.faults);
    let most = sums.values().filter_map(|sum| sum.recovery.last()).copied().fold(0.0, f64::max);
    html! {
        section {
            h2 { "Faults and recovery" }
            p class="hint" { "Recovery is the time from when whatever was wrong was put right until orders of every partition went through, from create to SHIPPING. Median and longest are those of faults that happened alone." }
            div class="scroll" {
                table {
                    thead { tr {
                        th { "Fault" } th class="n" { "Times" } th class="n" { "Mean length" }
                        th class="n" { "Created meanwhile" } th class="n" { "Ended meanwhile" }
                        th class="n" { "Recovery, median" } th class="n" { "longest" } th {}
                    } }
                    tbody { @for ((category, kind), sum) in &sums { (kind_row(*category, kind, sum, most)) } }
                }
            }
            (by_target(&report.recovery))
            (each(&report.faults))
            @for error in &report.not_injected { p class="hint" { "Not injected: " (error) } }
        }
    }
}

fn kind_row(category: Category, kind: &str, sum: &Sum, most: f64) -> Markup {
    let median = sum.recovery.get(sum.recovery.len() / 2).copied();
    html! {
        tr {
            td { i class={ "dot " (category.class()) } {} (kind) }
            td class="n" { (sum.count) }
            td class="n" { (seconds(sum.seconds / sum.count.max(1) as f64)) }
            td class="n" { (size(sum.acknowledged)) }
            td class="n" { (size(sum.ended)) }
            @if sum.stuck > 0 {
                td class="n none" colspan="2" { (counted(sum.stuck, "time")) " not in time" }
            } @else {
                td class="n" { (median.map_or_else(|| "–".to_owned(), seconds)) }
                td class="n" { (sum.recovery.last().map_or_else(|| "–".to_owned(), |most| seconds(*most))) }
            }
            td class="bar" {
                @if let (Some(median), Some(longest)) = (median, sum.recovery.last()) {
                    span class="meter" {
                        i style={ "width:" (percent(*longest, most)) "%" } {}
                        b style={ "width:" (percent(median, most)) "%" } {}
                    }
                }
            }
        }
    }
}

fn by_target(recovery: &[Recovery]) -> Markup {
    html! {
        details {
            summary { "Recovery by kind and target" }
            div class="scroll" {
                table {
                    thead { tr {
                        th { "Fault" } th { "Of" } th class="n" { "Times" } th class="n" { "Median" } th class="n" { "Longest" }
                    } }
                    tbody {
                        @for Recovery { kind, target, count, median, most } in recovery {
                            tr {
                                td { (kind) } td { (target) } td class="n" { (count) }
                                td class="n" { (seconds(*median)) } td class="n" { (seconds(*most)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn each(faults: &[FaultReport]) -> Markup {
    html! {
        details {
            summary { "All " (faults.len()) " faults" }
            div class="scroll" {
                table {
                    thead { tr {
                        th class="n" { "At" } th { "Fault" } th { "Of" } th class="n" { "Length" }
                        th class="n" { "Created" } th class="n" { "Ended" } th class="n" { "Recovery" } th {}
                    } }
                    tbody { @for fault in faults { (fault_row(fault)) } }
                }
            }
        }
    }
}

fn fault_row(fault: &FaultReport) -> Markup {
    html! {
        tr {
            td class="n" { (duration(fault.started)) }
            td { i class={ "dot " (Category::of(&fault.kind).class()) } {} (fault.kind) }
            td { (fault.target) }
            td class="n" { (seconds(fault.healed - fault.started)) }
            td class="n" { (size(fault.acknowledged)) }
            td class="n" { (size(fault.ended)) }
            @match fault.recovery {
                Some(recovery) => td class="n" { (seconds(recovery)) },
                None => td class="n none" { "not in time" },
            }
            td class="soft" { @if fault.overlapped { "with others" } }
        }
    }
}

fn outcomes(orders: &Orders, restarts: &BTreeMap<String, u32>) -> Markup {
    let row =
        |name: &str, count: usize| html! { tr { td { (name) } td class="n" { (size(count)) } } };
    html! {
        section {
            h2 { "What clients wanted, and what became of it" }
            div class="two" {
                table { tbody {
                    (row("Orders wanted", orders.wanted))
                    (row("Probes", orders.probes))
                    (row("Requests sent for them, repetitions included", orders.requests))
                    (row("Orders acknowledged", orders.acknowledged))
                    (row("Orders made", orders.made))
                    (row("SHIPPING in the end", orders.shipping))
                    @for (reason, count) in &orders.cancelled {
                        (row(&format!("CANCELLED: {reason}"), *count))
                    }
                } }
                table { tbody {
                    (row("Cancellations acknowledged", orders.cancellations))
                    (row("Statuses and items read", orders.reads))
                    (row("Records on the topics, repetitions included", orders.records))
                    (row("Dead letters", orders.dead_letters))
                    @for (status, count) in &orders.refused { (row(&refusal(*status), *count)) }
                    @for (name, count) in restarts {
                        (row(&format!("{name} ended by itself and was started again"), *count as usize))
                    }
                } }
            }
        }
    }
}

fn refusal(status: u16) -> String {
    match status {
        0 => "Requests without an answer".to_owned(),
        status => format!("Requests answered {status}"),
    }
}

fn foot(machine: &Machine) -> Markup {
    let Machine { cores, kernel, ordersaga, build } = machine;
    html! {
        footer { "ordersaga " (ordersaga) ", " (build) " build, on " (counted(*cores, "core")) ", Linux " (kernel) "." }
    }
}

/// Minutes and seconds, with hours if there are any.
fn duration(seconds: f64) -> String {
    let whole = whole(seconds);
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

fn length(seconds: f64) -> String {
    let whole = whole(seconds);
    match (whole / 60, whole % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

fn seconds(time: f64) -> String {
    format!("{time:.1} s")
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (1000.0 * part / whole).round() / 10.0 } else { 0.0 }
}

fn share(part: usize, whole: usize) -> String {
    format!("{:.1} %", percent(part as f64, whole as f64))
}

fn size(count: usize) -> String {
    number(count as u64)
}

/// The whole part of a number that is not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is the purpose")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// With commas between thousands.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", size(count))
}
