//! `deny`: what comes in through dependencies, held to `deny.toml` by cargo-deny: licences, sources,
//! bans, and known weaknesses where the database of them can be reached.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::cache_folder;

use crate::cargo;

/// The release of cargo-deny that is used.
const RELEASE: &str = "0.20.2";
/// It runs for seconds, and every new machine builds it: built as its authors release it, that would
/// take several times as long.
const QUICKLY: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

pub(crate) fn run() -> Result<ExitCode> {
    let program = program()?;
    let mut all_good = deny(&program, &["check", "bans", "licenses", "sources"])?;
    // The database is no package of a registry: not every machine reaches it.
    if deny(&program, &["fetch", "db"])? {
        all_good &= deny(&program, &["check", "advisories"])?;
    } else {
        say!("The database of advisories cannot be fetched: they are not checked here.");
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs it in the workspace; whether it was satisfied.
fn deny(program: &Path, arguments: &[&str]) -> Result<bool> {
    let mut command = Command::new(program);
    command.current_dir(cargo::root()).arg("--locked").args(arguments);
    Ok(command.status().context("cannot start cargo-deny")?.success())
}

/// The program, built when first needed.
fn program() -> Result<PathBuf> {
    let folder = cache_folder()?.join(format!("cargo-deny-{RELEASE}"));
    let program = folder.join("bin/cargo-deny");
    if !program.exists() {
        say!("Building cargo-deny {RELEASE} (cargo install), once");
        let mut install = cargo::cargo();
        install.args(["install", "--quiet", "--locked", "--version", RELEASE, "--root"]);
        install.arg(&folder).arg("cargo-deny").envs(QUICKLY);
        let status = install.status().context("cannot start cargo")?;
        ensure!(status.success(), "cargo-deny cannot be installed: {status}");
    }
    Ok(program)
}
