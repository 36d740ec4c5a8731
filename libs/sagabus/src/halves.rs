//! Work that is done together as far as it can be: when a batch is refused for one of its items,
//! each half is tried by itself, and so on, until that item stands alone.

/// Items still to be tried, in order.
pub struct Halves<T> {
    /// The next ones last. True for an item that was refused alone once.
    left: Vec<(Vec<T>, bool)>,
    /// Whether what was taken last was refused alone once.
    is_last_chance: bool,
}

impl<T> Halves<T> {
    /// All of them together, for a start.
    pub fn new(items: Vec<T>) -> Self {
        Self { left: vec![(items, false)], is_last_chance: false }
    }

    /// The next items to try together.
    pub fn take(&mut self) -> Option<Vec<T>> {
        let (items, is_last_chance) = self.left.pop()?;
        self.is_last_chance = is_last_chance;
        (!items.is_empty()).then_some(items)
    }

    /// Whether something is left to try.
    pub(crate) fn has_more(&self) -> bool {
        !self.left.is_empty()
    }

    /// Takes back items that were refused together. An item that was refused alone, twice, is
    /// returned: the first time another transaction may have been in its way.
    pub fn refused(&mut self, mut items: Vec<T>) -> Option<T> {
        if items.len() > 1 {
            let behind = items.split_off(items.len() / 2);
            self.left.extend([(behind, false), (items, false)]);
        } else if self.is_last_chance {
            return items.pop();
        } else {
            self.left.push((items, true));
        }
        None
    }

    /// Puts an item back that is to be tried next, in another form.
    pub fn put_back(&mut self, item: T) {
        self.left.push((vec![item], false));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_are_done_in_order_but_those_refused_alone(
            bad in prop::collection::vec(prop::bool::weighted(0.1), 0..200),
        ) {
            let items: Vec<usize> = (0..bad.len()).collect();
            let (mut done, mut culprits, mut tries) = (Vec::new(), Vec::new(), 0);
            let mut halves = Halves::new(items);
            while let Some(together) = halves.take() {
                tries += 1;
                if together.iter().any(|item| bad[*item]) {
                    culprits.extend(halves.refused(together));
                } else {
                    done.extend(together);
                }
            }
            let (bad, good): (Vec<_>, Vec<_>) = (0..bad.len()).partition(|item| bad[*item]);
            // Each culprit costs a path of halves, and a second chance.
            let depth = 2 * (usize::BITS - (bad.len() + good.len()).leading_zeros()) as usize + 2;
            prop_assert!(tries <= 1 + bad.len() * depth);
            prop_assert_eq!(done, good);
            prop_assert_eq!(culprits, bad);
        }
    }

    #[test]
    fn what_was_in_the_way_once_is_no_culprit() {
        let mut halves = Halves::new(vec![1]);
        let item = halves.take().unwrap();
        assert_eq!(halves.refused(item), None);
        assert_eq!(halves.take(), Some(vec![1]));
        assert_eq!(halves.take(), None);
    }
}
