//! service-create-order: its table of orders, its outbox and its consumers, of one order.

use ordersaga_contract::{Fact, Initiator, Topic};
use ordersaga_saga::order::{Input, OrderState, advance};

use crate::consumer::Consumer;
use crate::outbox::Outbox;
use crate::scenario::reason_of;

/// The order's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// There is none.
    #[default]
    Absent,
    /// Accepted; the store has not answered.
    Placed,
    /// The store holds stock for it.
    Reserved,
    /// Over.
    Cancelled,
}

/// What service-create-order has of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreateOrder {
    /// The row in `orders`.
    pub row: Row,
    /// Whether the row was ever cancelled; no part of the service, but what I7 is about.
    pub ended: bool,
    /// The order's rows in the outbox.
    pub outbox: Outbox,
    /// Its consumers, by topic.
    pub consumers: [Consumer; 3],
}

impl CreateOrder {
    /// The topics it follows.
    pub const TOPICS: [Topic; 2] = [Topic::Reservation, Topic::Reset];

    /// Accepts the order: its row and its event, in one transaction.
    pub fn accept(&mut self) {
        self.row = Row::Placed;
        self.outbox.append(Fact::Placed);
    }

    /// Whether `input` would change the order.
    pub fn heeds(&self, input: Input) -> bool {
        self.row.state().is_some_and(|state| advance(state, input).is_some())
    }

    /// Applies an input by the saga's rules: the row and what is to be published.
    pub fn advance(&mut self, input: Input) {
        let Some(transition) = self.row.state().and_then(|state| advance(state, input)) else {
            return;
        };
        self.row = transition.state.into();
        self.ended |= self.row == Row::Cancelled;
        if let Some(event) = transition.publish {
            self.outbox.append(event.fact());
        }
    }

    /// Applies a record.
    pub fn read(&mut self, fact: Fact) {
        if let Some(input) = input(fact) {
            self.advance(input);
        }
    }
}

/// What a record means to an order here, as service-create-order's `closing` has it.
fn input(fact: Fact) -> Option<Input> {
    match fact {
        Fact::Reserved => Some(Input::StoreReserved),
        Fact::ResetByStore => Some(Input::StoreRefused(reason_of(Initiator::Store))),
        Fact::Placed | Fact::Released | Fact::ResetByClient | Fact::ResetByDeadline => None,
    }
}

impl Row {
    fn state(self) -> Option<OrderState> {
        match self {
            Self::Absent => None,
            Self::Placed => Some(OrderState::Placed),
            Self::Reserved => Some(OrderState::Reserved),
            Self::Cancelled => Some(OrderState::Cancelled),
        }
    }
}

impl From<OrderState> for Row {
    fn from(state: OrderState) -> Self {
        match state {
            OrderState::Placed => Self::Placed,
            OrderState::Reserved => Self::Reserved,
            OrderState::Cancelled => Self::Cancelled,
        }
    }
}
