//! What `/metrics` of a service says, in the text format of Prometheus.

use std::collections::HashMap;
use std::io;

use anyhow::{Context, Result};
use prometheus_parse::{Sample, Scrape, Value};

/// The series of one reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Vec<Sample>);

/// The buckets of a histogram: upper bound and how many are at most as large.
pub(crate) type Buckets = Vec<(f64, f64)>;

impl Metrics {
    /// Reads a page. One without any series is none.
    pub(crate) fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().map(|line| io::Result::Ok(line.to_owned()));
        let samples = Scrape::parse(lines)?.samples;
        (!samples.is_empty()).then_some(Self(samples)).context("the page has no metrics")
    }

    /// The series of a name: labels and value.
    pub(crate) fn series(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&HashMap<String, String>, f64)> {
        let named = self.0.iter().filter(move |sample| sample.metric == name);
        named.filter_map(|sample| Some((&*sample.labels, number(&sample.value)?)))
    }

    /// The sum of the series of a name; none if there is no such series.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        self.series(name).map(|(_, value)| value).reduce(|one, other| one + other)
    }

    /// The largest of the series of a name.
    pub(crate) fn max(&self, name: &str) -> Option<f64> {
        self.series(name).map(|(_, value)| value).reduce(f64::max)
    }

    /// The sum of the series whose label has this value.
    pub(crate) fn sum_of(&self, name: &str, label: &str, value: &str) -> f64 {
        let all = self.series(name);
        all.filter(|(labels, _)| labels.get(label).is_some_and(|found| found == value))
            .map(|(_, value)| value)
            .sum()
    }

    /// The histogram of a name, all its series whose label has one of these values together.
    pub(crate) fn histogram(&self, name: &str, label: &str, values: &[&str]) -> Buckets {
        let mut sum: Buckets = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.metric == name) {
            let is_wanted = sample.labels.get(label).is_some_and(|found| values.contains(&found));
            let Value::Histogram(buckets) = &sample.value else { continue };
            for bucket in buckets.iter().filter(|_| is_wanted) {
                match sum.iter_mut().find(|(bound, _)| same(*bound, bucket.less_than)) {
                    Some((_, count)) => *count += bucket.count,
                    None => sum.push((bucket.less_than, bucket.count)),
                }
            }
        }
        sum.sort_by(|one, other| one.0.total_cmp(&other.0));
        sum
    }
}

/// Bounds are the same text in each series, so they are the same bits.
fn same(one: f64, other: f64) -> bool {
    one.total_cmp(&other).is_eq()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => Some(*value),
        Value::Histogram(_) | Value::Summary(_) => None,
    }
}

/// What a histogram counted between two readings.
pub(crate) fn between(before: &[(f64, f64)], after: &[(f64, f64)]) -> Buckets {
    let earlier = |bound| before.iter().find(|(other, _)| same(*other, bound));
    let grown = after.iter().map(|(bound, count)| {
        let count = count - earlier(*bound).map_or(0.0, |(_, count)| *count);
        (*bound, count.max(0.0))
    });
    grown.collect()
}

/// The value below which this part of the counts lies, as Prometheus estimates it: evenly spread
/// within a bucket. None of an empty histogram.
pub(crate) fn quantile(buckets: &[(f64, f64)], part: f64) -> Option<f64> {
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = part * all;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (low, below) = at.checked_sub(1).map_or((0.0, 0.0), |before| buckets[before]);
    let (high, count) = buckets[at];
    if high.is_infinite() {
        return Some(low);
    }
    Some(low + (high - low) * (rank - below) / (count - below).max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP consumer_lag_records Records that wait.
# TYPE consumer_lag_records gauge
consumer_lag_records{partition=\"0\",topic=\"incoming\"} 3
consumer_lag_records{partition=\"1\",topic=\"reset\"} 4
# TYPE saga_duration_seconds histogram
saga_duration_seconds_bucket{outcome=\"client\",le=\"0.1\"} 100
saga_duration_seconds_bucket{outcome=\"reserved\",le=\"0.1\"} 5
saga_duration_seconds_bucket{outcome=\"reserved\",le=\"0.2\"} 10
saga_duration_seconds_bucket{outcome=\"reserved\",le=\"+Inf\"} 10
saga_duration_seconds_sum{outcome=\"reserved\"} 1
saga_duration_seconds_count{outcome=\"reserved\"} 10
";

    #[test]
    fn series_are_summed_by_name_and_label() -> Result<()> {
        let metrics = Metrics::parse(PAGE)?;
        assert_eq!(metrics.sum("consumer_lag_records"), Some(7.0));
        assert_eq!(metrics.max("consumer_lag_records"), Some(4.0));
        assert_eq!(
            metrics.sum_of("consumer_lag_records", "topic", "reset").to_bits(),
            4.0_f64.to_bits()
        );
        assert_eq!(metrics.sum("saga_duration_seconds_count"), Some(10.0));
        assert_eq!(metrics.sum("absent"), None);
        assert!(Metrics::parse("<html>").is_err());
        Ok(())
    }

    #[test]
    fn quantiles_are_of_what_came_between_two_readings() -> Result<()> {
        let metrics = Metrics::parse(PAGE)?;
        let all = metrics.histogram("saga_duration_seconds", "outcome", &["reserved", "store"]);
        assert_eq!(quantile(&all, 0.5), Some(0.1));
        assert_eq!(quantile(&all, 0.75).map(|at| (at * 1000.0).round()), Some(150.0));
        assert_eq!(quantile(&between(&all, &all), 0.5), None);
        let early = [(0.1, 5.0), (0.2, 5.0), (f64::INFINITY, 5.0)];
        assert_eq!(
            quantile(&between(&early, &all), 0.5).map(|at| (at * 1000.0).round()),
            Some(150.0)
        );
        let beyond = [(0.1, 0.0), (f64::INFINITY, 2.0)];
        assert_eq!(quantile(&beyond, 0.5), Some(0.1));
        Ok(())
    }
}
