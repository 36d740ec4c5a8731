//! What pages cost this service, and how much slower their streams get so that any number of them
//! takes no more than a share of a core.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ordersaga_runtime::cpu::Meter;
use serde::Serialize;
use tokio::time::Instant;

/// The share of a core that all streams together may take. Above it they get slower.
const SHARE: f64 = 0.05;
/// Below so much of it, twice as fast would still be within the share.
const EASE: f64 = 0.4;
/// By so much they get slower at the most.
const SLOWEST: u32 = 16;
/// How often it is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// What streams take, and by how much they are slowed down.
pub(crate) struct Budget {
    /// CPU time of reading for streams and of writing to them.
    pub(crate) meter: Meter,
    slowdown: AtomicU32,
}

/// What all streams cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Milliseconds of CPU a second, of this service alone.
    cpu_ms_per_s: f64,
    /// Streams that are open.
    streams: usize,
    /// How many times slower than usual they are.
    slowdown: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { meter: Meter::default(), slowdown: AtomicU32::new(1) }
    }
}

impl Budget {
    /// The pause that takes the place of the usual one.
    pub(crate) fn slowed(&self, pause: Duration) -> Duration {
        pause.saturating_mul(self.slowdown.load(Ordering::Relaxed))
    }

    /// Looks again and again at what is spent, and passes on what it costs.
    pub(crate) async fn keep(&self, streams: impl Fn() -> usize, tell: impl Fn(Cost)) {
        let (mut at, mut spent) = (Instant::now(), self.meter.spent());
        loop {
            tokio::time::sleep(LOOK).await;
            let (now, total) = (Instant::now(), self.meter.spent());
            let share = total.saturating_sub(spent).as_secs_f64() / (now - at).as_secs_f64();
            (at, spent) = (now, total);
            let slowdown = slower(self.slowdown.load(Ordering::Relaxed), share);
            self.slowdown.store(slowdown, Ordering::Relaxed);
            // Tenths are enough, and what has hardly changed is not sent.
            let cpu_ms_per_s = (share * 10_000.0).round() / 10.0;
            tell(Cost { cpu_ms_per_s, streams: streams(), slowdown });
        }
    }
}

/// By how much to be slower from now on, having taken `share` of a core at `slowdown`.
fn slower(slowdown: u32, share: f64) -> u32 {
    if share > SHARE {
        SLOWEST.min(slowdown.saturating_mul(2))
    } else if share < SHARE * EASE {
        1.max(slowdown / 2)
    } else {
        slowdown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn above_the_share_it_gets_slower_and_below_faster_again() {
        assert_eq!(slower(1, 0.01), 1);
        assert_eq!(slower(1, 0.06), 2);
        assert_eq!(slower(8, 0.9), 16);
        assert_eq!(slower(16, 0.9), 16);
        assert_eq!(slower(4, 0.03), 4, "twice as fast would be too fast");
        assert_eq!(slower(4, 0.01), 2);
    }

    proptest! {
        /// Whatever streams would take at their usual pace, up to as much as the slowest pace makes
        /// good for, they come to a pace within the share, and stay there.
        #[test]
        fn any_load_ends_within_the_share(usual in 0.0..0.8_f64, start in 0_u32..=4) {
            let mut slowdown = 1 << start;
            let share = |slowdown: u32| usual / f64::from(slowdown);
            for _ in 0..10 {
                slowdown = slower(slowdown, share(slowdown));
            }
            prop_assert!(share(slowdown) <= SHARE, "{usual} at {slowdown}");
            prop_assert_eq!(slower(slowdown, share(slowdown)), slowdown, "it swings");
        }
    }
}
