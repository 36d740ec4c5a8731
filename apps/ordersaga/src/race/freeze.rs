//! A process that stands still for a while, and goes on however this one ends.

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::Service;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::state::Folder;
use crate::target::System;
use ordersaga_devstack::state::State;

/// The process that stands still. Held locked at the end, so that none is stopped any more.
static FROZEN: Mutex<Option<Pid>> = Mutex::new(None);

/// The store of a running stack, stopped until this is dropped.
#[derive(Debug)]
pub(super) struct FrozenStore(());

impl FrozenStore {
    /// Stops the store of the stack that runs on this machine, if that is the one asked.
    pub(super) fn new(folder: &Folder, system: &System) -> Result<Self> {
        let folder = folder.for_look();
        let state = State::load(&folder)?.with_context(|| {
            format!(
                "no stack runs on {}: late-store stops a process of `ordersaga up`",
                folder.display()
            )
        })?;
        is_asked(&state, system.address(Service::Monitoring)?)?;
        let store = state.processes.iter().find(|process| process.name == Service::Store.name());
        let pid = store.and_then(|store| store.pid).context("the stack's store does not run")?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        ensure!(name.trim_end() == Service::Store.name(), "process {pid} is not the store");
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process' number")?;
        let mut frozen = FROZEN.lock();
        kill_process(pid, Signal::STOP).context("cannot stop the store")?;
        *frozen = Some(pid);
        Ok(Self(()))
    }
}

impl Drop for FrozenStore {
    fn drop(&mut self) {
        thaw(&mut FROZEN.lock());
    }
}

fn thaw(frozen: &mut Option<Pid>) {
    if let Some(pid) = frozen.take()
        && let Err(error) = kill_process(pid, Signal::CONT)
    {
        say_error!("ordersaga: the store does not go on: {error}; kill -CONT {pid:?}");
    }
}

/// Lets it go on, and stops nothing any more.
pub(super) fn thaw_for_ever() {
    let mut frozen = FROZEN.lock();
    thaw(&mut frozen);
    std::mem::forget(frozen);
}

/// The stack of this machine is the one that is asked.
fn is_asked(state: &State, address: &str) -> Result<()> {
    let monitoring = Service::Monitoring.name();
    let own = state.processes.iter().find(|process| process.name == monitoring);
    let port = own.context("the stack has no monitoring")?.port;
    let hosts = ["localhost", "127.0.0.1", "[::1]"];
    let is_own = hosts.iter().any(|host| address == format!("http://{host}:{port}"));
    ensure!(is_own, "{address} is not the stack of this machine, which is at port {port} (--url)");
    Ok(())
}

/// Ends with the code for the first signal that ends programs.
pub(super) fn on_a_signal() -> Result<impl Future<Output = i32>> {
    let mut signals =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [interrupt, terminate, hangup] = &mut signals;
    for one in [&*interrupt, &*terminate, &*hangup] {
        ensure!(one.is_ok(), "signals cannot be heard");
    }
    Ok(async move {
        let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hangup.recv() => 129,
        }
    })
}
