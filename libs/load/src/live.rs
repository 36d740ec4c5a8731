//! How far a run is: what its threads tell each other and those who watch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far the run is, for who watches it and for the follower.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Orders acknowledged.
    pub(crate) acknowledged: AtomicU64,
    /// Acknowledged orders that ended, as far as the clients' thread was second to know, or was told
    /// while it waited.
    pub(crate) ended_here: AtomicU64,
    /// The same of the follower's thread.
    pub(crate) ended_there: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// Records followed.
    pub(crate) records: AtomicU64,
    /// Begin no more orders.
    pub(crate) stop: AtomicBool,
}

impl Live {
    /// Acknowledged orders that ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended_here.load(Ordering::Acquire) + self.ended_there.load(Ordering::Acquire)
    }
}
