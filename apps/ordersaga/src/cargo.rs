//! The workspace this program belongs to, and building its other programs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR");
    let own = own.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.ancestors().nth(2).map_or_else(|| own.clone(), PathBuf::from)
}

/// Cargo in the workspace, in the environment it would have if it were called by hand: what
/// `cargo run` adds for this program makes some build scripts believe that everything changed.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let added = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if added.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            command.env_remove(name);
        }
    }
    command
}

/// Arguments that choose the profile this program itself was built with, told by its folder.
fn profile() -> Result<Vec<String>> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = own.parent().and_then(|folder| folder.file_name());
    Ok(match folder.and_then(OsStr::to_str) {
        None | Some("debug") => Vec::new(),
        Some("release") => vec!["--release".to_owned()],
        Some(other) => vec!["--profile".to_owned(), other.to_owned()],
    })
}

/// Builds programs of the workspace; cargo shows its own progress.
pub(crate) fn build(what: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.arg("build").args(profile()?).args(what);
    if !command.status().context("cannot start cargo")?.success() {
        bail!("the build failed: {command:?}");
    }
    Ok(())
}
