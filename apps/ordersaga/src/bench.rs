//! `bench`: hands over to the program that measures, with everything built for release.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;
use ordersaga_devstack::Service;

use crate::{cargo, install};

/// The program that does it.
pub(crate) const PROGRAM: &str = "ordersaga-bench";
const LOAD: &str = "ordersaga-load";

/// Arguments of `bench`: the program's own, which `bench --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// What the program takes: `ordersaga help bench` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let only_told = ["--version", "--list"];
    if arguments.rest.iter().any(|argument| only_told.iter().any(|told| argument == *told)) {
        return cargo::become_program(PROGRAM, &arguments.rest);
    }
    install::ensure(false)?;
    say_error!("Building for release (cargo build --release)");
    let packages = [PROGRAM, LOAD].into_iter().chain(Service::ALL.map(Service::name));
    let folder = cargo::build_release(&packages.collect::<Vec<_>>())?;
    cargo::hand_over(Command::new(folder.join(PROGRAM)).args(&arguments.rest))
}
