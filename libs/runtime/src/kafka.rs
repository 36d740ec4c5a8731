//! What the producer and the consumer share: settings and how the broker's state is watched.

use std::panic::AssertUnwindSafe;

use rdkafka::ClientConfig;
use rdkafka::Statistics;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::config::KafkaConfig;
use crate::health::Dependency;

/// How often librdkafka reports; it bounds how late `/ready` knows of a broker that went or came.
const STATISTICS_INTERVAL_MS: &str = "1000";

/// Settings of every client: it reconnects within a second of the broker's return.
pub(crate) fn client(config: &KafkaConfig) -> ClientConfig {
    client_of(&config.brokers)
}

/// The same, of a broker by its address.
pub(crate) fn client_of(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
        .set_log_level(RDKafkaLogLevel::Warning);
    client
}

/// Whether a connection to a broker stands. An idle client keeps one, which may be that to a
/// bootstrap address: it connects to others only when it has something to send.
fn broker_is_up(statistics: &Statistics) -> bool {
    statistics.brokers.values().any(|broker| broker.state == "UP")
}

/// The dependency as seen by one client: up, or down with what is missing.
pub(crate) fn report(broker: &Dependency, statistics: &Statistics, missing: Option<&str>) {
    if !broker_is_up(statistics) {
        broker.down("no connection to the broker");
    } else if let Some(missing) = missing {
        broker.down(missing);
    } else {
        broker.up();
    }
}

/// librdkafka's own lines: what it holds for an error is worth a warning here, since it goes on
/// trying; whether the broker is there shows on `/ready`.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if level as i32 <= RDKafkaLogLevel::Error as i32 {
        tracing::warn!(facility, message, "kafka client");
    } else {
        tracing::debug!(facility, message, "kafka client");
    }
}

/// Reads headers; `None` if a name in them is not UTF-8, at which rdkafka panics.
pub(crate) fn reading_headers<T>(read: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(read)).ok()
}

/// All headers of a record; none if a name in them is not UTF-8.
pub(crate) fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let headers = reading_headers(|| {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    });
    headers.unwrap_or_default()
}
