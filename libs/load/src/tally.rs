//! Counts and latencies as one thread gathers them; those of two threads are added at the end.

use hdrhistogram::Histogram;

use crate::report::{Latency, Second};

/// No latency is longer: 70 minutes, in microseconds.
const LONGEST_US: u64 = 1 << 32;

/// Latencies in microseconds, exact to a thousandth.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self::with(3)
    }

    fn with(digits: u8) -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, digits).expect("bounds that are right"))
    }

    pub(crate) fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    pub(crate) fn summary(&self) -> Latency {
        Latency {
            count: self.0.len(),
            mean: self.0.mean() / 1e3,
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.0.max() as f64 / 1e3,
        }
    }

    /// None if there is none.
    pub(crate) fn known(&self) -> Option<Latency> {
        (!self.0.is_empty()).then(|| self.summary())
    }

    /// In milliseconds. The histogram knows a range of values: its middle is what is least wrong.
    fn quantile(&self, quantile: f64) -> f64 {
        let value = self.0.value_at_quantile(quantile);
        self.0.median_equivalent(value).min(self.0.max()) as f64 / 1e3
    }
}

/// One second of the timeline.
#[derive(Debug, Clone)]
pub(crate) struct Bin {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) terminal: u64,
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    pub(crate) create: Latencies,
    pub(crate) end: Latencies,
}

impl Bin {
    fn new() -> Self {
        let (create, end) = (Latencies::with(2), Latencies::with(2));
        Self { sent: 0, acknowledged: 0, terminal: 0, refused: 0, errors: 0, create, end }
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.terminal += other.terminal;
        self.refused += other.refused;
        self.errors += other.errors;
        self.create.add(&other.create);
        self.end.add(&other.end);
    }

    fn second(&self) -> Second {
        let (create, end) = (self.create.known(), self.end.known());
        Second {
            sent: self.sent,
            acknowledged: self.acknowledged,
            terminal: self.terminal,
            refused: self.refused,
            errors: self.errors,
            create_p50_ms: create.map(|latency| latency.p50),
            create_p99_ms: create.map(|latency| latency.p99),
            terminal_p50_ms: end.map(|latency| latency.p50),
            terminal_p99_ms: end.map(|latency| latency.p99),
        }
    }
}

/// What one thread saw. Times are microseconds since the run's begin.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// The measured time begins.
    from: u64,
    bins: Vec<Bin>,
    /// From create to acknowledgement, of measured orders.
    pub(crate) create: Latencies,
    /// From create to end, of measured orders.
    pub(crate) end: Latencies,
    /// When the last measured order ended.
    pub(crate) last_end: u64,
}

impl Tally {
    pub(crate) fn new(from: u64) -> Self {
        let (create, end) = (Latencies::new(), Latencies::new());
        Self { from, bins: Vec::new(), create, end, last_end: 0 }
    }

    /// Whether an order that begins then is measured.
    pub(crate) fn measures(&self, begun: u64) -> bool {
        begun >= self.from
    }

    /// The second of a time; none during the warmup.
    pub(crate) fn bin(&mut self, at: u64) -> Option<&mut Bin> {
        let second = usize::try_from(at.checked_sub(self.from)? / 1_000_000).ok()?;
        if second >= self.bins.len() {
            self.bins.resize_with(second + 1, Bin::new);
        }
        self.bins.get_mut(second)
    }

    /// A create was acknowledged.
    pub(crate) fn acknowledged(&mut self, begun: u64, now: u64) {
        let latency = now.saturating_sub(begun);
        if let Some(bin) = self.bin(now) {
            bin.acknowledged += 1;
            bin.create.record(latency);
        }
        if self.measures(begun) {
            self.create.record(latency);
        }
    }

    /// An acknowledged order has ended.
    pub(crate) fn ended(&mut self, begun: u64, end: u64) {
        let latency = end.saturating_sub(begun);
        if let Some(bin) = self.bin(end) {
            bin.terminal += 1;
            bin.end.record(latency);
        }
        if self.measures(begun) {
            self.end.record(latency);
            self.last_end = self.last_end.max(end);
        }
    }

    /// What both threads saw.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.bins.len() < other.bins.len() {
            self.bins.resize_with(other.bins.len(), Bin::new);
        }
        for (own, other) in self.bins.iter_mut().zip(&other.bins) {
            own.add(other);
        }
        self.create.add(&other.create);
        self.end.add(&other.end);
        self.last_end = self.last_end.max(other.last_end);
    }

    /// When the measured time begins.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    pub(crate) fn timeline(&self) -> Vec<Second> {
        self.bins.iter().map(Bin::second).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_warmup_is_in_no_latency_of_the_run() {
        let mut tally = Tally::new(1_000_000);
        tally.acknowledged(900_000, 1_000_100);
        tally.ended(900_000, 2_500_000);
        tally.acknowledged(1_000_000, 1_002_000);
        assert_eq!(tally.create.summary().count, 1);
        assert!((tally.create.summary().p50 - 2.0).abs() < 0.002);
        assert_eq!((tally.end.known(), tally.last_end), (None, 0));
        // The timeline has what happened, whenever it began.
        let seconds = tally.timeline();
        assert_eq!((seconds[0].acknowledged, seconds[0].terminal), (2, 0));
        assert_eq!((seconds[1].acknowledged, seconds[1].terminal), (0, 1));
    }

    #[test]
    fn two_threads_tallies_add_up() {
        let (mut one, mut other) = (Tally::new(0), Tally::new(0));
        one.acknowledged(0, 10);
        one.ended(0, 20);
        other.ended(5, 3_000_000);
        one.add(&other);
        assert_eq!((one.end.summary().count, one.last_end), (2, 3_000_000));
        assert_eq!(one.timeline().len(), 4);
    }
}
