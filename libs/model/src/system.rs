//! The system as a model: what can happen in a state, and what becomes of it.

use ordersaga_contract::{Fact, Topic};
use ordersaga_saga::order::Input;
use stateright::{Model, Property};

use crate::consumer::Moved;
use crate::describe;
use crate::fault::{bring_back, crash, crashes, duplicates, forget_published, put_aside, zombies};
use crate::property;
use crate::reduction;
use crate::scenario::{Budget, Guard, Scenario, Without};
use crate::state::{Client, ORDERS, Saga, Service, State};
use crate::step::{Place, Step, Transaction};

/// The system to be checked.
#[derive(Debug, Clone)]
pub struct System {
    /// How many orders for how much.
    pub scenario: Scenario,
    /// How many faults.
    pub budget: Budget,
    /// The guards that are missing.
    pub without: Without,
    /// Whether states that differ in nothing that matters count as one ([`crate::reduction`]).
    pub is_reduced: bool,
    /// Check only the property of this name.
    pub only: Option<&'static str>,
}

impl System {
    /// The system with all its guards, reduced.
    pub const fn new(scenario: Scenario, budget: Budget) -> Self {
        let without = Without::NOTHING;
        Self { scenario, budget, without, is_reduced: true, only: None }
    }

    /// The system without some guards; reduced only if no reduction relies on them.
    pub const fn without(scenario: Scenario, budget: Budget, without: Without) -> Self {
        let is_reduced = !without.is_irreducible();
        Self { scenario, budget, without, is_reduced, only: None }
    }

    /// All that can happen.
    fn all_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for place in 0..state.orders.len() {
            self.steps_of(state, place, &Service::ALL, steps);
        }
        crashes(state, self.takes_over(), steps);
        duplicates(state, steps);
        zombies(state, steps);
    }

    /// What clients and services can do to an order.
    pub(crate) fn steps_of(
        &self,
        state: &State,
        place: Place,
        services: &[Service],
        steps: &mut Vec<Step>,
    ) {
        self.client_steps(state, place, steps);
        for service in services {
            self.service_steps(state, *service, place, steps);
        }
        bring_back(state, place, steps);
    }

    /// What clients and deadlines may do to an order.
    fn client_steps(&self, state: &State, place: Place, steps: &mut Vec<Step>) {
        let order = &state.orders[place];
        match order.client {
            Client::Asking => {
                self.commits(state, Transaction::Accept(place), steps);
                if state.budget.duplicates > 0 {
                    steps.push(Step::AcceptUnheard(place));
                }
            }
            Client::Unanswered => steps.push(Step::AskAgain(place)),
            Client::Answered if order.create_order.heeds(Input::ClientCancels) => {
                self.commits(state, Transaction::Cancel(place), steps);
            }
            Client::Answered | Client::Gone => {}
        }
        if order.create_order.heeds(Input::DeadlinePassed) {
            self.commits(state, Transaction::Expire(place), steps);
        }
    }

    /// What a service has to do for an order.
    pub(crate) fn service_steps(
        &self,
        state: &State,
        service: Service,
        place: Place,
        steps: &mut Vec<Step>,
    ) {
        let order = &state.orders[place];
        if let Some(outbox) = order.outbox(service) {
            let rows = outbox.unpublished();
            steps.extend(rows.map(|(row, _)| Step::Publish(service, place, row)));
        }
        for topic in service.topics() {
            let Some(fact) = order.unread(service, *topic) else { continue };
            // What one reader cannot read another may not be able to read, either.
            if state.budget.late > 0 || order.aside.contains(fact) {
                steps.push(Step::PutAside(service, place, *topic));
            }
            let decides = service == Service::Store && fact == Fact::Placed;
            if decides && self.without.lacks(Guard::StockLock) && order.store.seen.is_none() {
                steps.push(Step::SeeStock(place));
                continue;
            }
            self.commits(state, Transaction::Read(service, place, *topic), steps);
            if self.without.lacks(Guard::AtomicOffset) && state.budget.crashes > 0 {
                steps.push(Step::MoveAndDie(service, place, *topic));
            }
        }
    }

    /// A transaction, and what a missing outbox makes of it if it has something to say.
    fn commits(&self, state: &State, transaction: Transaction, steps: &mut Vec<Step>) {
        steps.push(Step::Commit(transaction));
        if self.without.lacks(Guard::Outbox)
            && state.budget.crashes > 0
            && !self.says(state, transaction).is_empty()
        {
            steps.push(Step::PublishAndDie(transaction));
        }
    }

    pub(crate) fn takes_over(&self) -> bool {
        !self.without.lacks(Guard::Takeover)
    }

    /// The state after a step.
    pub(crate) fn after(&self, state: &State, step: Step) -> State {
        let mut state = state.clone();
        match step {
            Step::Commit(transaction) => self.commit(&mut state, transaction),
            Step::AcceptUnheard(place) => {
                state.budget.duplicates -= 1;
                state.orders[place].create_order.accept();
                state.orders[place].client = Client::Unanswered;
            }
            Step::AskAgain(place) => {
                state.orders[place].client = Client::Answered;
                if self.without.lacks(Guard::IdempotencyKey) {
                    ask_for_another(&mut state, place);
                }
            }
            Step::Publish(service, place, row) => publish(&mut state, service, place, row),
            Step::Crash(service, deleted) => crash(&mut state, service, deleted, self.takes_over()),
            Step::TellAgain(place, fact) => {
                state.budget.duplicates -= 1;
                state.orders[place].tell(fact);
            }
            Step::Zombie(service, place, topic, position) => {
                state.budget.zombies -= 1;
                self.read(&mut state, service, place, topic, position);
            }
            Step::PutAside(service, place, topic) => put_aside(&mut state, service, place, topic),
            Step::BringBack(place, fact) => {
                state.orders[place].aside.remove(fact);
                state.orders[place].tell(fact);
            }
            Step::PublishAndDie(transaction) => self.publish_and_die(&mut state, transaction),
            Step::MoveAndDie(service, place, topic) => {
                crash(&mut state, service, [0; ORDERS], self.takes_over());
                let consumer = state.orders[place].consumer_mut(service, topic);
                consumer.offset = consumer.position + 1;
                consumer.restart();
                state.is_counted = false;
            }
            Step::SeeStock(place) => state.orders[place].store.seen = Some(state.item.reserved),
        }
        if state.budget.crashes == 0 {
            forget_published(&mut state);
        }
        state
    }

    fn commit(&self, state: &mut State, transaction: Transaction) {
        let order = &mut state.orders[transaction.place()];
        match transaction {
            Transaction::Accept(_) => {
                order.create_order.accept();
                order.client = Client::Answered;
            }
            Transaction::Cancel(_) => order.create_order.advance(Input::ClientCancels),
            Transaction::Expire(_) => order.create_order.advance(Input::DeadlinePassed),
            Transaction::Read(service, place, topic) => {
                let position = order.consumers(service)[topic as usize].position;
                let is_applied = self.read(state, service, place, topic, position);
                let consumer = state.orders[place].consumer_mut(service, topic);
                // A fenced instance starts again from the database.
                consumer.position = if is_applied { position + 1 } else { consumer.offset };
            }
        }
    }

    /// An instance's transaction for the record at `position`: first the offset, then the effects.
    /// Whether it committed.
    fn read(
        &self,
        state: &mut State,
        service: Service,
        place: Place,
        topic: Topic,
        position: u8,
    ) -> bool {
        let without = self.without;
        let order = &mut state.orders[place];
        let Some(fact) = order.log(topic).get(position) else { return false };
        match order.consumer_mut(service, topic).move_offset(position, without.has(Guard::Fence)) {
            Moved::Forward => {}
            Moved::Unfenced => state.is_counted = false,
            Moved::Fenced => {
                state.was_fenced = true;
                return false;
            }
        }
        order.apply(&mut state.item, service, fact, without);
        true
    }

    /// Whether a record changes nothing but the offset.
    pub(crate) fn is_idle(
        &self,
        state: &State,
        service: Service,
        place: Place,
        fact: Fact,
    ) -> bool {
        let before = &state.orders[place];
        let (mut order, mut item) = (*before, state.item);
        order.apply(&mut item, service, fact, self.without);
        order == *before && item == state.item
    }

    /// The events a transaction would leave in the outbox.
    fn says(&self, state: &State, transaction: Transaction) -> Vec<Fact> {
        let outbox = |state: &State| {
            state.orders[transaction.place()].outbox(transaction.service()).copied()
        };
        let mut after = state.clone();
        self.commit(&mut after, transaction);
        let (Some(before), Some(after)) = (outbox(state), outbox(&after)) else {
            return Vec::new();
        };
        (before.rows()..after.rows()).filter_map(|row| after.fact(row)).collect()
    }

    fn publish_and_die(&self, state: &mut State, transaction: Transaction) {
        let said = self.says(state, transaction);
        let place = transaction.place();
        for fact in said {
            state.orders[place].tell(fact);
        }
        crash(state, transaction.service(), [0; ORDERS], self.takes_over());
        if transaction == Transaction::Accept(place) {
            // Its key was not committed either, so the client's next try is a new order.
            state.orders[place].client = Client::Gone;
            ask_for_another(state, place);
        }
    }
}

/// The client of the order at `place` asks again, and nobody remembers that it did before.
fn ask_for_another(state: &mut State, place: Place) {
    let quantity = state.orders[place].quantity;
    // Where there is no room, this client gives up: the others show what there is to see.
    let _ = state.orders.try_push(Saga { quantity, is_second: true, ..Saga::default() });
}

fn publish(state: &mut State, service: Service, place: Place, row: u8) {
    let order = &mut state.orders[place];
    let Some(outbox) = order.outbox_mut(service) else { return };
    outbox.publish(row);
    if let Some(fact) = outbox.fact(row) {
        order.tell(fact);
    }
}

impl Model for System {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self.scenario, self.budget)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if self.is_reduced {
            self.reduced_steps(state, steps);
        } else {
            self.all_steps(state, steps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = self.after(last, step);
        debug_assert!(state.progress() > last.progress(), "{step:?} leads nowhere");
        if self.is_reduced {
            reduction::canonical(&mut state);
        }
        Some(state)
    }

    fn format_action(&self, step: &Step) -> String {
        describe::action(*step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = property::all(self);
        properties.retain(|property| self.only.is_none_or(|only| property.name == only));
        properties
    }
}
