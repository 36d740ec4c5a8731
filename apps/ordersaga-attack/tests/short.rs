//! All attacks at once for a moment, as a user starts them: the services hold.

use std::process::Command;

use anyhow::{Context, Result, ensure};

#[test]
fn the_services_hold_against_all_attacks_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let table = folder.path().join("table.md");
    let run = Command::new(env!("CARGO_BIN_EXE_ordersaga-attack"))
        .args(["--seconds", "5", "--only", "all", "--output"])
        .arg(&table)
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    ensure!(run.status.success(), "{}: {said}{}", run.status, String::from_utf8_lossy(&run.stderr));
    let table = std::fs::read_to_string(table).context("no table")?;
    let row = table.lines().find(|line| line.starts_with("| all |")).context("no row")?;
    // Attackers and honest clients were there.
    for met in ["connected", "403", "421"] {
        ensure!(row.contains(met), "{met}: {row}");
    }
    let honest = row.split(" | ").nth(2).context("no honest clients")?;
    ensure!(honest.replace(',', "").parse::<u64>()? >= 500, "{row}");
    Ok(())
}
