//! The protocol keeps its invariants, whatever comes when; and what would go wrong does go wrong.
//! `--nocapture` shows the counts.
#![allow(clippy::print_stdout, reason = "the counts are what a reader wants to see")]

use ordersaga_model::{
    Budget, Effort, Guard, I10, INVARIANTS, MUTANTS, Outcome, STANDARD, Scenario, System, check,
    shortest,
};

fn all(system: &System) -> Outcome {
    let outcome = check(system.clone(), Effort::default(), |_| ());
    let progress = outcome.progress;
    println!(
        "{:?} ({}): {} states, {} steps, depth {}, {:.1} s",
        system.scenario,
        system.budget,
        progress.states,
        progress.steps,
        progress.depth,
        progress.time.as_secs_f64()
    );
    outcome
}

#[test]
fn every_run_keeps_every_invariant() {
    for (scenario, budget) in STANDARD {
        let outcome = all(&System::new(scenario, budget));
        assert!(outcome.violated.is_empty(), "{scenario:?}: {:?}", outcome.violated);
        // Else it would hold for want of anything that could break it.
        assert!(outcome.unreached.is_empty(), "{scenario:?}: {:?}", outcome.unreached);
    }
}

/// Each step in every place, also where the reductions hold it to make no difference.
#[test]
fn every_run_keeps_every_invariant_unreduced() {
    for (scenario, budget) in [
        (Scenario::OneOrder, Budget::new(1, 1, 1)),
        (Scenario::OneOrder, Budget::new(0, 1, 0).and_late(2)),
        (Scenario::TwoOrders, Budget::new(0, 0, 0)),
    ] {
        let outcome = all(&System { is_reduced: false, ..System::new(scenario, budget) });
        assert!(outcome.violated.is_empty(), "{scenario:?}: {:?}", outcome.violated);
        assert!(outcome.unreached.is_empty(), "{scenario:?}: {:?}", outcome.unreached);
    }
}

#[test]
fn without_a_guard_its_invariant_breaks() {
    for mutant in MUTANTS {
        let (system, without) = (mutant.system(), mutant.without);
        let Some(property) = mutant.breaks else {
            assert_eq!(all(&system).violated, [""; 0], "{without:?}");
            continue;
        };
        let found = shortest(&system, property).unwrap_or_else(|| panic!("{without:?} holds"));
        println!("{without:?}: {property}: {:#?}", found.steps);
        // The same orders and faults, with the guard.
        let intact = System { only: Some(property), ..System::new(mutant.scenario, mutant.budget) };
        assert_eq!(all(&intact).violated, [""; 0], "{without:?}");
    }
}

/// What the services decide is the same when it is decided twice: behind the fence there is a second
/// line of defence, and only the count of what was applied is wrong without it.
#[test]
fn without_the_fence_records_are_applied_twice_and_nothing_else_is_wrong() {
    let without = [Guard::Fence].into_iter().collect();
    let system = System::without(Scenario::OneOrder, Budget::new(1, 1, 1), without);
    assert_eq!(all(&system).violated, [I10]);
}

#[test]
fn a_reset_that_overtakes_its_placement_reads_as_it_happens() {
    let mutant = &MUTANTS[0];
    let found = shortest(&mutant.system(), mutant.breaks.unwrap()).unwrap();
    let told = found.steps.join("\n");
    let in_order = [
        "create-order accepts order 1",
        "create-order cancels order 1 for its client",
        "store reads OrderReset (client) of order 1: nothing changes",
        "store reads OrderPlaced of order 1: RESERVED",
    ];
    let mut rest = told.as_str();
    for line in in_order {
        let (_, after) = rest.split_once(line).unwrap_or_else(|| panic!("no {line} in\n{told}"));
        rest = after;
    }
    assert!(found.end[0].contains("create-order CANCELLED, store RESERVED"), "{:?}", found.end);
}

#[test]
fn a_bound_on_depth_finds_what_lies_within_it_only() {
    let mutant = &MUTANTS[0];
    let found = shortest(&mutant.system(), mutant.breaks.unwrap()).unwrap();
    let violated = |depth| {
        let effort = Effort { depth: Some(depth), ..Effort::default() };
        check(mutant.system(), effort, |_| ()).violated
    };
    assert_eq!(violated(found.steps.len() - 1), [""; 0]);
    assert!(violated(found.steps.len()).contains(&found.property));
    assert!(INVARIANTS.contains(&found.property));
}
