//! The outbox and its relay, of one service and one order.
//!
//! Rows are durable and committed with the state they tell of. What the relay has published and not
//! yet deleted it knows in memory only: after a crash it publishes that again. Which rows had been
//! deleted by then is decided when the crash comes ([`Outbox::restart`]): until then nothing can
//! tell a published row from a deleted one, so deleting needs no steps of its own.
//!
//! The real outbox holds the rows of all orders in commit order. Here order is kept within an order
//! and topic only, which is what partitions keep; the model so has all that the relay can do, and
//! more.

use ordersaga_contract::{Fact, Topic};

use crate::sequence::Sequence;

/// The events that an order's transactions in one service have left to be published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outbox {
    rows: Sequence,
    /// Rows published since the relay started, a bit each. In memory.
    published: u16,
    /// Rows that the relay's cursor has passed without seeing them, a bit each. In memory; only
    /// where [`Guard::CommitOrder`](crate::Guard::CommitOrder) is missing.
    passed: u16,
}

impl Outbox {
    /// Adds a row, in the transaction of what it tells.
    pub fn append(&mut self, fact: Fact) {
        self.rows.push(fact);
    }

    /// Adds a row at a place which the relay has passed already.
    pub fn append_late(&mut self, fact: Fact) {
        self.passed |= 1 << self.rows.len();
        self.rows.push(fact);
    }

    /// The row of `topic` that the relay publishes next, and its event.
    pub fn next(&self, topic: Topic) -> Option<(u8, Fact)> {
        let done = self.published | self.passed;
        (0..)
            .zip(self.rows.iter())
            .find(|(row, fact)| done & (1 << row) == 0 && fact.topic() == topic)
    }

    /// Whether the relay still has something to publish.
    pub fn is_waiting(&self) -> bool {
        let all = (1_u32 << self.rows.len()) - 1;
        u32::from(self.published | self.passed) != all
    }

    /// The event of a row.
    pub fn fact(&self, row: u8) -> Option<Fact> {
        self.rows.get(row)
    }

    /// How many rows there are.
    pub fn rows(&self) -> u8 {
        self.rows.len()
    }

    /// Marks a row as published.
    pub fn publish(&mut self, row: u8) {
        self.published |= 1 << row;
    }

    /// Whether the relay has passed a row.
    pub fn has_passed(&self) -> bool {
        self.passed != 0
    }

    /// How many rows the relay may have deleted: those published with all before them.
    pub fn deletable(&self) -> u8 {
        u8::try_from(self.published.trailing_ones()).expect("at most sixteen")
    }

    /// The relay starts again: the first `deleted` rows are gone, and of the rest it knows nothing.
    pub fn restart(&mut self, deleted: u8) {
        self.rows = self.rows.iter().skip(usize::from(deleted)).collect();
        (self.published, self.passed) = (0, 0);
    }

    /// The events of the first rows that stay when `deleted` are gone and were published before.
    pub fn repeated(&self, deleted: u8) -> impl Iterator<Item = Fact> {
        let published = self.published;
        (0..)
            .zip(self.rows.iter())
            .filter(move |(row, _)| *row >= deleted && published & (1 << row) != 0)
            .map(|(_, fact)| fact)
    }

    /// Forgets rows that are published: where no crash can come any more, they make no difference.
    pub fn forget_published(&mut self) {
        let (published, passed) = (self.published, self.passed);
        let rows = self.rows;
        *self = Self::default();
        for (row, fact) in (0_u8..).zip(rows.iter()).filter(|(row, _)| published & (1 << row) == 0)
        {
            if passed & (1 << row) == 0 { self.append(fact) } else { self.append_late(fact) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_and_not_deleted_is_published_again_after_a_crash() {
        let mut outbox = Outbox::default();
        outbox.append(Fact::Placed);
        outbox.append(Fact::ResetByClient);
        assert_eq!(outbox.next(Topic::Reset), Some((1, Fact::ResetByClient)));
        outbox.publish(1);
        assert_eq!(outbox.deletable(), 0, "a row before it waits");
        outbox.publish(0);
        assert!(!outbox.is_waiting());
        assert_eq!(outbox.repeated(1).collect::<Vec<_>>(), [Fact::ResetByClient]);
        outbox.restart(1);
        assert_eq!(outbox.next(Topic::Reset), Some((0, Fact::ResetByClient)));
        assert_eq!(outbox.next(Topic::Incoming), None);
    }

    #[test]
    fn a_row_that_was_passed_waits_for_a_restart() {
        let mut outbox = Outbox::default();
        outbox.append_late(Fact::Placed);
        assert!(!outbox.is_waiting());
        outbox.forget_published();
        assert_eq!(outbox.next(Topic::Incoming), None);
        outbox.restart(0);
        assert_eq!(outbox.next(Topic::Incoming), Some((0, Fact::Placed)));
    }
}
