//! A run from its begin to its report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::clients::Clients;
use crate::clock::{self, Clock};
use crate::follow::{self, Follower};
use crate::items;
use crate::live::Live;
use crate::orders::Orders;
use crate::outcome::{Outcome, own_cpu};
use crate::plan::Plan;
use crate::report::Report;
use crate::sent::Sent;

/// How long the one order may take that is placed before all others.
const FIRST_ORDER: Duration = Duration::from_secs(30);
/// When all have ended: how long nothing more must come before nothing more is expected.
const QUIET: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(50);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Items are made, the topics' ends are found.
    Preparing,
    /// The load that is not measured.
    Warmup,
    /// The load that is.
    Load,
    /// Nothing is sent any more; orders end.
    Settling,
    /// What is there is checked.
    Checking,
}

/// What is known of a run while it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// How far it is.
    pub phase: Phase,
    /// Since the load began.
    pub elapsed: Duration,
    /// Orders acknowledged so far, warmup included.
    pub acknowledged: u64,
    /// Those of them that have ended; 0 if ends are not learned.
    pub ended: u64,
    /// Requests without an answer yet.
    pub in_flight: u64,
    /// Requests refused.
    pub refused: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// Lets somebody watch a run, and end it before its time.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    live: Arc<Live>,
}

impl Watch {
    /// Begin no more orders; the report is made of those there are.
    pub fn stop(&self) {
        self.live.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_stopped(&self) -> bool {
        self.live.stop.load(Ordering::Relaxed)
    }

    fn progress(&self, phase: Phase, elapsed: Duration) -> Progress {
        Progress {
            phase,
            elapsed,
            acknowledged: self.live.acknowledged.load(Ordering::Relaxed),
            ended: self.live.ended(),
            in_flight: self.live.in_flight.load(Ordering::Relaxed),
            refused: self.live.refused.load(Ordering::Relaxed),
            errors: self.live.errors.load(Ordering::Relaxed),
        }
    }
}

/// Runs a plan; `tell` is called some times a second. Blocks.
pub fn run(plan: &Plan, watch: &Watch, mut tell: impl FnMut(Progress)) -> Result<Report> {
    tell(watch.progress(Phase::Preparing, Duration::ZERO));
    let consumer = if plan.follows() { Some(follow::at_the_end(plan)?) } else { None };
    let items = items::make(plan)?;
    let first = items::first_order(plan, items[0])?;
    match &consumer {
        Some(consumer) => follow::await_end(consumer, first, FIRST_ORDER)?,
        None if plan.wait => items::await_end(plan, first, FIRST_ORDER)?,
        None => {}
    }
    let (orders, live) = (Arc::new(Orders::new(first)), watch.live.clone());
    let clock = Clock::start();
    let follower = consumer
        .map(|consumer| Follower::start(consumer, plan, clock, orders.clone(), live.clone()))
        .transpose()?;
    let mut tell = |phase| tell(watch.progress(phase, Duration::from_micros(clock.now())));
    let sent = send(plan, watch, clock, (&orders, &items), follower.as_ref(), &mut tell)?;
    let told = match follower {
        None => None,
        Some(follower) => {
            settle(plan, &live, &follower, || tell(Phase::Settling));
            Some(follower.finish()?)
        }
    };
    let own_cpu = own_cpu(&sent.cpu, live.records.load(Ordering::Acquire));
    tell(Phase::Checking);
    let outcome = Outcome { plan, clock, orders: &orders, items: &items, sent, told };
    let checks = if plan.no_check { None } else { Some(outcome.check()?) };
    Ok(outcome.report(own_cpu, checks, watch.is_stopped()))
}

/// Lets the clients do their work, on a thread of their own.
fn send(
    plan: &Plan,
    watch: &Watch,
    clock: Clock,
    (orders, items): (&Orders, &[i64]),
    follower: Option<&Follower>,
    mut tell: impl FnMut(Phase),
) -> Result<Sent> {
    let warm = clock::from_seconds(plan.warmup_seconds);
    std::thread::scope(|scope| {
        let clients = Clients::new(plan, clock, &watch.live, orders, items)?;
        let thread = std::thread::Builder::new().name("clients".into());
        let thread = thread.spawn_scoped(scope, move || clients.run())?;
        while !thread.is_finished() {
            if follower.is_some_and(Follower::has_failed) {
                watch.stop();
            }
            tell(if clock.now() < warm { Phase::Warmup } else { Phase::Load });
            pause();
        }
        thread.join().map_err(|_| anyhow!("the clients' thread panicked"))?
    })
}

/// Waits until all orders have ended and nothing more comes, or none has ended for too long.
fn settle(plan: &Plan, live: &Live, follower: &Follower, mut tell: impl FnMut()) {
    let patience = Duration::from_secs_f64(plan.settle_seconds);
    let (mut ended, mut records) = (0, 0);
    let (mut last_end, mut last_record) = (Instant::now(), Instant::now());
    let acknowledged = live.acknowledged.load(Ordering::Acquire);
    while !follower.has_failed() {
        let now = Instant::now();
        if live.ended() > ended {
            (ended, last_end) = (live.ended(), now);
        }
        let all_records = live.records.load(Ordering::Acquire);
        if all_records > records {
            (records, last_record) = (all_records, now);
        }
        let is_quiet = now > last_record + QUIET;
        if ended >= acknowledged && is_quiet || now > last_end + patience {
            return;
        }
        tell();
        pause();
    }
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the condition is the loop's")]
    std::thread::sleep(LOOK);
}
