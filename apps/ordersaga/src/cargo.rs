//! The workspace this program belongs to, and building its other programs.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use ordersaga_devstack::Service;

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
    run(cargo().arg("build").args(profile()?).args(what))
}

/// Builds packages for release, whatever this program itself was built for; cargo shows its own
/// progress. The folder of their programs.
pub(crate) fn build_release(packages: &[&str]) -> Result<PathBuf> {
    let packages = packages.iter().flat_map(|name| ["--package", *name]);
    run(cargo().args(["build", "--release"]).args(packages))?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let target = own.ancestors().nth(2).context("this program is in no folder of a build")?;
    Ok(target.join("release"))
}

fn run(build: &mut Command) -> Result<()> {
    if !build.status().context("cannot start cargo")?.success() {
        bail!("the build failed: {build:?}");
    }
    Ok(())
}

/// Builds another program of the workspace, which lies beside this one; what starts it.
pub(crate) fn program(name: &str) -> Result<Command> {
    build(&["--quiet", "--package", name])?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(Command::new(own.with_file_name(name)))
}

/// Builds another program of the workspace and becomes it, with these arguments. Returns only if
/// that is not possible.
pub(crate) fn become_program(name: &str, arguments: &[OsString]) -> Result<ExitCode> {
    hand_over(program(name)?.args(arguments))
}

/// Becomes another program. Returns only if that is not possible.
pub(crate) fn hand_over(command: &mut Command) -> Result<ExitCode> {
    // Its environment may hold passwords.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Builds the services, what makes the topics, and further packages.
pub(crate) fn build_services(further: &[&str]) -> Result<()> {
    say_error!("Building the services (cargo build)");
    let packages = Service::ALL.map(Service::name);
    let mut what: Vec<_> = packages.iter().flat_map(|name| ["--package", *name]).collect();
    let further = [crate::topics::PROGRAM].into_iter().chain(further.iter().copied());
    what.extend(further.flat_map(|name| ["--package", name]));
    build(&what)
}
