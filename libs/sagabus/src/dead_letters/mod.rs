//! The topic `dead-letter`: what stands in it, and the operator's side of it.
//!
//! It is append-only. A record that a consumer refused stands in it once per consumer that did so,
//! and is known by its origin. What became of a letter stands in it too, as a resolution: whoever
//! folds the topic knows which letters are open.

mod entry;
mod hindrance;
mod log;
mod step_over;

pub use entry::{Entry, Header, Letter, NoEntry, Place, Resolution, Verdict};
pub use hindrance::{Hindrance, MAX_ATTEMPTS};
pub use log::{DeadLetters, Position, Writer};
pub use step_over::step_over;

pub(crate) use entry::added;

/// Headers of the records in `dead-letter`, and of those put back where they came from.
pub mod header {
    /// The topic a letter comes from, without an environment's prefix.
    pub const TOPIC: &str = "dead-letter-topic";
    /// Its partition there.
    pub const PARTITION: &str = "dead-letter-partition";
    /// Its offset there.
    pub const OFFSET: &str = "dead-letter-offset";
    /// Why the consumer refused it.
    pub const ERROR: &str = "dead-letter-error";
    /// Who refused it.
    pub const CONSUMER: &str = "dead-letter-consumer";
    /// When it was refused, or resolved.
    pub const TIME: &str = "dead-letter-time";
    /// Of a letter: it has not all headers of the record, which were too long.
    pub const CUT: &str = "dead-letter-cut";
    /// Makes the record a resolution: `replayed` or `discarded`.
    pub const RESOLUTION: &str = "dead-letter-resolution";
    /// Of a resolution: the offset at which the letter was put back.
    pub const REPLAYED_OFFSET: &str = "dead-letter-replayed-offset";
    /// Of a record that was put back: how often that has been done.
    pub const ATTEMPT: &str = "dead-letter-attempt";
    /// Of a record that was put back: its offset when it was first refused, by which letters of
    /// one order keep their order.
    pub const FIRST_OFFSET: &str = "dead-letter-first-offset";
}

/// Bytes of a record that go to `dead-letter`, headers and all; what is longer is cut, so that the
/// producer and the broker, which take a million, take it with what is added.
pub const LARGEST: usize = 900_000;
