//! `ordersaga-model`: checks the protocol in every order of events that a scenario allows.
#![allow(clippy::print_stdout, reason = "a command line program answers on standard output")]

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, Parser, Subcommand};
use ordersaga_model::cache::{self, Cache};
use ordersaga_model::{
    Budget, Checked, Counterexample, Effort, Guard, INVARIANTS, MUTANTS, Mutant, Outcome, Progress,
    STANDARD, Scenario, System, Without, check, explore, shortest,
};

/// Walks through everything that can happen to a few orders and faults, and says whether the
/// invariants hold throughout.
///
/// Exits with 1 if one does not, and shows the shortest way there; with 2 if there could be no check.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without arguments: all scenarios, each with faults that take \
                                 seconds. With --without alone: where the missing guard shows."
)]
struct Arguments {
    /// How many orders for how much stock
    #[arg(long)]
    scenario: Option<Scenario>,
    /// Crashes of a service at any moment, in one run
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=i64::from(Budget::MAX)))]
    crashes: Option<u8>,
    /// Records written to a topic again, and answers lost, in one run
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=i64::from(Budget::MAX)))]
    duplicates: Option<u8>,
    /// Attempts by consumers that lost their partition, in one run
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=i64::from(Budget::MAX)))]
    zombies: Option<u8>,
    /// Records put aside by their readers that come back at the end of their topic, in one run
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=i64::from(Budget::MAX)))]
    late: Option<u8>,
    /// Look no further than so many steps; one thread then does it all
    #[arg(long)]
    depth: Option<usize>,
    /// Take a guard away; may be given again
    #[arg(long, value_name = "GUARD")]
    without: Vec<Guard>,
    /// Check one invariant only, as in `--property I3`
    #[arg(long, value_parser = invariant)]
    property: Option<&'static str>,
    /// Take every step in every place, also where that makes no difference
    #[arg(long)]
    unreduced: bool,
    /// Walk through the states by hand, in a browser
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:3000")]
    explore: Option<SocketAddr>,
    /// Threads that walk
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Subcommand)]
enum Other {
    /// The cache of items, and I8, instead of orders
    Cache {
        /// Take a guard away; may be given again
        #[arg(long, value_name = "GUARD")]
        without: Vec<cache::Guard>,
    },
}

fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // There is no other place left to say it.
            let _ = writeln!(std::io::stderr(), "ordersaga-model: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(Other::Cache { without }) = &arguments.other {
        return Ok(report_cache(without));
    }
    let systems = arguments.systems()?;
    if let Some(address) = arguments.explore {
        if !address.ip().is_loopback() {
            bail!("the explorer is served on this machine only, not at {address}");
        }
        println!("http://{address} until Ctrl-C");
        if let Some(first) = systems.into_iter().next() {
            explore(first, address)?;
        }
        return Ok(true);
    }
    let mut all_hold = true;
    for system in systems {
        all_hold &= arguments.report(&system);
    }
    if arguments.is_bare() {
        all_hold &= report_cache(&[]);
    }
    Ok(all_hold)
}

fn report_cache(without: &[cache::Guard]) -> bool {
    let mutant = cache::MUTANTS.into_iter().find(|(guard, ..)| without == [*guard]);
    let telling = mutant.map(|(.., breaks)| breaks);
    let faults = mutant.map_or_else(|| cache::STANDARD.to_vec(), |(_, faults, _)| vec![faults]);
    let effort = Effort { is_hasty: !without.is_empty(), ..Effort::default() };
    let mut all_hold = true;
    for faults in faults {
        println!("cache: {faults}");
        let outcome = walk(&Cache::new(faults, without), effort, telling);
        all_hold &= summary(&outcome, without.is_empty());
    }
    all_hold
}

impl Arguments {
    /// What is to be checked.
    fn systems(&self) -> Result<Vec<System>> {
        let scenarios = self.scenarios();
        let systems = scenarios.into_iter().map(|(scenario, standard)| {
            let budget = Budget {
                crashes: self.crashes.unwrap_or(standard.crashes),
                duplicates: self.duplicates.unwrap_or(standard.duplicates),
                zombies: self.zombies.unwrap_or(standard.zombies),
                late: self.late.unwrap_or(standard.late),
            };
            let without = self.without.iter().copied().collect();
            let mut system = System::without(scenario, budget, without);
            // A person who walks wants every step to be there, and orders to keep their places.
            system.is_reduced &= !self.unreduced && self.explore.is_none();
            system.only = self.property;
            system
        });
        let systems: Vec<_> = systems.collect();
        if systems.is_empty() {
            bail!("no scenario to check");
        }
        Ok(systems)
    }

    /// Whether nothing in particular is to be checked.
    fn is_bare(&self) -> bool {
        self.scenario.is_none() && self.without.is_empty() && self.property.is_none()
    }

    /// What is known of a system without these guards.
    fn mutant(&self) -> Option<&'static Mutant> {
        let guards = |guards: &[Guard]| guards.iter().copied().collect::<Without>();
        MUTANTS.iter().find(|mutant| guards(mutant.without) == guards(&self.without))
    }

    fn scenarios(&self) -> Vec<(Scenario, Budget)> {
        match (self.scenario, self.mutant()) {
            (None, Some(mutant)) => vec![(mutant.scenario, mutant.budget)],
            (Some(scenario), Some(mutant)) if mutant.scenario == scenario => {
                vec![(scenario, mutant.budget)]
            }
            (Some(scenario), _) => {
                let standard = STANDARD.iter().find(|(known, _)| *known == scenario);
                standard.copied().into_iter().collect()
            }
            (None, None) => STANDARD.to_vec(),
        }
    }

    /// Checks a system and says what was found; whether all is as it must be.
    fn report(&self, system: &System) -> bool {
        println!("{}: {}", name(system.scenario), system.budget);
        let is_hasty = !self.without.is_empty();
        let effort = Effort { threads: self.threads, depth: self.depth, is_hasty };
        // Of several, the one that tells best what the guard is for.
        let telling = self.mutant().and_then(|mutant| mutant.breaks);
        let outcome = walk(system, effort, telling.filter(|_| self.property.is_none()));
        let is_whole = self.depth.is_none() && !is_hasty && self.property.is_none();
        summary(&outcome, is_whole)
    }
}

/// Checks a system, and shows how a property is violated: `telling`, if it is one of them.
fn walk<M: Checked>(system: &M, effort: Effort, telling: Option<&'static str>) -> Outcome {
    let outcome = check(system.clone(), effort, tell());
    let Progress { states, steps, depth, time } = outcome.progress;
    let time = time.as_secs_f64();
    println!("  {states} states, {steps} steps, the longest run {depth} steps, {time:.1} s");
    for property in &outcome.violated {
        println!("  violated: {property}");
    }
    let telling = telling.filter(|_| !outcome.violated.is_empty());
    let mut shown = telling.into_iter().chain(outcome.violated.first().copied());
    if let Some(found) = shown.find_map(|property| shortest(system, property)) {
        show(&found);
    }
    outcome
}

/// Says whether all is as it must be. Only a check of all there is can tell what never happens.
fn summary(outcome: &Outcome, is_whole: bool) -> bool {
    if outcome.violated.is_empty() {
        println!("  nothing is violated");
    }
    if !is_whole {
        return outcome.violated.is_empty();
    }
    for what in &outcome.reached {
        println!("  happens: {what}");
    }
    for what in &outcome.unreached {
        println!("  never happens, though it should be possible: {what}");
    }
    outcome.violated.is_empty() && outcome.unreached.is_empty()
}

fn show(Counterexample { property, steps, end }: &Counterexample) {
    println!("\n  the shortest way to a violation of {property}");
    for (number, step) in (1..).zip(steps) {
        println!("  {number:3}. {step}");
    }
    println!("  in the end");
    for line in end {
        println!("       {line}");
    }
    println!();
}

/// Shows how far a check is, if somebody watches.
fn tell() -> impl FnMut(Progress) {
    let mut error = std::io::stderr();
    let is_watched = error.is_terminal();
    move |progress| {
        if is_watched {
            let Progress { states, depth, time, .. } = progress;
            let time = time.as_secs();
            let _ = write!(error, "\r\x1b[K  {states} states, depth {depth}, {time} s\r");
        }
    }
}

fn name(scenario: Scenario) -> String {
    let value = clap::ValueEnum::to_possible_value(&scenario);
    value.map_or_else(|| format!("{scenario:?}"), |value| value.get_name().to_owned())
}

fn invariant(text: &str) -> Result<&'static str> {
    let mut all = INVARIANTS.into_iter();
    match all.find(|name| name.split(' ').next() == Some(text)) {
        Some(name) => Ok(name),
        None => bail!("one of I1 to I7, I10 and I11"),
    }
}
