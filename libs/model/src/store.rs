//! service-store: its reservations, its outbox and its consumers, of one order; and the item's
//! stock, the one thing that joins the orders.

use chrono::DateTime;
use ordersaga_contract::{Cancellation, Event, EventKind, Fact, Initiator, Order, Topic};
use ordersaga_saga::stock::{Ledger, Reservation, Stock};

use crate::consumer::Consumer;
use crate::outbox::Outbox;
use crate::scenario::{Guard, Without, reason_of};

/// The order's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// There is none.
    #[default]
    Absent,
    /// Stock is held.
    Reserved,
    /// Stock was held and is free again.
    Released,
    /// Nothing was held.
    Refused,
    /// Reset before it was seen.
    Tombstone,
}

/// The item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Units there are.
    pub quantity: u8,
    /// Units its row counts as held.
    pub reserved: u8,
}

/// What service-store has of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Store {
    /// The row in `reservation`.
    pub row: Row,
    /// The order's rows in the outbox.
    pub outbox: Outbox,
    /// Its consumers, by topic.
    pub consumers: [Consumer; 3],
    /// The count of held units as read by a transaction that has not written yet. In memory; only
    /// where [`Guard::StockLock`] is missing: under the lock, nothing comes between.
    pub seen: Option<u8>,
}

impl Store {
    /// The topics it follows.
    pub const TOPICS: [Topic; 2] = [Topic::Incoming, Topic::Reset];

    /// Applies a record of an order for `quantity` units: reservation, stock and what is to be
    /// published, in one transaction.
    pub fn read(&mut self, item: &mut Item, fact: Fact, quantity: u8, without: Without) {
        let event = Event { order: order(quantity), kind: kind(fact, without), time: NEVER };
        let is_forgotten = event.kind == EventKind::OrderPlaced
            && self.row != Row::Tombstone
            && without.lacks(Guard::Dedupe);
        let known = self.row.reservation().filter(|_| !is_forgotten);
        let stock = Stock {
            seller_id: one(),
            quantity: item.quantity.into(),
            reserved: self.seen.take().unwrap_or(item.reserved).into(),
        };
        let mut ledger = Ledger::new([(one(), stock)], known.map(|known| (event.order, known)));
        let said = ledger.apply(&event);
        for (_, stock) in ledger.changed_items() {
            item.reserved = u8::try_from(stock.reserved).expect("few orders of few units");
        }
        for (_, reservation) in ledger.changed_orders() {
            if reservation != Reservation::Cancelled || without.has(Guard::Tombstone) {
                self.row = reservation.into();
            }
        }
        if let Some(said) = said {
            self.outbox.append(said.fact());
        }
    }
}

/// The event of a fact, as the store takes it. Without the check for its own resets, such a reset is
/// to it like any other.
fn kind(fact: Fact, without: Without) -> EventKind {
    let reset =
        |initiator| EventKind::OrderReset(Cancellation { initiator, reason: reason_of(initiator) });
    match fact {
        Fact::Placed => EventKind::OrderPlaced,
        Fact::Reserved => EventKind::ItemReserved,
        Fact::Released => EventKind::ReservationReleased,
        Fact::ResetByStore if without.lacks(Guard::OwnReset) => reset(Initiator::Client),
        Fact::ResetByClient => reset(Initiator::Client),
        Fact::ResetByStore => reset(Initiator::Store),
        Fact::ResetByDeadline => reset(Initiator::Deadline),
    }
}

const NEVER: DateTime<chrono::Utc> = DateTime::UNIX_EPOCH;

/// An order. Its transaction holds no other, so its id may be any; item and seller are the
/// scenario's only ones.
fn order(quantity: u8) -> Order {
    Order {
        order_id: one(),
        item_id: one(),
        seller_id: one(),
        client_id: one(),
        quantity: i64::from(quantity).try_into().expect("orders are for at least one unit"),
    }
}

fn one<T: TryFrom<i64>>() -> T {
    T::try_from(1).ok().expect("1 is an id")
}

impl Row {
    fn reservation(self) -> Option<Reservation> {
        match self {
            Self::Absent => None,
            Self::Reserved => Some(Reservation::Reserved),
            Self::Released => Some(Reservation::Released),
            Self::Refused => Some(Reservation::Refused(reason_of(Initiator::Store))),
            Self::Tombstone => Some(Reservation::Cancelled),
        }
    }
}

impl From<Reservation> for Row {
    fn from(reservation: Reservation) -> Self {
        match reservation {
            Reservation::Reserved => Self::Reserved,
            Reservation::Released => Self::Released,
            Reservation::Refused(_) => Self::Refused,
            Reservation::Cancelled => Self::Tombstone,
        }
    }
}
