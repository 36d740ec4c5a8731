//! `ordersaga`: brings the whole system up on one machine, tries it, tests it and takes it down.

/// Prints a line. Nothing is wrong when nobody reads it, as after `| head`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod cargo;
mod demo;
mod detach;
mod down;
mod install;
mod logs;
mod openapi;
mod progress;
mod restarts;
mod state;
mod status;
mod supervisor;
mod test;
mod topics;
mod up;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts everything and shows where it is; installs what is missing
    Up(up::Arguments),
    /// Is the background process of `up --detach`
    #[command(hide = true)]
    Supervise(supervisor::Arguments),
    /// Stops what `up --detach` left running
    Down(state::Folder),
    /// Shows each process, its memory and whether it is ready
    Status(state::Folder),
    /// Shows the logs of one process, or of all
    Logs(logs::Arguments),
    /// Plays the session of the README against the running stack and checks each answer
    Demo(demo::Arguments),
    /// Runs all tests on real parts of their own; works beside a running stack
    Test(test::Arguments),
    /// Applies or shows the topics of redpanda/topics.toml
    Topics(topics::Arguments),
    /// Writes or compares the committed API documents in openapi/
    #[command(subcommand)]
    Openapi(openapi::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            // There is no other place left to say it.
            let _ = writeln!(std::io::stderr(), "ordersaga: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Supervise(arguments) => supervisor::detached(arguments).await,
        Command::Down(folder) => down::run(&folder).await,
        Command::Status(folder) => status::run(&folder).await,
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Demo(arguments) => {
            tokio::task::spawn_blocking(move || demo::run(&arguments)).await?
        }
        Command::Test(arguments) => test::run(&arguments).await,
        Command::Topics(arguments) => topics::run(&arguments),
        Command::Openapi(command) => openapi::run(command),
    }
}
