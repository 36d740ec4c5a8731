//! The process that owns a running stack: starts it in order, watches it, stops it in reverse.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures_util::future::{join_all, try_join_all};
use ordersaga_devstack::state::{Lock, Phase, Running, State};
use ordersaga_devstack::{
    Companion, Databases, Identity, Member, Parts, Report, Service, ServiceProcess, Stack,
    TemporaryFolder, is_free, service_env, shorten_logs, tail,
};
use ordersaga_terminal::brief;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::exit_codes::INTERRUPTED;
use crate::progress::{report, seconds};
use crate::restarts::{Next, Restarts};
use crate::{playground, status, topics};

/// The broker's port, as everybody expects it.
const BROKER_PORT: u16 = 9092;
/// How often it is looked whether something has ended by itself.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is looked whether a log has become too long.
const LOOK_AT_LOGS: Duration = Duration::from_secs(1);
/// Services migrate and join their groups before they are ready.
const READY: Duration = Duration::from_secs(90);

/// Columns of a line of a log that is shown.
const COLUMNS: usize = 300;

/// Where the stack's data are.
#[derive(Debug)]
pub(crate) enum Home {
    /// In a folder that stays.
    Kept(PathBuf),
    /// In one that goes.
    Temporary(TemporaryFolder),
}

impl Home {
    pub(crate) fn new(folder: PathBuf, temporary: bool) -> Result<Self> {
        Ok(if temporary {
            Self::Temporary(TemporaryFolder::adopt(folder)?)
        } else {
            Self::Kept(folder)
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// Arguments of the background process.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    data: PathBuf,
    /// The data go with the process
    #[arg(long)]
    remove: bool,
    /// Everything on free ports, for tests
    #[arg(long)]
    free_ports: bool,
    /// With the playground
    #[arg(long)]
    playground: bool,
}

/// Runs a stack in a session of its own, which no terminal ends.
pub(crate) async fn detached(arguments: Arguments) -> Result<ExitCode> {
    rustix::process::setsid()?;
    let home = Home::new(arguments.data, arguments.remove)?;
    let ports = if arguments.free_ports { Ports::Free } else { Ports::Usual };
    run(home, Choice { ports, playground: arguments.playground }).await
}

/// Runs a stack until a signal asks it to stop.
pub(crate) async fn run(home: Home, choice: Choice) -> Result<ExitCode> {
    let Some(_lock) = Lock::take(home.path())? else {
        bail!("a stack is running already on {}", home.path().display());
    };
    let report = report();
    let begin = Instant::now();
    let mut stop = Stop::new()?;
    let whole = tokio::select! {
        started = Whole::start(home.path(), choice, &report) => started?,
        name = stop.asked() => {
            say_error!("ordersaga: {name} came before everything was ready");
            let code = if name == INTERRUPT { INTERRUPTED } else { 1 };
            return Ok(ExitCode::from(code));
        }
    };
    report.note(&format!("Everything is ready after {}.", seconds(begin.elapsed())));
    report.note(&status::addresses(&whole.state(Phase::Ready)));
    report.note("Ctrl-C or `cargo ordersaga down` stops it.");
    // Last: who waits for a start in the background sees this and lets go.
    whole.state(Phase::Ready).save()?;
    let name = tokio::select! {
        never = whole.watch(&report) => match never {},
        name = stop.asked() => name,
    };
    report.note(&format!("Stopping ({name})."));
    whole.save(Phase::Stopping, &report);
    let stopped = whole.stop(&report).await;
    State::remove(home.path());
    stopped?;
    report.note("Everything has stopped.");
    Ok(ExitCode::SUCCESS)
}

/// The signal of Ctrl-C.
const INTERRUPT: &str = "SIGINT";

/// The signals that ask it to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// What sort of stack is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) ports: Ports,
    /// Whether the playground runs beside it.
    pub(crate) playground: bool,
}

/// Where services and broker listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Where everybody expects them.
    Usual,
    /// Wherever nobody else does.
    Free,
}

/// Parts and services together.
struct Whole {
    // It ends first, and lets go on what it has frozen.
    playground: Option<Companion>,
    // Services end before the parts that they use.
    services: BTreeMap<Service, ServiceProcess>,
    stack: Stack,
    restarts: BTreeMap<String, Mutex<Restarts>>,
}

impl Whole {
    async fn start(folder: &Path, choice: Choice, report: &Report) -> Result<Self> {
        let parts = match choice.ports {
            Ports::Usual => {
                check_ports(choice.playground)?;
                Parts::open(folder, Some(BROKER_PORT))?
            }
            Ports::Free => Parts::open(folder, None)?,
        };
        let state = State {
            supervisor: std::process::id(),
            phase: Phase::Starting,
            parts: parts.clone(),
            processes: Vec::new(),
        };
        state.save()?;
        let stack = Stack::start(parts, report).await?;
        let broker = stack.parts().broker_address();
        let make_topics =
            async move { tokio::task::spawn_blocking(move || topics::apply(&broker)).await? };
        let (databases, ()) = tokio::try_join!(
            report.step("Databases", stack.parts().provision("")),
            report.step("Topics", make_topics),
        )?;
        let mut services = services(choice.ports, &databases, stack.parts())?;
        let playground = choice
            .playground
            .then(|| playground::beside(&mut services, choice.ports, &stack.parts().folder));
        let playground = playground.transpose()?;
        try_join_all(services.values().map(|service| start_service(service, report))).await?;
        if let Some(playground) = &playground {
            report.step(playground.name(), playground::start(playground, READY)).await?;
        }
        let mut whole = Self { playground, services, stack, restarts: BTreeMap::new() };
        let names = whole.members().map(|member| (member.name().to_owned(), Mutex::default()));
        whole.restarts = names.collect();
        Ok(whole)
    }

    fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let parts = self.stack.all().iter().map(Member::Part);
        let services = self.services.values().map(Member::Service);
        parts.chain(services).chain(self.playground.iter().map(Member::Companion))
    }

    fn state(&self, phase: Phase) -> State {
        let processes = self.members().map(|member| Running {
            name: member.name().to_owned(),
            port: member.port(),
            pid: member.pid(),
            started: member.pid().and_then(Identity::of).map(|process| process.started),
            is_service: member.is_service(),
            restarts: self.restarts[member.name()].lock().count(),
        });
        State {
            supervisor: std::process::id(),
            phase,
            parts: self.stack.parts().clone(),
            processes: processes.collect(),
        }
    }

    /// Starts again what ends by itself, each on its own: one that cannot be started again keeps no
    /// other from it.
    async fn watch(&self, report: &Report) -> Infallible {
        let keep = self.members().map(|member| self.keep(member, report));
        tokio::select! {
            // None of them ends.
            _ = join_all(keep) => std::future::pending().await,
            never = self.keep_logs_short(report) => never,
        }
    }

    async fn keep_logs_short(&self, report: &Report) -> Infallible {
        let logs = self.stack.parts().folder.join("logs");
        let mut said = String::new();
        loop {
            sleep(LOOK_AT_LOGS).await;
            let logs = logs.clone();
            let shortened = tokio::task::spawn_blocking(move || shorten_logs(&logs)).await;
            if let Err(error) = shortened.unwrap_or_else(|error| Err(error.into())) {
                let why = format!("Logs grow on: {error:#}");
                // Once: it is itself a line of a log.
                if said != why {
                    report.note(&why);
                    said = why;
                }
            }
        }
    }

    async fn keep(&self, member: Member<'_>, report: &Report) -> Infallible {
        let restarts = &self.restarts[member.name()];
        loop {
            sleep(LOOK).await;
            if member.pid().is_some() {
                continue;
            }
            let ended = member.exited().map_or_else(|| "unseen".to_owned(), |how| how.to_string());
            let mut why = format!("has ended by itself ({ended})");
            loop {
                let next = restarts.lock().ended(Instant::now());
                self.save(Phase::Ready, report);
                report.note(&news(member, &why, next));
                sleep(next.pause).await;
                restarts.lock().starts(Instant::now());
                match member.start_again().await {
                    Ok(()) => break,
                    // It runs and takes its time: there is nothing to start.
                    Err(_) if member.pid().is_some() => break,
                    Err(error) => why = format!("could not be started: {}", reason(&error)),
                }
            }
            restarts.lock().started();
            self.save(Phase::Ready, report);
            report.note(&format!("{} is started again.", member.name()));
        }
    }

    /// Tells the other commands. What keeps it from that keeps nothing from running.
    fn save(&self, phase: Phase, report: &Report) {
        if let Err(error) = self.state(phase).save() {
            report.note(&format!("`status` shows what was: {error:#}"));
        }
    }

    async fn stop(&self, report: &Report) -> Result<()> {
        if let Some(playground) = &self.playground
            && let Err(error) = report.step(playground.name(), playground.terminate()).await
        {
            // The saga stops cleanly even when this did not.
            report.note(&format!("{}: {}", playground.name(), reason(&error)));
        }
        let stop = try_join_all(self.services.values().map(ServiceProcess::terminate));
        let services = report.step("Services", stop).await;
        // The parts are stopped cleanly even when a service was not.
        self.stack.stop(report).await?;
        services.map(drop)
    }
}

fn check_ports(with_playground: bool) -> Result<()> {
    for service in Service::ALL {
        let port = service.port();
        ensure!(is_free(port), "port {port} of {service} is taken by another program");
    }
    let port = playground::PORT;
    ensure!(
        !with_playground || is_free(port),
        "port {port} of the playground is taken by another program"
    );
    ensure!(is_free(BROKER_PORT), "port {BROKER_PORT} of the broker is taken by another program");
    Ok(())
}

fn services(
    use_ports: Ports,
    databases: &Databases,
    parts: &Parts,
) -> Result<BTreeMap<Service, ServiceProcess>> {
    let (broker, redis) = (parts.broker_address(), parts.redis_url());
    let logs = parts.folder.join("logs");
    if use_ports == Ports::Free {
        return ServiceProcess::trio(databases, &broker, &redis, "", &logs);
    }
    let usual = Service::ALL.map(|service| {
        let environment = service_env(service, databases, &broker, &redis, "", service.port());
        let log = logs.join(format!("{service}.log"));
        (service, ServiceProcess::new(service, environment, log))
    });
    Ok(usual.into())
}

async fn start_service(process: &ServiceProcess, report: &Report) -> Result<()> {
    let start = async {
        process.migrate(READY).await?;
        process.start()?;
        process.wait_ready(READY).await
    };
    report.step(process.name(), start).await
}

/// What to say of a process that does not run; with the end of its log when it keeps ending.
fn news(member: Member<'_>, why: &str, next: Next) -> String {
    let (log, pause) = (member.log(), seconds(next.pause));
    let mut news = format!("{} {why}; see {}. Again in {pause}.", member.name(), log.display());
    if let Some(times) = next.many {
        let _ = write!(news, " That was {times} times in a row; its log ends:");
        for line in tail(log).lines() {
            let _ = write!(news, "\n  {}", brief(line, COLUMNS));
        }
    }
    news
}

/// An error without the end of the log that it may carry.
fn reason(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}
