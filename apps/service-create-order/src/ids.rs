//! Order ids: drawn in blocks, and given out so that the orders of a batch share a partition.
//!
//! What a batch costs the broker and its readers grows with the partitions it is spread over: a
//! request each to write it, a place in each answer to read it, an offset each to move. Any id is as
//! good as another, so a batch takes ids of one partition while there are enough.

use std::collections::VecDeque;

use ordersaga_contract::{OrderId, PARTITIONS, partition_of};

/// Ids in a block: by how much `order_id_seq` rises (sql/create-order).
pub(crate) const BLOCK: i64 = 4_096;

/// Ids that were drawn and not given out, by partition. Those left when the process ends are lost:
/// ids have gaps.
pub(crate) struct Ids {
    by_partition: Vec<VecDeque<OrderId>>,
    left: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Self { by_partition: vec![VecDeque::new(); PARTITIONS as usize], left: 0 }
    }
}

impl Ids {
    /// Adds the block that begins with `first`.
    pub(crate) fn add(&mut self, first: i64) {
        for id in (first..first.saturating_add(BLOCK)).filter_map(|id| OrderId::try_from(id).ok()) {
            self.by_partition[partition_of(id) as usize].push_back(id);
            self.left += 1;
        }
    }

    /// Forgets all: somebody else has been given the same.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes ids for a batch: those of the partition that has the lowest id, and of further ones if
    /// they do not suffice. One by one they come in order. `None` if too few are left.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<OrderId>> {
        self.left = self.left.checked_sub(count)?;
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let lowest = self.by_partition.iter_mut().filter(|ids| !ids.is_empty());
            let lowest = lowest.min_by_key(|ids| ids.front().copied())?;
            let taken = lowest.len().min(count - ids.len());
            ids.extend(lowest.drain(..taken));
        }
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_by_one_ids_come_in_order() {
        let mut ids = Ids::default();
        assert_eq!(ids.take(1), None);
        ids.add(1);
        let taken: Vec<_> = (0..100).map(|_| ids.take(1).unwrap()[0].get()).collect();
        assert_eq!(taken, (1..=100).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn each_id_is_given_out_once_and_a_batch_shares_a_partition(
            batches in prop::collection::vec(0_usize..300, 1..200),
        ) {
            let (mut ids, mut given, mut blocks) = (Ids::default(), HashSet::new(), 0);
            for batch in batches {
                let taken = loop {
                    if let Some(taken) = ids.take(batch) {
                        break taken;
                    }
                    ids.add(1 + blocks * BLOCK);
                    blocks += 1;
                };
                prop_assert_eq!(taken.len(), batch);
                let partitions: HashSet<_> = taken.iter().map(|id| partition_of(*id)).collect();
                // A partition has some 256 ids of a block, and may have fewer left.
                prop_assert!(partitions.len() <= 16);
                prop_assert!(batch == 0 || batch > 1 || partitions.len() == 1);
                for id in taken {
                    prop_assert!((1..=blocks * BLOCK).contains(&id.get()) && given.insert(id));
                }
            }
        }
    }
}
