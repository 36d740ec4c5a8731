//! The process that owns a running stack: starts it in order, watches it, stops it in reverse.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ordersaga_devstack::{
    Databases, Part, Parts, Report, Service, ServiceProcess, Stack, TemporaryFolder, is_free,
    service_env,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::progress::{report, seconds};
use crate::restarts::Restarts;
use crate::state::{Lock, Phase, Running, State};
use crate::{status, topics};

/// The broker's port, as everybody expects it.
const BROKER_PORT: u16 = 9092;
/// How often it is looked whether something has ended by itself.
const LOOK: Duration = Duration::from_millis(250);
/// Services migrate and join their groups before they are ready.
const READY: Duration = Duration::from_secs(90);

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
}

/// Runs a stack in a session of its own, which no terminal ends.
pub(crate) async fn detached(arguments: Arguments) -> Result<ExitCode> {
    rustix::process::setsid()?;
    run(Home::new(arguments.data, arguments.remove)?).await
}

/// Runs a stack until a signal asks it to stop.
pub(crate) async fn run(home: Home) -> Result<ExitCode> {
    let Some(_lock) = Lock::take(home.path())? else {
        bail!("a stack is running already on {}", home.path().display());
    };
    let report = report();
    let begin = Instant::now();
    let mut stop = Stop::new()?;
    let mut whole = tokio::select! {
        started = Whole::start(home.path(), &report) => started?,
        name = stop.asked() => bail!("{name} came before everything was ready"),
    };
    report.note(&format!("Everything is ready after {}.", seconds(begin.elapsed())));
    report.note(&status::addresses(&whole.state(Phase::Ready)));
    report.note("Ctrl-C or `cargo ordersaga down` stops it.");
    // Last: who waits for a start in the background sees this and lets go.
    whole.state(Phase::Ready).save()?;
    let name = tokio::select! {
        failed = whole.watch(&report) => return failed,
        name = stop.asked() => name,
    };
    report.note(&format!("Stopping ({name})."));
    whole.state(Phase::Stopping).save()?;
    let stopped = whole.stop(&report).await;
    State::remove(home.path());
    stopped?;
    report.note("Everything has stopped.");
    Ok(ExitCode::SUCCESS)
}

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
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Parts and services together.
struct Whole {
    // Services end before the parts that they use.
    services: Vec<Watched>,
    stack: Stack,
}

struct Watched {
    process: ServiceProcess,
    restarts: Restarts,
}

impl Whole {
    async fn start(folder: &Path, report: &Report) -> Result<Self> {
        check_ports()?;
        let parts = Parts::open(folder, Some(BROKER_PORT))?;
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
        let services = Service::ALL.map(|service| watched(service, &databases, stack.parts()));
        let services = Vec::from(services);
        let [a, b, c] = [0, 1, 2].map(|index| start_service(&services[index].process, report));
        tokio::try_join!(a, b, c)?;
        Ok(Self { services, stack })
    }

    fn state(&self, phase: Phase) -> State {
        let parts = self.stack.all().iter().map(|part| Running {
            name: part.name().to_owned(),
            port: part.port(),
            pid: part.pid(),
            is_service: false,
        });
        let services = self.services.iter().map(|service| Running {
            name: service.process.name().to_owned(),
            port: service.process.port(),
            pid: service.process.pid(),
            is_service: true,
        });
        State {
            supervisor: std::process::id(),
            phase,
            parts: self.stack.parts().clone(),
            processes: parts.chain(services).collect(),
        }
    }

    /// Says what ends by itself, and starts services again. Only returns when it cannot go on.
    async fn watch(&mut self, report: &Report) -> Result<ExitCode> {
        let mut ended: Vec<String> = Vec::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let mut changed = false;
            for part in self.stack.all() {
                changed |= look_at_part(part, &mut ended, report);
            }
            for service in &mut self.services {
                changed |= service.look(report)?;
            }
            if changed {
                self.state(Phase::Ready).save()?;
            }
        }
    }

    async fn stop(&self, report: &Report) -> Result<()> {
        let stop = async |service: &Watched| service.process.terminate().await;
        let [a, b, c] = [0, 1, 2].map(|index| stop(&self.services[index]));
        let services = report.step("Services", async { tokio::try_join!(a, b, c) }).await;
        // The parts are stopped cleanly even when a service was not.
        self.stack.stop(report).await?;
        services.map(drop)
    }
}

fn check_ports() -> Result<()> {
    for service in Service::ALL {
        let port = service.port();
        ensure!(is_free(port), "port {port} of {service} is taken by another program");
    }
    ensure!(is_free(BROKER_PORT), "port {BROKER_PORT} of the broker is taken by another program");
    Ok(())
}

fn watched(service: Service, databases: &Databases, parts: &Parts) -> Watched {
    let (broker, redis) = (parts.broker_address(), parts.redis_url());
    let environment = service_env(service, databases, &broker, &redis, "", service.port());
    let log = parts.folder.join("logs").join(format!("{service}.log"));
    Watched {
        process: ServiceProcess::new(service, environment, log),
        restarts: Restarts::default(),
    }
}

async fn start_service(process: &ServiceProcess, report: &Report) -> Result<()> {
    let start = async {
        process.start()?;
        process.wait_ready(READY).await
    };
    report.step(process.name(), start).await
}

/// Says once that a part has ended. It is not started again: it holds data, and why it ended is
/// for a person to see.
fn look_at_part(part: &Part, ended: &mut Vec<String>, report: &Report) -> bool {
    if part.pid().is_some() || ended.iter().any(|name| name == part.name()) {
        return false;
    }
    ended.push(part.name().to_owned());
    let log = part.log().display();
    report.note(&format!(
        "{} has ended by itself; see {log}. Stop the stack and start it again.",
        part.name()
    ));
    true
}

impl Watched {
    fn look(&mut self, report: &Report) -> Result<bool> {
        let now = Instant::now();
        let Some(status) = self.process.exited() else {
            return Ok(false);
        };
        if self.restarts.is_due(now) {
            self.process.start()?;
            self.restarts.started(now);
            report.note(&format!("{} is started again.", self.process.name()));
            return Ok(true);
        }
        let Some(pause) = self.restarts.ended(now) else {
            return Ok(false);
        };
        let (name, log) = (self.process.name(), self.process.log().display());
        let pause = seconds(pause);
        report
            .note(&format!("{name} has ended by itself ({status}); see {log}. Again in {pause}."));
        Ok(true)
    }
}
