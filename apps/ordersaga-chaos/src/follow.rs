//! Follows the topics while the run goes on: when orders end, and a sample of the records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use ordersaga_checker::{Log, Record};
use parking_lot::Mutex;

/// Records kept to be written again.
const SAMPLE: usize = 2_000;

/// What was seen so far.
pub(crate) struct Follower {
    pub(crate) sample: Arc<Mutex<Vec<Record>>>,
    ended: Arc<Mutex<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Follower {
    pub(crate) fn start(log: Log, begin: Instant, seed: u64) -> Self {
        let (sample, ended) = (Arc::<Mutex<Vec<Record>>>::default(), Arc::default());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (sample, ended, stop) = (sample.clone(), Arc::clone(&ended), stop.clone());
            move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let (mut known, mut count) = (BTreeSet::new(), 0);
                log.follow(|record| {
                    if let Some(record) = record {
                        note_end(&record, &mut known, &ended, begin);
                        count += 1;
                        keep(&mut sample.lock(), record, count, &mut rng);
                    }
                    !stop.load(Ordering::Acquire)
                })
            }
        });
        Self { sample, ended, stop, thread: Some(thread) }
    }

    /// When orders got their answer: reserved, or reset.
    pub(crate) fn ended(&self) -> Vec<Duration> {
        self.ended.lock().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn note_end(
    record: &Record,
    known: &mut BTreeSet<Vec<u8>>,
    ended: &Mutex<Vec<Duration>>,
    at: Instant,
) {
    if record.topic != "incoming" && known.insert(record.key.clone()) {
        ended.lock().push(at.elapsed());
    }
}

/// Reservoir sampling: each record so far is kept with the same chance.
fn keep(sample: &mut Vec<Record>, record: Record, count: usize, rng: &mut fastrand::Rng) {
    if sample.len() < SAMPLE {
        sample.push(record);
    } else {
        let place = rng.usize(..count);
        if place < SAMPLE {
            sample[place] = record;
        }
    }
}
