//! The co-partitioner: the partition of an order id by Postgres' own hash, so that partition *p*
//! of each topic holds exactly the orders of partition *p* of a table
//! `PARTITION BY HASH (order_id)`.
//!
//! It computes what `satisfies_hash_partition` does for one `bigint` column: `hashint8extended`
//! (`src/backend/access/hash/hashfunc.c`), which is `hash_bytes_uint32_extended`
//! (`src/common/hashfn.c`, Bob Jenkins' lookup3), combined by `hash_combine64` with the seed of
//! `src/include/partitioning/partbounds.h`. Postgres keeps these fixed across versions, since
//! dumps of partitioned tables depend on them.

use crate::OrderId;

/// Partitions of each saga topic and of the status table. Sixteen over two nodes, so that further
/// nodes are reached by moving partitions and not by rehashing.
pub const PARTITIONS: u32 = 16;

/// `HASH_PARTITION_SEED` of Postgres.
const SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// The partition, below [`PARTITIONS`], that an order belongs to: in every topic and in the table.
pub fn partition_of(order: OrderId) -> u32 {
    remainder_of(order.get(), PARTITIONS)
}

/// The remainder that Postgres assigns to `key` in a table of `modulus` hash partitions.
///
/// # Panics
/// If `modulus` is zero.
pub fn remainder_of(key: i64, modulus: u32) -> u32 {
    // hash_combine64(0, hash): the row hash starts at 0, so its shifts contribute nothing.
    let row = hash_int8_extended(key, SEED).wrapping_add(0x49a0_f4dd_15e5_a8e3);
    u32::try_from(row % u64::from(modulus)).expect("a remainder is below its u32 modulus")
}

/// `hashint8extended`: folds the high half into the low one, so that equal values of `int4` and
/// `int8` hash alike.
#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation)]
fn hash_int8_extended(key: i64, seed: u64) -> u64 {
    let (low, high) = (key as u32, (key >> 32) as u32);
    hash_uint32_extended(low ^ if key >= 0 { high } else { !high }, seed)
}

#[expect(clippy::cast_possible_truncation)]
fn hash_uint32_extended(k: u32, seed: u64) -> u64 {
    let start = 0x9e37_79b9_u32.wrapping_add(4).wrapping_add(3_923_095);
    let (mut a, mut b, mut c) = (start, start, start);
    if seed != 0 {
        a = a.wrapping_add((seed >> 32) as u32);
        b = b.wrapping_add(seed as u32);
        [a, b, c] = mix([a, b, c]);
    }
    a = a.wrapping_add(k);
    [_, b, c] = finish([a, b, c]);
    (u64::from(b) << 32) | u64::from(c)
}

/// lookup3's reversible mix of three words: six steps, the words changing places after each.
fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    for shift in [4, 6, 8, 16, 19, 4] {
        a = a.wrapping_sub(c) ^ c.rotate_left(shift);
        c = c.wrapping_add(b);
        [a, b, c] = [b, c, a];
    }
    [a, b, c]
}

/// lookup3's final mix.
fn finish([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read from Postgres 15 by `satisfies_hash_partition` over a table of 16 partitions. The
    /// integration tests compare tens of thousands of ids with the server at hand.
    #[test]
    fn agrees_with_postgres_on_known_ids() {
        let known = [
            (1, 8),
            (2, 10),
            (3, 9),
            (1_000_000, 11),
            (1 << 32, 8),
            (i64::MAX, 6),
            (-1, 5),
            (0, 0),
        ];
        for (id, partition) in known {
            assert_eq!(remainder_of(id, 16), partition, "order {id}");
        }
    }

    #[test]
    fn spreads_consecutive_ids_evenly() {
        let mut counts = [0_u32; 16];
        for id in 1..=160_000 {
            counts[remainder_of(id, 16) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (9_500..10_500).contains(n)), "{counts:?}");
    }
}
