//! `logs`: what tail finds, as plain text.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use ordersaga_terminal::plain;

use crate::state::Folder;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A service, a part or `supervisor`; all of them without it. NAME.1 is what was before
    name: Option<String>,
    /// Go on as they grow
    #[arg(short, long)]
    follow: bool,
    /// How many lines of each
    #[arg(short = 'n', long, default_value_t = 50)]
    lines: usize,
    #[command(flatten)]
    folder: Folder,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let files = files(arguments)?;
    let mut command = Command::new("tail");
    command.arg(format!("--lines={}", arguments.lines));
    if arguments.follow {
        command.arg("--follow=name").arg("--retry");
    }
    let mut tail =
        command.args(files).stdout(Stdio::piped()).spawn().context("cannot start tail")?;
    let output = tail.stdout.take().context("tail has no output")?;
    // Logs repeat what anybody sent.
    let mut shown = std::io::stdout();
    for line in BufReader::new(output).split(b'\n') {
        if writeln!(shown, "{}", plain(&String::from_utf8_lossy(&line?))).is_err() {
            // Nobody reads it any more, as after `| head`.
            tail.kill()?;
        }
    }
    let status = tail.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
