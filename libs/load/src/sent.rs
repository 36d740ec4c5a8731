//! What the clients did and saw, as their thread hands it over at the end.

use std::collections::BTreeMap;

use crate::clock;
use crate::report::{Errors, Waits};
use crate::said::Words;
use crate::tally::{Latencies, Tally};

/// What the clients did and saw.
pub(crate) struct Sent {
    pub(crate) tally: Tally,
    pub(crate) cancel: Latencies,
    pub(crate) read: Latencies,
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) errors: Errors,
    /// What became of the requests that waited for an order's end.
    pub(crate) waits: Waits,
    /// What waiting clients were told.
    pub(crate) said: Words,
    /// Measured creates sent.
    pub(crate) creates: u64,
    /// Creates that were due and never sent.
    pub(crate) unsent: u64,
    /// When creates were no more sent, and when the last measured one was answered.
    pub(crate) until: u64,
    pub(crate) latest_answer: u64,
    /// By place: one more than the number of the item; 0 if the order was not acknowledged.
    pub(crate) placed: Vec<u32>,
    /// Places of orders whose cancellation was acknowledged.
    pub(crate) cancelled: Vec<usize>,
    pub(crate) cpu: Used,
}

impl Sent {
    /// Nothing yet; what is measured begins then.
    pub(crate) fn new(from: u64) -> Self {
        Self {
            tally: Tally::new(from),
            cancel: Latencies::new(),
            read: Latencies::new(),
            refused: BTreeMap::new(),
            errors: Errors::default(),
            waits: Waits::default(),
            said: Words::default(),
            creates: 0,
            unsent: 0,
            until: 0,
            latest_answer: 0,
            placed: Vec::new(),
            cancelled: Vec::new(),
            cpu: Used::default(),
        }
    }

    /// The acknowledged orders: each one's place and the number of its item.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (usize, usize)> {
        let places = self.placed.iter().enumerate();
        places.filter_map(|(place, item)| Some((place, item.checked_sub(1)? as usize)))
    }
}

/// CPU seconds and what they were used for: as they were when the measured time began, and what the
/// clients' thread took from then on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) process_before: f64,
    pub(crate) records_before: u64,
    thread_before: f64,
    began: u64,
    /// Of the clients' thread.
    pub(crate) thread: f64,
    /// Seconds that passed.
    pub(crate) wall: f64,
    /// Requests answered.
    pub(crate) requests: u64,
}

impl Used {
    /// The measured time begins, with so many records followed. To be called by the clients'
    /// thread, as [`Used::end`].
    pub(crate) fn begin(now: u64, records: u64) -> Self {
        Self {
            process_before: clock::process_cpu(),
            records_before: records,
            thread_before: clock::thread_cpu(),
            began: now,
            ..Self::default()
        }
    }

    /// The clients have done their work.
    pub(crate) fn end(&mut self, now: u64) {
        self.thread = clock::thread_cpu() - self.thread_before;
        self.wall = (now - self.began) as f64 / 1e6;
    }
}
