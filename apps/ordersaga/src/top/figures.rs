//! Figures of one service, made of two readings of its metrics.

use std::time::Instant;

use crate::metrics::{Metrics, between, quantile};

/// What the store or the deadline decides.
const DECIDED: [&str; 3] = ["reserved", "store", "deadline"];

/// The last two readings.
#[derive(Debug, Clone, Default)]
pub(super) struct Readings {
    before: Option<(Instant, Metrics)>,
    now: Option<(Instant, Metrics)>,
}

/// What is shown of a service; what is not known yet is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    /// Cores in use.
    pub(super) cpu: Option<f64>,
    /// Bytes.
    pub(super) memory: Option<f64>,
    /// Requests at work.
    pub(super) in_flight: Option<f64>,
    /// Records that wait.
    pub(super) lag: Option<f64>,
    /// How long they will take at the present rate.
    pub(super) lag_seconds: Option<f64>,
    /// Events that wait for the broker, and the age of the oldest in seconds.
    pub(super) outbox: Option<f64>,
    pub(super) oldest: Option<f64>,
}

/// What is shown of the saga; of create-order's metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Saga {
    /// Orders placed and decided, a second.
    pub(super) placed: Option<f64>,
    pub(super) decided: Option<f64>,
    /// Seconds from placing to the store's decision.
    pub(super) median: Option<f64>,
    pub(super) slowest: Option<f64>,
}

impl Readings {
    /// A new reading takes the place of the last.
    pub(super) fn hear(&mut self, at: Instant, metrics: Metrics) {
        self.before = self.now.replace((at, metrics));
    }

    /// There are two, so that there are rates.
    pub(super) const fn are_two(&self) -> bool {
        self.before.is_some()
    }

    /// The newest reading.
    pub(super) fn newest(&self) -> Option<&Metrics> {
        self.now.as_ref().map(|(_, metrics)| metrics)
    }

    pub(super) fn figures(&self) -> Figures {
        let Some(now) = self.newest() else { return Figures::default() };
        let lag = now.sum("consumer_lag_records");
        let applied = self.rate(|page| page.sum("consumer_next_offset"));
        Figures {
            cpu: self.rate(|page| page.sum("process_cpu_seconds_total")),
            memory: now.sum("process_resident_memory_bytes"),
            in_flight: now.sum("http_server_active_requests"),
            lag,
            lag_seconds: lag.zip(applied).and_then(|(lag, rate)| seconds(lag, rate)),
            outbox: now.max("outbox_pending"),
            oldest: now.max("outbox_oldest_seconds"),
        }
    }

    pub(super) fn saga(&self) -> Saga {
        let Some(((_, before), (_, now))) = self.before.as_ref().zip(self.now.as_ref()) else {
            return Saga::default();
        };
        let decided = |page: &Metrics, outcomes: &[&str]| {
            page.histogram("saga_duration_seconds", "outcome", outcomes)
        };
        let grown = between(&decided(before, &DECIDED[..2]), &decided(now, &DECIDED[..2]));
        let count = |page: &Metrics| decided(page, &DECIDED).last().map(|(_, count)| *count);
        Saga {
            placed: self
                .rate(|page| Some(page.sum_of("outbox_published_total", "topic", "incoming"))),
            decided: self.rate(|page| Some(count(page).unwrap_or_default())),
            median: quantile(&grown, 0.5),
            slowest: quantile(&grown, 0.99),
        }
    }

    /// How much a counter grew in a second. One that fell is that of a process that started anew.
    fn rate(&self, of: impl Fn(&Metrics) -> Option<f64>) -> Option<f64> {
        let ((earlier, before), (later, now)) = self.before.as_ref().zip(self.now.as_ref())?;
        let took = later.saturating_duration_since(*earlier).as_secs_f64();
        let grown = of(now)? - of(before)?;
        (took > 0.0 && grown >= 0.0).then(|| grown / took)
    }
}

/// How long so many records take at this rate; none while nothing of them is applied.
fn seconds(lag: f64, rate: f64) -> Option<f64> {
    if lag > 0.0 { (rate > 0.0).then(|| lag / rate) } else { Some(0.0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(cpu: f64, lag: f64, next: f64, decided: f64) -> Metrics {
        Metrics::parse(&format!(
            "process_cpu_seconds_total {cpu}\nconsumer_lag_records {lag}\nconsumer_next_offset {next}\n\
             outbox_published_total{{topic=\"incoming\"}} {next}\n\
             # TYPE saga_duration_seconds histogram\n\
             saga_duration_seconds_bucket{{outcome=\"reserved\",le=\"0.1\"}} {decided}\n\
             saga_duration_seconds_bucket{{outcome=\"reserved\",le=\"+Inf\"}} {decided}\n"
        ))
        .unwrap()
    }

    #[test]
    fn rates_are_what_grew_between_two_readings() {
        let begin = Instant::now();
        let mut readings = Readings::default();
        readings.hear(begin, page(1.0, 0.0, 100.0, 10.0));
        assert_eq!(readings.figures().cpu, None, "one reading has no rate");
        assert_eq!(readings.saga(), Saga::default());
        readings.hear(begin + Duration::from_secs(2), page(1.5, 50.0, 300.0, 30.0));
        let figures = readings.figures();
        assert_eq!(figures.cpu, Some(0.25));
        assert_eq!((figures.lag, figures.lag_seconds), (Some(50.0), Some(0.5)));
        let saga = readings.saga();
        assert_eq!((saga.placed, saga.decided), (Some(100.0), Some(10.0)));
        assert_eq!(saga.median, Some(0.05));
        // Started anew: its counters begin again.
        readings.hear(begin + Duration::from_secs(4), page(0.1, 50.0, 300.0, 0.0));
        assert_eq!(readings.figures().cpu, None);
        assert_eq!(readings.figures().lag_seconds, None, "nothing is applied");
    }
}
