//! `openapi`: the committed documents are what the services say, of their operations and of their
//! events.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ordersaga_devstack::{Service, binary};

use crate::{cargo, topics};

/// What to do with the documents.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum Command {
    /// Writes openapi/SERVICE.json for each service, and redpanda/asyncapi.json and
    /// redpanda/schemas/EVENT.json of the events
    Export,
    /// Fails when a committed document is not what the code says
    Check,
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let names = Service::ALL.map(Service::name);
    let names = names.iter().chain([&topics::PROGRAM]);
    let packages: Vec<_> = names.flat_map(|name| ["--package", *name]).collect();
    cargo::build(&[["--quiet"].as_slice(), &packages].concat())?;
    let mut all_same = true;
    for service in Service::ALL {
        let said = document(service)?;
        let file = file(service);
        match command {
            Command::Export => {
                std::fs::write(&file, said)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                say!("{} written", file.display());
            }
            Command::Check => all_same &= compare(&file, &said),
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

fn file(service: Service) -> PathBuf {
    cargo::root().join("openapi").join(format!("{service}.json"))
}

fn document(service: Service) -> Result<String> {
    let program = binary(service)?;
    ordersaga_devstack::run(std::process::Command::new(program).arg("--openapi"))
}

fn compare(file: &std::path::Path, said: &str) -> bool {
    let same = std::fs::read_to_string(file).is_ok_and(|committed| committed == said);
    if same {
        say!("{}: as it should be", file.display());
    } else {
        say!("{}: differs; run `cargo ordersaga openapi export`", file.display());
    }
    same
}
