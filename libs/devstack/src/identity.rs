//! A process of a stack as another program than its supervisor sees it and signals it.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::process::{parent, signal_tree, stat, state};

/// Where `/proc/PID/stat` has the time of the start, counted from the state.
const STARTED: usize = 19;

/// A process, told from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// It is stopped by a signal, and goes on when told to.
    Frozen,
    /// It has ended.
    Ended,
}

impl Identity {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let started = stat(number(pid)?)?.get(STARTED)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// What it does.
    pub fn condition(self) -> Condition {
        let state = number(self.pid).filter(|_| Self::of(self.pid) == Some(self)).and_then(state);
        match state {
            None | Some('Z' | 'X') => Condition::Ended,
            Some('T' | 't') => Condition::Frozen,
            Some(_) => Condition::Running,
        }
    }

    /// Kills it and all below it with SIGKILL.
    pub fn kill(self, child_of: u32) -> Result<()> {
        self.signal(Signal::KILL, child_of)
    }

    /// Freezes it and all below it (SIGSTOP): connections stay open and fall silent.
    pub fn freeze(self, child_of: u32) -> Result<()> {
        self.signal(Signal::STOP, child_of)
    }

    /// Lets it and all below it go on (SIGCONT).
    pub fn thaw(self, child_of: u32) -> Result<()> {
        self.signal(Signal::CONT, child_of)
    }

    /// An error, and nothing is done, unless it still is the process it was and `child_of` has
    /// started it.
    fn signal(self, signal: Signal, child_of: u32) -> Result<()> {
        let pid = number(self.pid).context("no number of a process")?;
        // From here on the number may become another process', and this still is the same one.
        let handle = pidfd_open(pid, PidfdFlags::empty())
            .with_context(|| format!("there is no process {pid}"))?;
        ensure!(Self::of(self.pid) == Some(self), "process {pid} is another one by now");
        let above = parent(pid).and_then(|parent| u32::try_from(parent).ok());
        ensure!(above == Some(child_of), "process {pid} is none of this stack");
        let send = |signal| {
            pidfd_send_signal(&handle, signal)
                .with_context(|| format!("cannot signal process {pid}"))
        };
        signal_tree(pid, signal, send).map(drop)
    }
}

fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Result<(Child, Identity)> {
        let child = Command::new("sleep").arg("1000").spawn()?;
        let identity = Identity::of(child.id()).context("it has ended")?;
        Ok((child, identity))
    }

    #[test]
    fn a_process_is_frozen_thawed_and_killed() -> Result<()> {
        let (mut child, identity) = sleeper()?;
        let own = std::process::id();
        assert_eq!(identity.condition(), Condition::Running);
        identity.freeze(own)?;
        while identity.condition() != Condition::Frozen {
            std::thread::yield_now();
        }
        identity.thaw(own)?;
        identity.kill(own)?;
        child.wait()?;
        assert_eq!(identity.condition(), Condition::Ended);
        assert!(identity.kill(own).is_err());
        Ok(())
    }

    #[test]
    fn a_foreign_process_is_left_alone() -> Result<()> {
        let (mut child, identity) = sleeper()?;
        let own = std::process::id();
        let error = identity.kill(1).err().context("killed")?;
        assert!(error.to_string().contains("none of this stack"), "{error}");
        let later = Identity { started: identity.started + 1, ..identity };
        assert_eq!(later.condition(), Condition::Ended);
        let error = later.kill(own).err().context("killed")?;
        assert!(error.to_string().contains("another one by now"), "{error}");
        assert_eq!(identity.condition(), Condition::Running);
        identity.kill(own)?;
        child.wait()?;
        Ok(())
    }
}
