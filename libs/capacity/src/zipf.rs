//! A cache whose entries live for a fixed time, asked for items whose popularity follows Zipf's law.
//!
//! Requests of an item come independently at a rate λ. An entry is made by a miss and lives for T:
//! of 1 + λT requests one is a miss, so that the item is found with probability λT / (1 + λT), and
//! is in the cache for the same share of the time (Jung, Berger and Balakrishnan, Modeling TTL-based
//! Internet Caches, INFOCOM 2003).

/// What such a cache does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cache {
    /// Share of the requests that find their item.
    pub hit_rate: f64,
    /// Entries at a time, on average.
    pub entries: f64,
}

/// Ranks up to here are summed one by one, those beyond by the trapezoid over steps of this ratio.
const EXACT: f64 = 1_000.0;
const STEP: f64 = 1.01;

/// The cache for so many items, by Zipf's law with this exponent, asked so often a second, whose
/// entries live for `ttl` seconds.
pub fn cache(items: f64, exponent: f64, per_second: f64, ttl: f64) -> Cache {
    let total = sum(items, |rank| rank.powf(-exponent));
    let load = |rank: f64| per_second * rank.powf(-exponent) / total * ttl;
    let present = |rank: f64| load(rank) / (1.0 + load(rank));
    let hits = sum(items, |rank| rank.powf(-exponent) / total * present(rank));
    Cache { hit_rate: hits, entries: sum(items, present) }
}

/// The sum of a smooth function over ranks 1 to `items`.
fn sum(items: f64, of: impl Fn(f64) -> f64) -> f64 {
    let mut total = 0.0;
    let mut rank = 1.0;
    while rank <= items.min(EXACT) {
        total += of(rank);
        rank += 1.0;
    }
    // Each rank stands for the stretch half a rank to its sides.
    let (mut from, end) = (rank - 0.5, items + 0.5);
    while from < end {
        let to = (from * STEP).min(end);
        total += (to - from) * f64::midpoint(of(from), of(to));
        from = to;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ranks one by one.
    fn exact(items: u32, exponent: f64, per_second: f64, ttl: f64) -> Cache {
        let weights: Vec<f64> = (1..=items).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let present = |weight: f64| {
            let load = per_second * weight / total * ttl;
            load / (1.0 + load)
        };
        Cache {
            hit_rate: weights.iter().map(|w| w / total * present(*w)).sum(),
            entries: weights.iter().map(|w| present(*w)).sum(),
        }
    }

    #[test]
    fn the_sum_by_steps_is_the_sum_by_ranks() {
        for (exponent, per_second) in [(0.64, 50.0), (0.8, 1_000.0), (1.0, 10.0)] {
            let (quick, slow) = (
                cache(300_000.0, exponent, per_second, 900.0),
                exact(300_000, exponent, per_second, 900.0),
            );
            assert!((quick.hit_rate / slow.hit_rate - 1.0).abs() < 1e-3, "{quick:?} {slow:?}");
            assert!((quick.entries / slow.entries - 1.0).abs() < 1e-3, "{quick:?} {slow:?}");
        }
    }

    #[test]
    fn a_cache_finds_more_the_longer_it_keeps() {
        let of = |ttl| cache(1e6, 0.8, 1_000.0, ttl);
        assert!(of(900.0).hit_rate > of(60.0).hit_rate);
        assert!(of(60.0).entries < of(900.0).entries && of(900.0).entries < 1e6);
        assert!(of(1e9).hit_rate > 0.999);
    }

    /// Requests drawn one by one, each entry with its end: the formula is what such a cache does.
    #[test]
    fn a_cache_that_is_played_through_agrees() {
        let (items, per_second, ttl) = (500_usize, 50.0, 20.0);
        let weights: Vec<f64> = (1..=items).map(|rank| (rank as f64).powf(-0.8)).collect();
        let total: f64 = weights.iter().sum();
        let mut state = 42_u64;
        let mut random = move || {
            // Knuth's MMIX generator: enough for this.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut ends = vec![0.0; items];
        let (mut now, mut hits, requests) = (0.0, 0.0, 200_000);
        for _ in 0..requests {
            now -= (1.0 - random()).ln() / per_second;
            let mut at = random() * total;
            let item = weights.iter().position(|weight| {
                at -= weight;
                at <= 0.0
            });
            let item = item.unwrap_or(items - 1);
            if ends[item] > now {
                hits += 1.0;
            } else {
                ends[item] = now + ttl;
            }
        }
        let said = cache(items as f64, 0.8, per_second, ttl).hit_rate;
        assert!((hits / f64::from(requests) - said).abs() < 0.01, "{hits} {said}");
    }
}
