//! What the services' metrics say of work that waits and of limits that are near. The bounds are
//! those of docs/deploy/observability/alerts.yml, whose entries of the runbook are named.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use ordersaga_devstack::Service;

use super::finding::{Finding, or_ok};
use super::seen::{Seen, Surroundings};
use crate::metrics::Metrics;

const NO_METRICS: &str = "no service gives metrics";

/// The check of each service that gives metrics, or that none does.
fn of_each(
    seen: &Surroundings,
    well: &str,
    judge: impl Fn(Service, &Metrics) -> Vec<Finding>,
) -> Vec<Finding> {
    let mut readings = seen.readings().peekable();
    if readings.peek().is_none() {
        return vec![Finding::unknown(NO_METRICS)];
    }
    let found = readings.flat_map(|(one, reading)| judge(one.service, &reading.metrics)).collect();
    or_ok(found, well)
}

/// Events that wait to be published.
pub(super) fn outbox(seen: &Surroundings) -> Vec<Finding> {
    let limit = limit_of("OUTBOX_LIMIT", 1e6);
    of_each(seen, "events are published as they come", |service, metrics| {
        judge_outbox(service, metrics, limit)
    })
}

fn judge_outbox(service: Service, metrics: &Metrics, limit: f64) -> Vec<Finding> {
    let (pending, oldest) = (metrics.max("outbox_pending"), metrics.max("outbox_oldest_seconds"));
    let (Some(pending), Some(oldest)) = (pending, oldest) else { return Vec::new() };
    let what =
        format!("{pending} events of {service} wait for the broker, the oldest for {oldest:.0} s");
    let mend = "see that the broker runs: ordersaga status; what waits is published by itself";
    let finding = if oldest > 30.0 || pending >= limit {
        Finding::problem(what)
    } else if oldest > 5.0 || pending >= 0.5 * limit {
        Finding::warning(what)
    } else {
        return Vec::new();
    };
    vec![finding.mend(mend).runbook("OutboxStuck")]
}

/// Consumers that cannot go on, or had to leave something out.
pub(super) fn consumer(seen: &Surroundings) -> Vec<Finding> {
    of_each(seen, "every consumer can go on", judge_consumer)
}

fn judge_consumer(service: Service, metrics: &Metrics) -> Vec<Finding> {
    let mut found = Vec::new();
    for (labels, _) in metrics.series("consumer_partition_stalled").filter(|(_, on)| *on > 0.0) {
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let place = format!("{}/{}", label("topic"), label("partition"));
        let mend = format!(
            "see /ready for the offset, then: ordersaga dlq step-over --service {service} {place}/OFFSET"
        );
        let what = format!("{service} cannot read the next record of {place}");
        found.push(Finding::problem(what).mend(mend).runbook("PartitionStalled"));
    }
    let retried = metrics.max("consumer_retry_seconds").unwrap_or_default();
    if retried > 0.0 {
        let what = format!("{service} has tried a batch again and again for {retried:.0} s");
        let finding = if retried > 60.0 { Finding::problem(what) } else { Finding::warning(what) };
        found.push(finding.mend(format!("ordersaga logs {service}")).runbook("BatchRetried"));
    }
    let lost = metrics.sum("consumer_lost_records_total").unwrap_or_default();
    if lost > 0.0 {
        let what =
            format!("{service} came too late for {lost} records, which the topics had removed");
        let mend = format!("see which orders: ordersaga logs {service}");
        found.push(Finding::problem(what).mend(mend).runbook("RecordsLost"));
    }
    let refused = metrics.sum("overdue_orders_refused").unwrap_or_default();
    if refused > 0.0 {
        let what = format!("the database refuses to end {refused} orders past their deadline");
        let mend = format!("see which constraint: ordersaga logs {service}");
        found.push(Finding::problem(what).mend(mend).runbook("OverdueOrdersRefused"));
    }
    found
}

/// Records that wait, and for how long at the present rate.
pub(super) fn lag(seen: &Surroundings) -> Vec<Finding> {
    if seen.readings().next().is_none() {
        return vec![Finding::unknown(NO_METRICS)];
    }
    or_ok(seen.services.iter().flat_map(lag_of).collect(), "no consumer is behind")
}

fn lag_of(one: &Seen) -> Vec<Finding> {
    let [before, after] = one.metrics.as_slice() else { return Vec::new() };
    let took = after.at - before.at;
    judge_lag(one.service, &before.metrics, &after.metrics, took)
}

/// How many records of a topic wait, waited before, and were applied between two readings.
#[derive(Debug, Default)]
struct Topic {
    waiting: f64,
    waited: f64,
    applied: f64,
}

/// Adds a series of a topic to it.
type Add = fn(&mut Topic, f64);

fn topics(before: &Metrics, after: &Metrics) -> BTreeMap<String, Topic> {
    let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
    let readings: [(&Metrics, &str, Add); 4] = [
        (after, "consumer_lag_records", |topic, lag| topic.waiting += lag),
        (before, "consumer_lag_records", |topic, lag| topic.waited += lag),
        (after, "consumer_next_offset", |topic, offset| topic.applied += offset),
        (before, "consumer_next_offset", |topic, offset| topic.applied -= offset),
    ];
    for (metrics, name, add) in readings {
        for (labels, value) in metrics.series(name) {
            let topic = labels.get("topic").cloned().unwrap_or_default();
            add(topics.entry(topic).or_default(), value);
        }
    }
    topics
}

fn judge_lag(service: Service, before: &Metrics, after: &Metrics, took: Duration) -> Vec<Finding> {
    let topics = topics(before, after);
    topics.iter().filter_map(|(name, topic)| judge_topic(service, name, topic, took)).collect()
}

/// A second's worth of records waits in any busy system: only what stands still, or is far behind,
/// is told.
fn judge_topic(service: Service, name: &str, topic: &Topic, took: Duration) -> Option<Finding> {
    let Topic { waiting, waited, applied } = topic;
    let rate = applied / took.as_secs_f64();
    if *waiting > 0.0 && *waited > 0.0 && rate <= 0.0 {
        let what = format!(
            "{service} has applied nothing of {name} for {} s, and {waiting} records wait",
            took.as_secs()
        );
        let mend = format!("see /ready and the log: ordersaga logs {service}");
        return Some(Finding::problem(what).mend(mend).runbook("ConsumerStuck"));
    }
    (*waiting > 5_000.0).then(|| {
        let seconds = waiting / rate.max(f64::MIN_POSITIVE);
        let what = format!(
            "{service} is {waiting} records of {name} behind, {seconds:.0} s at {rate:.0} a second"
        );
        let mend = format!("wait and look again, or start another instance of {service}");
        Finding::warning(what).mend(mend).runbook("ConsumerLagGrowing")
    })
}

/// Requests that were turned away.
pub(super) fn turned_away(seen: &Surroundings) -> Vec<Finding> {
    of_each(seen, "few requests were turned away, or none", judge_turned_away)
}

fn judge_turned_away(service: Service, metrics: &Metrics) -> Vec<Finding> {
    let all = metrics.sum("http_server_request_duration_seconds_count").unwrap_or_default();
    let series = metrics.series("http_server_requests_shed_total");
    let shed: Vec<_> = series.filter(|(_, count)| *count > 0.01 * all.max(1.0)).collect();
    let told = shed.into_iter().map(|(labels, count)| {
        let reason = labels.get("reason").map(String::as_str).unwrap_or_default();
        let what =
            format!("{service} turned away {count} of {all} requests since its start: {reason}");
        Finding::warning(what).mend(more_room(reason)).runbook("RequestsTurnedAway")
    });
    told.collect()
}

/// What gives room again, by the reason for which requests were turned away.
fn more_room(reason: &str) -> &'static str {
    match reason {
        "outbox" => "see that the broker runs: ordersaga status",
        "keys" => "raise IDEMPOTENCY_KEYS_LIMIT if the disk has room",
        "rows" => "raise ITEMS_LIMIT if the disk has room",
        "rate" => "behind a proxy set ITEMS_PER_SECOND=0 and limit there",
        "address" => "behind a proxy set HTTP_ADDRESS_SHARE=100",
        "streams" => "raise HTTP_STREAMS",
        "long_polls" => "raise HTTP_LONG_POLLS",
        _ => "add an instance or cores",
    }
}

/// Tables and files that come near their limits.
pub(super) fn limits(seen: &Surroundings) -> Vec<Finding> {
    let tables = [
        ("idempotency_key", "IDEMPOTENCY_KEYS_LIMIT", limit_of("IDEMPOTENCY_KEYS_LIMIT", 2e7)),
        ("item", "ITEMS_LIMIT", limit_of("ITEMS_LIMIT", 1e7)),
    ];
    of_each(seen, "tables and open files are far from their limits", |service, metrics| {
        let mut found = judge_files(service, metrics);
        for (table, setting, limit) in tables {
            let rows = metrics.sum_of("table_rows", "table", table);
            found.extend(judge_rows(service, table, setting, rows, limit));
        }
        found
    })
}

/// A limit that this environment sets, else the usual one: a service elsewhere does not tell its own.
fn limit_of(setting: &str, usual: f64) -> f64 {
    env::var(setting).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

fn judge_rows(
    service: Service,
    table: &str,
    setting: &str,
    rows: f64,
    limit: f64,
) -> Option<Finding> {
    let what = format!("{service} has {rows} rows of {table}, and {setting} is {limit}");
    let mend = format!("raise {setting} if the disk has room");
    let finding = match rows / limit {
        share if share >= 1.0 => Finding::problem(what),
        share if share >= 0.8 => Finding::warning(what),
        _ => return None,
    };
    Some(finding.mend(mend).runbook("RequestsTurnedAway"))
}

fn judge_files(service: Service, metrics: &Metrics) -> Vec<Finding> {
    let (open, most) = (metrics.max("process_open_fds"), metrics.max("process_max_fds"));
    let (Some(open), Some(most)) = (open, most) else { return Vec::new() };
    if open / most.max(1.0) <= 0.8 {
        return Vec::new();
    }
    let what = format!("{service} has {open} of {most} files open");
    let mend = "close idle clients at the proxy, or raise the limit (ulimit -Hn)";
    vec![Finding::warning(what).mend(mend).runbook("FileDescriptorsLow")]
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const STORE: Service = Service::Store;

    fn page(text: &str) -> Metrics {
        Metrics::parse(text).unwrap()
    }

    fn levels(found: &[Finding]) -> Vec<(Level, Option<&str>)> {
        found.iter().map(|one| (one.level, one.runbook)).collect()
    }

    #[test]
    fn an_outbox_is_judged_by_its_oldest_event_and_its_limit() {
        let judged = |pending, oldest| {
            let text = format!(
                "outbox_pending {pending}
outbox_oldest_seconds {oldest}
"
            );
            judge_outbox(STORE, &page(&text), 1_000.0).first().map(|one| one.level)
        };
        assert_eq!(judged(3, 0.4), None);
        assert_eq!(judged(3, 6.0), Some(Level::Warning));
        assert_eq!(judged(3, 31.0), Some(Level::Problem));
        assert_eq!(judged(600, 0.1), Some(Level::Warning));
        assert_eq!(judged(1_000, 0.1), Some(Level::Problem));
    }

    #[test]
    fn a_consumer_that_cannot_go_on_is_told_with_its_place() {
        let found = judge_consumer(
            STORE,
            &page(
                "consumer_partition_stalled{topic=\"reset\",partition=\"8\"} 1\n\
                 consumer_partition_stalled{topic=\"reset\",partition=\"9\"} 0\n\
                 consumer_retry_seconds{lane=\"0\"} 61\nconsumer_lost_records_total{topic=\"reset\"} 2\n",
            ),
        );
        let problem = |alert| (Level::Problem, Some(alert));
        assert_eq!(
            levels(&found),
            ["PartitionStalled", "BatchRetried", "RecordsLost"].map(problem)
        );
        let mend = found[0].mend.as_deref().unwrap();
        assert!(mend.ends_with("dlq step-over --service service-store reset/8/OFFSET"), "{mend}");
    }

    #[test]
    fn lag_is_told_in_records_and_seconds_and_only_if_it_is_one() {
        let at = |lag: u32, next: u32| {
            page(&format!(
                "consumer_lag_records{{topic=\"incoming\",partition=\"0\"}} {lag}\n\
                 consumer_next_offset{{topic=\"incoming\",partition=\"0\"}} {next}\n"
            ))
        };
        let judged = |before: &Metrics, after: &Metrics| {
            judge_lag(STORE, before, after, Duration::from_secs(2))
        };
        assert_eq!(judged(&at(90, 0), &at(100, 200)), []);
        let far = judged(&at(6_000, 0), &at(6_000, 2_000));
        assert_eq!(levels(&far), [(Level::Warning, Some("ConsumerLagGrowing"))]);
        assert!(far[0].what.contains("6000 records of incoming behind, 6 s at 1000"), "{far:?}");
        let still = judged(&at(1, 5), &at(1, 5));
        assert_eq!(levels(&still), [(Level::Problem, Some("ConsumerStuck"))]);
        assert_eq!(judged(&at(0, 5), &at(1, 5)), [], "it has just come");
    }

    #[test]
    fn what_is_turned_away_is_told_with_what_gives_room() {
        let found = judge_turned_away(
            STORE,
            &page(
                "http_server_request_duration_seconds_count{route=\"/\"} 1000\n\
                 http_server_requests_shed_total{reason=\"rows\"} 11\n\
                 http_server_requests_shed_total{reason=\"rate\"} 9\n",
            ),
        );
        assert_eq!(levels(&found), [(Level::Warning, Some("RequestsTurnedAway"))]);
        assert_eq!(found[0].mend.as_deref(), Some("raise ITEMS_LIMIT if the disk has room"));
    }

    #[test]
    fn limits_that_are_near_are_told() {
        let level =
            |rows| judge_rows(STORE, "item", "ITEMS_LIMIT", rows, 100.0).map(|one| one.level);
        assert_eq!(level(79.0), None);
        assert_eq!(level(80.0), Some(Level::Warning));
        assert_eq!(level(100.0), Some(Level::Problem));
        let files = page("process_open_fds 90\nprocess_max_fds 100\n");
        assert_eq!(
            levels(&judge_files(STORE, &files)),
            [(Level::Warning, Some("FileDescriptorsLow"))]
        );
    }
}
