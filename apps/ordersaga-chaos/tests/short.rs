//! A short run of fixed seed, as a user starts it: no promise is broken, and the report says what
//! happened.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[test]
fn a_short_run_breaks_no_promise() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = Command::new(env!("CARGO_BIN_EXE_ordersaga-chaos"))
        .args(["--seed", "7", "--orders", "3000", "--faults", "12", "--output"])
        .arg(folder.path())
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    ensure!(run.status.success(), "{}: {said}{}", run.status, String::from_utf8_lossy(&run.stderr));
    let report = std::fs::read(folder.path().join("report.json")).context("no report")?;
    let report: Value = serde_json::from_slice(&report)?;
    let count = |name: &str| report[name].as_array().map(Vec::len).unwrap_or_default();
    // A full disk takes root.
    ensure!(count("faults") + count("not_injected") == 12 && count("faults") >= 10, "{said}");
    ensure!(report["orders"]["acknowledged"].as_u64() >= Some(2_000), "{said}");
    ensure!(report["orders"]["shipping"].as_u64() >= Some(1_000), "{said}");
    let page = std::fs::read_to_string(folder.path().join("report.html"))?;
    ensure!(page.contains("<svg"), "the page has no timeline");
    Ok(())
}
