//! When creates are due in an open loop: a pure function of their number, so that what the system
//! does to one has no influence on when the next is due (no coordinated omission).

/// Creates at an even rate from 0 on; times are microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    interval_us: f64,
    taken: u64,
}

impl Schedule {
    /// So many a second.
    pub(crate) fn new(rate: f64) -> Self {
        Self { interval_us: 1e6 / rate, taken: 0 }
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> u64 {
        self.due(self.taken)
    }

    /// Takes the next one if it is due by now: when it was.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next_due();
        (due <= now).then(|| {
            self.taken += 1;
            due
        })
    }

    /// Leaves out those that are due before a time and not yet taken.
    pub(crate) fn skip(&mut self, until: u64) {
        self.taken += self.waiting(until);
    }

    /// How many that are due before a time are not yet taken.
    pub(crate) fn waiting(&self, until: u64) -> u64 {
        let mut count = 0;
        // From the estimate on: the rounding of `due` decides.
        let estimate = whole(until as f64 / self.interval_us).saturating_sub(1);
        if estimate > self.taken {
            count = estimate - self.taken;
        }
        while self.due(self.taken + count) < until {
            count += 1;
        }
        count
    }

    fn due(&self, number: u64) -> u64 {
        whole(number as f64 * self.interval_us)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is the purpose")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves a schedule with one client whose answers take so long; the latencies, as they count
    /// from when each was due.
    fn latencies(rate: f64, services: &[u64]) -> Vec<u64> {
        let mut schedule = Schedule::new(rate);
        let mut now = 0;
        let latency = services.iter().map(|service| {
            now = now.max(schedule.next_due());
            let due = schedule.take(now).unwrap();
            now += service;
            now - due
        });
        latency.collect()
    }

    #[test]
    fn one_slow_answer_makes_all_that_were_due_meanwhile_late() {
        // Due each 10 ms; the second takes 35 ms, the others 1.
        let latencies = latencies(100.0, &[1_000, 35_000, 1_000, 1_000, 1_000, 1_000]);
        assert_eq!(latencies, [1_000, 35_000, 26_000, 17_000, 8_000, 1_000]);
    }

    #[test]
    fn nothing_is_taken_before_it_is_due_and_nothing_is_left_out() {
        let mut schedule = Schedule::new(3.0);
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(333_332), None);
        assert_eq!(schedule.next_due(), 333_333);
        let rest: Vec<_> = std::iter::from_fn(|| schedule.take(1_000_000)).collect();
        assert_eq!(rest, [333_333, 666_666, 1_000_000]);
    }

    #[test]
    fn what_is_left_at_the_end_is_counted() {
        let mut schedule = Schedule::new(20_000.0);
        assert_eq!(schedule.waiting(1_000_000), 20_000);
        assert_eq!(schedule.waiting(1), 1);
        assert_eq!(schedule.waiting(0), 0);
        for _ in 0..5 {
            schedule.take(1_000_000);
        }
        assert_eq!(schedule.waiting(1_000_000), 19_995);
        assert_eq!(schedule.waiting(100), 0);
        schedule.skip(500_000);
        assert_eq!(schedule.next_due(), 500_000);
        schedule.skip(100);
        assert_eq!(schedule.waiting(1_000_000), 10_000);
    }
}
