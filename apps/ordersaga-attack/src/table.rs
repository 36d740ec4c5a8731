//! What was found, as a table.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use comfy_table::presets;
use ordersaga_figures::number::{short, whole};
use ordersaga_figures::{Table, document};

use crate::honest::Tally;
use crate::run::Outcome;

/// The kind of the markers between which the table stands in a document.
const MARKER: &str = "attack";

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new([
        "attack",
        "peak memory of create-order / monitoring / store, MiB",
        "honest requests answered as wanted",
        "asked again",
        "not",
        "p50 / p99 / longest, ms",
        "what the attack met",
    ]);
    for Outcome { name, peaks, honest, met, .. } in outcomes {
        let peaks = peaks.iter().map(|peak| peak.map_or("ended".to_owned(), mebibytes));
        let wrong: u64 = honest.wrong.values().sum();
        let met = met.iter().map(|(what, count)| format!("{what} {}", whole(*count as f64)));
        table.row([
            (*name).to_owned(),
            peaks.collect::<Vec<_>>().join(" / "),
            whole(honest.times.len() as f64),
            whole(honest.again as f64),
            whole(wrong as f64),
            latencies(honest),
            met.collect::<Vec<_>>().join(", "),
        ]);
    }
    table
}

fn mebibytes(bytes: u64) -> String {
    short(bytes as f64 / f64::from(1 << 20))
}

fn latencies(honest: &Tally) -> String {
    let mut times = honest.times.clone();
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().max(1) - 1));
    let shown = |time: Option<&Duration>| {
        time.map_or("–".to_owned(), |time| short(time.as_secs_f64() * 1000.0))
    };
    [50, 99, 100].map(|percent| shown(at(percent))).join(" / ")
}

/// For people at a terminal.
pub(crate) fn terminal(outcomes: &[Outcome]) -> String {
    let table = table(outcomes);
    let mut shown = comfy_table::Table::new();
    shown.load_style(presets::NOTHING).set_header(table.header);
    shown.add_rows(table.rows);
    shown.to_string()
}

/// Writes the table to a file; into one that has a place for it, there.
pub(crate) fn write(file: &Path, outcomes: &[Outcome]) -> Result<()> {
    let markdown = table(outcomes).markdown();
    let text = fs::read_to_string(file).unwrap_or_default();
    let text = if text.contains(&format!("<!-- {MARKER}:")) {
        document::replace(&text, MARKER, |_| Some(markdown.clone())).map_err(Error::msg)?
    } else {
        markdown
    };
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_sorted_times() {
        let of = |ms: &[u64]| {
            let times = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
            latencies(&Tally { times, ..Tally::default() })
        };
        assert_eq!(of(&[]), "– / – / –");
        assert_eq!(of(&[7]), "7.00 / 7.00 / 7.00");
        assert_eq!(of(&[300, 1, 2, 3]), "3.00 / 300 / 300");
    }
}
