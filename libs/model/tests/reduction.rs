//! The reduced model comes to rest in the same states as the whole one.
#![allow(clippy::print_stdout, reason = "the counts are what a reader wants to see")]

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use ordersaga_model::{Budget, Scenario, State, System};
use stateright::Model;

/// Every state at rest, in a form that does not tell the reductions apart.
fn rests(system: &System) -> (BTreeSet<String>, usize) {
    // Of states only their hashes are kept: there are millions.
    let hash = |state: &State| BuildHasherDefault::<DefaultHasher>::default().hash_one(state);
    let mut next = system.init_states();
    let mut known: HashSet<u64> = next.iter().map(hash).collect();
    let mut rests = BTreeSet::new();
    while let Some(state) = next.pop() {
        let after: Vec<_> =
            system.next_states(&state).into_iter().filter(|s| known.insert(hash(s))).collect();
        next.extend(after);
        if state.is_at_rest() {
            rests.insert(form(&state));
        }
    }
    (rests, known.len())
}

/// What there is of each order, without what is in memory and what is told twice.
fn form(state: &State) -> String {
    let mut orders: Vec<_> = state
        .orders
        .iter()
        .map(|o| {
            let told: BTreeSet<_> = o.told().collect();
            let rows = (o.create_order.row, o.store.row, o.monitoring.facts);
            format!("{} {:?} {rows:?} {told:?}", o.quantity, o.client)
        })
        .collect();
    orders.sort();
    format!("{:?} {:?} {orders:?}", state.item, state.budget)
}

fn compare(scenario: Scenario, budget: Budget) {
    let reduced = System::new(scenario, budget);
    let whole = System { is_reduced: false, ..reduced.clone() };
    let ((reduced, states), (whole, all)) = (rests(&reduced), rests(&whole));
    println!("{scenario:?} ({budget}): {} rests; {states} states of {all}", reduced.len());
    assert!(reduced.len() > 3);
    assert_eq!(reduced, whole, "{scenario:?} {budget}");
}

#[test]
fn one_order_with_faults_comes_to_the_same_rests() {
    compare(Scenario::OneOrder, Budget::new(1, 1, 1));
}

#[test]
fn two_orders_come_to_the_same_rests() {
    compare(Scenario::TwoOrders, Budget::new(0, 0, 0));
}

#[test]
#[ignore = "takes a minute"]
fn two_orders_with_a_zombie_come_to_the_same_rests() {
    compare(Scenario::TwoOrders, Budget::new(0, 0, 1));
}

#[test]
#[ignore = "takes minutes"]
fn two_orders_with_a_duplicate_come_to_the_same_rests() {
    compare(Scenario::TwoOrders, Budget::new(0, 1, 0));
}

#[test]
fn one_order_with_late_records_comes_to_the_same_rests() {
    compare(Scenario::OneOrder, Budget::new(0, 0, 1).and_late(2));
    compare(Scenario::OneOrder, Budget::new(0, 1, 0).and_late(1));
}

#[test]
#[ignore = "takes minutes"]
fn two_orders_with_a_late_record_come_to_the_same_rests() {
    compare(Scenario::TwoOrders, Budget::new(0, 0, 0).and_late(1));
}

// Two orders with a crash have tens of millions of states.
#[test]
fn one_order_with_two_crashes_comes_to_the_same_rests() {
    compare(Scenario::OneOrder, Budget::new(2, 1, 0));
}
