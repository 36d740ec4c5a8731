//! `CloudEvents` 1.0 over Kafka in binary mode: the metadata stands in headers, the value is the
//! event's JSON alone (`CloudEvents` Kafka protocol binding 1.0.2, section 3.2).

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{Fact, OrderId};

/// Header of the `CloudEvents` version, always `"1.0"`.
pub const SPEC_VERSION: &str = "ce_specversion";
/// Header of the event's id: see [`id`].
pub const ID: &str = "ce_id";
/// Header of the event's type: see [`event_type`].
pub const TYPE: &str = "ce_type";
/// Header of the service that wrote the event: `/service-store`.
pub const SOURCE: &str = "ce_source";
/// Header of the event's time: see [`time`].
pub const TIME: &str = "ce_time";
/// Header of the value's media type.
pub const CONTENT_TYPE: &str = "content-type";
/// Header of the W3C trace context the order was placed in, where there was one.
pub const TRACEPARENT: &str = "traceparent";

/// The event's id, the same each time the same thing is said: `17.OrderReset.client`.
pub fn id(order: OrderId, fact: Fact) -> String {
    let event_type = fact.event_type();
    match fact.initiator() {
        None => format!("{order}.{event_type}"),
        Some(initiator) => format!("{order}.{event_type}.{}", initiator.name()),
    }
}

/// The event's type with its version, as consumers filter by it.
pub const fn event_type(fact: Fact) -> &'static str {
    match fact {
        Fact::Placed => "ordersaga.OrderPlaced.v1",
        Fact::Reserved => "ordersaga.ItemReserved.v1",
        Fact::Released => "ordersaga.ReservationReleased.v1",
        Fact::ResetByClient | Fact::ResetByStore | Fact::ResetByDeadline => {
            "ordersaga.OrderReset.v1"
        }
    }
}

/// A time in the one spelling that events and headers use: RFC 3339, UTC, microseconds.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_of_one_order_by_two_initiators_are_two_events() {
        let order = 17.try_into().unwrap();
        assert_eq!(id(order, Fact::Placed), "17.OrderPlaced");
        assert_eq!(id(order, Fact::ResetByClient), "17.OrderReset.client");
        assert_ne!(id(order, Fact::ResetByStore), id(order, Fact::ResetByDeadline));
    }
}
