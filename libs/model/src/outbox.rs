//! The outbox and its relay, of one service and one order.
//!
//! Rows are durable and committed with the state they tell of. What was published and not yet deleted
//! is known in memory only: after a crash, whoever takes the rows over publishes it again. Which rows
//! had been deleted by then is decided when the crash comes ([`Outbox::restart`]): until then nothing
//! can tell a published row from a deleted one, so deleting needs no steps of its own.
//!
//! Rows are published in any order, and any of those published may be deleted first.

use ordersaga_contract::Fact;

use crate::sequence::Sequence;

/// The events that an order's transactions in one service have left to be published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outbox {
    rows: Sequence,
    /// Rows published since the service started, a bit each. In memory.
    published: u16,
    /// Rows that a process left behind and nobody takes over, a bit each; only where
    /// [`Guard::Takeover`](crate::Guard::Takeover) is missing.
    lost: u16,
}

impl Outbox {
    /// Adds a row, in the transaction of what it tells.
    pub fn append(&mut self, fact: Fact) {
        self.rows.push(fact);
    }

    /// The rows that may be published next, with their events.
    pub fn unpublished(&self) -> impl Iterator<Item = (u8, Fact)> + use<> {
        let done = self.published | self.lost;
        (0..).zip(self.rows.iter()).filter(move |(row, _)| done & (1 << row) == 0)
    }

    /// Whether the relay still has something to publish.
    pub fn is_waiting(&self) -> bool {
        let all = (1_u32 << self.rows.len()) - 1;
        u32::from(self.published | self.lost) != all
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

    /// The rows that may have been deleted, a bit each.
    pub fn deletable(&self) -> u16 {
        self.published
    }

    /// The service starts again: the rows `deleted` are gone, and of the rest it knows nothing.
    /// Without a takeover, what had not been published by then never is.
    pub fn restart(&mut self, deleted: u16, is_taken_over: bool) {
        let mut after = Self::default();
        for (row, fact) in
            (0_u8..).zip(self.rows.iter()).filter(|(row, _)| deleted & (1 << row) == 0)
        {
            let is_lost = self.lost & (1 << row) != 0 || self.published & (1 << row) == 0;
            if is_lost && !is_taken_over {
                after.lost |= 1 << after.rows.len();
            }
            after.append(fact);
        }
        *self = after;
    }

    /// The events of the rows that stay when `deleted` are gone and were published before.
    pub fn repeated(&self, deleted: u16) -> impl Iterator<Item = Fact> + use<> {
        let stay = self.published & !deleted;
        (0..)
            .zip(self.rows.iter())
            .filter(move |(row, _)| stay & (1 << row) != 0)
            .map(|(_, fact)| fact)
    }

    /// Forgets rows that are published: where no crash can come any more, they make no difference.
    pub fn forget_published(&mut self) {
        let mut left = Self::default();
        for (row, fact) in
            (0_u8..).zip(self.rows.iter()).filter(|(r, _)| self.published & (1 << r) == 0)
        {
            left.lost |= u16::from(self.lost & (1 << row) != 0) << left.rows.len();
            left.append(fact);
        }
        *self = left;
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
        let rows = [(0, Fact::Placed), (1, Fact::ResetByClient)];
        assert_eq!(outbox.unpublished().collect::<Vec<_>>(), rows);
        outbox.publish(1);
        assert_eq!((outbox.deletable(), outbox.is_waiting()), (0b10, true));
        outbox.publish(0);
        assert!(!outbox.is_waiting());
        assert_eq!(outbox.repeated(0b10).collect::<Vec<_>>(), [Fact::Placed]);
        outbox.restart(0b10, true);
        assert_eq!(outbox.unpublished().collect::<Vec<_>>(), [(0, Fact::Placed)]);
    }

    #[test]
    fn what_nobody_takes_over_is_never_published() {
        let mut outbox = Outbox::default();
        outbox.append(Fact::Placed);
        outbox.restart(0, false);
        assert!(!outbox.is_waiting());
        outbox.forget_published();
        assert_eq!((outbox.unpublished().count(), outbox.rows()), (0, 1));
    }
}
