//! What travels over the bus.

use std::time::Duration;

use crate::Poison;

/// A message: how it is published and how it is read back.
///
/// Each is published as a `CloudEvent`, with [`id`](Message::id) and [`kind`](Message::kind) in its
/// headers.
pub trait Message: Sized + Send + Sync + 'static {
    /// The topic it is published to, without the [prefix](crate::Builder::topic_prefix).
    fn topic(&self) -> &str;

    /// Its record's key.
    fn key(&self) -> String;

    /// The partition of its topic; `None` leaves the choice to the producer, which hashes the key.
    fn partition(&self) -> Option<u32> {
        None
    }

    /// What it tells of, as `bank.Debited.v1`: consumers filter by it.
    fn kind(&self) -> &str;

    /// The same each time the same thing is told, and never the same for two things.
    fn id(&self) -> String;

    /// Its record's value.
    fn encode(&self) -> Vec<u8>;

    /// Reads a record. One that can never be read becomes a dead letter.
    fn decode(received: &Received<'_>) -> Result<Self, Poison>;
}

/// A record as it came.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The topic, without prefix.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// The key; empty if it has none.
    pub key: &'a [u8],
    /// The value; empty if it has none.
    pub payload: &'a [u8],
    /// The time since 1970 at which the producer was given it, if it says so.
    pub created: Option<Duration>,
}
