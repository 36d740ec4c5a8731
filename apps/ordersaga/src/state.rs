//! Which stack a command is about.

use std::fs;
use std::path::PathBuf;

use ordersaga_devstack::state::{is_running, last_file};

/// Chooses the stack a command is about.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Folder {
    /// The stack's data folder [default: data in the project's folder, or where a stack runs]
    #[arg(long = "data", value_name = "DIR")]
    chosen: Option<PathBuf>,
}

impl Folder {
    /// As if `--data` named it.
    pub(crate) fn at(chosen: Option<PathBuf>) -> Self {
        Self { chosen }
    }

    /// Where a stack is to run.
    pub(crate) fn for_start(&self) -> PathBuf {
        let chosen = self.chosen.clone();
        chosen.unwrap_or_else(|| crate::cargo::root().join("data"))
    }

    /// Where one is said to run: the chosen folder; else the usual one if a stack runs there; else
    /// that of the last start, which may be a temporary one.
    pub(crate) fn for_look(&self) -> PathBuf {
        let usual = self.for_start();
        if self.chosen.is_some() || is_running(&usual) {
            return usual;
        }
        let last = last_file().and_then(|file| Ok(fs::read_to_string(file)?));
        let last = last.map(PathBuf::from);
        last.ok().filter(|folder| is_running(folder)).unwrap_or(usual)
    }
}
