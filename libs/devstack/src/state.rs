//! What a running stack leaves in its folder for other programs: a lock and `stack.json`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::folder::cache_folder;
use crate::identity::Identity;
use crate::parts::Parts;
use crate::private::{open_to_append, own_folder, write_private};

/// Where the folder of the last stack that was started is written down.
pub fn last_file() -> Result<PathBuf> {
    Ok(cache_folder()?.join("last-stack"))
}

/// Held by the process that runs the stack of a folder, as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// The lock of a folder, unless a stack runs there.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
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
pub fn is_running(folder: &Path) -> bool {
    let lock = File::open(folder.join("lock"));
    lock.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// How far a stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Parts and services are being started.
    Starting,
    /// Every service was ready.
    Ready,
    /// It is being stopped.
    Stopping,
}

/// One process of the stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// The port it listens on.
    pub port: u16,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// When that started ([`Identity`]).
    #[serde(default)]
    pub started: Option<u64>,
    /// Services say themselves whether they are ready.
    pub is_service: bool,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
}

impl Running {
    /// Its process, while it runs, told from a later one of the same number.
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity { pid: self.pid?, started: self.started? })
    }
}

/// The content of `stack.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The process that runs the stack.
    pub supervisor: u32,
    /// How far it is.
    pub phase: Phase,
    /// Addresses and passwords of its parts.
    pub parts: Parts,
    /// All processes.
    pub processes: Vec<Running>,
}

impl State {
    fn file(folder: &Path) -> PathBuf {
        folder.join("stack.json")
    }

    /// Writes it, readable for the own user only, and remembers the folder as the last one used.
    pub fn save(&self) -> Result<()> {
        let folder = &self.parts.folder;
        write_private(&Self::file(folder), &serde_json::to_vec_pretty(self)?)?;
        write_private(&last_file()?, folder.as_os_str().as_encoded_bytes())
    }

    /// Reads that of a running stack; none when none runs.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
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
    pub fn remove(folder: &Path) {
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
