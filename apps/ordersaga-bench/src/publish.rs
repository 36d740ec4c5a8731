//! Writes what was found: the figures, the tables of the document, the plots.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ordersaga_figures::{Figures, Series, Table, document};

use crate::{machine, plot, scenario, tables};

/// The document, below the folder of documents.
const DOCUMENT: &str = "performance.md";
const FIGURES: &str = "performance.json";
const PLOTS: &str = "performance";
const OVERLOAD: &str = "overload";

/// Fails if the document has markers that this program has nothing for: better before the
/// measurements than after them.
pub(crate) fn check() -> Result<()> {
    let nothing = Figures::default();
    replaced(&nothing).map(drop)
}

/// The document with these figures.
fn replaced(figures: &Figures) -> Result<String> {
    let file = machine::root().join("docs").join(DOCUMENT);
    let text = fs::read_to_string(&file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let blocks = blocks(figures);
    document::replace(&text, "bench", |name| blocks.get(name).cloned()).map_err(anyhow::Error::msg)
}

/// Prints the tables.
pub(crate) fn print(figures: &Figures) {
    let show = |title: &str, table: &Table| {
        if !table.rows.is_empty() {
            say!("\n{title}\n{}", tables::terminal(table));
        }
    };
    show("Clients that wait for their orders", &tables::waiting(figures));
    show("Clients that do not wait", &tables::scenarios(figures));
    show("CPU, µs per order", &tables::cpu(figures));
    show("What the machine would allow", &tables::limits(figures));
    let of = |name: &str, table: fn(&Series) -> Table| {
        figures.series(name).map(table).unwrap_or_default()
    };
    show("Bytes, saturation with 256 connections", &of(scenario::TYPICAL, tables::bytes));
    show("Memory, saturation with 256 connections", &of(scenario::TYPICAL, tables::memory));
    show("Twice the capacity", &of(OVERLOAD, tables::overload));
    show("Memory, twice the capacity", &of(OVERLOAD, tables::memory));
}

/// Prints and writes what figures that were written before say.
pub(crate) fn again(file: &Path, folder: &Path) -> Result<()> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let figures: Figures = serde_json::from_str(&text).context("these are no figures")?;
    print(&figures);
    write(folder, &figures)
}

/// Writes everything to a folder.
pub(crate) fn write(folder: &Path, figures: &Figures) -> Result<()> {
    let plots = folder.join(PLOTS);
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let document = replaced(figures)?;
    let overload = figures.series(OVERLOAD).and_then(Series::typical);
    let files = [
        (folder.join(FIGURES), serde_json::to_string_pretty(figures)? + "\n"),
        (folder.join(DOCUMENT), document),
        (plots.join("rates.svg"), plot::rates(figures)),
        (plots.join("cpu.svg"), plot::cpu(figures)),
        (plots.join("overload.svg"), overload.map(plot::timeline).unwrap_or_default()),
    ];
    for (file, content) in files {
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The blocks of the document, by name.
fn blocks(figures: &Figures) -> BTreeMap<&'static str, String> {
    let of = |name: &str, table: fn(&Series) -> Table| {
        figures.series(name).map(table).unwrap_or_default()
    };
    let blocks = [
        ("waiting", tables::waiting(figures)),
        ("machine", tables::machine(figures)),
        ("scenarios", tables::scenarios(figures)),
        ("cpu", tables::cpu(figures)),
        ("limits", tables::limits(figures)),
        ("bytes", of(scenario::TYPICAL, tables::bytes)),
        ("memory", of(scenario::TYPICAL, tables::memory)),
        (OVERLOAD, of(OVERLOAD, tables::overload)),
        ("overload-memory", of(OVERLOAD, tables::memory)),
    ];
    blocks.map(|(name, table)| (name, block(&table))).into()
}

/// A table as the document has it. These figures need not have all that is measured today.
fn block(table: &Table) -> String {
    if table.rows.is_empty() { "Not measured.".to_owned() } else { table.markdown() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_marker_of_the_document_has_a_block() {
        check().unwrap();
    }

    #[test]
    fn what_was_not_measured_is_said_not_to_be() {
        let blocks = blocks(&Figures::default());
        assert_eq!(blocks["waiting"], "Not measured.");
        assert_eq!(blocks[OVERLOAD], "Not measured.");
    }

    #[test]
    fn figures_of_before_clients_could_wait_are_shown() {
        let file = machine::root().join("docs").join(FIGURES);
        let figures: Figures = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let blocks = blocks(&figures);
        let figure = "saturation, 256 connections";
        assert!(blocks["scenarios"].contains(figure) && blocks["cpu"].contains(figure));
        assert!(!blocks["waiting"].contains(figure));
    }
}
