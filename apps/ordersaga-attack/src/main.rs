//! `ordersaga attack`: attacks the services as a hostile client would, and checks that they stay
//! alive, small, and of use to everybody else.

#[macro_use]
extern crate ordersaga_terminal;

mod attack;
mod honest;
mod run;
mod system;
mod table;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use clap_complete::engine::ArgValueCandidates;

/// Attacks the three services from addresses beside 127.0.0.1, one kind of attack after the other
/// and then all at once, while honest clients on 127.0.0.1 place orders. Everything is started for
/// the run on free ports and removed afterwards.
///
/// The exit code is 1 if a service ended, took more than 256 MiB, wrote more than 1 MiB of log
/// during an attack or kept connections after it, or if an honest request was not answered as it
/// should be.
#[derive(Parser, Debug)]
#[command(name = "ordersaga attack", version)]
struct Arguments {
    /// Seconds of each attack
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Only attacks whose name contains this text; "all" is all of them at once
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(run::candidates))]
    only: Option<String>,
    /// Write the table as Markdown to this file; into one with markers for it, between them
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// List the attacks
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    match run(&Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            say_error!("ordersaga attack: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs until the end or Ctrl-C; either way nothing that it started stays.
async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        run::list();
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        done = run::run(arguments) => done,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            say!("Interrupted: everything is stopped, nothing was written.");
            Ok(ExitCode::from(130))
        }
    }
}
