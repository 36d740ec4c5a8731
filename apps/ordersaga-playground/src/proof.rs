//! Checks the invariants of the running stack: one check at a time, over the newest orders, within a
//! bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use ordersaga_checker::{Evidence, History, Log, Onlooker, Verdict, Window};
use ordersaga_devstack::Service;
use ordersaga_devstack::state::State;
use ordersaga_runtime::clock;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::watch::Watch;

const WINDOW: Window = Window {
    orders: 10_000,
    settled: Duration::from_secs(3),
    // An order has a minute until its deadline.
    overdue: Duration::from_mins(2),
    within: Duration::from_secs(20),
};
/// How long a check may take.
const LONGEST: Duration = Duration::from_mins(1);

/// What a check has found.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) at: DateTime<Utc>,
    pub(crate) took: Duration,
    /// What was found, or why nothing was.
    pub(crate) found: Result<Found, String>,
}

/// What was found, and of what.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) orders: usize,
    /// The first and the last order that was looked at.
    pub(crate) ids: Option<(i64, i64)>,
    pub(crate) verdicts: Vec<Verdict>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    pub(crate) is_running: bool,
    pub(crate) last: Option<Proof>,
}

/// Checks on demand.
pub(crate) struct Checker {
    watch: Arc<Watch>,
    checked: Mutex<Checked>,
}

impl Checker {
    pub(crate) fn new(watch: Arc<Watch>) -> Arc<Self> {
        Arc::new(Self { watch, checked: Mutex::default() })
    }

    pub(crate) fn checked(&self) -> Checked {
        self.checked.lock().clone()
    }

    /// Begins a check, unless one is running.
    pub(crate) fn begin(self: &Arc<Self>) {
        if std::mem::replace(&mut self.checked.lock().is_running, true) {
            return;
        }
        let checker = self.clone();
        tokio::spawn(async move {
            let (at, begin) = (clock::now(), Instant::now());
            // On a thread of its own, as it blocks at times; should it panic, the next one can begin.
            let (watch, runtime) = (checker.watch.clone(), Handle::current());
            let check = tokio::task::spawn_blocking(move || {
                runtime.block_on(async { timeout(LONGEST, check(&watch)).await })
            });
            let found = match check.await {
                Ok(Ok(found)) => found.map_err(|error| format!("{error:#}")),
                Ok(Err(_)) => Err(format!("it took longer than {} s", LONGEST.as_secs())),
                Err(error) => Err(error.to_string()),
            };
            let proof = Proof { at, took: begin.elapsed(), found };
            *checker.checked.lock() = Checked { is_running: false, last: Some(proof) };
        });
    }
}

async fn check(watch: &Watch) -> Result<Found> {
    let state = watch.stack.state()?;
    let onlooker = onlooker(&state)?;
    let found = look(&onlooker, watch.history()).await;
    onlooker.close().await;
    found
}

async fn look(onlooker: &Onlooker, history: History) -> Result<Found> {
    let evidence = Evidence::newest(onlooker, history, WINDOW).await?;
    let violations = evidence.violations(onlooker).await?;
    let ids = evidence.snapshot.orders.keys();
    let (orders, first, last) = (ids.len(), ids.clone().next(), ids.clone().next_back());
    let ids = first.copied().zip(last.copied());
    Ok(Found { orders, ids, verdicts: evidence.verdicts(&violations) })
}

fn onlooker(state: &State) -> Result<Onlooker> {
    let parts = &state.parts;
    let log = Log { broker: parts.broker_address(), prefix: String::new() };
    let mut onlooker = Onlooker::new(&parts.databases(), log, parts.redis_url())?;
    for service in Service::ALL {
        let found = state.processes.iter().find(|process| process.name == service.name());
        let port = found.with_context(|| format!("the stack has no {service}"))?.port;
        onlooker.urls.insert(service, format!("http://127.0.0.1:{port}"));
    }
    Ok(onlooker)
}
