//! Orders and events that the tests of several modules are about.

use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, EventKind, Order};

/// The time so many seconds after 1970 began.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// An order of this number and client.
pub(crate) fn order(number: i64, client: i64) -> Order {
    Order {
        order_id: number.try_into().unwrap(),
        item_id: 1.try_into().unwrap(),
        seller_id: 1.try_into().unwrap(),
        client_id: client.try_into().unwrap(),
        quantity: 1.try_into().unwrap(),
    }
}

/// What became true of an order, and when.
pub(crate) fn event(number: i64, kind: EventKind, seconds: i64) -> Event {
    Event { order: order(number, 1), kind, time: at(seconds) }
}
