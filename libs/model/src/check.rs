//! Checking a system, and the shortest way to a violation.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stateright::{Checker, CheckerBuilder, Expectation, HasDiscoveries, Model};

use crate::describe;
use crate::step::Step;
use crate::system::System;

/// A model whose runs can be told in words.
pub trait Checked:
    Model<
        State: Clone + PartialEq + Debug + Hash + Send + Sync,
        Action: Clone + PartialEq + Debug + Send + Sync,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// The same, with this property only.
    #[must_use]
    fn only(&self, property: &'static str) -> Self;

    /// A run in words: a line for each step, and how things are in the end.
    fn tell(&self, steps: &[Self::Action]) -> (Vec<String>, Vec<String>);
}

impl Checked for System {
    fn only(&self, property: &'static str) -> Self {
        Self { only: Some(property), ..self.clone() }
    }

    fn tell(&self, steps: &[Step]) -> (Vec<String>, Vec<String>) {
        describe::run(self, steps)
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// States that differ.
    pub states: usize,
    /// Steps taken, to new states and known ones.
    pub steps: usize,
    /// Steps to the state farthest away so far; with several threads, about.
    pub depth: usize,
    /// Since the start.
    pub time: Duration,
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How much was checked.
    pub progress: Progress,
    /// The properties that do not hold.
    pub violated: Vec<&'static str>,
    /// What should be possible and does happen.
    pub reached: Vec<&'static str>,
    /// What should be possible and did not happen.
    pub unreached: Vec<&'static str>,
}

/// A run that ends in a violation.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// What is violated.
    pub property: &'static str,
    /// What happens, step by step.
    pub steps: Vec<String>,
    /// How the orders are in the end.
    pub end: Vec<String>,
}

/// How a check is run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Threads.
    pub threads: NonZeroUsize,
    /// Steps of a run, at the most; without it, all there are.
    pub depth: Option<usize>,
    /// Whether to stop at the first violation.
    pub is_hasty: bool,
}

impl Default for Effort {
    fn default() -> Self {
        let threads = NonZeroUsize::new(2).expect("two is not zero");
        Self { threads, depth: None, is_hasty: false }
    }
}

/// Checks a system, telling now and then how far it is.
pub fn check<M: Checked>(system: M, effort: Effort, tell: impl FnMut(Progress)) -> Outcome {
    let builder = builder(system, effort);
    let checker = finish(builder.spawn_bfs(), tell);
    let discoveries = checker.1.discoveries();
    let mut outcome = Outcome {
        progress: checker.0,
        violated: Vec::new(),
        reached: Vec::new(),
        unreached: Vec::new(),
    };
    for property in checker.1.model().properties() {
        match (property.expectation, discoveries.contains_key(property.name)) {
            (Expectation::Sometimes, true) => outcome.reached.push(property.name),
            (Expectation::Sometimes, false) => outcome.unreached.push(property.name),
            (_, true) => outcome.violated.push(property.name),
            (_, false) => {}
        }
    }
    outcome
}

/// The shortest run that violates a property; `None` if there is none.
pub fn shortest<M: Checked>(system: &M, property: &'static str) -> Option<Counterexample> {
    let only = system.only(property);
    let mut shortest: Option<Vec<M::Action>> = None;
    loop {
        // The checker looks on for a moment after a find, and one that is found later in that moment
        // takes the place of the first. So it is asked for ever shorter ones.
        let depth = shortest.as_ref().map(Vec::len);
        let one = NonZeroUsize::MIN;
        let effort = Effort { threads: one, depth: depth.map(|d| d - 1), is_hasty: true };
        let (_, checker) = finish(builder(only.clone(), effort).spawn_bfs(), |_| ());
        match checker.discovery(property) {
            Some(path) => shortest = Some(path.into_actions()),
            None => break,
        }
    }
    let (steps, end) = system.tell(&shortest?);
    Some(Counterexample { property, steps, end })
}

/// Serves stateright's explorer at an address, for as long as the program runs.
pub fn explore(system: System, address: SocketAddr) -> std::io::Result<()> {
    // Stateright panics if the address is taken; this says so instead.
    drop(TcpListener::bind(address)?);
    let _ = system.checker().serve(address);
    Ok(())
}

fn builder<M: Checked>(system: M, effort: Effort) -> CheckerBuilder<M> {
    // With more than one thread a state may first be met by a detour, and what lies behind it would
    // then seem too deep.
    let threads = if effort.depth.is_some() { 1 } else { effort.threads.get() };
    let mut builder = system.checker().threads(threads);
    if let Some(depth) = effort.depth {
        // Stateright counts states, and leaves out those at the bound itself.
        builder = builder.target_max_depth(depth + 2);
    }
    if effort.is_hasty { builder.finish_when(HasDiscoveries::AnyFailures) } else { builder }
}

fn finish<M: Checked, C: Checker<M>>(
    mut checker: C,
    mut tell: impl FnMut(Progress),
) -> (Progress, C) {
    let start = Instant::now();
    let threads = checker.handles();
    let progress = |checker: &C| Progress {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth().saturating_sub(1),
        time: start.elapsed(),
    };
    let (all, ended) = mpsc::channel();
    std::thread::spawn(move || {
        all.send(threads.into_iter().map(JoinHandle::join).collect::<Result<Vec<()>, _>>())
    });
    loop {
        match ended.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => tell(progress(&checker)),
            Err(RecvTimeoutError::Disconnected) => unreachable!("it sends before it ends"),
            Ok(Ok(_)) => return (progress(&checker), checker),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}
