//! Time since the run's begin, and CPU time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the begin of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    begin: Instant,
    /// The begin, as microseconds since 1970.
    wall: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begin: Instant::now(), wall: micros(wall) }
    }

    pub(crate) fn now(self) -> u64 {
        micros(self.begin.elapsed())
    }

    /// A time of this clock as microseconds since 1970.
    pub(crate) fn wall(self, at: u64) -> u64 {
        self.wall + at
    }
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Seconds as microseconds.
pub(crate) fn from_seconds(seconds: f64) -> u64 {
    micros(Duration::from_secs_f64(seconds))
}

/// CPU seconds of the whole process, user and system.
pub(crate) fn process_cpu() -> f64 {
    cpu(ClockId::ProcessCPUTime)
}

/// CPU seconds of the calling thread.
pub(crate) fn thread_cpu() -> f64 {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
