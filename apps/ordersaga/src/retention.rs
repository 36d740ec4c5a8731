//! `retention`: hands over to the program that removes old orders' facts.

use std::process::ExitCode;

use anyhow::Result;
use ordersaga_devstack::Cluster;
use ordersaga_devstack::state::State;

use crate::cargo;
use crate::state::Folder;

/// The program that does it; this one has no client of Postgres.
pub(crate) const PROGRAM: &str = "ordersaga-retention";
/// Where that program looks for the shards.
const SHARDS: &str = "SHARDS_MIGRATION";

/// Arguments of `retention`: the program's own, which `retention --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// What the program takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = cargo::program(PROGRAM)?;
    command.args(&arguments.rest);
    // Shards named by an argument or the environment go before those of the running stack.
    if std::env::var_os(SHARDS).is_none()
        && let Some(state) = State::load(&arguments.folder.for_look())?
    {
        command.env(SHARDS, shards(&state));
    }
    cargo::hand_over(&mut command)
}

/// The shards of a running stack under their owner's role.
fn shards(state: &State) -> String {
    let shards = Cluster::ALL.into_iter().filter(|cluster| cluster.is_shard()).map(|cluster| {
        let server = state.parts.server(cluster);
        let name = cluster.database().to_owned();
        let database = server.database(&name);
        format!("{cluster}={}", database.owner_url())
    });
    shards.collect::<Vec<_>>().join(",")
}
