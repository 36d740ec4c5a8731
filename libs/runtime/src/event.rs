//! The events of the saga as messages of the bus.

use ordersaga_contract::{Event, EventKind, Order, OutOfRange, Topic, cloud_event, partition_of};
use sagabus::{Batch, Failure, Message, Poison, Received};

/// An event as it stands in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaEvent(pub Event);

/// An event as consumed.
pub type Record = sagabus::Record<SagaEvent>;

impl Message for SagaEvent {
    fn topic(&self) -> &str {
        self.0.kind.fact().topic().name()
    }

    fn key(&self) -> String {
        self.0.order.order_id.to_string()
    }

    fn partition(&self) -> Option<u32> {
        Some(partition_of(self.0.order.order_id))
    }

    fn kind(&self) -> &str {
        cloud_event::event_type(self.0.kind.fact())
    }

    fn id(&self) -> String {
        cloud_event::id(self.0.order.order_id, self.0.kind.fact())
    }

    fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    fn decode(received: &Received<'_>) -> Result<Self, Poison> {
        let topic = Topic::EVENTS.into_iter().find(|topic| topic.name() == received.topic);
        let topic = topic.ok_or_else(|| Poison::new("no topic of events"))?;
        let event = Event::decode(topic, received.partition, received.key, received.payload);
        event.map(Self).map_err(Poison::new)
    }
}

/// Adds an event to a batch, in the trace of the request that placed the order.
pub fn publish(batch: &mut Batch, order: Order, kind: EventKind, traceparent: Option<&str>) {
    let event = Event { order, kind, time: batch.time() };
    batch.publish(&SagaEvent(event), traceparent);
}

/// Whether trying again can help: not where a database holds what no event can.
pub fn failure(error: anyhow::Error) -> Failure {
    let is_final = error.chain().any(|cause| cause.downcast_ref::<OutOfRange>().is_some());
    // As it is: the usual way would hide its outermost type.
    let error = error.reallocate_into_boxed_dyn_error_without_backtrace();
    if is_final { Failure::Poison(error) } else { error.into() }
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::Quantity;

    use super::*;

    #[test]
    fn what_no_event_can_hold_is_not_tried_again() {
        let stored = anyhow::Error::from(Quantity::try_from(0).unwrap_err()).context("reading");
        assert!(matches!(failure(stored), Failure::Poison(_)));
        let unsent = sqlx::Error::Encode("too long".into());
        assert!(matches!(failure(unsent.into()), Failure::Poison(_)));
        assert!(matches!(failure(sqlx::Error::PoolTimedOut.into()), Failure::Retry(_)));
    }
}
