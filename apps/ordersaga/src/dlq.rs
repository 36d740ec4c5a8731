//! `dlq`: hands over to the program that speaks to the broker.

use std::process::ExitCode;

use anyhow::Result;
use ordersaga_devstack::Service;
use ordersaga_devstack::state::State;

use crate::state::Folder;
use crate::{cargo, topics};

/// Arguments of `dlq`: the program's own, which `dlq --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// list, show, replay, discard or step-over, and what they take
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = cargo::program(topics::PROGRAM)?;
    command.arg("dlq").args(&arguments.rest);
    // A broker named by an argument or the environment goes before that of the running stack.
    if std::env::var_os("KAFKA_BROKERS").is_none()
        && let Some(state) = State::load(&arguments.folder.for_look())?
    {
        command.env("KAFKA_BROKERS", state.parts.broker_address());
        for service in Service::ALL {
            let name = service.name().to_uppercase().replace('-', "_");
            let cluster = service.cluster();
            let database = state.parts.server(cluster).database(cluster.database());
            command.env(format!("{name}_DATABASE_URL"), database.service_url());
        }
    }
    cargo::hand_over(&mut command)
}
