//! Fewer states, with the same verdict. All of it rests on the guards, so a system without one is
//! checked as it is; `tests/reduction.rs` compares both on systems small enough.
//!
//! 1. **Orders are alike.** Those for the same quantity differ in nothing but their ids, of which no
//!    decision takes notice: states that are each other's permutation are one (orders are sorted).
//! 2. **What changes nothing is done at once.** A record that changes nothing but the offset, of an
//!    order the service has a row for, will change nothing at any time after: rows only move on.
//!    Reading it touches nothing that another step reads and hides none, and at rest it is read in
//!    any case; so it need not be tried in every possible place. Nor need publishing again what all
//!    who follow the topic would read so; nor putting it aside, which only repeats it.
//! 3. **A repeated record is forgotten** once both services have read it, for the same reason. That
//!    nothing can depend on it is what I11 checks of every record at rest. Monitoring must not have
//!    read on before: the repeated one may be the one it put aside.
//! 4. **Monitoring reads last, an order after the other.** Nobody reads what monitoring writes, and
//!    it takes only from topics, which only grow: whatever the others do after it has read a record,
//!    they could have done before. Its facts of one order are apart from those of another. What it
//!    can get to read in which order within an order stays as it was. What it puts aside comes back
//!    to the others as a repetition, of what each has read.
//! 5. **Zombies try at rest.** An offset once passed stays passed, so an attempt that the fence stops
//!    it stops at any time after.
//! 6. **An order that touches nothing shared goes first**, once no fault is left to be shared: what
//!    it does next neither sees nor hides what others do, as long as it does not come to the item's
//!    stock, and it has something that it must do. Everything it might do is tried.

use ordersaga_contract::{Fact, Topic};

use crate::create_order;
use crate::fault::{bring_back, crashes, duplicates, zombies};
use crate::state::{Client, Saga, Service, State};
use crate::step::{Place, Step, Transaction};
use crate::store::{self, Store};
use crate::system::System;

/// The services that decide, other than monitoring, which only listens.
const SELLING: [Service; 2] = [Service::CreateOrder, Service::Store];

impl System {
    /// What is enough to be tried.
    pub(crate) fn reduced_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if let Some(idle) = self.idle_read(state).or_else(|| self.idle_publish(state)) {
            steps.push(idle);
        } else if is_last_turn(state) {
            self.monitoring_steps(state, steps);
        } else if let Some(place) = place_apart(state) {
            self.steps_of(state, place, &SELLING, steps);
        } else {
            for place in 0..state.orders.len() {
                self.steps_of(state, place, &SELLING, steps);
            }
            crashes(state, self.takes_over(), steps);
            duplicates(state, steps);
            if !state.orders.iter().any(is_busy_selling) {
                self.monitoring_steps(state, steps);
            }
        }
        if steps.is_empty() {
            zombies(state, steps);
        }
    }

    /// A read that changes nothing, now or later.
    fn idle_read(&self, state: &State) -> Option<Step> {
        for (place, order) in state.orders.iter().enumerate() {
            for service in Service::ALL {
                for topic in service.topics() {
                    let Some(fact) = order.unread(service, *topic) else { continue };
                    if self.is_idle_for_good(state, service, place, fact) {
                        return Some(Step::Commit(Transaction::Read(service, place, *topic)));
                    }
                }
            }
        }
        None
    }

    /// Publishing again what nobody will take notice of.
    fn idle_publish(&self, state: &State) -> Option<Step> {
        for (place, order) in state.orders.iter().enumerate() {
            for service in SELLING {
                let Some(outbox) = order.outbox(service) else { continue };
                for (row, fact) in outbox.unpublished() {
                    if order.log(fact.topic()).contains(fact)
                        && self.is_idle_for_all(state, place, fact)
                    {
                        return Some(Step::Publish(service, place, row));
                    }
                }
            }
        }
        None
    }

    fn is_idle_for_all(&self, state: &State, place: Place, fact: Fact) -> bool {
        SELLING.into_iter().all(|service| {
            let follows = service.topics().contains(&fact.topic());
            !follows || self.is_idle_for_good(state, service, place, fact)
        })
    }

    /// Whether a record changes nothing but the offset, now or later.
    fn is_idle_for_good(&self, state: &State, service: Service, place: Place, fact: Fact) -> bool {
        let order = &state.orders[place];
        let is_known = match service {
            Service::CreateOrder => order.create_order.row != create_order::Row::Absent,
            Service::Store => order.store.row != store::Row::Absent,
            Service::Monitoring => true,
        };
        is_known && self.is_idle(state, service, place, fact)
    }

    /// What monitoring reads next, of the first order it has not read to the end.
    fn monitoring_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let is_behind =
            |order: &Saga| order.is_busy(Service::Monitoring) || !order.aside.is_empty();
        if let Some(place) = state.orders.iter().position(is_behind) {
            self.service_steps(state, Service::Monitoring, place, steps);
            bring_back(state, place, steps);
        }
    }
}

/// The state that stands for all that differ from it in nothing that matters.
pub(crate) fn canonical(state: &mut State) {
    forget_all_repeated(state);
    state.orders.sort_unstable();
}

/// The same; the orders' names go with them.
pub(crate) fn canonical_with(state: &mut State, names: &mut [usize]) {
    forget_all_repeated(state);
    let mut pairs: Vec<_> = state.orders.iter().copied().zip(names.iter().copied()).collect();
    pairs.sort_unstable();
    for (place, (order, name)) in pairs.into_iter().enumerate() {
        (state.orders[place], names[place]) = (order, name);
    }
}

fn forget_all_repeated(state: &mut State) {
    for order in &mut state.orders {
        for topic in Topic::EVENTS {
            forget_repeated(order, topic);
        }
    }
}

/// Takes out of a log what stands in it before and has been read by all but monitoring.
fn forget_repeated(order: &mut Saga, topic: Topic) {
    if order.monitoring.consumers[topic as usize].position > 0 {
        return;
    }
    let read = SELLING
        .into_iter()
        .filter(|service| service.topics().contains(&topic))
        .map(|service| order.consumers(service)[topic as usize].offset)
        .min();
    for place in (1..read.unwrap_or(0)).rev() {
        let log = order.log(topic);
        let is_repeated = log.iter().take(usize::from(place)).any(|f| Some(f) == log.get(place));
        if is_repeated {
            order.topics[topic as usize].remove(place);
            for service in Service::ALL {
                order.consumer_mut(service, topic).step_back_from(place);
            }
        }
    }
}

/// Whether monitoring has begun to read: then the others have done what they will do.
fn is_last_turn(state: &State) -> bool {
    let mut consumers = state.orders.iter().flat_map(|order| order.monitoring.consumers);
    consumers.any(|consumer| consumer.position > 0)
}

/// An order that has something to do and cannot come upon the others with it.
fn place_apart(state: &State) -> Option<Place> {
    let is_apart = |order: &Saga| {
        is_busy_selling(order) && !Store::TOPICS.iter().any(|t| touches_stock(order, *t))
    };
    let may_fail = state.budget.crashes + state.budget.duplicates + state.budget.late > 0;
    if may_fail { None } else { state.orders.iter().position(is_apart) }
}

fn is_busy_selling(order: &Saga) -> bool {
    order.client == Client::Unanswered
        || !order.aside.is_empty()
        || SELLING.into_iter().any(|service| order.is_busy(service))
}

/// Whether the store's next record of a topic takes stock or gives it back.
fn touches_stock(order: &Saga, topic: Topic) -> bool {
    let Some(fact) = order.unread(Service::Store, topic) else { return false };
    match order.store.row {
        store::Row::Absent => fact == Fact::Placed,
        store::Row::Reserved => fact.initiator().is_some(),
        store::Row::Released | store::Row::Refused | store::Row::Tombstone => false,
    }
}
