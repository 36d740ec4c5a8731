//! Records that wait for their batch.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::message::BorrowedMessage;

use super::dead_letter::DeadLetter;
use super::{ASIDE, BATCH, Place, Record};
use crate::raw_record::RawRecord;

/// What an ordinary record takes, about.
const RECORD_BYTES: usize = 1_024;

/// Records on their way, in order.
pub(super) struct Queue<'c, M> {
    items: VecDeque<Item<'c, M>>,
    weight: usize,
    /// When the first of them has waited long enough for others; none while somebody waits for one.
    due: Option<Instant>,
}

/// A record in a queue.
pub(super) struct Item<'c, M> {
    pub(super) slot: Slot,
    pub(super) content: Content<'c, M>,
    /// 1 for an ordinary record, more for a large one: a flood of those must not fill the memory.
    pub(super) weight: usize,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) place: Place,
    /// The partition's next offset before this record and after it. They follow on from record to
    /// record, so that a batch which does not continue what was applied is fenced.
    pub(super) from: i64,
    pub(super) offset: i64,
}

pub(super) enum Content<'c, M> {
    /// A message, and the record as it came: it may become a dead letter yet.
    Message(Record<M>, Raw<'c>),
    Dead(Box<DeadLetter>),
}

/// A record as it came. What librdkafka gave keeps the whole of the broker's answer in memory.
pub(super) enum Raw<'c> {
    Borrowed(BorrowedMessage<'c>),
    Owned(RawRecord),
}

impl Raw<'_> {
    pub(super) fn into_owned(self) -> RawRecord {
        match self {
            Self::Borrowed(message) => RawRecord::of(&message),
            Self::Owned(record) => record,
        }
    }
}

impl<'c, M> Item<'c, M> {
    /// A message whose record has so many bytes.
    pub(super) fn message(slot: Slot, record: Record<M>, raw: Raw<'c>, bytes: usize) -> Self {
        Self { slot, content: Content::Message(record, raw), weight: 1 + bytes / RECORD_BYTES }
    }

    /// The same with a copy of its record.
    pub(super) fn detached(mut self) -> Self {
        if let Content::Message(record, raw) = self.content {
            self.content = Content::Message(record, Raw::Owned(raw.into_owned()));
        }
        self
    }

    pub(super) fn dead(slot: Slot, letter: DeadLetter) -> Self {
        let weight = 1 + letter.bytes / RECORD_BYTES;
        Self { slot, content: Content::Dead(Box::new(letter)), weight }
    }
}

impl<M> Default for Queue<'_, M> {
    fn default() -> Self {
        Self { items: VecDeque::new(), weight: 0, due: None }
    }
}

impl<'c, M> Queue<'c, M> {
    pub(super) fn push(&mut self, item: Item<'c, M>, is_urgent: bool) {
        if is_urgent {
            self.due = None;
        } else if self.items.is_empty() {
            self.due = Some(Instant::now() + ASIDE);
        }
        self.weight += item.weight;
        self.items.push_back(item);
    }

    /// Copies the records, for a longer time.
    pub(super) fn detach(&mut self) {
        let items = std::mem::take(&mut self.items);
        self.items = items.into_iter().map(Item::detached).collect();
    }

    /// How long they wait for others still; `None` if there are none.
    pub(super) fn rest(&self) -> Option<Duration> {
        let due = if self.weight < BATCH { self.due } else { None };
        let rest = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
        (!self.items.is_empty()).then_some(rest)
    }

    /// What it holds, counted in ordinary records.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// The first items of about this weight: one at least, if there is any.
    pub(super) fn take(&mut self, weight: usize) -> Vec<Item<'c, M>> {
        let mut taken = 0;
        let count = self.items.iter().take_while(|item| {
            let begun = taken < weight;
            taken += item.weight;
            begun
        });
        let items: Vec<_> = self.items.drain(..count.count()).collect();
        self.weight -= items.iter().map(|item| item.weight).sum::<usize>();
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(offset: i64, letter: DeadLetter) -> Item<'static, ()> {
        Item::dead(Slot { place: (0, 0), from: offset, offset }, letter)
    }

    #[test]
    fn large_records_count_for_many() {
        let payload = vec![0; 900_000];
        let mut queue = Queue::default();
        for offset in 0..10 {
            queue.push(dead(offset, DeadLetter::new(None, Some(&payload), vec![], "")), true);
        }
        assert!(queue.weight() > 8_000);
        let offsets =
            |items: Vec<Item<'_, ()>>| items.iter().map(|i| i.slot.offset).collect::<Vec<_>>();
        assert_eq!(offsets(queue.take(1)), [0]);
        assert_eq!(offsets(queue.take(1_000)), [1, 2]);
        assert_eq!(offsets(queue.take(usize::MAX)), (3..10).collect::<Vec<_>>());
        assert_eq!(queue.weight(), 0);
        assert!(queue.take(1).is_empty());
    }

    #[test]
    fn what_nobody_waits_for_waits_for_others_until_somebody_does() {
        let item = |offset| dead(offset, DeadLetter::new(None, None, vec![], ""));
        let mut queue = Queue::default();
        assert_eq!(queue.rest(), None);
        queue.push(item(1), false);
        queue.push(item(2), false);
        assert!(queue.rest().is_some_and(|rest| !rest.is_zero() && rest <= ASIDE));
        queue.push(item(3), true);
        queue.push(item(4), false);
        assert_eq!(queue.rest(), Some(Duration::ZERO));
        assert_eq!(queue.take(BATCH).len(), 4);
        queue.push(item(5), false);
        assert!(queue.rest().is_some_and(|rest| !rest.is_zero()));
        for offset in (6..).take(BATCH) {
            queue.push(item(offset), false);
        }
        assert_eq!(queue.rest(), Some(Duration::ZERO), "a batch is full");
    }

    #[test]
    fn a_record_counts_for_many_whatever_is_large_of_it() {
        let (large, name) = (vec![0; 800_000], "n".repeat(800_000));
        for large in [
            DeadLetter::new(Some(&large), None, vec![], ""),
            DeadLetter::new(None, Some(&large), vec![], ""),
            DeadLetter::new(None, None, vec![(name, None)], ""),
            DeadLetter::new(None, None, vec![("a".to_owned(), Some(large.clone()))], ""),
            DeadLetter::new(None, None, vec![(String::new(), None); 13_000], ""),
        ] {
            assert!(dead(0, large).weight > 700);
        }
    }
}
