//! The metrics of a bus, in the registry it was given.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result,
};

const PLACE: &[&str] = &["topic", "partition"];

pub(crate) struct Metrics {
    pub(crate) outbox_pending: IntGauge,
    pub(crate) outbox_oldest: Gauge,
    pub(crate) published: IntCounterVec,
    pub(crate) lease: IntGauge,
    pub(crate) adopted_rows: IntCounter,
    pub(crate) records: IntCounterVec,
    pub(crate) lag: IntGaugeVec,
    pub(crate) next_offset: IntGaugeVec,
    pub(crate) stalled: IntGaugeVec,
    pub(crate) errors: IntCounterVec,
    pub(crate) lost: IntCounterVec,
    pub(crate) retrying: IntGaugeVec,
    pub(crate) batch_size: Histogram,
    pub(crate) batch_time: HistogramVec,
    pub(crate) transit: HistogramVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, label: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            add(registry, HistogramVec::new(options, &[label])?)
        };
        Ok(Self {
            outbox_pending: gauge("outbox_pending", "Events committed and not yet published.")?,
            outbox_oldest: add(
                registry,
                Gauge::new(
                    "outbox_oldest_seconds",
                    "Age of the oldest event not yet published; 0 if there is none.",
                )?,
            )?,
            published: counters(
                "outbox_published_total",
                "Events handed to the broker, repetitions included.",
                &["topic"],
            )?,
            lease: gauge(
                "outbox_lease",
                "1 while this instance holds a lease to publish what it commits, else 0.",
            )?,
            adopted_rows: add(
                registry,
                IntCounter::new(
                    "outbox_adopted_rows_total",
                    "Rows of the outbox taken over from an instance whose lease has ended.",
                )?,
            )?,
            records: counters(
                "consumer_records_total",
                "Records consumed, by what became of them: applied or dead_lettered.",
                &["topic", "result"],
            )?,
            lag: gauges(
                "consumer_lag_records",
                "Records in the partition that this consumer has yet to apply.",
                PLACE,
            )?,
            next_offset: gauges(
                "consumer_next_offset",
                "Offset of the next record of the partition that this consumer has to apply.",
                PLACE,
            )?,
            stalled: gauges(
                "consumer_partition_stalled",
                "1 for a partition whose next record cannot be read, else 0.",
                PLACE,
            )?,
            errors: counters(
                "consumer_errors_total",
                "Errors that the Kafka client reported instead of a record, by its name for them.",
                &["error"],
            )?,
            lost: counters(
                "consumer_lost_records_total",
                "Offsets that the topic had removed before this consumer read them.",
                &["topic"],
            )?,
            retrying: gauges(
                "consumer_retry_seconds",
                "How long the batch at hand of a lane has been retried; 0 if it has not failed.",
                &["lane"],
            )?,
            batch_size: {
                let help = "Records applied by one transaction.";
                let options = HistogramOpts::new("consumer_batch_records", help).buckets(vec![
                    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
                ]);
                add(registry, Histogram::with_opts(options)?)?
            },
            batch_time: histograms(
                "consumer_batch_seconds",
                "Time from when a lane takes a batch to its commit, repetitions included.",
                "lane",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0],
            )?,
            transit: histograms(
                "consumer_transit_seconds",
                "Time from when a producer was given a record to when this consumer has read it.",
                "topic",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 60.0],
            )?,
        })
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_bus_needs_a_registry_of_its_own() {
        let registry = Registry::new();
        assert!(Metrics::new(&registry).is_ok());
        assert!(Metrics::new(&registry).is_err());
        assert!(Metrics::new(&Registry::new()).is_ok());
    }
}
