//! `topics`: hands over to the program that speaks to the broker.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo;

/// The program that speaks to the broker.
pub(crate) const PROGRAM: &str = "ordersaga-kafka";

/// Arguments of `topics`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Action,
    /// The broker's addresses
    #[arg(long, global = true, default_value = "127.0.0.1:9092")]
    brokers: String,
    /// What stands before each topic's name
    #[arg(long, global = true, default_value = "")]
    prefix: String,
    /// Another file than redpanda/topics.toml
    #[arg(long, global = true)]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Action {
    /// Creates the topics that are missing and sets the settings that differ
    Apply,
    /// Shows the topics as the broker has them; fails when one is missing
    Describe {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    cargo::build(&["--quiet", "--package", PROGRAM])?;
    let (action, as_json) = match arguments.command {
        Action::Apply => ("apply", false),
        Action::Describe { json } => ("describe", json),
    };
    let file = arguments.file.clone().unwrap_or_else(topics_file);
    let mut command = command(action, &arguments.brokers, &file)?;
    command.args(["--prefix", &arguments.prefix]).args(as_json.then_some("--json"));
    cargo::hand_over(&mut command)
}

fn command(action: &str, brokers: &str, file: &Path) -> Result<Command> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(own.with_file_name(PROGRAM));
    command.args(["topics", action, "--brokers", brokers]);
    command.arg("--file").arg(file);
    Ok(command)
}

/// What shows the topics, if the program that does is built already.
pub(crate) fn describe_if_built(brokers: &str) -> Option<Result<Command>> {
    let command = command("describe", brokers, &topics_file());
    let is_missing = |command: &Command| !Path::new(command.get_program()).is_file();
    (!command.as_ref().is_ok_and(is_missing)).then_some(command)
}

fn topics_file() -> PathBuf {
    cargo::root().join("redpanda/topics.toml")
}

/// Makes the topics of a starting stack; the program is built.
pub(crate) fn apply(brokers: &str) -> Result<()> {
    ordersaga_devstack::run(&mut command("apply", brokers, &topics_file())?).map(drop)
}
