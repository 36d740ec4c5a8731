//! `attack`: hands over to the program that attacks the services, with the services as they are.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{cargo, install};

/// The program that does it.
pub(crate) const PROGRAM: &str = "ordersaga-attack";

/// Arguments of `attack`: the program's own, which `attack --help` lists.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// What the program takes: `ordersaga help attack` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let only_told = ["--version", "--list"];
    if !arguments.rest.iter().any(|argument| only_told.iter().any(|told| argument == *told)) {
        install::ensure(false)?;
        cargo::build_services(&[])?;
    }
    cargo::become_program(PROGRAM, &arguments.rest)
}
