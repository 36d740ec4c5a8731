//! One record of a topic, read by its place: for whoever needs it as it was written.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::dead_letters::Header;
use crate::{Error, kafka};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);

/// A record as it stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its offset.
    pub offset: i64,
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

/// Reads what stands at `offset` of a partition of `topic` (its full name), as whatever group:
/// nothing is committed. Fails if the broker does not answer within `limit`. Blocks.
pub(crate) fn read(
    settings: &rdkafka::ClientConfig,
    topic: &str,
    partition: i32,
    offset: i64,
    limit: Duration,
) -> Result<Found, Error> {
    let client: BaseConsumer = settings
        .clone()
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    client.assign(&list)?;
    let found = poll(&client, limit);
    // Closing waits for a broker, which may be gone: nobody waits for that.
    std::thread::spawn(move || drop(client));
    found
}

fn poll(client: &BaseConsumer, limit: Duration) -> Result<Found, Error> {
    let deadline = Instant::now() + limit;
    loop {
        match client.poll(POLL) {
            Some(Ok(message)) => {
                return Ok(Found::Record(RawRecord::of(&message)));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Found::End),
            Some(Err(error)) if is_of_a_record(&error) => {
                return Ok(Found::Unreadable(error.to_string()));
            }
            Some(Err(_)) | None => {}
        }
        if Instant::now() >= deadline {
            return Err(Error::other("the broker does not answer"));
        }
    }
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
