//! `chaos`: hands over to the program that injects faults, with the services as they are or with a
//! planted bug that it must find.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use ordersaga_devstack::Service;

use crate::{cargo, install};

/// The program that does it.
pub(crate) const PROGRAM: &str = "ordersaga-chaos";

/// Arguments of `chaos`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Builds the services with one of the bugs in apps/ordersaga-chaos/planted, which must be found
    #[arg(long, hide = true)]
    planted: Option<String>,
    /// What the program takes: `ordersaga help chaos` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut rest = arguments.rest;
    if !rest.iter().any(|argument| argument == "--schedule") {
        install::ensure(false)?;
        cargo::build_services(&[])?;
    }
    let Some(bug) = &arguments.planted else {
        return cargo::become_program(PROGRAM, &rest);
    };
    let services = build_with(bug)?;
    rest.extend(["--services".into(), services.into(), "--fail-fast".into()]);
    let ended = cargo::program(PROGRAM)?.args(rest).status()?;
    let found = ended.code() == Some(1);
    say!("The bug {bug} was {}.", if found { "found" } else { "not found" });
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the bugs are, as patches of the services.
fn planted() -> PathBuf {
    cargo::root().join("apps/ordersaga-chaos/planted")
}

/// Builds the services with a bug, in a copy of the workspace; the folder of the binaries.
fn build_with(bug: &str) -> Result<PathBuf> {
    let patch = planted().join(format!("{bug}.patch"));
    if !patch.is_file() {
        let there: Vec<_> = bugs()?.into_keys().collect();
        bail!("no bug is called {bug}; there are {}", there.join(", "));
    }
    let place = cargo::root().join("target/planted");
    let tree = place.join("tree");
    copy_workspace(&tree)?;
    apply(&patch, &tree, &[])?;
    let mut command = cargo::cargo();
    command.current_dir(&tree).arg("build").env("CARGO_TARGET_DIR", place.join("build"));
    for service in Service::ALL {
        command.args(["--package", service.name()]);
    }
    if !command.status().context("cannot start cargo")?.success() {
        bail!("the services do not build with the bug {bug}");
    }
    Ok(place.join("build/debug"))
}

/// The bugs there are.
fn bugs() -> Result<BTreeMap<String, PathBuf>> {
    let mut bugs = BTreeMap::new();
    for entry in fs::read_dir(planted()).context("cannot list the planted bugs")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            bugs.insert(name, path);
        }
    }
    Ok(bugs)
}

fn apply(patch: &Path, tree: &Path, how: &[&str]) -> Result<()> {
    let mut git = Command::new("git");
    // Not as part of the repository that the tree may lie in.
    git.current_dir(tree).env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    ordersaga_devstack::run(git.arg("apply").args(how).arg(patch)).map(drop)
}

/// Copies the workspace's files where they differ, so that only what changed is built again.
fn copy_workspace(to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(cargo::root());
    let files = git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    for file in ordersaga_devstack::run(files)?.lines() {
        let (from, to) = (cargo::root().join(file), to.join(file));
        // One that is deleted and not yet committed.
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|old| old == content) {
            continue;
        }
        let folder = to.parent().context("a file without a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_still_fits_the_code() -> Result<()> {
        let bugs = bugs()?;
        assert!(bugs.len() >= 6, "{bugs:?}");
        if ordersaga_devstack::programs::find("git").is_none() {
            return Ok(());
        }
        for (bug, patch) in bugs {
            apply(&patch, &cargo::root(), &["--check"]).with_context(|| bug)?;
        }
        Ok(())
    }
}
