//! A run: each attack, what it did to the services and to honest clients, and the verdict.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap_complete::engine::CompletionCandidate;
use futures_util::FutureExt;
use futures_util::future::join_all;
use ordersaga_devstack::ServiceProcess;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::attack::{self, Attack, Met, Target};
use crate::honest::{Customers, Tally};
use crate::system::System;
use crate::watch::Watch;
use crate::{Arguments, table};

/// All attacks at once.
const ALL: &str = "all";
/// Files that this process keeps for itself: for honest clients, above all.
const RESERVE: usize = 1_000;
/// How long a slow machine may take, beyond the time of an attack, to begin each of its kinds.
const BEGIN_WITHIN: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(100);
/// The most connections that attackers have: what they take of this machine's memory is bounded.
const MOST: usize = 60_000;

/// Attacks that run at the same time.
struct Phase {
    name: &'static str,
    what: &'static str,
    attacks: Vec<&'static Attack>,
}

/// What came of a phase.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Of each service in bytes, by `Service::ALL`; none if it ended.
    pub(crate) peaks: Vec<Option<u64>>,
    pub(crate) honest: Tally,
    pub(crate) met: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
}

/// Prints the attacks.
pub(crate) fn list() {
    for Phase { name, what, .. } in phases("") {
        say!("{name:<12}{what}");
    }
}

/// The same for a shell that completes the command line.
pub(crate) fn candidates() -> Vec<CompletionCandidate> {
    let candidate = |Phase { name, what, .. }| {
        CompletionCandidate::new(name).help(Some(what.to_owned().into()))
    };
    phases("").into_iter().map(candidate).collect()
}

/// Runs it, and prints and writes what was found. The exit code is 1 if something was wrong.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let only = arguments.only.as_deref().unwrap_or_default();
    let phases = phases(only);
    ensure!(!phases.is_empty(), "no attack is called {only}");
    let system = System::start().await?;
    let files = open_many_files()?;
    let time = Duration::from_secs(arguments.seconds.into());
    let mut outcomes = Vec::new();
    for phase in phases {
        say!("{}: {}", phase.name, phase.what);
        let outcome = phase.run(&system, time, files).await?;
        for violation in &outcome.violations {
            say!("  VIOLATION: {violation}");
        }
        outcomes.push(outcome);
        if !system.services.values().all(ServiceProcess::is_running) {
            say!("A service has ended; what would follow is left out.");
            break;
        }
    }
    say!("\n{}", table::terminal(&outcomes));
    if let Some(file) = &arguments.output {
        table::write(file, &outcomes)?;
    }
    system.stop().await?;
    let count: usize = outcomes.iter().map(|outcome| outcome.violations.len()).sum();
    if count > 0 {
        say!("{count} VIOLATIONS.");
        return Ok(ExitCode::FAILURE);
    }
    say!("The services held.");
    Ok(ExitCode::SUCCESS)
}

/// The phases whose name contains this text: each attack alone, then all at once.
fn phases(only: &str) -> Vec<Phase> {
    let alone = attack::ALL.iter().map(|attack| Phase {
        name: attack.name,
        what: attack.what,
        attacks: vec![attack],
    });
    let all =
        Phase { name: ALL, what: "all of them at once", attacks: attack::ALL.iter().collect() };
    alone.chain([all]).filter(|phase| phase.name.contains(only)).collect()
}

/// Lets this process open as many files as the system allows; how many of them attackers may have.
fn open_many_files() -> Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let files = maximum.and_then(|files| usize::try_from(files).ok()).unwrap_or(MOST);
    ensure!(files > 2 * RESERVE, "this process may only open {files} files (ulimit -n)");
    Ok((files - RESERVE).min(MOST))
}

impl Phase {
    async fn run(&self, system: &System, time: Duration, files: usize) -> Result<Outcome> {
        let watches: Vec<_> = system.services.values().map(Watch::begin).collect::<Result<_>>()?;
        let newest_order = Arc::new(AtomicI64::new(0));
        let customers = Customers::new(system, newest_order.clone())?;
        let (over, is_over) = oneshot::channel();
        let attack = self.attack(system, newest_order, time, files).inspect(|_| drop(over));
        // On threads of their own: what attackers do in this process must not hold them up.
        let shop = move || anyhow::Ok(Runtime::new()?.block_on(customers.shop(is_over)));
        let (honest, attacked) = tokio::join!(tokio::task::spawn_blocking(shop), attack);
        let (honest, mets) = (honest??, attacked?);
        let mut violations = Vec::new();
        let mut peaks = Vec::new();
        for watch in watches {
            peaks.push(watch.end(&mut violations).await?);
        }
        violations
            .extend(honest.wrong.iter().map(|(what, count)| format!("{what}: {count} times")));
        let mut met = BTreeMap::<String, u64>::new();
        for (attack, own) in self.attacks.iter().zip(&mets) {
            if !attack.has_begun(own) {
                violations.push(format!("{} reached no service", attack.name));
            }
            violations.extend(attack.forbidden(own));
            for (what, count) in own.all() {
                *met.entry(what).or_default() += count;
            }
        }
        Ok(Outcome { name: self.name, peaks, honest, met, violations })
    }

    /// Attacks for so long and until each kind of attack has begun; what each met.
    async fn attack(
        &self,
        system: &System,
        newest_order: Arc<AtomicI64>,
        time: Duration,
        files: usize,
    ) -> Result<Vec<Met>> {
        let services = system.services.iter();
        let ports = services.map(|(service, process)| (*service, process.port())).collect();
        let target = Target::new(ports, newest_order)?;
        let wanted: usize = self.attacks.iter().map(|attack| attack.connections()).sum();
        let percent = (files * 100 / wanted).min(100);
        let mets: Vec<_> = self.attacks.iter().map(|_| Met::default()).collect();
        let attacks = self.attacks.iter().zip(&mets);
        let attacks = join_all(attacks.map(|(attack, met)| attack.run(&target, percent, met)));
        // They never end by themselves. When they are dropped, so are their connections.
        tokio::select! {
            _ = attacks => {}
            () = self.enough(&mets, time) => {}
        }
        Ok(mets)
    }

    async fn enough(&self, mets: &[Met], time: Duration) {
        let attacks = self.attacks.iter().zip(mets);
        let all_begun = async {
            while !attacks.clone().all(|(attack, met)| attack.has_begun(met)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::sleep(time).await;
        let _ = tokio::time::timeout(BEGIN_WITHIN, all_begun).await;
    }
}
