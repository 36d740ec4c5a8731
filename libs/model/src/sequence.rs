//! A short sequence of facts in one word: a topic's log, an outbox. States are hashed and copied by
//! the million, so they are kept small.

use std::fmt;

use ordersaga_contract::Fact;

/// Facts in the order in which they were added; up to [`Sequence::CAPACITY`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// As many as a word has room for at four bits each.
    pub const CAPACITY: u8 = 16;

    /// Adds a fact at the end.
    pub fn push(&mut self, fact: Fact) {
        let end = self.len();
        assert!(end < Self::CAPACITY, "more events of one order than the model has room for");
        let code = u64::try_from(fact.code()).expect("codes of facts are positive");
        self.0 |= code << (4 * end);
    }

    /// How many there are.
    pub fn len(self) -> u8 {
        // No fact has the code 0, so the highest digit that is not 0 is the last fact.
        let digits = (u64::BITS - self.0.leading_zeros()).div_ceil(4);
        u8::try_from(digits).expect("a word has sixteen digits")
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fact at `place`, counted from 0.
    pub fn get(self, place: u8) -> Option<Fact> {
        if place >= Self::CAPACITY {
            return None;
        }
        Fact::from_code(i16::try_from((self.0 >> (4 * place)) & 15).ok()?)
    }

    /// All facts, first to last.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        (0..self.len()).filter_map(move |place| self.get(place))
    }

    /// Takes out the fact at `place`.
    pub fn remove(&mut self, place: u8) {
        *self = (0..).zip(self.iter()).filter(|(at, _)| *at != place).map(|(_, f)| f).collect();
    }

    /// Whether `fact` is among them.
    pub fn contains(self, fact: Fact) -> bool {
        self.iter().any(|one| one == fact)
    }
}

impl FromIterator<Fact> for Sequence {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        let mut sequence = Self::default();
        for fact in facts {
            sequence.push(fact);
        }
        sequence
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_back_in_their_order() {
        let all: Sequence = Fact::ALL.into_iter().collect();
        assert_eq!(all.len(), 6);
        assert_eq!(all.iter().collect::<Vec<_>>(), Fact::ALL);
        assert_eq!(all.get(6), None);
        assert_eq!(all.get(200), None);
        assert!(Sequence::default().is_empty());
    }
}
