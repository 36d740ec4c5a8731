//! What can become true of an order, each at most once: the identity of an event within its order.

use crate::{Initiator, Topic};

/// A fact about an order. Saying it twice changes nothing, so `(order, fact)` identifies an event
/// wherever duplicates are dropped: in the status table's key and in the `CloudEvents` id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum Fact {
    /// The client placed the order.
    Placed = 1,
    /// The store holds stock for it.
    Reserved = 2,
    /// The store gave the stock back.
    Released = 3,
    /// The client cancelled it.
    ResetByClient = 4,
    /// The store refused it.
    ResetByStore = 5,
    /// It ran out of time.
    ResetByDeadline = 6,
}

impl Fact {
    /// All facts, by code.
    pub const ALL: [Self; 6] = [
        Self::Placed,
        Self::Reserved,
        Self::Released,
        Self::ResetByClient,
        Self::ResetByStore,
        Self::ResetByDeadline,
    ];

    /// The number that stands for the fact in a database. Never reused for another meaning.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The fact a number of [`Fact::code`] stands for.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.code() == code)
    }

    /// The `type` of the event that says it.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Placed => "OrderPlaced",
            Self::Reserved => "ItemReserved",
            Self::Released => "ReservationReleased",
            Self::ResetByClient | Self::ResetByStore | Self::ResetByDeadline => "OrderReset",
        }
    }

    /// The topic it is said on.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Placed => Topic::Incoming,
            Self::Reserved | Self::Released => Topic::Reservation,
            Self::ResetByClient | Self::ResetByStore | Self::ResetByDeadline => Topic::Reset,
        }
    }

    /// The service that says it.
    pub const fn writer(self) -> &'static str {
        match self {
            Self::Placed | Self::ResetByClient | Self::ResetByDeadline => "service-create-order",
            Self::Reserved | Self::Released | Self::ResetByStore => "service-store",
        }
    }

    /// Who ended the order, if the fact ends it.
    pub const fn initiator(self) -> Option<Initiator> {
        match self {
            Self::ResetByClient => Some(Initiator::Client),
            Self::ResetByStore => Some(Initiator::Store),
            Self::ResetByDeadline => Some(Initiator::Deadline),
            Self::Placed | Self::Reserved | Self::Released => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_their_facts() {
        for fact in Fact::ALL {
            assert_eq!(Fact::from_code(fact.code()), Some(fact));
        }
        assert_eq!(Fact::from_code(0), None);
    }
}
