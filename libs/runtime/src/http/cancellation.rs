//! Who ended an order and why, as the services say it.

use ordersaga_contract::{Initiator, Reason};
use poem_openapi::Enum;
use serde::{Deserialize, Serialize};

/// Why an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelReason {
    /// Fewer units were free than the order wants.
    OutOfStock,
    /// The store has no such item.
    ItemNotFound,
    /// The item is another seller's.
    SellerMismatch,
    /// The client cancelled it.
    CancelledByClient,
    /// The store did not answer in time.
    DeadlineExceeded,
}

/// Who ended an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum CancelInitiator {
    /// The client.
    Client,
    /// The store.
    Store,
    /// The deadline.
    Deadline,
}

/// What ends an order as an answer says it, both ways.
macro_rules! names {
    ($from:ident => $to:ident: $($name:ident),*) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                match value { $($from::$name => Self::$name),* }
            }
        }
        impl From<$to> for $from {
            fn from(value: $to) -> Self {
                match value { $($to::$name => Self::$name),* }
            }
        }
    };
}
names!(Initiator => CancelInitiator: Client, Store, Deadline);
names!(Reason => CancelReason:
    OutOfStock, ItemNotFound, SellerMismatch, CancelledByClient, DeadlineExceeded);
