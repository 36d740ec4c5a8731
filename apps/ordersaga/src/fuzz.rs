//! `fuzz`: the three APIs against their own descriptions, by schemathesis: it makes requests out of
//! each `/openapi.json`, good ones and bad ones, and holds every answer to what is written there.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{
    Report, Service, ServiceProcess, Stack, TemporaryFolder, cache_folder, programs,
};

use crate::progress::{report, seconds};
use crate::{cargo, install, topics};

/// The release of schemathesis that is used.
const RELEASE: &str = "4.32.5";
/// The releases of all it needs: another one could make other requests of the same seed. What
/// `pip freeze` says of the environment, without schemathesis itself.
const CONSTRAINTS: &str = include_str!("fuzz_constraints.txt");
/// Services migrate and join their groups before they are ready.
const READY: Duration = Duration::from_secs(90);
/// The kinds of tests: values from the description, all limits of all values, random ones, and
/// sequences such as a create, a cancel and a status of one order.
const PHASES: &str = "examples,coverage,fuzzing,stateful";

/// Makes keys of requests unique, as their description cannot say it.
const HOOKS: &str = include_str!("fuzz_hooks.py");

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Random requests per operation, and random sequences, at the most
    #[arg(long, default_value_t = 100)]
    examples: u32,
    /// What the random requests follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Base URL of a service that runs already, instead of a stack made for this; may be repeated
    #[arg(long)]
    url: Vec<String>,
    /// Do not install what is missing: say how to, and fail
    #[arg(long)]
    no_install: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let begin = Instant::now();
    install::ensure_python(arguments.no_install)?;
    let report = report();
    let all_good = if arguments.url.is_empty() {
        on_own_stack(&arguments, &report).await?
    } else {
        let urls = arguments.url.clone();
        try_all(&arguments, urls, &report).await?
    };
    say!("Fuzzing: {} after {}.", verdict(all_good), seconds(begin.elapsed()));
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(good: bool) -> &'static str {
    if good { "every answer was as described" } else { "failed" }
}

async fn on_own_stack(arguments: &Arguments, report: &Report) -> Result<bool> {
    install::ensure(arguments.no_install)?;
    cargo::build_services(&[])?;
    let stack = Stack::temporary_with(report).await?;
    let parts = stack.parts();
    let broker = parts.broker_address();
    let make_topics = {
        let broker = broker.clone();
        async move { tokio::task::spawn_blocking(move || topics::apply(&broker)).await? }
    };
    let (databases, ()) = tokio::try_join!(
        report.step("Databases", parts.provision("")),
        report.step("Topics", make_topics),
    )?;
    let logs = parts.folder.join("logs");
    let services = ServiceProcess::trio(&databases, &broker, &parts.redis_url(), "", &logs)?;
    report.step("Services", start(services.values())).await?;
    // Orders come first: then there is something to cancel, and a status to ask for.
    let urls = [Service::CreateOrder, Service::Store, Service::Monitoring];
    let urls = urls.map(|service| services[&service].url()).to_vec();
    let outcome = try_all(arguments, urls, report).await;
    for service in services.values() {
        ensure!(service.pid().is_some(), "{} has ended", service.name());
        service.terminate().await?;
    }
    stack.stop(report).await?;
    outcome
}

async fn start(services: impl Iterator<Item = &ServiceProcess> + Clone) -> Result<()> {
    for service in services.clone() {
        service.migrate(READY).await?;
        service.start()?;
    }
    for service in services {
        service.wait_ready(READY).await?;
    }
    Ok(())
}

/// Tries one service after the other; true if nothing was found.
async fn try_all(arguments: &Arguments, urls: Vec<String>, report: &Report) -> Result<bool> {
    let get = async { tokio::task::spawn_blocking(schemathesis).await? };
    let program = report.step("Schemathesis", get).await?;
    let (examples, seed) = (arguments.examples.to_string(), arguments.seed.to_string());
    tokio::task::spawn_blocking(move || {
        let folder = TemporaryFolder::new("fuzz")?;
        let hooks = folder.path().join("hooks.py");
        std::fs::write(&hooks, HOOKS)?;
        let mut all_good = true;
        for url in urls {
            let mut command = Command::new(&program);
            command.current_dir(folder.path()).arg("run").arg(format!("{url}/openapi.json"));
            command.args(["--phases", PHASES, "--max-examples", &examples, "--seed", &seed]);
            // What an earlier run found must not change this one.
            command.args(["--generation-database", "none", "--continue-on-failure"]);
            command.env("SCHEMATHESIS_HOOKS", &hooks);
            let status = command.stdin(Stdio::null()).status();
            all_good &= status.context("cannot start schemathesis")?.success();
        }
        Ok(all_good)
    })
    .await?
}

/// The program, in a Python environment of its own, made when first needed.
fn schemathesis() -> Result<PathBuf> {
    let folder = cache_folder()?.join(environment());
    let (program, complete) = (folder.join("bin/schemathesis"), folder.join("complete"));
    if complete.exists() {
        return Ok(program);
    }
    let _ = std::fs::remove_dir_all(&folder);
    let python = programs::find("python3").context("there is no python3")?;
    ordersaga_devstack::run(Command::new(python).args(["-m", "venv"]).arg(&folder))?;
    install_release(&folder)?;
    std::fs::write(complete, RELEASE)?;
    Ok(program)
}

/// The environment's folder: another one for other releases.
fn environment() -> String {
    let mut hasher = DefaultHasher::new();
    CONSTRAINTS.hash(&mut hasher);
    format!("schemathesis-{RELEASE}-{:016x}", hasher.finish())
}

fn install_release(folder: &Path) -> Result<()> {
    let constraints = folder.join("constraints.txt");
    std::fs::write(&constraints, CONSTRAINTS)?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--constraint"]);
    pip.arg(constraints).arg(format!("schemathesis=={RELEASE}"));
    ordersaga_devstack::run(&mut pip).map(drop)
}
