//! The report for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use ordersaga_figures::number::whole;

use crate::Plan;
use crate::report::{Checks, Errors, Latency, Orders, OwnCpu, Report, Waits};

/// A thread that works for this part of the time has none left.
const BUSY: f64 = 0.85;

impl Report {
    /// What was found, in words and a table.
    pub fn to_text(&self) -> String {
        let end = if self.interrupted { ", ended before its time" } else { "" };
        let mut text = format!("{}{end}\n\n", load(&self.plan));
        let _ = writeln!(text, "{}\n", self.latencies());
        let waiting = self.waits.map(waiting).unwrap_or_default();
        let lines = [self.throughput(), self.outcomes(), waiting, self.troubles()];
        for line in lines.into_iter().chain([own(&self.own_cpu)]) {
            if !line.is_empty() {
                let _ = writeln!(text, "{line}");
            }
        }
        if let Some(checks) = &self.checks {
            let _ = writeln!(text, "{}", told(checks));
        }
        text
    }

    fn latencies(&self) -> Table {
        let mut table = Table::new();
        let header = ["ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"];
        table.load_style(presets::NOTHING).set_header(header);
        let rows = [
            ("create to its answer", Some(self.create_ms)),
            ("create to the order's end", self.terminal_ms),
            ("cancel to its answer", self.cancel_ms),
            ("read to its answer", self.read_ms),
        ];
        for (name, latency) in rows {
            if let Some(latency) = latency {
                table.add_row(row(name, latency));
            }
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn throughput(&self) -> String {
        let Orders { acknowledged, terminal, unsent, .. } = self.orders;
        let mut text = format!(
            "{} orders acknowledged in {:.1} s, {} a second",
            whole(acknowledged as f64),
            self.sending_seconds,
            whole(self.acknowledged_per_second),
        );
        if self.terminal_ms.is_some() {
            let _ = write!(
                text,
                "; {} ended in {:.1} s, {} a second",
                whole(terminal as f64),
                self.seconds,
                whole(self.orders_per_second),
            );
        }
        if unsent > 0 {
            let _ = write!(text, "; {} were due and could not be sent", whole(unsent as f64));
        }
        text + "."
    }

    fn outcomes(&self) -> String {
        let Orders { reserved, refused_by_store, cancelled_first, expired, .. } = self.orders;
        let all = [
            (reserved, "reserved"),
            (refused_by_store, "refused by the store, as sold out"),
            (cancelled_first, "cancelled before they were reserved"),
            (expired, "past their deadline"),
        ];
        let there: Vec<_> = all.into_iter().filter(|(count, _)| *count > 0).collect();
        if there.is_empty() {
            return String::new();
        }
        format!("Warmup included: {}.", list(&there))
    }

    fn troubles(&self) -> String {
        let mut text = String::new();
        for (status, count) in &self.refused {
            let _ = write!(text, "Answered {status}: {}. ", whole(*count as f64));
        }
        let Errors { connect, lost, timeout, malformed } = self.errors;
        let all = [
            (connect, "without a connection"),
            (lost, "whose connection ended"),
            (timeout, "without an answer in time"),
            (malformed, "with an answer that is none"),
        ];
        let there: Vec<_> = all.into_iter().filter(|(count, _)| *count > 0).collect();
        if !there.is_empty() {
            let _ = write!(text, "Requests {}.", list(&there));
        }
        text.trim_end().to_owned()
    }
}

/// What a plan does, in a line.
pub(crate) fn load(plan: &Plan) -> String {
    let mut text = match plan.rate {
        None => "Closed loop".to_owned(),
        Some(rate) => format!("Open loop, {} creates a second", whole(rate)),
    };
    let _ = write!(text, ", {}", counted(u64::from(plan.connections), "client"));
    if plan.wait {
        text.push_str(", each waiting for the end of its order");
    }
    let _ = write!(text, ", {}", counted(u64::from(plan.items), "item"));
    for (share, what) in [
        (plan.hot, "of the orders on the first"),
        (plan.cancel, "cancelled"),
        (plan.read, "status requests per order"),
        (plan.find, "item requests per order"),
    ] {
        if share > 0.0 {
            let _ = write!(text, ", {:.0} % {what}", 100.0 * share);
        }
    }
    text
}

fn row(name: &str, latency: Latency) -> [String; 8] {
    let Latency { count, mean, p50, p90, p99, p999, max } = latency;
    let [mean, p50, p90, p99, p999, max] = [mean, p50, p90, p99, p999, max].map(milliseconds);
    [name.to_owned(), whole(count as f64), mean, p50, p90, p99, p999, max]
}

/// With as many digits as say something.
fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 1_000.0 => format!("{value:.1}"),
        value => whole(value),
    }
}

fn waiting(waits: Waits) -> String {
    let Waits { answers, open, unheard, given_up } = waits;
    let all = [
        (open, "answered before the end"),
        (unheard, "answered before monitoring had heard of the order"),
        (given_up, "orders given up"),
    ];
    let there: Vec<_> = all.into_iter().filter(|(count, _)| *count > 0).collect();
    let mut text = format!("Waited by {}", counted(answers, "status request"));
    if !there.is_empty() {
        let _ = write!(text, ": {}", list(&there));
    }
    text + "."
}

fn own(cpu: &OwnCpu) -> String {
    let mut text = format!(
        "Own CPU: {:.2} s; {:.1} µs a request, {:.0} % of a core",
        cpu.seconds,
        cpu.per_request_us,
        100.0 * cpu.http_share,
    );
    if cpu.records > 0 {
        let _ = write!(text, "; {:.1} µs a record followed", cpu.per_record_us);
    }
    text.push('.');
    if cpu.http_share > BUSY {
        text.push_str(" It had no time left: what is measured is partly this program.");
    }
    text
}

fn told(checks: &Checks) -> String {
    let mut lines = Vec::new();
    match checks.orders_not_ended {
        None => {}
        Some(0) => lines.push("✓ Every acknowledged order has ended.".to_owned()),
        Some(count) => {
            let examples = ids(&checks.examples_not_ended, count);
            let orders = counted(count, "acknowledged order");
            lines.push(format!("✗ NOT ENDED: {orders} ({examples})."));
        }
    }
    if let Some(count @ 1..) = checks.cancels_not_done {
        let cancels = counted(count, "acknowledged cancellation");
        lines.push(format!("✗ NOT UNDONE: {cancels}."));
    }
    match checks.oversold_items {
        0 => lines.push("✓ No item is oversold.".to_owned()),
        count => {
            let examples = ids(&checks.examples_oversold, count);
            lines.push(format!("✗ OVERSOLD: {} ({examples}).", counted(count, "item")));
        }
    }
    lines.join("\n")
}

fn ids(examples: &[i64], count: u64) -> String {
    let mut text = examples.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    if count > examples.len() as u64 {
        text.push_str(", …");
    }
    text
}

fn list(all: &[(u64, &str)]) -> String {
    let each = all.iter().map(|(count, what)| format!("{} {what}", whole(*count as f64)));
    each.collect::<Vec<_>>().join(", ")
}

fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", whole(count as f64), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn what_is_wrong_stands_out() {
        let mut report = example();
        assert!(report.to_text().contains("✓ Every acknowledged order has ended."));
        let checks = Checks {
            orders_not_ended: Some(2),
            examples_not_ended: vec![17, 18],
            cancels_not_done: Some(1),
            oversold_items: 11,
            examples_oversold: vec![5],
        };
        report.checks = Some(checks);
        report.own_cpu.http_share = 0.95;
        let text = report.to_text();
        for line in [
            "✗ NOT ENDED: 2 acknowledged orders (17, 18).",
            "✗ NOT UNDONE: 1 acknowledged cancellation.",
            "✗ OVERSOLD: 11 items (5, …).",
            "what is measured is partly this program",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn waiting_clients_are_named_and_what_they_waited_for() {
        let mut report = example();
        assert!(!report.to_text().contains("Waited"));
        report.plan.wait = true;
        report.waits = Some(Waits { answers: 8_003, open: 2, unheard: 1, given_up: 0 });
        let text = report.to_text();
        assert!(text.contains("clients, each waiting for the end of its order, "), "{text}");
        for line in [
            "Waited by 8,003 status requests: 2 answered before the end, 1 answered before",
            "before monitoring had heard of the order.",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let told = Waits { answers: 1, ..Waits::default() };
        assert_eq!(waiting(told), "Waited by 1 status request.");
    }

    #[test]
    fn refusals_and_errors_are_told_only_if_there_are_any() {
        let mut report = example();
        report.refused.clear();
        report.errors = Errors::default();
        assert_eq!(report.troubles(), "");
        report.refused.insert(429, 1_200);
        report.errors.lost = 3;
        assert_eq!(report.troubles(), "Answered 429: 1,200. Requests 3 whose connection ended.");
    }
}
