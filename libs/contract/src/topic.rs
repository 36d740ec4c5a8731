//! The topics and what may stand on each.

use std::fmt;

/// A topic of the saga. Partition counts, retention and cleanup are in `redpanda/topics.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// New orders, by service-create-order.
    Incoming,
    /// Reservations made and given back, by service-store.
    Reservation,
    /// Orders that are over and are to be compensated, by service-create-order and service-store.
    Reset,
    /// Records no consumer could understand, as they were, with their origin in headers.
    DeadLetter,
}

impl Topic {
    /// The topics that carry events, in the order an order meets them.
    pub const EVENTS: [Self; 3] = [Self::Incoming, Self::Reservation, Self::Reset];

    /// The topic's name, before any prefix of an environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Reservation => "reservation",
            Self::Reset => "reset",
            Self::DeadLetter => "dead-letter",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
