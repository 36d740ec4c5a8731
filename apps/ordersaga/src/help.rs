//! `help`: of a command, also of one that another program carries out, and of what has no command.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use anyhow::Result;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::{exit_codes, handed_over, tree};

/// The name of the table of exit codes.
const EXIT_CODES: &str = "exit-codes";

/// Arguments of `help`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A command, or exit-codes
    #[arg(value_name = "COMMAND", add = ArgValueCandidates::new(topics))]
    words: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.words == [EXIT_CODES] {
        say!("{}", exit_codes::text());
        return Ok(ExitCode::SUCCESS);
    }
    let words =
        [OsStr::new("ordersaga")].into_iter().chain(arguments.words.iter().map(AsRef::as_ref));
    let words: Vec<_> = words.chain([OsStr::new("--help")]).map(ToOwned::to_owned).collect();
    if let Some(code) = handed_over::help(&words)? {
        return Ok(code);
    }
    // It shows the help, or says that there is no such command, and ends the process.
    tree::parse(&words);
    Ok(ExitCode::SUCCESS)
}

fn topics() -> Vec<CompletionCandidate> {
    let tree = tree::tree();
    let commands = tree.get_subcommands().filter(|one| !one.is_hide_set());
    let commands =
        commands.map(|one| CompletionCandidate::new(one.get_name()).help(one.get_about().cloned()));
    commands.chain([CompletionCandidate::new(EXIT_CODES)]).collect()
}
