//! How much CPU time work takes: that of its thread while it runs, and not while it waits.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A sum of CPU time.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// What was spent so far.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Does the work and adds what it takes.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = of_thread();
        let done = work();
        let nanoseconds = of_thread().saturating_sub(before).as_nanos();
        self.0.fetch_add(u64::try_from(nanoseconds).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    /// Awaits a future and adds what it takes; tasks that it spawns are not counted.
    pub async fn of<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| -> Poll<F::Output> {
            self.measure(|| future.as_mut().poll(context))
        })
        .await
    }
}

/// The CPU time of the thread that asks.
fn of_thread() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_counts_and_waiting_does_not() {
        let meter = Meter::default();
        let work = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let before = of_thread();
            while of_thread().saturating_sub(before) < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            7
        };
        assert_eq!(meter.of(work).await, 7);
        let spent = meter.spent();
        assert!(spent >= Duration::from_millis(20), "{spent:?}");
        assert!(spent < Duration::from_millis(300), "{spent:?}");
    }
}
