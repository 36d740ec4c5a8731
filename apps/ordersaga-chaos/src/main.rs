//! `ordersaga chaos`: runs the whole system under load and faults, and checks from outside that it
//! kept its promises.

#[macro_use]
extern crate ordersaga_terminal;

mod disk;
mod follow;
mod html;
mod inject;
mod report;
mod run;
mod schedule;
mod system;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use ordersaga_devstack::Cluster;

/// The cluster whose disk can be full.
const SMALL_DISK: Cluster = Cluster::Store;

/// Runs the whole system under load and faults of every kind, and then checks that it kept its
/// promises: nothing acknowledged is lost, nothing is sold twice, every order ends. Everything is
/// started for the run on free ports and removed afterwards.
#[derive(Parser, Debug)]
#[command(name = "ordersaga chaos", version)]
struct Arguments {
    /// Chooses the faults, their targets and times, and what clients do
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Orders that clients want
    #[arg(long, default_value = "20000", value_parser = clap::value_parser!(u32).range(1..))]
    orders: u32,
    /// Faults injected
    #[arg(long, default_value = "40", value_parser = clap::value_parser!(u32).range(..=10_000))]
    faults: u32,
    /// Begin no further fault after so many minutes
    #[arg(long)]
    minutes: Option<u32>,
    /// Only faults whose kind or target contains this text, such as "kill -9" or "broker"
    #[arg(long)]
    only: Option<String>,
    /// Folder for report.json and report.html [default: target/chaos/seed-SEED]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Only show what would go wrong, and when
    #[arg(long)]
    schedule: bool,
    /// Folder with other binaries of the services, as of a build with a planted bug
    #[arg(long, hide = true)]
    services: Option<PathBuf>,
    /// End at the first violation that clients see
    #[arg(long, hide = true)]
    fail_fast: bool,
}

fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    match run() {
        Ok(code) => code,
        Err(error) => {
            say_error!("ordersaga chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    // Before there are threads: mounts of this run are seen by nobody else and vanish with it.
    let with_disk = disk::enter_private_mounts()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run::run(&arguments, with_disk))
}
