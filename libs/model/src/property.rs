//! What must hold: the invariants of ARCHITECTURE.md, as far as they are about what is modelled.
//! And what must be possible: a model in which nothing goes wrong because nothing happens proves
//! nothing.

use ordersaga_contract::{Fact, Topic};
use ordersaga_saga::status::Step;
use stateright::Property;

use crate::create_order;
use crate::monitoring::Facts;
use crate::state::{Saga, Service, State};
use crate::store;
use crate::system::System;

/// Every accepted order ends, and all services agree how.
pub const I1: &str = "I1 at rest every order is SHIPPING or CANCELLED, and all agree";
/// Nothing is sold twice.
pub const I2: &str = "I2 no more is held than there is, and the item's row counts what is held";
/// A cancelled order holds nothing.
pub const I3: &str = "I3 at rest no cancelled order holds stock";
/// Monitoring says what the topics tell.
pub const I4: &str = "I4 at rest the status is the fold of the topics";
/// A key stands for one order.
pub const I5: &str = "I5 one idempotency key, one order";
/// No accepted order is missing from its topic.
pub const I6: &str = "I6 at rest every accepted order is in incoming";
/// Cancelled is the end.
pub const I7: &str = "I7 nothing leaves CANCELLED";
/// Every record has its effects once.
pub const I10: &str = "I10 every record is applied, and once";
/// Nothing depends on reading only once.
pub const I11: &str = "I11 at rest a replay from offset 0 changes nothing";

/// The invariants, by number.
pub const INVARIANTS: [&str; 9] = [I1, I2, I3, I4, I5, I6, I7, I10, I11];

/// The properties of a system: the invariants, and what its scenario and budget must make happen.
pub(crate) fn all(system: &System) -> Vec<Property<System>> {
    let mut properties = vec![
        Property::always(I1, |s: &System, state: &State| {
            !state.is_at_rest() || each(state, |o| agrees(s, o))
        }),
        Property::always(I2, |_, state: &State| stock_is_held(state)),
        Property::always(I3, |_, state: &State| {
            !state.is_at_rest() || each(state, holds_nothing_in_vain)
        }),
        Property::always(I4, |s: &System, state: &State| {
            !state.is_at_rest() || each(state, |o| says_all(s, o))
        }),
        Property::always(I5, |_, state: &State| each(state, |o| !(o.is_second && o.is_accepted()))),
        Property::always(I6, |_, state: &State| !state.is_at_rest() || each(state, is_incoming)),
        Property::always(I7, |s: &System, state: &State| each(state, |o| stays_ended(s, o))),
        Property::always(I10, |_, state: &State| state.is_counted),
        Property::always(I11, |s: &System, state: &State| {
            !state.is_at_rest() || is_replayable(s, state)
        }),
        Property::sometimes("an order is SHIPPING", |s: &System, state: &State| {
            state.is_at_rest()
                && any(state, |o| o.monitoring.step(s.without) == Some(Step::Shipping))
        }),
        Property::sometimes("a held unit is given back", |_, state: &State| {
            any(state, |o| o.store.row == store::Row::Released)
        }),
        Property::sometimes(
            "a reset overtakes its placement and leaves a tombstone",
            |_, state: &State| any(state, |o| o.store.row == store::Row::Tombstone),
        ),
        Property::sometimes(
            "client and deadline meet the store's answer too late",
            |_, state: &State| {
                any(state, |o| {
                    o.topics[Topic::Reset as usize].contains(Fact::ResetByDeadline)
                        && o.store.row == store::Row::Reserved
                })
            },
        ),
    ];
    let wanted: u8 = system.scenario.orders().iter().sum();
    if wanted > system.scenario.stock() {
        properties.extend([
            Property::sometimes("the store refuses an order", |_, state: &State| {
                any(state, |o| o.store.row == store::Row::Refused)
            }),
            Property::sometimes("an order gets what another gave back", |_, state: &State| {
                any(state, |o| o.store.row == store::Row::Released)
                    && held(state) == state.item.quantity
            }),
            Property::sometimes("an order is reset by store and client", |_, state: &State| {
                any(state, |o| {
                    let reset = o.log(Topic::Reset);
                    reset.contains(Fact::ResetByStore) && reset.contains(Fact::ResetByClient)
                })
            }),
        ]);
    }
    if system.budget.crashes + system.budget.duplicates > 0 {
        properties.push(Property::sometimes("an event is published twice", |_, state: &State| {
            any(state, |o| Fact::ALL.into_iter().any(|f| o.told().filter(|t| *t == f).count() > 1))
        }));
    }
    if system.budget.duplicates > 0 {
        properties.push(Property::sometimes(
            "a client asks again under its key",
            |s: &System, state: &State| {
                state.budget.duplicates < s.budget.duplicates
                    && each(state, |o| !o.is_accepted() || o.told().count() == 0)
                    && any(state, Saga::is_accepted)
                    && state.is_answered()
            },
        ));
    }
    if system.budget.zombies > 0 {
        properties.push(Property::sometimes("the fence stops a zombie", |_, state: &State| {
            state.was_fenced
        }));
    }
    if system.budget.late > 0 {
        properties.extend(of_late_records());
    }
    properties
}

/// What must happen where records are put aside.
fn of_late_records() -> [Property<System>; 3] {
    [
        // One topic has both, the reservation first.
        Property::sometimes("monitoring hears of a release first", |_, state: &State| {
            any(state, |o| {
                let heard = o.monitoring.facts;
                heard.contains(Fact::Released) && !heard.contains(Fact::Reserved)
            })
        }),
        Property::sometimes("a reset comes while its placement is aside", |_, state: &State| {
            any(state, |o| o.aside.contains(Fact::Placed) && o.store.row == store::Row::Tombstone)
        }),
        Property::sometimes("what was put aside is read at last", |s: &System, state: &State| {
            state.is_at_rest() && state.budget.late < s.budget.late
        }),
    ]
}

fn each(state: &State, holds: impl Fn(&Saga) -> bool) -> bool {
    state.orders.iter().all(holds)
}

fn any(state: &State, holds: impl Fn(&Saga) -> bool) -> bool {
    state.orders.iter().any(holds)
}

/// Units for which there is a live reservation.
fn held(state: &State) -> u8 {
    let live = state.orders.iter().filter(|order| order.store.row == store::Row::Reserved);
    live.map(|order| order.quantity).sum()
}

fn stock_is_held(state: &State) -> bool {
    let held = held(state);
    held <= state.item.quantity && held == state.item.reserved
}

/// Whether all services see the order at the same end; or none has heard of it, if it was not
/// accepted.
fn agrees(system: &System, order: &Saga) -> bool {
    let step = order.monitoring.step(system.without);
    match order.create_order.row {
        create_order::Row::Absent => step.is_none() && order.store.row == store::Row::Absent,
        create_order::Row::Placed => false,
        create_order::Row::Reserved => {
            step == Some(Step::Shipping) && order.store.row == store::Row::Reserved
        }
        create_order::Row::Cancelled => {
            step == Some(Step::Cancelled) && order.store.row != store::Row::Reserved
        }
    }
}

fn holds_nothing_in_vain(order: &Saga) -> bool {
    let is_over = order.create_order.row == create_order::Row::Cancelled
        || order.told().any(|fact| fact.initiator().is_some());
    !(is_over && order.store.row == store::Row::Reserved)
}

fn says_all(system: &System, order: &Saga) -> bool {
    order.monitoring.status(system.without) == order.told().collect::<Facts>().status()
}

fn is_incoming(order: &Saga) -> bool {
    !order.is_accepted() || order.log(Topic::Incoming).contains(Fact::Placed)
}

fn stays_ended(system: &System, order: &Saga) -> bool {
    let row = order.create_order.row == create_order::Row::Cancelled || !order.create_order.ended;
    let status =
        !order.monitoring.ended || order.monitoring.step(system.without) == Some(Step::Cancelled);
    row && status
}

/// Whether every record, applied once more, changes nothing and says nothing. Then so does any
/// number of them in any order: each finds what the last one found.
fn is_replayable(system: &System, state: &State) -> bool {
    state.orders.iter().enumerate().all(|(place, order)| {
        let mut again = order.told();
        again.all(|fact| {
            Service::ALL.into_iter().all(|service| {
                let follows = service.topics().contains(&fact.topic());
                !follows || system.is_idle(state, service, place, fact)
            })
        })
    })
}
