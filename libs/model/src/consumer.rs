//! A service's consumer of one partition.

use ordersaga_contract::Fact;

use crate::sequence::Sequence;

/// Where a service stands in one topic of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Consumer {
    /// The next offset, durable: moved in the transaction of the effects.
    pub offset: u8,
    /// Where the instance that has the partition reads on. In memory.
    pub position: u8,
}

/// What the first statement of a consumer's transaction found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The offset was where the transaction starts, and is moved.
    Forward,
    /// The offset was elsewhere, and was moved all the same: the fence is missing.
    Unfenced,
    /// The offset was elsewhere: the transaction is over.
    Fenced,
}

impl Consumer {
    /// The record its instance reads next.
    pub fn next(self, log: Sequence) -> Option<Fact> {
        log.get(self.position)
    }

    /// Moves the offset behind the record at `position`, by compare-and-set if there is a fence.
    pub fn move_offset(&mut self, position: u8, is_fenced: bool) -> Moved {
        let moved = match (self.offset == position, is_fenced) {
            (true, _) => Moved::Forward,
            (false, false) => Moved::Unfenced,
            (false, true) => return Moved::Fenced,
        };
        self.offset = position + 1;
        moved
    }

    /// Moves past the next record.
    pub fn skip(&mut self) {
        self.position += 1;
        self.offset = self.position;
    }

    /// The record at `place` is taken out of the log.
    pub fn step_back_from(&mut self, place: u8) {
        self.offset -= u8::from(self.offset > place);
        self.position -= u8::from(self.position > place);
    }

    /// The instance starts (again) from what is durable.
    pub fn restart(&mut self) {
        self.position = self.offset;
    }
}
