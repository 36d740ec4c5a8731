//! What a running stack leaves in its folder for other commands: a lock and `stack.json`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ordersaga_devstack::{Parts, cache_folder, open_to_append, own_folder, write_private};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

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

fn last_file() -> Result<PathBuf> {
    Ok(cache_folder()?.join("last-stack"))
}

/// Held by the process that runs the stack of a folder, as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// The lock of a folder, unless a stack runs there.
    pub(crate) fn take(folder: &Path) -> Result<Option<Self>> {
        let context = || format!("cannot use the folder {}", folder.display());
        own_folder(folder)?;
        let file = open_to_append(&folder.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(context),
        }
    }
}

/// Whether a stack runs on this folder.
pub(crate) fn is_running(folder: &Path) -> bool {
    let lock = File::open(folder.join("lock"));
    lock.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// How far a stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Parts and services are being started.
    Starting,
    /// Every service was ready.
    Ready,
    /// It is being stopped.
    Stopping,
}

/// One process of the stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) pid: Option<u32>,
    /// Services say themselves whether they are ready.
    pub(crate) is_service: bool,
    /// How often it was started again after it had ended by itself.
    pub(crate) restarts: u32,
}

/// The content of `stack.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) supervisor: u32,
    pub(crate) phase: Phase,
    pub(crate) parts: Parts,
    pub(crate) processes: Vec<Running>,
}

impl State {
    fn file(folder: &Path) -> PathBuf {
        folder.join("stack.json")
    }

    /// Writes it, readable for the own user only, and remembers the folder as the last one used.
    pub(crate) fn save(&self) -> Result<()> {
        let folder = &self.parts.folder;
        write_private(&Self::file(folder), &serde_json::to_vec_pretty(self)?)?;
        write_private(&last_file()?, folder.as_os_str().as_encoded_bytes())
    }

    /// Reads that of a running stack; none when none runs.
    pub(crate) fn load(folder: &Path) -> Result<Option<Self>> {
        if !is_running(folder) {
            return Ok(None);
        }
        let file = Self::file(folder);
        let context = || format!("cannot read {}", file.display());
        match fs::read(&file) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(context)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(context),
        }
    }

    /// Removes it when the stack has stopped.
    pub(crate) fn remove(folder: &Path) {
        // It is only ever believed while the lock is held.
        let _ = fs::remove_file(Self::file(folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stack_at_a_time() -> Result<()> {
        let folder = tempfile::tempdir()?;
        assert!(!is_running(folder.path()));
        let lock = Lock::take(folder.path())?;
        assert!(lock.is_some());
        assert!(is_running(folder.path()));
        assert!(Lock::take(folder.path())?.is_none());
        drop(lock);
        assert!(!is_running(folder.path()));
        Ok(())
    }

    #[test]
    fn a_lock_that_is_a_link_leaves_alone_what_it_leads_to() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let other = folder.path().join("other");
        fs::write(&other, "precious")?;
        std::os::unix::fs::symlink(&other, folder.path().join("lock"))?;
        let error = Lock::take(folder.path()).err().context("it was taken")?;
        assert!(error.to_string().contains("is a symbolic link"), "{error}");
        assert_eq!(fs::read(&other)?, b"precious");
        Ok(())
    }
}
