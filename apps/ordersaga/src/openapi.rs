//! `openapi`: the committed documents are what the services say, of their operations and of their
//! events, and the collections of requests are made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use ordersaga_devstack::{Service, binary};

use crate::{cargo, collections, topics};

/// Where the collections are, and nothing else.
const COLLECTIONS: &str = "openapi/collections";

/// What to do with the documents.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum Command {
    /// Writes openapi/SERVICE.json for each service and openapi/collections for Insomnia, Postman
    /// and Bruno, and redpanda/asyncapi.json and redpanda/schemas/EVENT.json of the events
    Export,
    /// Fails when a committed document is not what the code says
    Check,
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let names = Service::ALL.map(Service::name);
    let names = names.iter().chain([&topics::PROGRAM]);
    let packages: Vec<_> = names.flat_map(|name| ["--package", *name]).collect();
    cargo::build(&[["--quiet"].as_slice(), &packages].concat())?;
    let files = files()?;
    let mut all_same = true;
    match command {
        Command::Export => write(&files)?,
        Command::Check => {
            for (file, said) in &files {
                all_same &= compare(file, said);
            }
            for file in strangers(&files)? {
                say!(
                    "{}: should not be there; run `cargo ordersaga openapi export`",
                    file.display()
                );
                all_same = false;
            }
        }
    }
    all_same &= of_events(command)?;
    Ok(if all_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The events' documents: true if they are as they should be.
fn of_events(command: Command) -> Result<bool> {
    let action = match command {
        Command::Export => "export",
        Command::Check => "check",
    };
    let program = std::env::current_exe()?.with_file_name(topics::PROGRAM);
    let mut schemas = std::process::Command::new(&program);
    schemas.args(["schemas", action, "--folder"]).arg(cargo::root().join("redpanda"));
    let status = schemas.status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(status.success())
}

/// All files that are made, with what is to be in them.
fn files() -> Result<BTreeMap<PathBuf, String>> {
    let said = Service::ALL.map(document).into_iter().collect::<Result<Vec<_>>>()?;
    let documents: Vec<_> =
        said.iter().map(|said| serde_json::from_str(said)).collect::<Result<_, _>>()?;
    let collections = collections::files(&documents)?.into_iter();
    let mut files: BTreeMap<_, _> = collections
        .map(|(path, text)| (cargo::root().join(COLLECTIONS).join(path), text))
        .collect();
    for (service, said) in Service::ALL.into_iter().zip(said) {
        files.insert(cargo::root().join("openapi").join(format!("{service}.json")), said);
    }
    Ok(files)
}

fn write(files: &BTreeMap<PathBuf, String>) -> Result<()> {
    for file in strangers(files)? {
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    for (file, said) in files {
        let folder = file.parent().context("a file in no folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(file, said).with_context(|| format!("cannot write {}", file.display()))?;
        say!("{} written", file.display());
    }
    Ok(())
}

/// What lies among the collections and is no part of them: files have numbers, which change.
fn strangers(files: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>> {
    let folder = cargo::root().join(COLLECTIONS);
    let there = if folder.exists() { files_below(&folder)? } else { Vec::new() };
    Ok(there.into_iter().filter(|file| !files.contains_key(file)).collect())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn document(service: Service) -> Result<String> {
    let program = binary(service)?;
    ordersaga_devstack::run(std::process::Command::new(program).arg("--openapi"))
}

fn compare(file: &Path, said: &str) -> bool {
    let same = std::fs::read_to_string(file).is_ok_and(|committed| committed == said);
    if same {
        say!("{}: as it should be", file.display());
    } else {
        say!("{}: differs; run `cargo ordersaga openapi export`", file.display());
    }
    same
}
