//! When each order was begun and when it ended, told by two threads that do not wait for each
//! other: the one that gets the answer to the create, and the one that follows the topics. Either
//! may be first. Where clients wait for the end, the first thread tells both.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Orders whose slots are made together.
const CHUNK: usize = 1 << 16;
/// Chunks there can be: 268 million orders.
const CHUNKS: usize = 1 << 12;
/// Ids below the first that was seen, which another instance of create-order may still hand out.
const BELOW: i64 = 1 << 16;

/// Begin and end of orders by their ids, which are nearly consecutive. A slot is two times of 32
/// bits, begin above end, each a microsecond later than it was, so that zero is none.
pub(crate) struct Orders {
    base: i64,
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Orders {
    /// None yet; `first` is an id around which those of the run begin.
    pub(crate) fn new(first: i64) -> Self {
        let base = first.saturating_sub(BELOW).max(0);
        Self { base, chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }

    /// Place of an order among all, if its id is near the others.
    pub(crate) fn place(&self, order: i64) -> Option<usize> {
        let place = usize::try_from(order.checked_sub(self.base)?).ok()?;
        (place < CHUNK * CHUNKS).then_some(place)
    }

    /// The order of a place.
    pub(crate) fn order(&self, place: usize) -> i64 {
        self.base + i64::try_from(place).unwrap_or(i64::MAX)
    }

    /// The order was acknowledged, and its create had begun then. When it ended, if that is known
    /// already.
    pub(crate) fn begun(&self, place: usize, at: u64) -> Option<u64> {
        let before = self.slot(place).fetch_or(packed(at) << 32, Ordering::AcqRel);
        end_of(before)
    }

    /// The order has ended. When its create had begun, if that is known already. Only to be told
    /// once.
    pub(crate) fn ended(&self, place: usize, at: u64) -> Option<u64> {
        let before = self.slot(place).fetch_or(packed(at), Ordering::AcqRel);
        begin_of(before)
    }

    /// Places of orders that have begun and not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> {
        let chunks = self.chunks.iter().enumerate();
        let made = chunks.filter_map(|(number, chunk)| Some((number, chunk.get()?)));
        made.flat_map(|(number, chunk)| {
            let slots = chunk.iter().enumerate().filter(|(_, slot)| {
                let slot = slot.load(Ordering::Acquire);
                begin_of(slot).is_some() && end_of(slot).is_none()
            });
            slots.map(move |(at, _)| number * CHUNK + at)
        })
    }

    fn slot(&self, place: usize) -> &AtomicU64 {
        let chunk = self.chunks[place / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        &chunk[place % CHUNK]
    }
}

fn packed(at: u64) -> u64 {
    (at + 1).min(u64::from(u32::MAX))
}

fn begin_of(slot: u64) -> Option<u64> {
    (slot >> 32).checked_sub(1)
}

fn end_of(slot: u64) -> Option<u64> {
    (slot & u64::from(u32::MAX)).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_learns_of_the_first() {
        let orders = Orders::new(1_000_000);
        let one = orders.place(1_000_001).unwrap();
        assert_eq!(orders.begun(one, 0), None);
        assert_eq!(orders.open().collect::<Vec<_>>(), [one]);
        assert_eq!(orders.ended(one, 70), Some(0));
        let other = orders.place(1_200_000).unwrap();
        assert_eq!(orders.ended(other, 5), None);
        assert_eq!(orders.begun(other, 3), Some(5));
        assert_eq!(orders.open().count(), 0);
        assert_eq!(orders.order(other), 1_200_000);
    }

    #[test]
    fn ids_far_from_the_first_have_no_place() {
        let orders = Orders::new(1_000_000);
        assert!(orders.place(1_000_000 - BELOW).is_some());
        assert_eq!(orders.place(1_000_000 - BELOW - 1), None);
        assert_eq!(orders.place(i64::MAX), None);
        assert_eq!(Orders::new(3).place(1), Some(1));
    }

    #[test]
    fn two_threads_agree_on_who_was_second() {
        let orders = Orders::new(0);
        let count = 100_000;
        let told = std::thread::scope(|scope| {
            let begun = || (0..count).filter(|place| orders.begun(*place, 1).is_some()).count();
            let ended = || (0..count).filter(|place| orders.ended(*place, 2).is_some()).count();
            let (begun, ended) = (scope.spawn(begun), scope.spawn(ended));
            begun.join().unwrap() + ended.join().unwrap()
        });
        assert_eq!(told, count);
        assert_eq!(orders.open().count(), 0);
    }
}
