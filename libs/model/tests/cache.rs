//! The cache equals the database, whatever comes when; and what would go wrong does go wrong.
#![allow(clippy::print_stdout, reason = "the counts are what a reader wants to see")]

use ordersaga_model::cache::{Cache, Faults, Guard, MUTANTS, STANDARD};
use ordersaga_model::{Effort, Outcome, check, shortest};

fn all(faults: Faults, without: &[Guard]) -> Outcome {
    let outcome = check(Cache::new(faults, without), Effort::default(), |_| ());
    println!("{faults}, without {without:?}: {:?}", outcome.progress);
    outcome
}

#[test]
fn the_cache_equals_the_database() {
    for faults in STANDARD {
        let outcome = all(faults, &[]);
        assert_eq!(outcome.violated, [""; 0], "{faults}");
        assert_eq!(outcome.unreached, [""; 0], "{faults}");
    }
}

#[test]
fn without_a_guard_it_does_not() {
    for (guard, faults, breaks) in MUTANTS {
        if faults.crashes < 2 {
            assert_eq!(all(faults, &[]).violated, [""; 0], "{guard:?}");
        }
        let found = shortest(&Cache::new(faults, &[guard]), breaks);
        let found = found.unwrap_or_else(|| panic!("without {guard:?}, {breaks} holds"));
        println!("{guard:?}: {breaks}: {:#?}", found.steps);
    }
}

#[test]
#[ignore = "takes half a minute"]
fn the_cache_equals_the_database_after_two_crashes() {
    assert_eq!(all(Faults::new(1, 0, 1, 2), &[]).violated, [""; 0]);
}
