//! `bench`: hands over to the program that measures, with everything built for release.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;
use ordersaga_devstack::Service;

use crate::{cargo, install};

const PROGRAM: &str = "ordersaga-bench";
const LOAD: &str = "ordersaga-load";

/// Arguments of `bench`: the program's own, which `bench --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// See --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut packages = vec![PROGRAM];
    let only_told = ["--help", "-h", "--version", "--list"];
    if !arguments.rest.iter().any(|argument| only_told.iter().any(|told| argument == *told)) {
        install::ensure(false)?;
        say!("Building for release (cargo build --release)");
        packages.push(LOAD);
        packages.extend(Service::ALL.map(Service::name));
    }
    let folder = cargo::build_release(&packages)?;
    cargo::hand_over(Command::new(folder.join(PROGRAM)).args(&arguments.rest))
}
