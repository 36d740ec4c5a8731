//! When a process that ended by itself is started again, and when it is time to say why it ends.

use std::time::{Duration, Instant};

/// After this time a process counts as healthy again.
const STEADY: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Ends in a row that are no accident any more.
const MANY: u32 = 3;

/// The restarts of one process: pauses double while it keeps ending.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    started: Option<Instant>,
    pause: Option<Duration>,
    in_a_row: u32,
    count: u32,
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// How long to wait before the next start.
    pub(crate) pause: Duration,
    /// Ends in a row, each soon after the start before it, when they have become many.
    pub(crate) many: Option<u32>,
}

impl Restarts {
    /// It has ended, or did not start.
    pub(crate) fn ended(&mut self, now: Instant) -> Next {
        let steady = self.started.is_none_or(|started| now - started >= STEADY);
        let (pause, in_a_row) = match self.pause {
            Some(pause) if !steady => ((pause * 2).min(LONGEST_PAUSE), self.in_a_row + 1),
            _ => (FIRST_PAUSE, 1),
        };
        (self.pause, self.in_a_row) = (Some(pause), in_a_row);
        // Once is enough: what keeps it from running is the same each time.
        Next { pause, many: (in_a_row == MANY).then_some(in_a_row) }
    }

    /// A start begins.
    pub(crate) fn starts(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// It has come up.
    pub(crate) fn started(&mut self) {
        self.count += 1;
    }

    /// How often it was started again.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_it_runs_steadily() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        let mut all = Vec::new();
        for _ in 0..8 {
            let next = restarts.ended(now);
            now += next.pause;
            restarts.starts(now);
            restarts.started();
            all.push(next);
        }
        let pauses: Vec<_> = all.iter().map(|next| next.pause).collect();
        assert_eq!(pauses[..3], [1, 2, 4].map(|times| FIRST_PAUSE * times));
        assert_eq!(pauses[7], LONGEST_PAUSE);
        let many: Vec<_> = all.iter().map(|next| next.many).collect();
        assert_eq!(many, [None, None, Some(3), None, None, None, None, None], "said once");
        assert_eq!(restarts.count(), 8);

        now += STEADY;
        assert_eq!(restarts.ended(now), Next { pause: FIRST_PAUSE, many: None });
    }

    #[test]
    fn one_that_does_not_start_is_no_restart() {
        let mut restarts = Restarts::default();
        let now = Instant::now();
        restarts.ended(now);
        restarts.starts(now);
        assert_eq!(restarts.ended(now).pause, FIRST_PAUSE * 2);
        assert_eq!(restarts.count(), 0);
    }
}
