//! Accounts made by the services' own decisions, whatever is on its way, never contradict each
//! other; accounts that were tampered with do.

use ordersaga_contract::{Event, EventKind, Order};
use ordersaga_saga::order::{Input, OrderState, advance};
use ordersaga_saga::stock::{Ledger, Reservation, Stock};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::accounts;
use super::*;

const ID: i64 = 17;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_798_000_000 + seconds, 0).unwrap()
}

/// Long after all that happened.
fn later() -> DateTime<Utc> {
    at(3_600)
}

fn an_order() -> Order {
    Order {
        order_id: ID.try_into().unwrap(),
        item_id: 5.try_into().unwrap(),
        seller_id: 1.try_into().unwrap(),
        client_id: 7.try_into().unwrap(),
        quantity: 1.try_into().unwrap(),
    }
}

/// The system, as far as one order goes: each service has read each topic up to some record.
struct World {
    create: (OrderState, Option<Fact>),
    units: i64,
    store: Option<Reservation>,
    /// The records of each topic.
    topics: BTreeMap<ordersaga_contract::Topic, Vec<EventKind>>,
    /// How far who has read which topic.
    read: BTreeMap<(Witness, ordersaga_contract::Topic), usize>,
    heard: Vec<Fact>,
}

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Move {
    ClientCancels,
    DeadlinePasses,
    Reads(Witness, ordersaga_contract::Topic),
}

fn a_move() -> impl Strategy<Value = Move> {
    use ordersaga_contract::Topic::{Incoming, Reservation, Reset};
    prop_oneof![
        1 => Just(Move::ClientCancels),
        1 => Just(Move::DeadlinePasses),
        12 => prop::sample::select(vec![
            (Witness::Store, Incoming), (Witness::Store, Reset),
            (Witness::Monitoring, Incoming), (Witness::Monitoring, Reservation),
            (Witness::Monitoring, Reset),
            (Witness::CreateOrder, Reservation), (Witness::CreateOrder, Reset),
        ]).prop_map(|(who, topic)| Move::Reads(who, topic)),
    ]
}

impl World {
    fn new(units: i64) -> Self {
        let mut world = Self {
            create: (OrderState::Placed, None),
            units,
            store: None,
            topics: BTreeMap::new(),
            read: BTreeMap::new(),
            heard: Vec::new(),
        };
        world.publish(EventKind::OrderPlaced);
        world
    }

    fn publish(&mut self, kind: EventKind) {
        self.topics.entry(kind.fact().topic()).or_default().push(kind);
    }

    fn step(&mut self, next: Move) {
        match next {
            Move::ClientCancels => self.decide(Input::ClientCancels),
            Move::DeadlinePasses => self.decide(Input::DeadlinePassed),
            Move::Reads(who, topic) => {
                let place = self.read.entry((who, topic)).or_default();
                let record = self.topics.get(&topic).and_then(|all| all.get(*place)).copied();
                let Some(kind) = record else { return };
                *place += 1;
                match who {
                    Witness::Monitoring => self.heard.push(kind.fact()),
                    Witness::Store => self.store_hears(kind),
                    _ => self.create_hears(kind),
                }
            }
        }
    }

    fn steps(&mut self, moves: Vec<Move>) {
        for one in moves {
            self.step(one);
        }
    }

    fn decide(&mut self, input: Input) {
        let Some(change) = advance(self.create.0, input) else { return };
        self.create =
            (change.state, change.cancellation.map(|why| EventKind::OrderReset(why).fact()));
        if let Some(kind) = change.publish {
            self.publish(kind);
        }
    }

    fn create_hears(&mut self, kind: EventKind) {
        match kind {
            EventKind::ItemReserved => self.decide(Input::StoreReserved),
            EventKind::OrderReset(why) if why.initiator == Initiator::Store => {
                self.decide(Input::StoreRefused(why.reason));
            }
            _ => {}
        }
    }

    fn store_hears(&mut self, kind: EventKind) {
        let order = an_order();
        let reserved = i64::from(self.store == Some(Reservation::Reserved));
        let stock = Stock { seller_id: order.seller_id, quantity: self.units, reserved };
        let mut ledger =
            Ledger::new([(order.item_id, stock)], self.store.map(|state| (order, state)));
        let answer = ledger.apply(&Event { order, kind, time: at(0) });
        if let Some((_, state)) = ledger.changed_orders().next() {
            self.store = Some(state);
        }
        if let Some(kind) = answer {
            self.publish(kind);
        }
    }

    /// All that is on its way arrives.
    fn settle(&mut self) {
        for _ in 0..8 {
            for topic in ordersaga_contract::Topic::EVENTS {
                for who in [Witness::Store, Witness::Monitoring, Witness::CreateOrder] {
                    self.step(Move::Reads(who, topic));
                }
            }
        }
    }

    /// Asks one of them, as the service would answer.
    fn ask(&self, witness: Witness) -> Account {
        match witness {
            Witness::CreateOrder => accounts::create_order(&self.record()),
            Witness::Store => accounts::store(&self.decision()),
            Witness::Cache => accounts::cache(&self.item(), "HIT", ID),
            _ => accounts::monitoring(&self.status()),
        }
    }

    fn record(&self) -> Value {
        let (state, ended) = self.create;
        let state = match state {
            OrderState::Placed => "PLACED",
            OrderState::Reserved => "RESERVED",
            OrderState::Cancelled => "CANCELLED",
        };
        let initiator = ended.and_then(Fact::initiator).map(Initiator::name);
        json!({"item_id": 5, "client_id": 7, "state": state, "initiator": initiator,
            "created_at": at(0), "updated_at": at(1)})
    }

    fn decision(&self) -> Value {
        let state = match self.store {
            None => return Value::Null,
            Some(Reservation::Reserved) => "RESERVED",
            Some(Reservation::Released) => "RELEASED",
            Some(Reservation::Refused(_)) => "REFUSED",
            Some(Reservation::Cancelled) => "TOMBSTONE",
        };
        json!({"item_id": 5, "client_id": 7, "state": state, "time": at(1)})
    }

    fn item(&self) -> Value {
        let decision = self.decision();
        let is_shown = matches!(decision["state"].as_str(), Some("RESERVED" | "RELEASED"));
        let own =
            is_shown.then(|| json!({"order_id": ID, "state": decision["state"], "time": at(1)}));
        json!({"item_id": 5, "reservations": own.into_iter().collect::<Vec<_>>()})
    }

    fn status(&self) -> Value {
        if self.heard.is_empty() {
            return Value::Null;
        }
        let facts = self.heard.iter().map(|fact| {
            let initiator = fact.initiator().map(Initiator::name);
            let name = name(*fact);
            let fact = name.split(' ').next().unwrap_or_default();
            json!({"fact": fact, "time": at(1), "initiator": initiator})
        });
        json!({"item_id": 5, "client_id": 7, "step": "?", "facts": facts.collect::<Vec<_>>()})
    }
}

/// In the order in which they are asked.
const ASKED: [Witness; 4] =
    [Witness::Monitoring, Witness::Cache, Witness::Store, Witness::CreateOrder];

proptest! {
    #[test]
    fn what_is_on_its_way_is_a_delay_and_no_contradiction(
        units in 0..2_i64,
        before in prop::collection::vec(a_move(), 0..30),
        between in prop::collection::vec(prop::collection::vec(a_move(), 0..4), ASKED.len()),
    ) {
        let mut world = World::new(units);
        world.steps(before);
        let mut accounts = Vec::new();
        for (witness, meanwhile) in ASKED.into_iter().zip(between) {
            accounts.push(world.ask(witness));
            world.steps(meanwhile);
        }
        let found = compare(&accounts, later());
        prop_assert!(!found.iter().any(Finding::is_contradiction), "{found:#?} {accounts:#?}");
    }

    #[test]
    fn once_everything_has_arrived_nothing_disagrees(
        units in 0..2_i64, before in prop::collection::vec(a_move(), 0..30),
    ) {
        let mut world = World::new(units);
        world.steps(before);
        world.settle();
        let accounts: Vec<_> = ASKED.into_iter().map(|witness| world.ask(witness)).collect();
        prop_assert_eq!(compare(&accounts, later()), []);
    }

    #[test]
    fn a_fact_that_nobody_decided_is_found(
        units in 0..2_i64,
        before in prop::collection::vec(a_move(), 0..30),
        fact in prop::sample::select(Fact::ALL.to_vec()),
    ) {
        let mut world = World::new(units);
        world.steps(before);
        world.settle();
        let is_true = world.heard.contains(&fact);
        world.heard.push(fact);
        let accounts: Vec<_> = ASKED.into_iter().map(|witness| world.ask(witness)).collect();
        let is_wrong = compare(&accounts, later()).iter().any(Finding::is_contradiction);
        // Who has made an order of a tombstone, or a refusal of a cancelled one, cannot be told
        // from the outside.
        prop_assert!(is_wrong != is_true, "{accounts:#?}");
    }
}

#[test]
fn a_fact_not_heard_of_yet_is_a_delay_with_its_age() {
    let mut world = World::new(1);
    world.step(Move::Reads(Witness::Store, ordersaga_contract::Topic::Incoming));
    world.step(Move::Reads(Witness::Monitoring, ordersaga_contract::Topic::Incoming));
    let accounts: Vec<_> = ASKED.into_iter().map(|witness| world.ask(witness)).collect();
    let not_heard = |who| Finding::NotHeard {
        who,
        fact: Fact::Reserved,
        told_by: Witness::Store,
        since: Some(at(1)),
    };
    let found = compare(&accounts, later());
    assert_eq!(found, [not_heard(Witness::Monitoring), not_heard(Witness::CreateOrder)]);
}

#[test]
fn a_reader_who_is_told_of_what_is_over_is_a_contradiction_after_a_moment() {
    let mut world = World::new(1);
    world.settle();
    let stale = accounts::cache(&json!({"reservations": []}), "HIT", ID);
    let accounts = [world.ask(Witness::Monitoring), stale, world.ask(Witness::Store)];
    let is_wrong = |now| compare(&accounts, now).iter().any(Finding::is_contradiction);
    assert!(!is_wrong(at(2)), "the cache is told within two seconds");
    assert!(is_wrong(at(5)));
}

#[test]
fn fields_are_the_same_everywhere() {
    let mut world = World::new(1);
    world.settle();
    let mut record = world.record();
    record["client_id"] = json!(8);
    let accounts = [world.ask(Witness::Monitoring), accounts::create_order(&record)];
    let values = [(Witness::Monitoring, 7), (Witness::CreateOrder, 8)].into_iter().collect();
    assert_eq!(compare(&accounts, later()), [Finding::Differs { field: "client_id", values }]);
}

#[test]
fn without_a_reservation_the_store_may_have_refused() {
    let mut world = World::new(0);
    world.settle();
    let none = accounts::reservation(&json!({"items": []}), ID);
    assert_eq!(compare(&[world.ask(Witness::Monitoring), none.clone()], later()), []);
    let mut world = World::new(1);
    world.settle();
    let found = compare(&[world.ask(Witness::Monitoring), none], later());
    assert!(found.iter().any(Finding::is_contradiction), "{found:?}");
}
