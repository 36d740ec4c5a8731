//! A state of the whole system.
//!
//! It is kept order by order: each order has its own partition, and nothing but the item's stock
//! joins two orders. That orders share partitions in reality only takes possibilities away: what is
//! read in one transaction can as well be read in several, one after the other; and a record that is
//! fenced with its whole batch is fenced alone, too, or else its own order is untouched.

use arrayvec::ArrayVec;
use ordersaga_contract::{Fact, Topic};

use crate::consumer::Consumer;
use crate::create_order::{self, CreateOrder};
use crate::monitoring::{Facts, Monitoring};
use crate::outbox::Outbox;
use crate::scenario::{Budget, Scenario, Without};
use crate::sequence::Sequence;
use crate::store::{Item, Store};

/// Orders there is room for: those of a scenario and one that a missing guard lets a client make.
pub(crate) const ORDERS: usize = 4;

/// The three services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// service-create-order
    CreateOrder,
    /// service-store
    Store,
    /// service-monitoring-order
    Monitoring,
}

/// The client of an order. It asks under an idempotency key, and asks again until it is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// Has not asked yet, or not with success.
    #[default]
    Asking,
    /// The order is there, the answer was lost.
    Unanswered,
    /// Knows the order.
    Answered,
    /// Its request died with the service, and it asks again: for what becomes another order.
    Gone,
}

/// An order's saga: what there is of it anywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Saga {
    /// Units it is for.
    pub quantity: u8,
    /// Whether its client's request has left an order before: then this is one too many.
    pub is_second: bool,
    /// Its client.
    pub client: Client,
    /// service-create-order's part.
    pub create_order: CreateOrder,
    /// service-store's part.
    pub store: Store,
    /// service-monitoring-order's part.
    pub monitoring: Monitoring,
    /// The order's partition of each topic, from offset 0.
    pub topics: [Sequence; 3],
    /// What readers have put aside and is still to come back.
    pub aside: Facts,
}

/// A state of the system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// The item that all orders are for.
    pub item: Item,
    /// The orders.
    pub orders: ArrayVec<Saga, ORDERS>,
    /// Faults that may still happen.
    pub budget: Budget,
    /// Whether the fence has stopped a transaction; for the check, no service knows it.
    pub was_fenced: bool,
    /// Whether every record read so far was applied, and once; for the check.
    pub is_counted: bool,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CreateOrder, Self::Store, Self::Monitoring];

    /// The topics it follows.
    pub const fn topics(self) -> &'static [Topic] {
        match self {
            Self::CreateOrder => &CreateOrder::TOPICS,
            Self::Store => &Store::TOPICS,
            Self::Monitoring => &Monitoring::TOPICS,
        }
    }

    /// Its name in a step.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateOrder => "create-order",
            Self::Store => "store",
            Self::Monitoring => "monitoring",
        }
    }
}

impl Saga {
    /// The order's partition of a topic.
    pub fn log(&self, topic: Topic) -> Sequence {
        self.topics[topic as usize]
    }

    /// All that its topics tell.
    pub fn told(&self) -> impl Iterator<Item = Fact> {
        self.topics.into_iter().flat_map(Sequence::iter)
    }

    /// Adds a record to the topic of its fact.
    pub fn tell(&mut self, fact: Fact) {
        self.topics[fact.topic() as usize].push(fact);
    }

    /// A service's consumers, by topic.
    pub fn consumers(&self, service: Service) -> &[Consumer; 3] {
        match service {
            Service::CreateOrder => &self.create_order.consumers,
            Service::Store => &self.store.consumers,
            Service::Monitoring => &self.monitoring.consumers,
        }
    }

    /// A service's consumer of a topic.
    pub fn consumer_mut(&mut self, service: Service, topic: Topic) -> &mut Consumer {
        let consumers = match service {
            Service::CreateOrder => &mut self.create_order.consumers,
            Service::Store => &mut self.store.consumers,
            Service::Monitoring => &mut self.monitoring.consumers,
        };
        &mut consumers[topic as usize]
    }

    /// The record that a service's consumer of a topic reads next.
    pub fn unread(&self, service: Service, topic: Topic) -> Option<Fact> {
        self.consumers(service)[topic as usize].next(self.log(topic))
    }

    /// A service's outbox; monitoring has none.
    pub fn outbox(&self, service: Service) -> Option<&Outbox> {
        match service {
            Service::CreateOrder => Some(&self.create_order.outbox),
            Service::Store => Some(&self.store.outbox),
            Service::Monitoring => None,
        }
    }

    /// A service's outbox, to be changed.
    pub fn outbox_mut(&mut self, service: Service) -> Option<&mut Outbox> {
        match service {
            Service::CreateOrder => Some(&mut self.create_order.outbox),
            Service::Store => Some(&mut self.store.outbox),
            Service::Monitoring => None,
        }
    }

    /// What a record changes in a service, but for the offset.
    pub fn apply(&mut self, item: &mut Item, service: Service, fact: Fact, without: Without) {
        match service {
            Service::CreateOrder => self.create_order.read(fact),
            Service::Store => self.store.read(item, fact, self.quantity, without),
            Service::Monitoring => self.monitoring.read(fact, without),
        }
    }

    /// Whether a service still has something to do for the order.
    pub fn is_busy(&self, service: Service) -> bool {
        self.outbox(service).is_some_and(Outbox::is_waiting)
            || service.topics().iter().any(|topic| self.unread(service, *topic).is_some())
    }

    /// Whether there is nothing left that must still happen to the order. Clients may still cancel
    /// and deadlines may still pass: every order is to be at its end without.
    pub fn is_at_rest(&self) -> bool {
        self.client != Client::Unanswered
            && self.aside.is_empty()
            && !Service::ALL.iter().any(|s| self.is_busy(*s))
    }

    /// Whether create-order has committed it.
    pub fn is_accepted(&self) -> bool {
        self.create_order.row != create_order::Row::Absent
    }
}

impl State {
    /// Nothing has happened yet.
    pub fn start(scenario: Scenario, budget: Budget) -> Self {
        let order = |quantity: &u8| Saga { quantity: *quantity, ..Saga::default() };
        Self {
            item: Item { quantity: scenario.stock(), reserved: 0 },
            orders: scenario.orders().iter().map(order).collect(),
            budget,
            was_fenced: false,
            is_counted: true,
        }
    }

    /// Whether every message is delivered and every event published: nothing moves any more, unless
    /// a client or a fault moves it.
    pub fn is_at_rest(&self) -> bool {
        self.orders.iter().all(Saga::is_at_rest)
    }

    /// Whether every client that was promised an order knows it.
    pub fn is_answered(&self) -> bool {
        self.orders.iter().all(|order| order.client != Client::Unanswered)
    }

    /// What grows with every step: faults spent, then everything that is written or read. Since it
    /// does and has an end, every run comes to rest.
    pub fn progress(&self) -> (u8, u32) {
        let of = |order: &Saga| {
            let row = order.create_order.row as u32 + order.client as u32;
            let told: u32 = order.topics.iter().map(|log| u32::from(log.len())).sum();
            let read: u32 = Service::ALL
                .iter()
                .flat_map(|service| order.consumers(*service))
                .map(|consumer| u32::from(consumer.position))
                .sum();
            row + told + 2 * read + u32::from(order.store.seen.is_some())
        };
        (u8::MAX - self.budget.left(), self.orders.iter().map(of).sum())
    }
}
