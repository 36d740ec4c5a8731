//! `logs`: what tail finds, as plain text or as JSON.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap_complete::engine::ArgValueCandidates;
use ordersaga_terminal::{json, plain};
use serde::Serialize;
use serde_json::Value;

use crate::completion;
use crate::state::Folder;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A service, a part or `supervisor`; all of them without it. NAME.1 is what was before
    #[arg(add = ArgValueCandidates::new(completion::processes))]
    name: Option<String>,
    /// Go on as they grow
    #[arg(short, long)]
    follow: bool,
    /// How many lines of each
    #[arg(short = 'n', long, default_value_t = 50)]
    lines: usize,
    /// Each line as a JSON object on a line of its own
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

/// A line as `logs --json` shows it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    process: &'a str,
    /// The line, unless it is itself a JSON object.
    text: Option<&'a str>,
    /// That object, unless it is not.
    record: Option<Value>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let files = files(arguments)?;
    if arguments.json {
        return run_json(arguments, &files);
    }
    // Logs repeat what anybody sent.
    let all_well = follow(arguments, &files, plain)?;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each file on its own: what is in them must not decide whose line is whose.
fn run_json(arguments: &Arguments, files: &[PathBuf]) -> Result<ExitCode> {
    let show = |file: &PathBuf| {
        let process = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        follow(arguments, std::slice::from_ref(file), |line| as_json(process, line))
    };
    let shown: Vec<_> = std::thread::scope(|scope| {
        if !arguments.follow {
            return files.iter().map(show).collect();
        }
        let all: Vec<_> = files.iter().map(|file| scope.spawn(move || show(file))).collect();
        all.into_iter().map(|one| one.join().unwrap_or(Ok(false))).collect()
    });
    let shown: Vec<_> = shown.into_iter().collect::<Result<_>>()?;
    Ok(if shown.into_iter().all(|well| well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the end of some files, and how they go on if that is wanted; whether it was well.
fn follow(
    arguments: &Arguments,
    files: &[PathBuf],
    shown: impl Fn(&str) -> String,
) -> Result<bool> {
    let mut command = Command::new("tail");
    command.arg(format!("--lines={}", arguments.lines));
    if arguments.follow {
        command.arg("--follow=name").arg("--retry");
    }
    let mut tail =
        command.args(files).stdout(Stdio::piped()).spawn().context("cannot start tail")?;
    let output = tail.stdout.take().context("tail has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = shown(&String::from_utf8_lossy(&line?));
        // Whole lines, also beside others that write.
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            // Nobody reads it any more, as after `| head`.
            tail.kill()?;
        }
    }
    Ok(tail.wait()?.success())
}

fn as_json(process: &str, line: &str) -> String {
    let record: Option<Value> =
        line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten();
    let text = record.is_none().then_some(line);
    // Text and what was JSON before can be written.
    json(&serde_json::to_string(&Line { process, text, record }).unwrap_or_default())
}

fn files(arguments: &Arguments) -> Result<Vec<PathBuf>> {
    let folder = arguments.folder.for_look().join("logs");
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("there are no logs in {}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let Some(wanted) = &arguments.name else {
        let is_current = |name: &OsStr| !name.as_encoded_bytes().ends_with(b".1");
        files.retain(|file| file.file_stem().is_none_or(is_current));
        return Ok(files);
    };
    let names: Vec<_> =
        files.iter().filter_map(|file| file.file_stem()?.to_str().map(str::to_owned)).collect();
    match names.iter().position(|name| name == wanted) {
        Some(index) => Ok(vec![files.swap_remove(index)]),
        None => bail!("no log is called {wanted}; there are: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_line_is_an_object_and_says_whose_it_is() -> Result<()> {
        let parsed = |line| serde_json::from_str::<Value>(&as_json("redis", line));
        let text = "17:M \u{1b}[31m* Ready \"to\" accept";
        assert_eq!(parsed(text)?, json!({"process": "redis", "text": text, "record": null}));
        assert!(!as_json("redis", text).contains('\u{1b}'));
        let record = r#"{"level": "INFO", "n": 9007199254740993}"#;
        assert!(as_json("redis", record).contains("\"n\":9007199254740993"));
        assert_eq!(parsed(record)?["record"]["level"], "INFO");
        assert_eq!(parsed("{no object")?["text"], "{no object");
        assert_eq!(parsed("==> /other <==")?["process"], "redis");
        Ok(())
    }
}
