//! `model`: hands over to the program that checks the protocol.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo;

/// The program that does it.
pub(crate) const PROGRAM: &str = "ordersaga-model";

/// Arguments of `model`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// What the program takes: `ordersaga help model` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    cargo::become_program(PROGRAM, &arguments.rest)
}
