//! `ordersaga bench`: measures the whole system on a stack of its own, and in the same run what
//! the machine would allow at the most.

#[macro_use]
extern crate ordersaga_terminal;

mod arguments;
mod audit;
mod limits;
mod load;
mod machine;
mod meters;
mod plot;
mod preload;
mod proc;
mod progress;
mod publish;
mod run;
mod sampler;
mod scenario;
mod suite;
mod system;
mod tables;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use crate::arguments::Arguments;

#[tokio::main]
async fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(<Arguments as CommandFactory>::command).complete();
    match run(&Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            say_error!("ordersaga bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the suite until its end or Ctrl-C; either way nothing that it started stays.
async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        scenario::list();
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &arguments.from {
        publish::again(file, &suite::folder(arguments))?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        done = suite::run(arguments) => done,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            say!("Interrupted: everything is stopped, nothing was written.");
            Ok(ExitCode::from(130))
        }
    }
}
