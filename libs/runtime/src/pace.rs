//! Pacing: under load, fewer and larger batches; without load, no waiting.

use std::time::{Duration, Instant};

/// The share of an event on its way from service to service: pausing begins at 2,000 a second.
pub const SHARE: Duration = Duration::from_micros(500);
/// The longest pause of whoever stands in an order's way to its end.
pub const LONGEST: Duration = Duration::from_millis(40);
/// The longest pause of whoever only takes note: a status may be this old, under load.
pub const LONGEST_ASIDE: Duration = Duration::from_millis(100);

/// Keeps batches apart in proportion to their size. A batch of `n` events is followed by a pause of
/// `n` shares, which has a longest; what arrives meanwhile is the next batch.
///
/// Below one event per share nothing changes: by the time of the next event the pause is over. At
/// higher rates each batch is larger than the last until the pause is at its longest. So what a
/// batch costs by itself (statements, a commit, requests to the broker) is bounded per second,
/// where a fixed pause would also hold up events that come alone.
#[derive(Debug)]
pub struct Pace {
    share: Duration,
    longest: Duration,
    due: Option<Instant>,
    /// Events of the last batch, or what is left of a larger one before it: events come in bursts,
    /// and the first part of a burst is small.
    size: usize,
}

impl Pace {
    /// A pause of `share` for each event of a batch, at most `longest` for the batch.
    pub fn new(share: Duration, longest: Duration) -> Self {
        Self { share, longest, due: None, size: 0 }
    }

    /// A batch of this many events begins now.
    pub fn begin(&mut self, events: usize) {
        self.size = events.max(self.size / 2);
        let pause = self.share.saturating_mul(u32::try_from(self.size).unwrap_or(u32::MAX));
        self.due = Some(Instant::now() + pause.min(self.longest));
    }

    /// How long the next batch has to wait still.
    pub fn rest(&self) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Duration = Duration::from_secs(1);

    fn near(pause: Duration, seconds: u64) -> bool {
        let wanted = Duration::from_secs(seconds);
        pause <= wanted && pause + Duration::from_millis(500) > wanted
    }

    #[test]
    fn a_pause_grows_with_the_batch_up_to_the_longest() {
        let mut pace = Pace::new(SHARE, Duration::from_secs(100));
        assert_eq!(pace.rest(), Duration::ZERO);
        pace.begin(3);
        assert!(near(pace.rest(), 3), "{pace:?}");
        pace.begin(1_000_000);
        assert!(near(pace.rest(), 100), "{pace:?}");
    }

    #[test]
    fn the_small_first_part_of_a_burst_does_not_end_the_pausing() {
        let mut pace = Pace::new(SHARE, Duration::from_secs(100));
        pace.begin(64);
        for seconds in [32, 16, 8, 4, 2, 1, 1] {
            pace.begin(1);
            assert!(near(pace.rest(), seconds), "{seconds}: {pace:?}");
        }
    }
}
