//! Faults: what may go wrong next, and what a crash takes away.

use ordersaga_contract::{Fact, Topic};

use crate::outbox::Outbox;
use crate::state::{ORDERS, Saga, Service, State};
use crate::step::{Place, Step};

/// Every way in which a service can die that makes a difference.
pub(crate) fn crashes(state: &State, is_taken_over: bool, steps: &mut Vec<Step>) {
    if state.budget.crashes > 0 {
        for service in Service::ALL {
            crashes_of(state, service, is_taken_over, steps);
        }
    }
}

/// What it had in memory is lost, and of what it had published, any part may be deleted.
fn crashes_of(state: &State, service: Service, is_taken_over: bool, steps: &mut Vec<Step>) {
    let published = |order: &Saga| order.outbox(service).map_or(0, Outbox::deletable);
    let published: Vec<_> = state.orders.iter().map(published).collect();
    let mut deleted = [0; ORDERS];
    loop {
        if loses_something(state, service, deleted, is_taken_over) {
            steps.push(Step::Crash(service, deleted));
        }
        // Counts on, each place through the parts of what was published there.
        let Some(place) = (0..published.len()).find(|place| deleted[*place] != published[*place])
        else {
            break;
        };
        deleted[place] = (deleted[place] | !published[place]).wrapping_add(1) & published[place];
        deleted[..place].fill(0);
    }
}

/// Every fact told that can be told again.
pub(crate) fn duplicates(state: &State, steps: &mut Vec<Step>) {
    if state.budget.duplicates > 0 {
        for (place, order) in state.orders.iter().enumerate() {
            let told = Fact::ALL.into_iter().filter(|fact| order.told().any(|f| f == *fact));
            steps.extend(told.map(|fact| Step::TellAgain(place, fact)));
        }
    }
}

/// Instances that hold a position which is no longer the partition's.
pub(crate) fn zombies(state: &State, steps: &mut Vec<Step>) {
    if state.budget.zombies == 0 {
        return;
    }
    for (place, order) in state.orders.iter().enumerate() {
        for service in Service::ALL {
            for topic in service.topics() {
                let consumer = order.consumers(service)[*topic as usize];
                let reached = consumer.position.max(consumer.offset);
                let old = (0..reached).filter(|position| *position != consumer.offset);
                steps.extend(old.map(|position| Step::Zombie(service, place, *topic, position)));
            }
        }
    }
}

/// A consumer writes its next record into a letter, in the transaction that moves the offset.
pub(crate) fn put_aside(state: &mut State, service: Service, place: Place, topic: Topic) {
    let order = &mut state.orders[place];
    let Some(fact) = order.unread(service, topic) else { return };
    order.consumer_mut(service, topic).skip();
    // A record's letters come back as one.
    state.budget.late -= u8::from(order.aside.insert(fact));
}

/// Everything of an order that was put aside and can come back.
pub(crate) fn bring_back(state: &State, place: Place, steps: &mut Vec<Step>) {
    steps.extend(state.orders[place].aside.iter().map(|fact| Step::BringBack(place, fact)));
}

fn loses_something(
    state: &State,
    service: Service,
    deleted: [u16; ORDERS],
    is_taken_over: bool,
) -> bool {
    state.orders.iter().zip(deleted).any(|(order, deleted)| {
        let differs = |outbox: &Outbox| {
            let leaves = !is_taken_over && outbox.is_waiting();
            leaves || outbox.repeated(deleted).next().is_some()
        };
        let differs = order.outbox(service).is_some_and(differs);
        let moves = order.consumers(service).iter().any(|c| c.position != c.offset);
        differs || moves || (service == Service::Store && order.store.seen.is_some())
    })
}

/// A service dies and starts again.
pub(crate) fn crash(
    state: &mut State,
    service: Service,
    deleted: [u16; ORDERS],
    is_taken_over: bool,
) {
    state.budget.crashes -= 1;
    for (order, deleted) in state.orders.iter_mut().zip(deleted) {
        if let Some(outbox) = order.outbox_mut(service) {
            outbox.restart(deleted, is_taken_over);
        }
        for topic in service.topics() {
            order.consumer_mut(service, *topic).restart();
        }
        if service == Service::Store {
            order.store.seen = None;
        }
    }
}

/// Takes out of the outboxes what cannot be told from what is deleted.
pub(crate) fn forget_published(state: &mut State) {
    for order in &mut state.orders {
        order.create_order.outbox.forget_published();
        order.store.outbox.forget_published();
    }
}
