//! Pacing: under load, fewer and larger batches; without load, no waiting.

use std::time::{Duration, Instant};

/// Keeps batches apart in proportion to what they cost. A batch that took `t` is followed by a pause
/// of so many `t`, which has a longest; what arrives meanwhile is the next batch.
///
/// At low rates nothing changes: by the time of the next event the pause is over. At higher ones a
/// batch holds what came while the last one was worked on and in the pause behind it, so that the
/// cost of a batch by itself (statements, a commit, requests to the broker) takes a bounded share of
/// the time. The busier the machine, the longer a batch takes, and the more of them share its cost.
#[derive(Debug)]
pub struct Pace {
    share: f64,
    longest: Duration,
    due: Option<Instant>,
}

impl Pace {
    /// For whoever is first on the way: its batches become those of all who follow, so a batch costs
    /// many times what it costs here.
    pub fn first() -> Self {
        Self { share: 6.0, longest: Duration::from_millis(12), due: None }
    }

    /// For whoever takes what others have gathered.
    pub fn following() -> Self {
        Self { share: 0.5, longest: Duration::from_millis(3), due: None }
    }

    /// A batch that took so long has ended.
    pub fn took(&mut self, work: Duration) {
        self.due = Some(Instant::now() + work.mul_f64(self.share).min(self.longest));
    }

    /// How long the next batch has to wait still.
    pub fn rest(&self) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_as_long_as_the_work_makes_it_and_no_longer_than_the_longest() {
        let mut pace = Pace::first();
        assert_eq!(pace.rest(), Duration::ZERO);
        pace.took(Duration::from_micros(1));
        assert!(pace.rest() <= Duration::from_micros(6));
        pace.took(Duration::from_secs(100));
        assert!(!pace.rest().is_zero() && pace.rest() <= Duration::from_millis(12));
    }
}
