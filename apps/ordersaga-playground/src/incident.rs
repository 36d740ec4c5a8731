//! What is broken, what works meanwhile, and when all is well again. Pure: it is fed with what the
//! probes found.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After this time without a fault it is said that the stack did not heal. An order may wait for its
/// deadline, a minute, and be cancelled after it.
pub(crate) const GIVE_UP: Duration = Duration::from_mins(3);
/// Undecided orders that are asked for in each round while something is broken.
const ASKED: usize = 4;

/// How a part was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    Freeze,
}

/// A part that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) part: String,
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    /// When it was over. A killed part is started again by the stack: that is part of healing.
    pub(crate) ended: Option<Instant>,
}

/// What one probe has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There was nothing to try it with.
    #[default]
    Untried,
    /// It was done, within this time.
    Works(Duration),
    /// It is accepted, and not done yet.
    Waits,
    /// It failed, and why.
    Fails(String),
}

/// What the probes of one round have found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) create: Answer,
    pub(crate) reserve: Answer,
    pub(crate) status: Answer,
    pub(crate) items: Answer,
    pub(crate) cancel: Answer,
}

impl Answers {
    fn all_work(&self) -> bool {
        let works = |answer: &Answer| matches!(answer, Answer::Works(_));
        [&self.create, &self.reserve, &self.status, &self.items].into_iter().all(works)
            // At first there is no order yet that could be cancelled.
            && (works(&self.cancel) || self.cancel == Answer::Untried)
    }
}

/// What monitoring says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Unknown,
    Undecided,
    Shipping,
    Cancelled { by_client: bool },
}

/// Whether an order's cancellation was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// Without an answer so far: it may have happened.
    Sent,
    Acknowledged,
}

#[derive(Debug)]
struct Order {
    cancel: Cancel,
    seen: Option<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    Right,
    Wrong,
}

impl Order {
    /// Whether it has ended as it should: shipped, or cancelled by whoever may have done that.
    fn end(&self) -> End {
        match (self.seen, self.cancel) {
            (Some(Seen::Cancelled { by_client: true }), Cancel::No) => End::Wrong,
            (Some(Seen::Shipping), Cancel::No) | (Some(Seen::Cancelled { .. }), _) => End::Right,
            _ => End::Open,
        }
    }
}

/// What the next round is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The idempotency key to place an order under.
    pub(crate) place: Option<String>,
    /// The order to cancel.
    pub(crate) cancel: Option<i64>,
    /// Orders to ask for.
    pub(crate) ask: Vec<i64>,
}

/// What a round has brought.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// The order that was acknowledged.
    pub(crate) placed: Option<i64>,
    /// Whether the cancellation was acknowledged.
    pub(crate) is_cancelled: bool,
    pub(crate) seen: Vec<(i64, Seen)>,
    pub(crate) answers: Answers,
    /// Whether every process runs and says that it is ready.
    pub(crate) all_ready: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Something is frozen, or not up again.
    Broken,
    /// Everything is up; not everything has been seen to work, or orders are open.
    Healing,
    /// All worked again, and all orders had ended, this long after the last fault.
    Healed(Duration),
    /// It was given up.
    NotHealed,
}

/// From the first fault until everything works again.
#[derive(Debug)]
pub(crate) struct Incident {
    pub(crate) faults: Vec<Fault>,
    /// What the last round that tried everything has found.
    pub(crate) answers: Answers,
    phase: Phase,
    works_at: Option<Instant>,
    orders: BTreeMap<i64, Order>,
    /// Keys begin with this, and end with the number of the orders acknowledged so far: a key is
    /// used again until it is answered.
    run: String,
}

impl Incident {
    /// One that begins with this fault. `run` is to be another each time.
    pub(crate) fn new(run: String, fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            answers: Answers::default(),
            phase: Phase::Broken,
            works_at: None,
            orders: BTreeMap::new(),
            run,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Healed(_) | Phase::NotHealed)
    }

    /// Whether only the ends of orders are waited for.
    pub(crate) fn is_settling(&self) -> bool {
        self.works_at.is_some()
    }

    /// A further fault.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.phase = Phase::Broken;
        self.works_at = None;
    }

    /// What was done to a part is over.
    pub(crate) fn end_faults_of(&mut self, part: &str, now: Instant) {
        for fault in self.faults.iter_mut().filter(|fault| fault.part == part) {
            fault.ended.get_or_insert(now);
        }
    }

    /// When the last fault ended; none while one lasts.
    fn since(&self) -> Option<Instant> {
        let ends: Option<Vec<_>> = self.faults.iter().map(|fault| fault.ended).collect();
        ends?.into_iter().max()
    }

    /// Orders that were acknowledged.
    pub(crate) fn placed(&self) -> usize {
        self.orders.len()
    }

    /// Orders that have not ended yet.
    pub(crate) fn open(&self) -> usize {
        self.count(&End::Open)
    }

    /// Orders that ended otherwise than they may, and when all is over those that did not end.
    pub(crate) fn lost(&self) -> usize {
        let open = if self.phase == Phase::NotHealed { self.open() } else { 0 };
        open + self.count(&End::Wrong)
    }

    fn count(&self, end: &End) -> usize {
        self.orders.values().filter(|order| order.end() == *end).count()
    }

    /// The key the next order is placed under.
    pub(crate) fn key(&self) -> String {
        format!("{}-{}", self.run, self.orders.len())
    }

    /// What the next round is to do; none when all is over.
    pub(crate) fn plan(&self) -> Option<Plan> {
        if self.is_over() {
            return None;
        }
        let open = self.orders.iter().filter(|(_, order)| order.end() == End::Open);
        let mut ask: Vec<i64> = open.map(|(id, _)| *id).collect();
        if self.is_settling() {
            return Some(Plan { place: None, cancel: None, ask });
        }
        ask.truncate(ASKED);
        // Of an order that has ended the status is to be told as well.
        let newest = self.orders.last_key_value().map(|(id, _)| *id);
        ask.extend(newest.filter(|id| !ask.contains(id)));
        Some(Plan { place: Some(self.key()), cancel: self.next_cancel(), ask })
    }

    /// The cancellation that was not answered; else every second order is cancelled, one a round.
    fn next_cancel(&self) -> Option<i64> {
        let mut sent = self.orders.iter().filter(|(_, order)| order.cancel == Cancel::Sent);
        let unanswered = sent.next().map(|(id, _)| *id);
        unanswered.or_else(|| {
            let newest = self.orders.last_key_value()?;
            let is_its_turn = self.orders.len().is_multiple_of(2);
            (is_its_turn && newest.1.cancel == Cancel::No).then_some(*newest.0)
        })
    }

    /// Takes in what a round of this plan has brought.
    pub(crate) fn apply(&mut self, plan: &Plan, round: Round) {
        if let Some(order) = plan.cancel.and_then(|id| self.orders.get_mut(&id)) {
            order.cancel = if round.is_cancelled { Cancel::Acknowledged } else { Cancel::Sent };
        }
        if let Some(id) = round.placed {
            self.orders.entry(id).or_insert(Order { cancel: Cancel::No, seen: None });
        }
        for (id, seen) in round.seen {
            if let Some(order) = self.orders.get_mut(&id) {
                order.seen = Some(seen);
            }
        }
        if !self.is_settling() {
            // Not every round cancels; one that failed is tried again in the next.
            let cancelled = std::mem::take(&mut self.answers.cancel);
            self.answers = round.answers;
            if self.answers.cancel == Answer::Untried {
                self.answers.cancel = cancelled;
            }
        }
        self.advance(round.began, round.ended, round.all_ready);
    }

    fn advance(&mut self, began: Instant, ended: Instant, all_ready: bool) {
        let since = self.since();
        self.phase = if since.is_some() && all_ready { Phase::Healing } else { Phase::Broken };
        let Some(since) = since else { return };
        // What a round found that began before the end of the fault says nothing of now.
        if all_ready && began >= since && self.answers.all_work() {
            self.works_at.get_or_insert(ended);
        }
        if self.is_settling() && self.open() == 0 {
            self.phase = Phase::Healed(ended - since);
        } else if ended.saturating_duration_since(since) >= GIVE_UP {
            self.phase = Phase::NotHealed;
        }
    }
}

#[cfg(test)]
mod tests;
