//! The tree of commands as the help, completion and man pages have it: what the code declares, with
//! its commands in groups, its examples and its completers.

use std::ffi::OsString;
use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Command, CommandFactory, FromArgMatches};

use crate::{Arguments, completion, guide};

/// The name of the tool.
pub(crate) const NAME: &str = "ordersaga";

/// Columns of a line of the list of commands.
#[cfg(test)]
const COLUMNS: usize = 80;

/// The last line of the tool's own help.
const MORE: &str = "`ordersaga help COMMAND` shows a command's options, with examples.";

/// The whole tree.
pub(crate) fn tree() -> Command {
    let tree = taught(Arguments::command(), &mut Vec::new());
    let template = template(&tree);
    tree.help_template(template)
}

/// Reads a command line; shows help or what is wrong with it, and ends the process, if that is all
/// there is to do.
pub(crate) fn parse(words: &[OsString]) -> Arguments {
    let matches = tree().get_matches_from(words);
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// A command and those within it, each with its examples at the end of its help.
fn taught(command: Command, path: &mut Vec<String>) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let mut command = command.mut_args(completion::with_completer);
    for name in names {
        path.push(name.clone());
        command = command.mut_subcommand(name, |one| taught(one, path));
        path.pop();
    }
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    let examples = guide::examples(&path);
    if examples.is_empty() {
        return command;
    }
    let before = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
    command.after_help(format!("{before}{}", guide::section(&examples)))
}

/// The tool's own help: clap has one list of commands, and here they stand in groups.
fn template(tree: &Command) -> StyledStr {
    let (header, literal) = (tree.get_styles().get_header(), tree.get_styles().get_literal());
    let commands = || guide::GROUPS.iter().flat_map(|group| group.commands);
    let width = commands().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    // Writing to a String cannot fail.
    for group in guide::GROUPS {
        let _ = write!(text, "\n{header}{}:{header:#}\n", group.heading);
        for (name, _) in group.commands {
            let about = tree.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:width$}{literal:#}  {about}");
        }
    }
    let _ = write!(text, "\n{header}Options:{header:#}\n{{options}}\n\n{MORE}");
    text.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn commands() -> impl Iterator<Item = (&'static str, &'static [guide::Example])> {
        guide::GROUPS.iter().flat_map(|group| group.commands).copied()
    }

    /// Those that help, completion and man pages show, with the words that call each.
    fn all(command: &Command, path: &[String]) -> Vec<(Vec<String>, Command)> {
        let mut found = Vec::new();
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let path = [path, &[one.get_name().to_owned()]].concat();
            found.extend(all(one, &path));
            found.push((path, one.clone()));
        }
        found
    }

    #[test]
    fn the_tree_is_sound() {
        tree().debug_assert();
    }

    #[test]
    fn each_command_stands_in_one_group() {
        let names: Vec<_> = commands().map(|(name, _)| name).collect();
        let set: BTreeSet<_> = names.iter().copied().collect();
        assert_eq!(set.len(), names.len(), "one stands there twice: {names:?}");
        let tree = tree();
        let declared = tree.get_subcommands().filter(|one| !one.is_hide_set());
        assert_eq!(declared.map(Command::get_name).collect::<BTreeSet<_>>(), set);
    }

    #[test]
    fn each_command_has_one_to_four_examples_at_the_end_of_its_help() {
        for (path, mut command) in all(&tree(), &[]) {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            let examples = guide::examples(&path);
            assert!((1..=4).contains(&examples.len()), "{path:?}");
            let help = command.render_long_help().to_string();
            assert!(help.trim_end().ends_with(&guide::section(&examples)), "{help}");
        }
    }

    #[test]
    fn each_example_is_a_command_line() {
        for (name, examples) in commands() {
            for (line, says) in examples {
                let matches = tree().try_get_matches_from(line.split(' ').map(OsString::from));
                let parsed = matches.map(|matches| Arguments::from_arg_matches(&matches).is_ok());
                assert!(parsed.as_ref().is_ok_and(|parsed| *parsed), "{line}: {parsed:?}");
                assert!(line.starts_with(&format!("ordersaga {name}")), "{line}");
                assert!(!says.is_empty() && !line.contains("  "), "{line}");
            }
        }
    }

    #[test]
    fn the_list_of_commands_fits_a_terminal() {
        let help = tree().render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        assert!(help.contains("\nProve:\n  test "), "{help}");
    }
}
