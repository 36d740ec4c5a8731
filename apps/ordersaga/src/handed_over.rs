//! Commands that another program of the workspace carries out: their help and their completion are
//! that program's own.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Arg;

use crate::{cargo, guide, topics, tree};

/// Where a shell's completion says which word it is about.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";

/// A command, and the program behind it.
struct HandedOver {
    command: &'static str,
    program: &'static str,
    /// The program's arguments before those of the command.
    before: &'static [&'static str],
}

const fn plain(command: &'static str, program: &'static str) -> HandedOver {
    HandedOver { command, program, before: &[] }
}

const ALL: [HandedOver; 8] = [
    plain("attack", crate::attack::PROGRAM),
    plain("bench", crate::bench::PROGRAM),
    plain("chaos", crate::chaos::PROGRAM),
    HandedOver { command: "dlq", program: topics::PROGRAM, before: &["dlq"] },
    HandedOver { command: "events", program: topics::PROGRAM, before: &["events"] },
    plain("load", crate::load::PROGRAM),
    plain("model", crate::model::PROGRAM),
    plain("retention", crate::retention::PROGRAM),
];

impl HandedOver {
    fn of(command: &OsStr) -> Option<&'static Self> {
        ALL.iter().find(|one| command == one.command)
    }

    /// Where the program is once it is built.
    fn path(&self) -> Result<PathBuf> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        Ok(own.with_file_name(self.program))
    }
}

/// Shows the help of such a command, if a command line (with this program's name) asks for it.
pub(crate) fn help(words: &[OsString]) -> Result<Option<ExitCode>> {
    let Some((one, rest)) = command_of(words).filter(|(_, rest)| asks_for_help(rest)) else {
        return Ok(None);
    };
    if !one.path()?.exists() {
        say_error!("Building {} for its help", one.program);
    }
    let mut program = cargo::program(one.program)?;
    let status = program.args(one.before).args(rest).status();
    let status = status.with_context(|| format!("cannot start {}", one.program))?;
    if !status.success() {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)));
    }
    say!("{}", more_help(one.command));
    Ok(Some(ExitCode::SUCCESS))
}

fn command_of(words: &[OsString]) -> Option<(&'static HandedOver, &[OsString])> {
    let [_, command, rest @ ..] = words else { return None };
    Some((HandedOver::of(command)?, rest))
}

fn asks_for_help(rest: &[OsString]) -> bool {
    let mut before = rest.iter().take_while(|word| *word != "--");
    before.any(|word| word == "--help" || word == "-h")
}

/// What the program's own help does not know: what the tool takes before it hands over, and how the
/// command is typed.
fn more_help(command: &str) -> String {
    let mut tree = tree::tree();
    tree.build();
    let command = tree.find_subcommand(command);
    let arguments = command.into_iter().flat_map(clap::Command::get_arguments);
    let options = arguments.filter(|one| one.get_long().is_some() && !one.is_hide_set());
    let options: Vec<_> = options.map(|one| format!("\n  {one}  {}", told(one))).collect();
    let examples = command.map(|command| guide::examples(&[command.get_name()]));
    let examples = guide::section(&examples.unwrap_or_default());
    if options.is_empty() {
        return format!("\n{examples}");
    }
    format!("\nOf the tool, before all others:{}\n\n{examples}", options.concat())
}

fn told(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

/// Becomes the program that a shell's completion is about, if there is one and it is built. It is
/// never built for that.
pub(crate) fn complete() -> Option<()> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let at = words.iter().position(|word| word == "--")? + 1;
    let (one, rest) = command_of(words.get(at..)?)?;
    let index = std::env::var(INDEX).ok().and_then(|index| index.parse::<usize>().ok());
    let index = index.unwrap_or(1 + rest.len());
    let (rest, own) = without_own(rest);
    // The name of the command itself is this program's to complete, and what it takes of its own.
    let within = index.checked_sub(own).filter(|index| *index >= 2)?;
    let program = one.path().ok().filter(|program| program.exists())?;
    let mut command = Command::new(program);
    command.args(["--", one.program]).args(one.before).args(rest);
    command.env(INDEX, (within - 1 + one.before.len()).to_string());
    // It returns only if that is not possible.
    let _ = command.exec();
    None
}

/// What follows the arguments of the tool itself, and how many those were.
fn without_own(rest: &[OsString]) -> (&[OsString], usize) {
    match rest {
        [first, _, rest @ ..] if first == "--data" => (rest, 2),
        [first, rest @ ..] if first.as_encoded_bytes().starts_with(b"--data=") => (rest, 1),
        rest => (rest, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn knows_when_help_is_asked_of_another_program() {
        let asks = |line| command_of(&words(line)).is_some_and(|(_, rest)| asks_for_help(rest));
        assert!(asks("ordersaga load --help"));
        assert!(asks("ordersaga dlq list -h"));
        assert!(!asks("ordersaga load --rate 100"));
        assert!(!asks("ordersaga load -- --help"));
        assert!(!asks("ordersaga status --help"));
        assert!(!asks("ordersaga"));
    }

    #[test]
    fn adds_what_the_other_program_does_not_know() {
        let help = more_help("dlq");
        assert!(help.contains("\n  --data <DIR>  The stack's data folder"), "{help}");
        assert!(help.contains("Examples:\n  ordersaga dlq list  "), "{help}");
        assert!(!more_help("model").contains("Of the tool"));
    }

    #[test]
    fn what_is_the_tools_own_is_not_passed_on() {
        let rest = words("--data /tmp/x --wait");
        assert_eq!(without_own(&rest), (&rest[2..], 2));
        assert_eq!(without_own(&words("--wait")).1, 0);
    }

    #[test]
    fn each_takes_what_the_other_program_takes() {
        let tree = tree::tree();
        for one in &ALL {
            let command = tree.find_subcommand(one.command);
            assert!(
                command.is_some_and(clap::Command::is_disable_help_flag_set),
                "{}",
                one.command
            );
        }
    }
}
