//! What became of a run: its report, and the checks at its end.

use anyhow::Result;

use crate::clock::{self, Clock};
use crate::follow::{self, Followed};
use crate::items;
use crate::orders::Orders;
use crate::plan::{Plan, UNITS};
use crate::report::{Checks, FORM, Orders as Counts, OwnCpu, Report};
use crate::said::{self, Said};
use crate::sent::{Sent, Used};

/// Ids of what is wrong that are told.
const EXAMPLES: usize = 10;

/// All that is known when everything is over.
pub(crate) struct Outcome<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) clock: Clock,
    pub(crate) orders: &'a Orders,
    pub(crate) items: &'a [i64],
    pub(crate) sent: Sent,
    /// None if the topics were not followed.
    pub(crate) told: Option<Followed>,
}

/// What this program took, of what it had before the measured time and has now; `records` are
/// those followed until now.
pub(crate) fn own_cpu(used: &Used, records: u64) -> OwnCpu {
    let records = records - used.records_before;
    let seconds = clock::process_cpu() - used.process_before;
    let follow_seconds = (seconds - used.thread).max(0.0);
    let each =
        |seconds: f64, count: u64| if count == 0 { 0.0 } else { 1e6 * seconds / count as f64 };
    OwnCpu {
        seconds,
        http_seconds: used.thread,
        follow_seconds,
        requests: used.requests,
        records,
        per_request_us: each(used.thread, used.requests),
        per_record_us: each(follow_seconds, records),
        http_share: used.thread / used.wall.max(1e-6),
    }
}

impl Outcome<'_> {
    /// What must be so at the end. Asks the store.
    pub(crate) fn check(&self) -> Result<Checks> {
        let mut oversold = items::oversold(self.plan, self.items)?;
        let mut checks = Checks::default();
        if self.plan.learns_ends() {
            let open: Vec<i64> = self.orders.open().map(|place| self.orders.order(place)).collect();
            checks.orders_not_ended = Some(open.len() as u64);
            checks.examples_not_ended = open.into_iter().take(EXAMPLES).collect();
        }
        if let Some(told) = &self.told {
            let cancelled = self.sent.cancelled.iter();
            let undone = cancelled.filter(|place| !is_undone(told.said.of(**place)));
            checks.cancels_not_done = Some(undone.count() as u64);
            // How many units items have that were there before, only the store knows.
            if self.plan.first_item.is_none() {
                oversold.extend(self.held_beyond(told));
            }
        }
        oversold.sort_unstable();
        oversold.dedup();
        checks.oversold_items = oversold.len() as u64;
        checks.examples_oversold = oversold.into_iter().take(EXAMPLES).collect();
        Ok(checks)
    }

    /// Items of which, by the records, more is held than they were made with.
    fn held_beyond(&self, told: &Followed) -> Vec<i64> {
        let mut held = vec![0_u32; self.items.len()];
        for (place, item) in self.sent.acknowledged() {
            if is_held(told.said.of(place)) {
                held[item] += 1;
            }
        }
        let beyond = held.iter().zip(self.items).filter(|(held, _)| **held > UNITS);
        beyond.map(|(_, item)| *item).collect()
    }

    pub(crate) fn report(
        self,
        own_cpu: OwnCpu,
        checks: Option<Checks>,
        interrupted: bool,
    ) -> Report {
        let mut counts = self.first_said();
        let Self { plan, clock, sent, told, .. } = self;
        let follow_delay_ms = told.as_ref().map(|_| f64::from(follow::delay_ms(plan)));
        let mut tally = sent.tally;
        if let Some(told) = &told {
            tally.add(&told.tally);
        }
        let create = tally.create.summary();
        (counts.sent, counts.unsent) = (sent.creates, sent.unsent);
        (counts.acknowledged, counts.terminal) = (create.count, tally.end.summary().count);
        let (done, end) = if plan.learns_ends() {
            (counts.terminal, tally.last_end)
        } else {
            (counts.acknowledged, sent.latest_answer)
        };
        let from = tally.from();
        let sent_until = sent.until.max(from);
        let end = end.max(sent_until);
        let seconds = |until: u64| (until - from) as f64 / 1e6;
        let rate = |count: u64, until: u64| count as f64 / seconds(until).max(1e-6);
        Report {
            form: FORM,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: plan.clone(),
            started_us: clock.wall(from),
            sent_until_us: clock.wall(sent_until),
            ended_us: clock.wall(end),
            sending_seconds: seconds(sent_until),
            seconds: seconds(end),
            orders_per_second: rate(done, end),
            acknowledged_per_second: rate(counts.acknowledged, sent_until),
            orders: counts,
            refused: sent.refused,
            errors: sent.errors,
            cancels: sent.cancel.summary().count,
            reads: sent.read.summary().count,
            create_ms: create,
            terminal_ms: tally.end.known(),
            waits: plan.wait.then_some(sent.waits),
            follow_delay_ms,
            cancel_ms: sent.cancel.known(),
            read_ms: sent.read.known(),
            timeline: tally.timeline(),
            own_cpu,
            checks,
            interrupted,
        }
    }

    /// What was first said of the acknowledged orders.
    fn first_said(&self) -> Counts {
        let mut counts = Counts::default();
        let words = self.told.as_ref().map_or(&self.sent.said, |told| &told.said);
        for (place, _) in self.sent.acknowledged() {
            let heard = words.of(place);
            let is = |bits: Said| heard & bits != 0;
            if is(said::RESERVED_FIRST) {
                counts.reserved += 1;
            } else if is(said::BY_STORE) {
                counts.refused_by_store += 1;
            } else if is(said::BY_CLIENT) {
                counts.cancelled_first += 1;
            } else if is(said::BY_DEADLINE) {
                counts.expired += 1;
            }
        }
        counts
    }
}

/// Whether stock is reserved and was not released.
fn is_held(heard: Said) -> bool {
    heard & said::RESERVED != 0 && heard & said::RELEASED == 0
}

/// Whether an order that was cancelled is said to be over, by whomever, and holds no stock.
fn is_undone(heard: Said) -> bool {
    heard & said::RESETS != 0 && !is_held(heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::said::{BY_CLIENT, BY_STORE, RELEASED, RESERVED};

    #[test]
    fn a_cancelled_order_is_undone_when_it_is_said_to_be_over_and_holds_nothing() {
        assert!(is_undone(BY_CLIENT), "the cancellation overtook the order");
        assert!(is_undone(RESERVED | BY_CLIENT | RELEASED));
        assert!(!is_undone(RESERVED | BY_CLIENT));
        assert!(!is_undone(RESERVED) && !is_undone(0));
        // Cancelled when the store had refused: then nothing more is said.
        assert!(is_undone(BY_STORE));
    }
}
