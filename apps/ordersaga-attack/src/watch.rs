//! A service as the kernel sees it during an attack.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordersaga_devstack::ServiceProcess;
use procfs::process::{ClearRefs, Process};

/// The most memory a service may take, by its `VmHWM`. A limit that the kernel enforces, as
/// `RLIMIT_AS`, would also count addresses that the allocator and the threads' stacks reserve and
/// never touch.
const MEMORY: u64 = 256 << 20;
/// What the log may grow by during an attack.
const LOG: u64 = 1 << 20;
/// How soon the connections must be gone after an attack, and how many more files than before may
/// be open then: connections to databases come and go.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
const FILES: usize = 32;
const LOOK: Duration = Duration::from_millis(100);

/// A service, and what it had before an attack.
pub(crate) struct Watch<'a> {
    service: &'a ServiceProcess,
    process: Process,
    files: usize,
    log: u64,
}

impl<'a> Watch<'a> {
    /// Begins before an attack.
    pub(crate) fn begin(service: &'a ServiceProcess) -> Result<Self> {
        let pid = service.pid().with_context(|| format!("{} does not run", service.name()))?;
        let process = Process::new(i32::try_from(pid)?)?;
        // Where the kernel cannot do this, the peak is that since the start, which is no less.
        let _ = process.clear_refs(ClearRefs::PeakRSS);
        let (files, log) = (process.fd_count()?, log_size(service)?);
        Ok(Self { service, process, files, log })
    }

    /// Ends after the attack: the service's peak memory, in bytes. What must not be is added to
    /// `violations`.
    pub(crate) async fn end(self, violations: &mut Vec<String>) -> Result<Option<u64>> {
        let name = self.service.name();
        let left = self.files_left().await;
        let (Ok(left), true) = (left, self.service.is_running()) else {
            let how = self.service.exited().map(|status| status.to_string()).unwrap_or_default();
            violations.push(format!("{name} ended: {how}"));
            return Ok(None);
        };
        if left > FILES {
            violations.push(format!("{name} has {left} more files open than before"));
        }
        let kib = self.process.status()?.vmhwm.context("the kernel tells no VmHWM")?;
        let peak = kib * 1024;
        if peak > MEMORY {
            violations.push(format!("{name} took {} MiB", peak >> 20));
        }
        let written = log_size(self.service)?.saturating_sub(self.log);
        if written >= LOG {
            violations.push(format!("{name} wrote {} KiB of log", written >> 10));
        }
        Ok(Some(peak))
    }

    /// How many more files are open than before, when that no longer is too many or it was waited
    /// for long enough. Each connection is a file.
    async fn files_left(&self) -> Result<usize> {
        let deadline = Instant::now() + CLOSED_WITHIN;
        loop {
            let left = self.process.fd_count()?.saturating_sub(self.files);
            if left <= FILES || Instant::now() >= deadline {
                return Ok(left);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn log_size(service: &ServiceProcess) -> Result<u64> {
    let log = fs::metadata(service.log());
    Ok(log.with_context(|| format!("{} has no log", service.name()))?.len())
}
