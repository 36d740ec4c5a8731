//! The stack beside which this runs: its processes, and what may be done to them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::state::{Running, State};
use ordersaga_devstack::{Cluster, Condition, Identity, is_ready};
use rustix::process::getppid;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::NAME;

/// How long a part may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    Postgres,
    Redis,
    Broker,
}

/// A process of the stack.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) condition: Condition,
    /// Its process, unless that has ended.
    pub(crate) process: Option<Identity>,
    pub(crate) restarts: u32,
}

/// The stack that has started this program.
pub(crate) struct Stack {
    folder: PathBuf,
    supervisor: u32,
}

impl Stack {
    /// An error unless the stack of this folder has started this program.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        let above = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        let stack = Self { folder, supervisor: above.unwrap_or_default() };
        ensure!(
            stack.state()?.supervisor == stack.supervisor,
            "{NAME} is part of a stack: start both with `cargo ordersaga up --playground`"
        );
        Ok(stack)
    }

    /// What the supervisor tells of the stack.
    pub(crate) fn state(&self) -> Result<State> {
        State::load(&self.folder)?
            .with_context(|| format!("no stack runs on {}", self.folder.display()))
    }

    /// All processes but this one and the supervisor.
    pub(crate) fn parts(&self) -> Result<Vec<Part>> {
        let processes = self.state()?.processes;
        Ok(processes.into_iter().filter(|one| one.name != NAME).map(Part::new).collect())
    }

    /// Kills a process; it is gone when this returns.
    pub(crate) async fn kill(&self, process: Identity) -> Result<()> {
        process.kill(self.supervisor)?;
        let gone = async {
            while process.condition() != Condition::Ended {
                tokio::time::sleep(LOOK).await;
            }
        };
        timeout(GONE, gone).await.with_context(|| format!("process {} survived", process.pid))
    }

    pub(crate) fn freeze(&self, process: Identity) -> Result<()> {
        process.freeze(self.supervisor)
    }

    pub(crate) fn thaw(&self, process: Identity) -> Result<()> {
        process.thaw(self.supervisor)
    }

    /// Lets all go on that are frozen: by an earlier process of this program, which was killed.
    pub(crate) fn thaw_all(&self) -> Result<()> {
        for part in self.parts()? {
            if part.condition == Condition::Frozen
                && let Some(process) = part.process
            {
                self.thaw(process)?;
            }
        }
        Ok(())
    }
}

impl Part {
    fn new(running: Running) -> Self {
        let process = running.identity();
        let condition = process.map_or(Condition::Ended, Identity::condition);
        let kind = match running.name.as_str() {
            _ if running.is_service => Kind::Service,
            "redis" => Kind::Redis,
            name if Cluster::ALL.iter().any(|cluster| cluster.name() == name) => Kind::Postgres,
            _ => Kind::Broker,
        };
        Self {
            name: running.name,
            kind,
            port: running.port,
            condition,
            process: process.filter(|_| condition != Condition::Ended),
            restarts: running.restarts,
        }
    }

    /// Whether it takes requests: a service says so, of others a connection is enough.
    pub(crate) async fn is_ready(&self) -> bool {
        match (self.condition, self.kind) {
            (Condition::Running, Kind::Service) => is_ready(self.port).await,
            (Condition::Running, _) => {
                let connect = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
                timeout(CONNECT, connect).await.is_ok_and(|answer| answer.is_ok())
            }
            _ => false,
        }
    }
}
