//! When a service that ended by itself is started again.

use std::time::{Duration, Instant};

/// After this time a service counts as healthy again.
const STEADY: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The restarts of one service: pauses double while it keeps ending.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    started: Option<Instant>,
    pause: Option<Duration>,
    due: Option<Instant>,
}

impl Restarts {
    /// It was seen to have ended; the pause before its next start, when that is news.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<Duration> {
        if self.due.is_some() {
            return None;
        }
        let steady = self.started.is_none_or(|started| now - started >= STEADY);
        let pause = match self.pause {
            Some(pause) if !steady => (pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.pause = Some(pause);
        self.due = Some(now + pause);
        Some(pause)
    }

    /// Whether the pause is over.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// It was started again.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_it_runs_steadily() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = restarts.ended(now).unwrap_or_default();
            assert_eq!(restarts.ended(now), None, "said once");
            assert!(!restarts.is_due(now));
            now += pause;
            assert!(restarts.is_due(now));
            restarts.started(now);
            pauses.push(pause);
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert_eq!(pauses[1], FIRST_PAUSE * 2);
        assert_eq!(pauses[7], LONGEST_PAUSE);
        now += STEADY;
        assert_eq!(restarts.ended(now), Some(FIRST_PAUSE));
    }
}
