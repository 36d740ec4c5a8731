//! What is measured: the loads, and what the system is like under them.

use clap_complete::engine::CompletionCandidate;

use crate::limits::Limit;

/// A load, and what the system is like under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// As `--only` takes it.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    pub(crate) phase: Phase,
    pub(crate) pace: Pace,
    /// Each client waits for the end of its order, by long poll, before it goes on.
    pub(crate) wait: bool,
    /// How many items are ordered.
    pub(crate) items: u32,
    /// Share of the orders that are cancelled.
    pub(crate) cancel: f64,
    /// Status requests per order.
    pub(crate) read: f64,
    /// Requests for an item per order, if no status is asked for.
    pub(crate) find: f64,
}

/// How orders come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// So many clients; each sends its next order when the last was acknowledged, or had ended if
    /// they wait.
    Clients(u32),
    /// So many orders a second, whatever the answers.
    Rate(f64),
    /// So many times what the system could do in this run of the benchmark.
    Overload(f64),
}

/// What the system is like. Each phase is measured to its end before the next begins, and in this
/// order: what is stored stays stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// One instance of each service; orders of this run only.
    Ordinary,
    /// The same, under more than it can do.
    Overload,
    /// Two instances of each service.
    TwoInstances,
    /// The rows of many more orders are there.
    Preloaded,
}

impl Phase {
    /// All, in their order.
    pub(crate) const ALL: [Self; 4] =
        [Self::Ordinary, Self::Overload, Self::TwoInstances, Self::Preloaded];
}

const SATURATION: Scenario = Scenario {
    name: "saturation-256",
    title: "saturation, 256 connections",
    phase: Phase::Ordinary,
    pace: Pace::Clients(256),
    wait: false,
    items: 1_000,
    cancel: 0.0,
    read: 0.0,
    find: 0.0,
};

/// Users: each waits for its order.
const WAITING: Scenario =
    Scenario { name: "waiting-256", title: "256 clients that wait", wait: true, ..SATURATION };

/// Almost nothing but reads: a few orders, each followed by many.
const READS: Scenario = Scenario { pace: Pace::Rate(10.0), items: 10_000, ..SATURATION };

/// All scenarios, in the order they are shown.
pub(crate) const ALL: [Scenario; 23] = [
    Scenario {
        name: "waiting-16",
        title: "16 clients that wait",
        pace: Pace::Clients(16),
        ..WAITING
    },
    Scenario {
        name: "waiting-64",
        title: "64 clients that wait",
        pace: Pace::Clients(64),
        ..WAITING
    },
    WAITING,
    Scenario {
        name: "waiting-512",
        title: "512 clients that wait",
        pace: Pace::Clients(512),
        ..WAITING
    },
    Scenario {
        name: "rate-100",
        title: "100 orders/s, waited for",
        pace: Pace::Rate(100.0),
        ..WAITING
    },
    Scenario {
        name: "rate-500",
        title: "500 orders/s, waited for",
        pace: Pace::Rate(500.0),
        ..WAITING
    },
    Scenario {
        name: "rate-1000",
        title: "1,000 orders/s, waited for",
        pace: Pace::Rate(1_000.0),
        ..WAITING
    },
    Scenario {
        name: "rate-2000",
        title: "2,000 orders/s, waited for",
        pace: Pace::Rate(2_000.0),
        ..WAITING
    },
    Scenario {
        name: "saturation-16",
        title: "saturation, 16 connections",
        pace: Pace::Clients(16),
        ..SATURATION
    },
    Scenario {
        name: "saturation-64",
        title: "saturation, 64 connections",
        pace: Pace::Clients(64),
        ..SATURATION
    },
    SATURATION,
    Scenario { name: "light", title: "light, 100 orders/s", pace: Pace::Rate(100.0), ..SATURATION },
    Scenario { name: "sale", title: "1,000 orders/s", pace: Pace::Rate(1_000.0), ..SATURATION },
    Scenario { name: "hot-item", title: "one hot item", items: 1, ..SATURATION },
    Scenario { name: "10000-items", title: "10,000 items", items: 10_000, ..SATURATION },
    Scenario { name: "cancels", title: "30 % cancelled", cancel: 0.3, ..SATURATION },
    Scenario { name: "reads", title: "a status read per order", read: 1.0, ..SATURATION },
    Scenario { name: "status-only", title: "1,000 status reads per order", read: 1_000.0, ..READS },
    Scenario { name: "find-only", title: "1,000 item reads per order", find: 1_000.0, ..READS },
    Scenario {
        name: "find-miss",
        title: "1,000 item reads per order, hardly any of them cached",
        find: 1_000.0,
        items: 1_000_000,
        ..READS
    },
    Scenario {
        name: "overload",
        title: "twice the capacity",
        phase: Phase::Overload,
        pace: Pace::Overload(2.0),
        ..SATURATION
    },
    Scenario {
        name: "two-instances",
        title: "two instances of each service",
        phase: Phase::TwoInstances,
        ..SATURATION
    },
    Scenario {
        name: "preloaded",
        title: "rows of 10 million orders stored before",
        phase: Phase::Preloaded,
        ..SATURATION
    },
];

/// The scenario whose costs stand for the system's.
pub(crate) const TYPICAL: &str = SATURATION.name;

/// That scenario.
pub(crate) fn typical() -> Scenario {
    SATURATION
}

/// Whether the clients of the scenario of this name wait for their orders.
pub(crate) fn waits(name: &str) -> bool {
    ALL.iter().any(|scenario| scenario.wait && scenario.name == name)
}

/// Most items that a scenario wants.
pub(crate) fn most_items() -> u32 {
    ALL.iter().map(|scenario| scenario.items).max().unwrap_or(1)
}

/// Prints what can be chosen.
pub(crate) fn list() {
    for (name, title) in names() {
        say!("{name:16} {title}");
    }
}

/// The same for a shell that completes the command line.
pub(crate) fn candidates() -> Vec<CompletionCandidate> {
    let candidate = |(name, title): (_, &str)| {
        CompletionCandidate::new(name).help(Some(title.to_owned().into()))
    };
    names().map(candidate).collect()
}

fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let scenarios = ALL.map(|scenario| (scenario.name, scenario.title));
    let limits = Limit::ALL.map(|limit| (limit.name(), limit.title()));
    scenarios.into_iter().chain(limits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_scenario_has_a_name_of_its_own_and_the_phases_are_in_order() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(names.contains(TYPICAL));
        assert!(ALL.iter().all(|scenario| Phase::ALL.contains(&scenario.phase)));
        assert!(Phase::ALL.is_sorted());
    }

    #[test]
    fn clients_that_wait_are_told_from_those_that_do_not() {
        let waiting = ALL.iter().filter(|scenario| waits(scenario.name));
        let paces: Vec<_> = waiting.map(|scenario| scenario.pace).collect();
        let closed = [16, 64, 256, 512].map(Pace::Clients);
        let open = [100.0, 500.0, 1_000.0, 2_000.0].map(Pace::Rate);
        assert_eq!(paces, [closed, open].concat());
        assert!(!waits(TYPICAL) && !waits("light") && !waits("limit-http"));
    }
}
