//! A program that runs beside a stack and is no part of the saga.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::process::Launch;
use crate::runner::Runner;
use crate::service::{is_ready, program_beside};

const STOP: Duration = Duration::from_secs(30);

/// A program beside a stack, which runs or will.
pub struct Companion {
    runner: Runner,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, String>,
    port: u16,
}

impl std::fmt::Debug for Companion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} on port {}", self.name(), self.port)
    }
}

impl Companion {
    /// The program called `name`, which lies beside this one; not started yet. It is to serve
    /// `/ready` on `port`. Output is appended to `log`.
    pub fn new(
        name: &str,
        arguments: Vec<OsString>,
        environment: BTreeMap<String, String>,
        port: u16,
        log: PathBuf,
    ) -> Self {
        Self { runner: Runner::new(name, log), arguments, environment, port }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.runner.name
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.runner.pid()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        self.runner.log()
    }

    /// How it ended, if it was started and has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.runner.exited()
    }

    /// Starts it; see [`Companion::wait_ready`].
    pub fn start(&self) -> Result<()> {
        let launch = Launch {
            program: program_beside(self.name())?,
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            folder: None,
            log: self.log().to_owned(),
            death_signal: "TERM",
            user: None,
        };
        self.runner.start(&launch).map(drop)
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        self.runner.wait_until(within, || is_ready(self.port)).await
    }

    /// Asks it to stop, and waits until it has. Nothing to do when it does not run.
    pub async fn terminate(&self) -> Result<()> {
        self.runner.stop(Signal::TERM, STOP).await.map(drop)
    }

    /// Kills it with SIGKILL; it is gone when this returns.
    pub async fn kill9(&self) -> Result<()> {
        self.runner.kill().await
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        self.runner.signal_tree(Signal::CONT)
    }
}
