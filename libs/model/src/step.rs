//! What can happen next.

use ordersaga_contract::{Fact, Topic};

use crate::state::{ORDERS, Service};

/// An order, by its place in the state.
pub(crate) type Place = usize;

/// A transaction of a service. What happens inside one is seen by nobody, and a crash inside undoes
/// it all, so it is one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// create-order accepts an order.
    Accept(Place),
    /// create-order cancels it for its client.
    Cancel(Place),
    /// create-order's sweeper cancels it.
    Expire(Place),
    /// A service's consumer applies the next record of a topic.
    Read(Service, Place, Topic),
}

/// A step of the whole system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A transaction commits. An accepted order's client is answered.
    Commit(Transaction),
    /// An order is accepted, and the answer does not reach its client.
    AcceptUnheard(Place),
    /// A client without an answer asks again, under the same key.
    AskAgain(Place),
    /// A service's relay publishes a row of its outbox.
    Publish(Service, Place, u8),
    /// A service dies and is started again: what it had in memory is lost. Of the rows published,
    /// these of each order had been deleted, a bit each.
    Crash(Service, [u16; ORDERS]),
    /// A fact told before is written to its topic again.
    TellAgain(Place, Fact),
    /// An instance that lost the partition, and does not know it, tries to apply the record at this
    /// offset. It may have come to hold that position at any time before, so nothing needs to be
    /// remembered of it.
    Zombie(Service, Place, Topic, u8),
    /// A service's consumer puts aside the next record of a topic as a letter: its offset moves past
    /// it, and that is all.
    PutAside(Service, Place, Topic),
    /// A fact that was put aside is written to its topic again, for all its readers: the letter is
    /// replayed.
    BringBack(Place, Fact),
    /// Without [`Guard::Outbox`](crate::Guard::Outbox): a transaction's events are published, and
    /// the service dies before the commit.
    PublishAndDie(Transaction),
    /// Without [`Guard::AtomicOffset`](crate::Guard::AtomicOffset): the offset is moved behind the
    /// next record, and the service dies before the effects.
    MoveAndDie(Service, Place, Topic),
    /// Without [`Guard::StockLock`](crate::Guard::StockLock): the store reads the stock for the
    /// placement it applies next.
    SeeStock(Place),
}

impl Transaction {
    /// The order it is about.
    pub const fn place(self) -> Place {
        match self {
            Self::Accept(place)
            | Self::Cancel(place)
            | Self::Expire(place)
            | Self::Read(_, place, _) => place,
        }
    }

    /// The service whose it is.
    pub const fn service(self) -> Service {
        match self {
            Self::Accept(_) | Self::Cancel(_) | Self::Expire(_) => Service::CreateOrder,
            Self::Read(service, ..) => service,
        }
    }
}
