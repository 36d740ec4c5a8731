//! A program that is started, ended and started again under one name: what parts and services share.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::logs::tail;
use crate::process::{Launch, Process, TICK};

pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    process: Mutex<Option<Arc<Process>>>,
}

impl Runner {
    pub(crate) fn new(name: impl Into<String>, log: PathBuf) -> Self {
        Self { name: name.into(), log, process: Mutex::new(None) }
    }

    /// Starts the program; an error if it runs already.
    pub(crate) fn start(&self, launch: &Launch) -> Result<Arc<Process>> {
        let mut process = self.process.lock();
        if process.as_ref().is_some_and(|old| old.exited().is_none()) {
            bail!("{} runs already", self.name);
        }
        let new = Process::start(launch).with_context(|| format!("{} cannot start", self.name))?;
        let new = Arc::new(new);
        *process = Some(Arc::clone(&new));
        Ok(new)
    }

    fn current(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    fn running(&self) -> Result<Arc<Process>> {
        let process = self.current().filter(|process| process.exited().is_none());
        process.with_context(|| format!("{} does not run", self.name))
    }

    /// Waits until `ready` says so; an error with the end of the log if the program ends or the
    /// time is over before.
    pub(crate) async fn wait_until<F: Future<Output = bool>>(
        &self,
        within: Duration,
        mut ready: impl FnMut() -> F,
    ) -> Result<()> {
        let process = self.current().with_context(|| format!("{} was not started", self.name))?;
        let deadline = Instant::now() + within;
        while !ready().await {
            if let Some(status) = process.exited() {
                bail!("{} ended ({status}); its log ends:\n{}", self.name, tail(&self.log));
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} is not ready after {within:?}; its log ends:\n{}",
                    self.name,
                    tail(&self.log)
                );
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().ok().map(|process| process.pid())
    }

    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.current()?.exited()
    }

    /// Asks the program to end and waits; kills it and fails when it takes longer than `within`.
    /// Nothing to do when it does not run.
    pub(crate) async fn stop(
        &self,
        signal: Signal,
        within: Duration,
    ) -> Result<Option<ExitStatus>> {
        let Ok(process) = self.running() else {
            return Ok(self.exited());
        };
        // It may end by itself between the look and the signal: as good as stopped.
        let _ = process.signal(signal);
        if let Some(status) = process.wait_exit(within).await {
            return Ok(Some(status));
        }
        process.kill().await?;
        bail!(
            "{} did not stop within {within:?} and was killed; its log ends:\n{}",
            self.name,
            tail(&self.log)
        )
    }

    pub(crate) async fn kill(&self) -> Result<()> {
        match self.current() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    pub(crate) async fn wait_exit(&self, within: Duration) -> Result<ExitStatus> {
        let process = self.current().with_context(|| format!("{} was not started", self.name))?;
        let exit = process.wait_exit(within).await;
        exit.with_context(|| {
            let end = tail(&self.log);
            format!("{} still runs after {within:?}; its log ends:\n{end}", self.name)
        })
    }

    pub(crate) fn signal_tree(&self, signal: Signal) -> Result<()> {
        self.running()?.signal_tree(signal).map(drop)
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}
