//! `up`: everything on one machine.

use std::process::ExitCode;

use anyhow::Result;
use ordersaga_devstack::TemporaryFolder;
use ordersaga_devstack::state::is_running;

use crate::state::Folder;
use crate::supervisor::{self, Choice, Home, Ports};
use crate::{cargo, detach, install, playground, status};

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// Keep the data in a temporary folder that is removed at the end
    #[arg(long, conflicts_with = "chosen")]
    ephemeral: bool,
    /// Return when everything is ready and leave it running in the background
    #[arg(long)]
    detach: bool,
    /// Say where everything is as JSON, as `status --json` does; progress goes to standard error
    #[arg(long, requires = "detach")]
    json: bool,
    /// Let the order desk kill and freeze parts of the stack, and check its invariants
    #[arg(long)]
    playground: bool,
    /// Do not install what is missing: say how to, and fail
    #[arg(long)]
    no_install: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let folder = arguments.folder.for_start();
    if !arguments.ephemeral && is_running(&folder) {
        say_error!("A stack is running already on {}.", folder.display());
        return status::show(&folder, arguments.json).await;
    }
    install::ensure(arguments.no_install)?;
    cargo::build_services(if arguments.playground { &[playground::PROGRAM] } else { &[] })?;
    let folder = if arguments.ephemeral { TemporaryFolder::create("up")? } else { folder };
    if arguments.detach {
        return detach::run(&folder, arguments.ephemeral, arguments.playground, arguments.json)
            .await;
    }
    let choice = Choice { ports: Ports::Usual, playground: arguments.playground };
    supervisor::run(Home::new(folder, arguments.ephemeral)?, choice).await
}
