//! What the tool exits with.

use crate::status;

/// What a process ends with that SIGINT breaks off, as if it had no handler.
pub(crate) const INTERRUPTED: u8 = 130;

/// The codes, each with what it says.
const CODES: [(&str, &str); 6] = [
    ("0", "Done; of a check: all is as it should be."),
    (
        "1",
        "It failed. Or a check found something: status, unless all is ready; demo, test, \
         fuzz, deny, model, chaos, attack, load, topics describe, openapi check, doctor, order, \
         try.",
    ),
    (
        "2",
        "Wrong arguments (of dlq: 1). Of dlq: a letter was blocked. Of load, bench, chaos, \
         attack and model: there could be no run.",
    ),
    ("3", "Of sdk: this machine lacks a program, or it is too old."),
    ("124", "Of wait: the time is over."),
    (
        "130",
        "Ctrl-C broke it off, as the shell sees it. `up` that was ready stops and exits with 0, and \
         load ends its run with a report: a second Ctrl-C breaks that off.",
    ),
];

/// The table, for a terminal.
pub(crate) fn text() -> String {
    let mut table = status::table(&["code", "says"]);
    table.add_rows(CODES.map(|(code, says)| [code, says]));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_same_table() -> anyhow::Result<()> {
        let file = crate::cargo::root().join("docs/operations.md");
        let document = std::fs::read_to_string(file)?;
        let rows = CODES.map(|(code, says)| format!("| {code} | {says} |\n")).concat();
        assert!(document.contains(&rows), "{rows}");
        Ok(())
    }
}
