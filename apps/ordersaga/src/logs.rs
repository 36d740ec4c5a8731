//! `logs`: hands over to tail.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::state::Folder;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A service, a part or `supervisor`; all of them without it
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
    let status = command.args(files).status().context("cannot start tail")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn files(arguments: &Arguments) -> Result<Vec<PathBuf>> {
    let folder = arguments.folder.for_look().join("logs");
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("there are no logs in {}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let Some(wanted) = &arguments.name else {
        return Ok(files);
    };
    let names: Vec<_> =
        files.iter().filter_map(|file| file.file_stem()?.to_str().map(str::to_owned)).collect();
    match names.iter().position(|name| name == wanted) {
        Some(index) => Ok(vec![files.swap_remove(index)]),
        None => bail!("no log is called {wanted}; there are: {}", names.join(", ")),
    }
}
