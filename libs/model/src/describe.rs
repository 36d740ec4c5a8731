//! Steps and states in words.

use ordersaga_contract::{Fact, Topic};

use crate::create_order;
use crate::reduction;
use crate::scenario::Guard;
use crate::state::{Client, Saga, Service, State};
use crate::step::{Place, Step, Transaction};
use crate::store;
use crate::system::System;

/// A run in words: a line for each step and one for each order as it is in the end.
pub(crate) fn run(system: &System, steps: &[Step]) -> (Vec<String>, Vec<String>) {
    let mut state = State::start(system.scenario, system.budget);
    // Reduced states are sorted; each order keeps its number all the same.
    let mut names: Vec<usize> = (1..=state.orders.len()).collect();
    let mut lines = Vec::with_capacity(steps.len());
    for step in steps {
        let mut after = system.after(&state, *step);
        names.extend(names.len() + 1..=after.orders.len());
        lines.push(Telling { system, before: &state, after: &after, names: &names }.step(*step));
        if system.is_reduced {
            reduction::canonical_with(&mut after, &mut names);
        }
        state = after;
    }
    (lines, end(system, &state, &names))
}

/// A step without what becomes of it.
pub(crate) fn action(step: Step) -> String {
    let name = |place: Place| format!("order {}", place + 1);
    match step {
        Step::Commit(transaction) => short(transaction, &name(transaction.place())),
        Step::AcceptUnheard(place) => format!("create-order accepts {}: unheard", name(place)),
        Step::AskAgain(place) => format!("the client of {} asks again", name(place)),
        Step::Publish(service, place, row) => {
            format!("{}'s relay publishes row {row} of {}", service.name(), name(place))
        }
        Step::Crash(service, deleted) => format!("{} crashes, deleted {deleted:?}", service.name()),
        Step::TellAgain(place, fact) => format!("{} of {} again", event(fact), name(place)),
        Step::Zombie(service, place, topic, position) => {
            format!("zombie of {}: {topic} of {} at {position}", service.name(), name(place))
        }
        Step::PutAside(service, place, topic) => {
            format!("{} puts aside {topic} of {}", service.name(), name(place))
        }
        Step::BringBack(place, fact) => format!("{} of {} comes back", event(fact), name(place)),
        Step::PublishAndDie(transaction) => {
            format!("publishes and dies: {}", short(transaction, &name(transaction.place())))
        }
        Step::MoveAndDie(service, place, topic) => {
            format!("{} moves past {topic} of {} and dies", service.name(), name(place))
        }
        Step::SeeStock(place) => format!("store reads the stock for {}", name(place)),
    }
}

fn short(transaction: Transaction, order: &str) -> String {
    match transaction {
        Transaction::Accept(_) => format!("create-order accepts {order}"),
        Transaction::Cancel(_) => format!("create-order cancels {order} for its client"),
        Transaction::Expire(_) => format!("create-order's sweeper cancels {order}: its deadline"),
        Transaction::Read(service, _, topic) => {
            format!("{} reads {topic} of {order}", service.name())
        }
    }
}

/// A fact, as its event is called.
fn event(fact: Fact) -> String {
    match fact.initiator() {
        Some(initiator) => format!("{} ({})", fact.event_type(), initiator.name()),
        None => fact.event_type().to_owned(),
    }
}

/// A step with the states before and after it, and the orders' numbers.
struct Telling<'a> {
    system: &'a System,
    before: &'a State,
    after: &'a State,
    names: &'a [usize],
}

impl Telling<'_> {
    fn step(&self, step: Step) -> String {
        let order = |place: Place| format!("order {}", self.names[place]);
        match step {
            Step::Commit(Transaction::Read(service, place, topic)) => {
                let position =
                    self.before.orders[place].consumers(service)[topic as usize].position;
                let read = self.fact(place, topic, position);
                let outcome = self.outcome(service, place);
                format!("{} reads {read} of {}: {outcome}", service.name(), order(place))
            }
            Step::Commit(transaction) => short(transaction, &order(transaction.place())),
            Step::AcceptUnheard(place) => format!(
                "create-order accepts {}; the answer is lost on its way to the client",
                order(place)
            ),
            Step::AskAgain(place) => self.asked_again(&order(place)),
            Step::Publish(service, place, row) => {
                let order_before = &self.before.orders[place];
                let fact = order_before.outbox(service).and_then(|outbox| outbox.fact(row));
                let again = fact.is_some_and(|fact| order_before.log(fact.topic()).contains(fact));
                let fact = fact.map(event).unwrap_or_default();
                let again = if again { " again" } else { "" };
                format!("{}'s relay publishes {fact} of {}{again}", service.name(), order(place))
            }
            Step::Crash(service, deleted) => self.crash(service, &deleted),
            Step::TellAgain(place, fact) => {
                format!("{} of {} is written to {} again", event(fact), order(place), fact.topic())
            }
            Step::Zombie(service, place, topic, position) => {
                let read = self.fact(place, topic, position);
                let is_fenced = self.system.without.has(Guard::Fence);
                let outcome =
                    if is_fenced { "fenced".to_owned() } else { self.outcome(service, place) };
                let name = service.name();
                format!(
                    "a zombie of {name} applies {read} of {} once more: {outcome}",
                    order(place)
                )
            }
            Step::PutAside(service, place, topic) => {
                let position =
                    self.before.orders[place].consumers(service)[topic as usize].position;
                let read = self.fact(place, topic, position);
                format!("{} puts aside {read} of {}", service.name(), order(place))
            }
            Step::BringBack(place, fact) => {
                let topic = fact.topic();
                format!("{} of {} comes back at the end of {topic}", event(fact), order(place))
            }
            Step::PublishAndDie(transaction) => self.published_and_died(transaction),
            Step::MoveAndDie(service, place, topic) => {
                let position =
                    self.before.orders[place].consumers(service)[topic as usize].position;
                let read = self.fact(place, topic, position);
                let name = service.name();
                format!(
                    "{name} moves its offset behind {read} of {} and crashes before it applies it",
                    order(place)
                )
            }
            Step::SeeStock(place) => {
                let stock = self.before.item;
                format!(
                    "store reads for {} that {} of {} is held",
                    order(place),
                    stock.reserved,
                    stock.quantity
                )
            }
        }
    }

    fn fact(&self, place: Place, topic: Topic, position: u8) -> String {
        self.before.orders[place].log(topic).get(position).map(event).unwrap_or_default()
    }

    /// What a service made of a record.
    fn outcome(&self, service: Service, place: Place) -> String {
        let (before, after) = (&self.before.orders[place], &self.after.orders[place]);
        let is_same = match service {
            Service::CreateOrder => before.create_order.row == after.create_order.row,
            Service::Store => {
                before.store.row == after.store.row && self.before.item == self.after.item
            }
            Service::Monitoring => {
                before.monitoring.status(self.system.without)
                    == after.monitoring.status(self.system.without)
            }
        };
        if is_same { "nothing changes".to_owned() } else { row(self.system, service, after) }
    }

    fn asked_again(&self, order: &str) -> String {
        if self.after.orders.len() > self.before.orders.len() {
            format!("the client of {order} asks again under the same key, which nobody remembers")
        } else {
            format!("its client asks again under the same key and is told {order}")
        }
    }

    fn crash(&self, service: Service, deleted: &[u16]) -> String {
        let repeated = self.before.orders.iter().zip(deleted).zip(self.names).flat_map(
            |((order, deleted), name)| {
                let outbox = order.outbox(service).into_iter();
                outbox
                    .flat_map(|outbox| outbox.repeated(*deleted))
                    .map(move |fact| format!("{} of order {name}", event(fact)))
            },
        );
        let repeated: Vec<_> = repeated.collect();
        let name = service.name();
        if repeated.is_empty() {
            return format!("{name} crashes and starts again");
        }
        let repeated = repeated.join(", ");
        format!("{name} crashes; published and not yet deleted from its outbox: {repeated}")
    }

    fn published_and_died(&self, transaction: Transaction) -> String {
        let place = transaction.place();
        let told = |state: &State| state.orders[place].told().collect::<Vec<_>>();
        let mut said = told(self.after);
        for fact in told(self.before) {
            if let Some(at) = said.iter().position(|one| *one == fact) {
                said.remove(at);
            }
        }
        let said: Vec<_> = said.into_iter().map(event).collect();
        format!(
            "{} publishes {} of order {} and crashes before the transaction commits",
            transaction.service().name(),
            said.join(", "),
            self.names[place]
        )
    }
}

/// How a service sees an order.
fn row(system: &System, service: Service, order: &Saga) -> String {
    match service {
        Service::CreateOrder => match order.create_order.row {
            create_order::Row::Absent => "unknown",
            create_order::Row::Placed => "PLACED",
            create_order::Row::Reserved => "RESERVED",
            create_order::Row::Cancelled => "CANCELLED",
        }
        .to_owned(),
        Service::Store => match order.store.row {
            store::Row::Absent => "no row",
            store::Row::Reserved => "RESERVED",
            store::Row::Released => "RELEASED",
            store::Row::Refused => "REFUSED",
            store::Row::Tombstone => "TOMBSTONE",
        }
        .to_owned(),
        Service::Monitoring => match order.monitoring.step(system.without) {
            None => "unknown",
            Some(ordersaga_saga::status::Step::UnderReservation) => "UNDER_RESERVATION",
            Some(ordersaga_saga::status::Step::Shipping) => "SHIPPING",
            Some(ordersaga_saga::status::Step::Cancelled) => "CANCELLED",
        }
        .to_owned(),
    }
}

/// The state at a run's end, as far as something has happened.
fn end(system: &System, state: &State, names: &[usize]) -> Vec<String> {
    let mut orders: Vec<_> = state
        .orders
        .iter()
        .zip(names)
        .filter(|(order, _)| order.client != Client::Asking)
        .map(|(order, name)| (*name, order))
        .collect();
    orders.sort_unstable_by_key(|(name, _)| *name);
    let sees =
        |service: Service, order| format!("{} {}", service.name(), row(system, service, order));
    let told = |order: &Saga| order.told().map(event).collect::<Vec<_>>().join(", ");
    let lines = orders.into_iter().map(|(name, order)| {
        let rows = Service::ALL.map(|service| sees(service, order)).join(", ");
        format!("order {name}: {rows}; told: {}", told(order))
    });
    let item = format!("item: {} of {} counted as held", state.item.reserved, state.item.quantity);
    lines.chain([item]).collect()
}
