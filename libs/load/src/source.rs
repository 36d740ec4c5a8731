//! Where creates come from: from whichever client is free, or from a schedule; until a time, or until
//! there were enough.

use crate::clock;
use crate::plan::Plan;
use crate::schedule::Schedule;

/// Gives creates out. Times are microseconds.
pub(crate) struct Source {
    schedule: Option<Schedule>,
    /// The measured time begins.
    from: u64,
    /// Creates end by then; `u64::MAX` if their number decides.
    until: u64,
    /// Measured creates that may still be sent.
    left: u64,
    has_ended: bool,
}

impl Source {
    pub(crate) fn new(plan: &Plan) -> Self {
        let from = clock::from_seconds(plan.warmup_seconds);
        let until = match plan.orders {
            Some(_) => u64::MAX,
            None => from + clock::from_seconds(plan.seconds),
        };
        let left = plan.orders.unwrap_or(u64::MAX);
        Self { schedule: plan.rate.map(Schedule::new), from, until, left, has_ended: false }
    }

    /// When the measured time begins.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// When creates ended by time or by a stop.
    pub(crate) fn until(&self) -> Option<u64> {
        (self.until != u64::MAX).then_some(self.until)
    }

    /// Whether there will be no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes a create, if there is one by now: when it begins.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        self.has_ended |= now >= self.until || self.left == 0;
        if self.has_ended {
            return None;
        }
        let begun = match &mut self.schedule {
            None => now,
            Some(schedule) => schedule.take(now)?,
        };
        if begun >= self.from {
            self.left -= 1;
        }
        Some(begun)
    }

    /// A create came to nothing: in a closed loop another takes its place.
    pub(crate) fn give_back(&mut self, begun: u64) {
        if self.schedule.is_none() && begun >= self.from && self.left != u64::MAX {
            self.left += 1;
            // Unless it ended by time or a stop, it may go on.
            self.has_ended &= self.until().is_some();
        }
    }

    /// The measured time begins: what is late from the warmup would stand before all that is
    /// measured, and is left out.
    pub(crate) fn begin_measuring(&mut self) {
        if let Some(schedule) = &mut self.schedule {
            schedule.skip(self.from);
        }
    }

    /// Ends it now.
    pub(crate) fn stop(&mut self, now: u64) {
        self.has_ended = true;
        self.until = self.until.min(now);
    }

    /// When the next create is due, if it is due at a time.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let schedule = self.schedule.as_ref().filter(|_| !self.has_ended);
        schedule.map(Schedule::next_due)
    }

    /// Creates that were due before its end and were not taken.
    pub(crate) fn unsent(&self) -> u64 {
        let schedule = self.schedule.as_ref().zip(self.until());
        schedule.map_or(0, |(schedule, until)| schedule.waiting(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::plan;

    #[test]
    fn of_so_many_orders_those_that_fail_are_made_up_for() {
        let mut source = Source::new(&plan("--orders 2 --warmup 1"));
        assert_eq!(source.take(0), Some(0), "the warmup does not count");
        source.give_back(0);
        assert_eq!(source.take(1_000_000), Some(1_000_000));
        assert_eq!(source.take(1_000_001), Some(1_000_001));
        assert_eq!(source.take(1_000_002), None);
        assert!(source.has_ended());
        source.give_back(1_000_001);
        assert_eq!(source.take(1_000_003), Some(1_000_003));
        source.stop(1_000_004);
        source.give_back(1_000_003);
        assert_eq!(source.take(1_000_005), None);
        assert_eq!(source.until(), Some(1_000_004));
    }

    #[test]
    fn a_time_ends_it_and_what_was_due_then_is_unsent() {
        let mut source = Source::new(&plan("--rate 10 --seconds 1 --warmup 1"));
        assert_eq!(source.take(500_000), Some(0));
        source.begin_measuring();
        assert_eq!(source.take(1_250_000), Some(1_000_000), "nine of the warmup are left out");
        assert_eq!(source.next_due(), Some(1_100_000));
        assert_eq!(source.take(2_000_000), None);
        assert_eq!((source.has_ended(), source.unsent()), (true, 9));
        assert_eq!(source.next_due(), None);
    }
}
