#![doc = include_str!("../README.md")]

pub mod backoff;
mod bus;
pub mod cloud_event;
mod consumer;
pub mod crash;
mod database;
pub mod dead_letters;
mod error;
mod group_commit;
mod halves;
mod kafka;
mod message;
mod metrics;
mod outbox;
mod pace;
mod producer;
mod raw_record;
mod relay;
mod search;
#[cfg(feature = "opentelemetry")]
pub mod trace;
#[cfg(not(feature = "opentelemetry"))]
#[path = "no_trace.rs"]
mod trace;
mod watcher;
mod wire;

pub use bus::{Builder, Bus, Transaction, migrations};
pub use consumer::{Consumer, Handler, Reach, Record};
pub use database::{Checkout, brief, commit, ensure_writable, is_broken, within};
pub use error::{
    BoxError, BuildError, CommitError, Error, Failure, NoAnswer, Poison, ReadOnly, with_sources,
};
pub use group_commit::{Batches, GroupCommit, Rejected, group_commit};
pub use halves::Halves;
pub use kafka::{client, reach};
pub use message::{Message, Received};
pub use outbox::{Batch, FIRST_PARAMETER, Insert, Outbox};
pub use pace::Pace;
pub use raw_record::{Found, RawRecord};
pub use relay::{Invalidate, Relay};
pub use search::{Search, Searched};
pub use watcher::Watcher;

pub use {prometheus, rdkafka, sqlx};
