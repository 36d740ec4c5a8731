//! A run from its begin to its report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::clients::{Clients, Live, Sent};
use crate::clock::{self, Clock};
use crate::follow::{self, Followed, Follower, Said};
use crate::items;
use crate::orders::Orders;
use crate::plan::{Plan, UNITS};
use crate::report::{Checks, FORM, Orders as OrderCounts, OwnCpu, Report};

/// How long the one order may take that is placed before all others.
const FIRST_ORDER: Duration = Duration::from_secs(30);
/// When all have ended: how long nothing more must come before nothing more is expected.
const QUIET: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(10);
/// Ids of what is wrong that are told.
const EXAMPLES: usize = 10;

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
    /// Those of them that have ended; 0 without following.
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

/// Runs a plan; `tell` is called many times a second. Blocks.
pub fn run(plan: &Plan, watch: &Watch, mut tell: impl FnMut(Progress)) -> Result<Report> {
    tell(watch.progress(Phase::Preparing, Duration::ZERO));
    let consumer = if plan.no_follow { None } else { Some(follow::at_the_end(plan)?) };
    let items = items::make(plan)?;
    let first = items::first_order(plan, items[0])?;
    if let Some(consumer) = &consumer {
        follow::await_end(consumer, first, FIRST_ORDER)?;
    }
    let (orders, live) = (Arc::new(Orders::new(first)), watch.live.clone());
    let clock = Clock::start();
    let begin = Instant::now();
    let follower = consumer.map(|consumer| {
        Follower::start(consumer, plan, clock, orders.clone(), live.clone())
    });
    let follower = follower.transpose()?;
    let sent = send(plan, watch, clock, (&orders, &items), &follower, |phase| {
        tell(watch.progress(phase, begin.elapsed()));
    })?;
    let followed = match follower {
        None => None,
        Some(follower) => {
            settle(plan, &live, &follower, || {
                tell(watch.progress(Phase::Settling, begin.elapsed()));
            });
            Some(follower.finish()?)
        }
    };
    let cpu = own_cpu(&sent, &live, clock);
    tell(watch.progress(Phase::Checking, begin.elapsed()));
    let checks = if plan.no_check {
        None
    } else {
        Some(check(plan, &orders, &items, &sent, followed.as_ref())?)
    };
    let interrupted = live.stop.load(Ordering::Relaxed);
    Ok(report(plan, clock, &sent, followed.as_ref(), cpu, checks, interrupted))
}

/// Lets the clients do their work, on a thread of their own.
fn send(
    plan: &Plan,
    watch: &Watch,
    clock: Clock,
    (orders, items): (&Orders, &[i64]),
    follower: &Option<Follower>,
    mut tell: impl FnMut(Phase),
) -> Result<Sent> {
    let warm = clock::from_seconds(plan.warmup_seconds);
    std::thread::scope(|scope| {
        let clients = Clients::new(plan, clock, &watch.live, orders, items)?;
        let thread = std::thread::Builder::new().name("clients".into());
        let thread = thread.spawn_scoped(scope, move || clients.run())?;
        while !thread.is_finished() {
            if follower.as_ref().is_some_and(Follower::has_failed) {
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

fn own_cpu(sent: &Sent, live: &Live, clock: Clock) -> OwnCpu {
    let used = &sent.cpu;
    let records = live.records.load(Ordering::Acquire) - used.records_before;
    let seconds = clock::process_cpu() - used.process_before;
    let follow_seconds = (seconds - used.thread).max(0.0);
    let each = |seconds: f64, count: u64| 1e6 * seconds / count.max(1) as f64;
    let wall = (sent.last_answer.max(1) - sent.tally.from().min(sent.last_answer)) as f64 / 1e6;
    let _ = clock;
    OwnCpu {
        seconds,
        http_seconds: used.thread,
        follow_seconds,
        requests: used.requests,
        records,
        per_request_us: each(used.thread, used.requests),
        per_record_us: if records == 0 { 0.0 } else { each(follow_seconds, records) },
        http_share: if wall > 0.0 { used.thread / wall } else { 0.0 },
    }
}

fn check(
    plan: &Plan,
    orders: &Orders,
    items: &[i64],
    sent: &Sent,
    followed: Option<&Followed>,
) -> Result<Checks> {
    let mut oversold = items::oversold(plan, items)?;
    let mut checks = Checks::default();
    if let Some(followed) = followed {
        let open: Vec<i64> = orders.open().map(|place| orders.order(place)).collect();
        checks.orders_not_ended = Some(open.len() as u64);
        checks.examples_not_ended = open.into_iter().take(EXAMPLES).collect();
        let undone = sent.cancelled.iter().filter(|place| !is_undone(followed.of(**place)));
        checks.cancels_not_done = Some(undone.count() as u64);
        // Of items that were there before nobody here knows how many units they have.
        if plan.first_item.is_none() {
            oversold.extend(held_beyond(sent, followed, items));
        }
    }
    oversold.sort_unstable();
    oversold.dedup();
    checks.oversold_items = oversold.len() as u64;
    checks.examples_oversold = oversold.into_iter().take(EXAMPLES).collect();
    Ok(checks)
}

/// Whether the cancellation was announced, and what was reserved released.
fn is_undone(said: Said) -> bool {
    let holds = said & follow::RESERVED != 0 && said & follow::RELEASED == 0;
    said & follow::BY_CLIENT != 0 && !holds
}

/// Items of which, by the records, more is held than they were made with.
fn held_beyond(sent: &Sent, followed: &Followed, items: &[i64]) -> Vec<i64> {
    let mut held = vec![0_u32; items.len()];
    for (place, item) in sent.placed.iter().enumerate() {
        let said = followed.of(place);
        let holds = said & follow::RESERVED != 0 && said & follow::RELEASED == 0;
        if holds && let Some(number) = item.checked_sub(1) {
            held[number as usize] += 1;
        }
    }
    let beyond = held.iter().zip(items).filter(|(held, _)| **held > UNITS);
    beyond.map(|(_, item)| *item).collect()
}

#[expect(clippy::too_many_arguments, reason = "all that a run knows comes together here")]
fn report(
    plan: &Plan,
    clock: Clock,
    sent: &Sent,
    followed: Option<&Followed>,
    own_cpu: OwnCpu,
    checks: Option<Checks>,
    interrupted: bool,
) -> Report {
    let mut tally = sent.tally.clone();
    if let Some(followed) = followed {
        tally.add(&followed.tally);
    }
    let from = tally.from();
    let last_sent = sent.last_sent.max(from);
    let ended = if followed.is_some() { tally.last_end } else { sent.last_answer }.max(last_sent);
    let sending_seconds = (last_sent - from) as f64 / 1e6;
    let seconds = (ended - from) as f64 / 1e6;
    let acknowledged = tally.create.summary().count;
    let terminal = tally.end.summary().count;
    let rate = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let done = if followed.is_some() { terminal } else { acknowledged };
    Report {
        form: FORM,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        plan: plan.clone(),
        started_us: clock.wall(from),
        sent_until_us: clock.wall(last_sent),
        ended_us: clock.wall(ended),
        sending_seconds,
        seconds,
        orders_per_second: rate(done, seconds),
        acknowledged_per_second: rate(acknowledged, sending_seconds),
        orders: OrderCounts {
            sent: sent.creates,
            unsent: sent.unsent,
            acknowledged,
            terminal,
            ..followed.map(|followed| first_said(sent, followed)).unwrap_or_default()
        },
        refused: sent.refused.clone(),
        errors: sent.errors.clone(),
        cancels: sent.cancel.summary().count,
        reads: sent.read.summary().count,
        create_ms: tally.create.summary(),
        terminal_ms: tally.end.known(),
        follow_delay_ms: followed.map(|_| f64::from(follow::delay_ms(plan))),
        cancel_ms: sent.cancel.known(),
        read_ms: sent.read.known(),
        timeline: tally.timeline(),
        own_cpu,
        checks,
        interrupted,
    }
}

/// What was first said of the acknowledged orders.
fn first_said(sent: &Sent, followed: &Followed) -> OrderCounts {
    let mut counts = OrderCounts::default();
    for (place, item) in sent.placed.iter().enumerate() {
        if *item == 0 {
            continue;
        }
        let said = followed.of(place);
        let is = |bits: Said| said & bits != 0;
        if is(follow::RESERVED_FIRST) {
            counts.reserved += 1;
        } else if is(follow::BY_STORE) {
            counts.refused_by_store += 1;
        } else if is(follow::BY_CLIENT) {
            counts.cancelled_first += 1;
        } else if is(follow::BY_DEADLINE) {
            counts.expired += 1;
        }
    }
    counts
}
