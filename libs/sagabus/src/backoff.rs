//! Waiting between retries.

use std::time::Duration;

/// Capped exponential backoff with full jitter: the n-th delay is uniform between zero and
/// `initial · 2ⁿ`, at most `cap`, so that many clients of a dependency that comes back do not
/// all return in the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// A backoff whose first delay is at most `initial` and whose longest is `cap`.
    pub fn new(initial: Duration, cap: Duration) -> Self {
        let initial = initial.min(cap);
        Self { initial, cap, ceiling: initial }
    }

    /// The next delay.
    #[expect(clippy::should_implement_trait, reason = "a backoff never ends, it is no iterator")]
    pub fn next(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        delay
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.initial;
    }

    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(2);

    #[test]
    fn ceilings_double_up_to_the_cap_and_start_anew() {
        let mut backoff = Backoff::new(INITIAL, CAP);
        for round in 0..2 {
            for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
                assert_eq!(backoff.ceiling.as_millis(), expected, "round {round}");
                assert!(backoff.next().as_millis() <= expected);
            }
            backoff.reset();
        }
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let mut low = 0;
        for _ in 0..1000 {
            let delay = Backoff::new(INITIAL, CAP).next();
            assert!(delay <= INITIAL);
            low += u32::from(delay < INITIAL / 2);
        }
        assert!((350..650).contains(&low), "{low} of 1000 delays in the lower half");
    }

    #[test]
    fn an_initial_delay_above_the_cap_is_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(10), CAP);
        assert!(backoff.next() <= CAP);
        assert_eq!(backoff.ceiling, CAP);
    }

    #[test]
    fn endless_retries_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::MAX);
        for _ in 0..200 {
            backoff.next();
        }
        assert_eq!(backoff.ceiling, Duration::MAX);
    }

    #[tokio::test]
    async fn waiting_takes_no_longer_than_the_ceiling_allows() {
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(2));
        let waits = async {
            for _ in 0..5 {
                backoff.wait().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap();
    }
}
