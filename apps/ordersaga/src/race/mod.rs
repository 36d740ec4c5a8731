//! `try`: an order through a named race, told step by step and checked at its end.

mod freeze;
mod races;
mod teller;

use std::process::ExitCode;

use anyhow::Result;

use crate::state::Folder;
use crate::target::Target;
use teller::Teller;

const EXITS: &str =
    "Each makes an item of its own, so that it can be repeated. late-store stops the \
     store's process on a stack of `ordersaga up` on this machine, for some 40 s, and lets \
     it go on whatever happens.

Exits with 0 if it came out as it must, with 1 if not.";

/// Arguments of `try`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct Arguments {
    /// The race
    race: Race,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Race {
    /// A cancellation runs after its order and may overtake it
    #[value(name = "cancel-race")]
    Cancel,
    /// Two clients want the last unit
    OutOfStock,
    /// A client repeats its request, at once and later
    Duplicate,
    /// The store stands still while an order is placed and cancelled
    LateStore,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    // Whatever ends this process by a signal that can be heard lets the store go on first.
    let signal = freeze::on_a_signal()?;
    let race = tokio::task::spawn_blocking(move || arguments.run());
    tokio::select! {
        code = race => code?,
        code = signal => {
            freeze::thaw_for_ever();
            // The race's thread may wait for an answer for long.
            std::process::exit(code)
        }
    }
}

impl Arguments {
    fn run(&self) -> Result<ExitCode> {
        let mut teller = Teller::new(self.target.system());
        match self.race {
            Race::Cancel => races::cancel_race(&mut teller)?,
            Race::OutOfStock => races::out_of_stock(&mut teller)?,
            Race::Duplicate => races::duplicate(&mut teller)?,
            Race::LateStore => races::late_store(&mut teller, &self.folder)?,
        }
        Ok(teller.end())
    }
}
