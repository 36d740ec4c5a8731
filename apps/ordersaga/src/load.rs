//! `load`: hands over to the program that puts load on a running stack.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use ordersaga_devstack::Service;
use ordersaga_devstack::state::State;

use crate::cargo;
use crate::state::Folder;

/// The program that does it.
pub(crate) const PROGRAM: &str = "ordersaga-load";

/// Arguments of `load`: the program's own, which `load --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// What the program takes: `ordersaga help load` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = cargo::program(PROGRAM)?;
    command.args(&arguments.rest);
    if let Some(state) = State::load(&arguments.folder.for_look())? {
        // What is named by an argument or the environment goes before.
        for (variable, value) in addresses(&state) {
            if std::env::var_os(variable).is_none() {
                command.env(variable, value);
            }
        }
    }
    cargo::hand_over(&mut command)
}

/// Where the parts of a running stack are, by the variables that the program reads.
fn addresses(state: &State) -> Vec<(&'static str, String)> {
    let service = |service: Service| {
        let running = state.processes.iter().find(|process| process.name == service.name());
        let port = running.map_or(service.port(), |process| process.port);
        format!("http://127.0.0.1:{port}")
    };
    vec![
        ("CREATE_ORDER_URL", service(Service::CreateOrder)),
        ("STORE_URL", service(Service::Store)),
        ("MONITORING_URL", service(Service::Monitoring)),
        ("KAFKA_BROKERS", state.parts.broker_address()),
    ]
}
