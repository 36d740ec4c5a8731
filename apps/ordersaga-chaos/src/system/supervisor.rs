//! What a process manager does: whatever ends by itself is started again. What the chaos run has
//! killed stays down until it starts it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use ordersaga_devstack::{Member, Service, ServiceProcess, Stack};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often each process is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long something stays down that ended by itself.
const PAUSE: Duration = Duration::from_millis(500);

/// Everything that runs: seven parts and the first instance of each service.
pub(super) struct Processes {
    pub(super) services: BTreeMap<Service, ServiceProcess>,
    pub(super) stack: Stack,
    wards: BTreeMap<String, Ward>,
}

/// What is known of one process.
struct Ward {
    /// Whether it is to be down.
    down: watch::Sender<bool>,
    /// Held by whoever starts or kills it.
    turn: Mutex<()>,
    restarts: AtomicU32,
}

impl Processes {
    /// Those of a running stack, and services that do not run yet.
    pub(super) fn new(stack: Stack, services: BTreeMap<Service, ServiceProcess>) -> Self {
        let parts = stack.all().iter().map(|part| (part.name().to_owned(), Ward::new(false)));
        let others = services.values().map(|service| (service.name().to_owned(), Ward::new(true)));
        let wards = parts.chain(others).collect();
        Self { services, stack, wards }
    }

    /// Watches all of them until the set is dropped.
    pub(super) fn watch(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for name in self.wards.keys() {
            let (all, name) = (Arc::clone(self), name.clone());
            tasks.spawn(async move { all.keep(&name).await });
        }
        tasks
    }

    fn target(&self, name: &str) -> Member<'_> {
        let service = self.services.values().find(|service| service.name() == name);
        service.map_or_else(|| Member::Part(self.stack.part(name)), Member::Service)
    }

    fn ward(&self, name: &str) -> Result<&Ward> {
        self.wards.get(name).with_context(|| format!("nothing is called {name}"))
    }

    async fn keep(&self, name: &str) {
        let (target, ward) = (self.target(name), &self.wards[name]);
        loop {
            sleep(LOOK).await;
            if !*ward.down.borrow() && target.pid().is_none() {
                sleep(PAUSE).await;
                ward.raise(&target).await;
            }
        }
    }

    /// Kills one, which then stays down.
    pub(super) async fn kill(&self, name: &str) -> Result<()> {
        let ward = self.ward(name)?;
        ward.down.send_replace(true);
        let _turn = ward.turn.lock().await;
        self.target(name).kill9().await
    }

    /// Starts one that was killed; from now on it is kept up. A part is ready when this returns.
    pub(super) async fn start(&self, name: &str) -> Result<()> {
        let ward = self.ward(name)?;
        let _turn = ward.turn.lock().await;
        ward.down.send_replace(false);
        let target = self.target(name);
        if target.pid().is_some() {
            return Ok(());
        }
        target.start_again().await
    }

    /// How often each was started again after it had ended by itself.
    pub(super) fn restarts(&self) -> BTreeMap<String, u32> {
        let counts = self.wards.iter().map(|(name, ward)| {
            let count = ward.restarts.load(Ordering::Relaxed);
            (name.clone(), count)
        });
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Ends every pause.
    pub(super) fn resume_all(&self) {
        for name in self.wards.keys() {
            // One that does not run has no pause to end.
            let _ = self.target(name).resume();
        }
    }
}

impl Ward {
    fn new(down: bool) -> Self {
        Self {
            down: watch::Sender::new(down),
            turn: Mutex::new(()),
            restarts: AtomicU32::default(),
        }
    }

    /// Starts it, unless it is killed meanwhile on purpose.
    async fn raise(&self, target: &Member<'_>) {
        let _turn = self.turn.lock().await;
        let mut down = self.down.subscribe();
        if *down.borrow() || target.pid().is_some() {
            return;
        }
        tokio::select! {
            biased;
            _ = down.wait_for(|down| *down) => {}
            // One that cannot start, with a full disk for example, is tried again.
            started = target.start_again() => if started.is_ok() {
                self.restarts.fetch_add(1, Ordering::Relaxed);
            },
        }
    }
}
