//! One record of a topic, read by its place: for whoever needs it as it was written.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::dead_letters::Header;
use crate::{Error, kafka};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);

/// A record as it stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its offset.
    pub offset: i64,
    /// When its producer was given it, or the broker if the topic has it so; if it says so.
    pub time: Option<DateTime<Utc>>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload.
    pub payload: Option<Vec<u8>>,
    /// Its headers, in order; none if a name in them is not UTF-8.
    pub headers: Vec<Header>,
}

impl RawRecord {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Self {
            offset: message.offset(),
            time: message.timestamp().to_millis().and_then(DateTime::from_timestamp_millis),
            key: owned(message.key()),
            payload: owned(message.payload()),
            headers: kafka::headers(message),
        }
    }
}

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The first record at the offset or behind it: offsets may be empty.
    Record(RawRecord),
    /// There is a record, and it cannot be read: what the client says of it.
    Unreadable(String),
    /// The partition ends before it.
    End,
}

/// What a client brings.
pub(crate) enum Polled<'a> {
    Record(BorrowedMessage<'a>),
    Unreadable(String),
    End,
}

/// Reads what stands at `offset` of a partition of `topic` (its full name), as whatever group:
/// nothing is committed. Fails if the broker does not answer within `limit`. Blocks.
pub(crate) fn read(
    settings: &ClientConfig,
    topic: &str,
    partition: i32,
    offset: i64,
    limit: Duration,
) -> Result<Found, Error> {
    with_client(settings, |client| {
        begin(client, topic, partition, offset)?;
        Ok(match poll(client, Instant::now() + limit).ok_or_else(silent)? {
            Polled::Record(message) => Found::Record(RawRecord::of(&message)),
            Polled::Unreadable(error) => Found::Unreadable(error),
            Polled::End => Found::End,
        })
    })
}

/// Lends a client of a group that it does not join, and to which it commits nothing.
pub(crate) fn with_client<T>(
    settings: &ClientConfig,
    work: impl FnOnce(&BaseConsumer) -> Result<T, Error>,
) -> Result<T, Error> {
    let client: BaseConsumer = settings
        .clone()
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true")
        .create()?;
    let outcome = work(&client);
    // Closing waits for a broker, which may be gone: nobody waits for that.
    std::thread::spawn(move || drop(client));
    outcome
}

/// Lets a client read a partition from an offset on, and nothing else.
pub(crate) fn begin(
    client: &BaseConsumer,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(), Error> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    Ok(client.assign(&list)?)
}

/// What the client brings next; `None` if there is nothing until then.
pub(crate) fn poll(client: &BaseConsumer, until: Instant) -> Option<Polled<'_>> {
    loop {
        match client.poll(POLL) {
            Some(Ok(message)) => return Some(Polled::Record(message)),
            Some(Err(KafkaError::PartitionEOF(_))) => return Some(Polled::End),
            Some(Err(error)) if is_of_a_record(&error) => {
                return Some(Polled::Unreadable(error.to_string()));
            }
            Some(Err(_)) | None => {}
        }
        if Instant::now() >= until {
            return None;
        }
    }
}

/// The error for that.
pub(crate) fn silent() -> Error {
    Error::other("the broker does not answer")
}

/// Whether an error is about what stands in a partition, and not about the way there.
fn is_of_a_record(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::Underflow
        )
    )
}
