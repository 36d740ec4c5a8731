//! What the services of the saga agree on: ids, events and their JSON form, topics, and the rule
//! that sends an order to the same partition in Kafka and in Postgres. Pure: no I/O, no clocks.

pub mod cloud_event;
pub mod event;
pub mod fact;
pub mod id;
pub mod partition;
pub mod schema;
pub mod time;
pub mod topic;

pub use event::{Cancellation, DecodeError, Event, EventKind, Initiator, Order, Reason};
pub use fact::Fact;
pub use id::{ClientId, ItemId, OrderId, OutOfRange, Quantity, SellerId};
pub use partition::{PARTITIONS, partition_of, remainder_of};
pub use topic::Topic;
