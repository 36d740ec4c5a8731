//! What was said of orders, as bits, and which of it ends the waiting for one.

use ordersaga_contract::Initiator;

/// What was said of an order.
pub(crate) type Said = u8;
pub(crate) const RESERVED: Said = 1;
pub(crate) const RELEASED: Said = 2;
pub(crate) const BY_CLIENT: Said = 4;
pub(crate) const BY_STORE: Said = 8;
pub(crate) const BY_DEADLINE: Said = 16;
/// The reservation came before any reset.
pub(crate) const RESERVED_FIRST: Said = 32;
/// Any reset.
pub(crate) const RESETS: Said = BY_CLIENT | BY_STORE | BY_DEADLINE;
/// What ends the waiting for an order.
const ENDS: Said = RESERVED | RESETS;

/// Who reset an order, by a text that begins with the initiator's name.
pub(crate) fn reset_by(text: &[u8]) -> Said {
    let is = |who: Initiator| text.starts_with(who.name().as_bytes());
    match () {
        () if is(Initiator::Client) => BY_CLIENT,
        () if is(Initiator::Store) => BY_STORE,
        () => BY_DEADLINE,
    }
}

/// What was said of each order, by its place.
#[derive(Debug, Default)]
pub(crate) struct Words(Vec<Said>);

impl Words {
    /// What was said of the order of a place.
    pub(crate) fn of(&self, place: usize) -> Said {
        self.0.get(place).copied().unwrap_or(0)
    }

    /// Adds what is said of an order. True if that ends it: nothing before did.
    pub(crate) fn add(&mut self, place: usize, said: Said) -> bool {
        if place >= self.0.len() {
            self.0.resize(place + 1, 0);
        }
        let before = self.0[place];
        let is_end = before & ENDS == 0 && said & ENDS != 0;
        let first = if is_end && said == RESERVED { RESERVED_FIRST } else { 0 };
        self.0[place] = before | said | first;
        is_end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word() -> impl Strategy<Value = Said> {
        prop::sample::select(vec![RESERVED, RELEASED, BY_CLIENT, BY_STORE, BY_DEADLINE])
    }

    proptest! {
        #[test]
        fn an_order_ends_once_with_the_first_word_that_ends_it(
            all in prop::collection::vec(word(), 0..12),
        ) {
            let mut words = Words::default();
            let ends: Vec<bool> = all.iter().map(|said| words.add(5, *said)).collect();
            let first = all.iter().position(|said| *said & ENDS != 0);
            prop_assert_eq!(ends.iter().position(|is_end| *is_end), first);
            let count = ends.iter().filter(|is_end| **is_end).count();
            prop_assert_eq!(count, usize::from(first.is_some()));
            let is_first = first.is_some_and(|at| all[at] == RESERVED);
            prop_assert_eq!(words.of(5) & RESERVED_FIRST != 0, is_first);
        }

        #[test]
        fn nothing_said_is_lost_and_no_other_order_hears_it(
            all in prop::collection::vec((0..4_usize, word()), 0..24),
        ) {
            let mut words = Words::default();
            for (place, said) in &all {
                words.add(*place, *said);
            }
            for place in 0..5 {
                let own = all.iter().filter(|(other, _)| *other == place);
                let own = own.fold(0_u8, |sum, (_, said)| sum | *said);
                prop_assert_eq!(words.of(place) & !RESERVED_FIRST, own);
            }
        }
    }

    #[test]
    fn whoever_reset_an_order_is_known_by_name() {
        assert_eq!(reset_by(b"client\",\"reason\":"), BY_CLIENT);
        assert_eq!(reset_by(b"store"), BY_STORE);
        assert_eq!(reset_by(b"deadline"), BY_DEADLINE);
    }
}
