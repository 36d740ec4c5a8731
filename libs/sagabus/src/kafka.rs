//! What the producer and the consumer share: settings and how the broker's state is watched.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

use crate::{Error, Watcher};

/// How often librdkafka reports; it bounds how late `/ready` knows of a broker that went or came.
const STATISTICS_INTERVAL_MS: &str = "1000";
/// How long one attempt to reach a broker may take.
const LOOK: Duration = Duration::from_millis(500);
/// How long what librdkafka has to tell is listened to after it.
const DRAIN: Duration = Duration::from_millis(100);

/// Settings of every client, on top of these: it reconnects within a second of the broker's return.
pub fn client(settings: &ClientConfig) -> ClientConfig {
    let mut client = settings.clone();
    client
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
        .set_log_level(RDKafkaLogLevel::Warning);
    client
}

/// Settings of every producer: a record is written once, and all in-sync replicas have it.
pub(crate) fn write_safely(client: &mut ClientConfig) -> &mut ClientConfig {
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // The topics of events take batches of 65,536 bytes: redpanda/topics.toml.
        .set("batch.size", "60000")
        // Long enough for the records of a batch, which are given to it at once, to travel together.
        .set("linger.ms", "0.2")
}

/// Whether a connection to a broker stands. An idle client keeps one, which may be that to a
/// bootstrap address: it connects to others only when it has something to send.
pub(crate) fn broker_is_up(statistics: &Statistics) -> bool {
    statistics.brokers.values().any(|broker| broker.state == "UP")
}

/// Why the broker does not let a client in or at its work, as librdkafka last told.
#[derive(Default)]
pub(crate) struct Refusal(Mutex<Option<&'static str>>);

impl Refusal {
    /// Takes note of an error that no waiting will end; it is logged when it is news.
    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        let Some(why) = refusal(error) else { return };
        if self.0.lock().replace(why) != Some(why) {
            tracing::warn!(why, reason, "the broker cannot be used");
        }
    }
}

/// What an error says about users, rights and certificates, if it is about them.
fn refusal(error: &KafkaError) -> Option<&'static str> {
    match error.rdkafka_error_code()? {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            Some("the broker refuses the user or its password")
        }
        RDKafkaErrorCode::SSL => Some("no trusted connection to the broker"),
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Some("the broker does not grant the user a right")
        }
        _ => None,
    }
}

/// The broker as seen by one client: up, or down with what is missing.
pub(crate) fn report(
    broker: &dyn Watcher,
    broker_is_up: bool,
    refusal: &Refusal,
    missing: Option<&str>,
) {
    let missing = if broker_is_up { missing } else { Some("no connection to the broker") };
    let mut refusal = refusal.0.lock();
    if let Some(missing) = missing {
        broker.down(refusal.unwrap_or(missing));
    } else {
        *refusal = None;
        broker.up();
    }
}

/// Waits until the broker answers a client of these settings. The error says why it does not;
/// what no waiting can end is an error at once. Blocks.
pub fn reach(client: &ClientConfig, within: Duration) -> Result<(), Error> {
    let probe: BaseProducer<Probe> = client.create_with_context(Probe::default())?;
    let deadline = Instant::now() + within;
    while let Err(error) = probe.client().fetch_metadata(None, LOOK) {
        // Errors are told to whoever polls.
        probe.poll(DRAIN);
        let heard = probe.context().0.lock().clone();
        let (is_final, reason) = heard.unwrap_or_else(|| (false, error.to_string()));
        if is_final || Instant::now() >= deadline {
            let anonymous = client.get("sasl.username").is_none();
            let hint = if anonymous { "; the client names no user" } else { "" };
            return Err(Error::other(format!("the broker cannot be used: {reason}{hint}")));
        }
    }
    Ok(())
}

/// Hears why there is no connection, and whether that is a [`refusal`].
#[derive(Default)]
struct Probe(Mutex<Option<(bool, String)>>);

impl ClientContext for Probe {
    fn error(&self, error: KafkaError, reason: &str) {
        let is_refusal = refusal(&error).is_some();
        let mut heard = self.0.lock();
        let keep = heard.as_ref().is_some_and(|(earlier, _)| *earlier && !is_refusal);
        // That all brokers are down follows from what was said before.
        if !keep && error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *heard = Some((is_refusal, reason.to_owned()));
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "kafka client");
    }
}

impl ProducerContext for Probe {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// librdkafka's own lines: what it holds for an error is worth a warning here, since it goes on
/// trying; whether the broker is there shows on `/ready`.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // A refusal is repeated with every attempt, many times a second; it is told by `Refusal`.
    let refused = message.contains("in state SSL_HANDSHAKE") || message.contains("in state AUTH_");
    if !refused && level as i32 <= RDKafkaLogLevel::Error as i32 {
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

/// The time since 1970 at which the producer was given a record, if it says so.
pub(crate) fn created(message: &BorrowedMessage<'_>) -> Option<Duration> {
    let millis = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok());
    millis.map(Duration::from_millis)
}
