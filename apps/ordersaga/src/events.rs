//! `events`: hands over to the program that speaks to the broker.

use std::process::ExitCode;

use anyhow::Result;
use ordersaga_devstack::state::State;

use crate::state::Folder;
use crate::{cargo, topics};

/// Arguments of `events`: the program's own, which `events --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// tail, and what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = cargo::program(topics::PROGRAM)?;
    command.arg("events").args(&arguments.rest);
    // A broker named by an argument or the environment goes before that of the running stack.
    if std::env::var_os("KAFKA_BROKERS").is_none()
        && let Some(state) = State::load(&arguments.folder.for_look())?
    {
        command.env("KAFKA_BROKERS", state.parts.broker_address());
    }
    cargo::hand_over(&mut command)
}
