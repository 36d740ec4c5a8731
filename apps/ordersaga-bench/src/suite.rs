//! The suite: which runs, in which order, and what is made of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::SecondsFormat;
use ordersaga_figures::number::{short, whole};
use ordersaga_figures::{Figures, Kind, Run, Series, VERSION};
use ordersaga_runtime::clock;

use crate::arguments::Arguments;
use crate::limits::{Bench, Databases, Limit};
use crate::progress::{self, Progress};
use crate::run::{self, Length};
use crate::scenario::{self, Pace, Phase, Scenario};
use crate::system::System;
use crate::{audit, machine, preload, publish, tables};

/// Load before what is measured.
const WARMUP_SECONDS: u32 = 2;
/// A run before the first that counts: plans, caches and the broker's code are cold only once.
const FIRST: Length = Length { seconds: 3, warmup_seconds: 3 };
/// How long the system is kept under more than it can do.
const OVERLOAD_SECONDS: u32 = 60;
const QUICK_OVERLOAD_SECONDS: u32 = 15;
/// At 100 orders a second there must be enough of them to tell a percentile.
const LIGHT_SECONDS: u32 = 15;

struct Suite<'a> {
    arguments: &'a Arguments,
    binaries: PathBuf,
    system: System,
    /// Where the limit of SQL is measured.
    sql: Databases,
    progress: Progress,
    series: Vec<Series>,
    /// Orders a second of the run that does not count.
    first_rate: f64,
}

/// Something that is run several times.
#[derive(Clone, Copy)]
enum Task {
    Scenario(Scenario),
    Limit(Limit),
}

impl Task {
    /// All there is, in the order it is shown.
    fn all() -> Vec<Self> {
        let scenarios = scenario::ALL.into_iter().map(Self::Scenario);
        scenarios.chain(Limit::ALL.map(Self::Limit)).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Scenario(scenario) => scenario.name,
            Self::Limit(limit) => limit.name(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Scenario(scenario) => scenario.title,
            Self::Limit(limit) => limit.title(),
        }
    }

    /// Ten million rows take longer than a quick run is to: they must be asked for.
    fn is_wanted(self, arguments: &Arguments) -> bool {
        let too_long = arguments.quick && arguments.only.is_empty();
        arguments.wants(self.name()) && !(too_long && self.phase() == Phase::Preloaded)
    }

    fn phase(self) -> Phase {
        match self {
            Self::Scenario(scenario) => scenario.phase,
            Self::Limit(_) => Phase::Ordinary,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Scenario(_) => Kind::Scenario,
            Self::Limit(_) => Kind::Limit,
        }
    }
}

/// Measures everything that is asked for, prints it and writes it. The exit code is 1 if an order
/// was lost or an item oversold.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    publish::check()?;
    let begin = clock::now();
    let chosen: Vec<_> = Task::all().into_iter().filter(|task| task.is_wanted(arguments)).collect();
    ensure!(!chosen.is_empty(), "nothing is called so; --list lists the names");
    let mut suite = Suite::start(arguments, chosen.len()).await?;
    suite.warm_up().await?;
    for phase in Phase::ALL {
        let tasks: Vec<_> = chosen.iter().filter(|task| task.phase() == phase).copied().collect();
        if !tasks.is_empty() {
            suite.phase(phase, &tasks).await?;
        }
    }
    suite.progress.begin("checking");
    let audit = audit::audit(&suite.system).await;
    let versions = machine::versions(&suite.system).await?;
    let settings = machine::settings(&suite.system).await?;
    let Suite { system, progress, mut series, .. } = suite;
    drop(progress);
    system.stop().await?;
    let place = |series: &Series| Task::all().iter().position(|task| task.name() == series.name);
    series.sort_by_key(place);
    let figures = Figures {
        version: VERSION,
        command: arguments.command(),
        started_at: begin.to_rfc3339_opts(SecondsFormat::Secs, true),
        seconds: (clock::now() - begin).as_seconds_f64(),
        machine: machine::machine(),
        versions,
        settings,
        series,
    };
    publish::print(&figures);
    let folder = folder(arguments);
    publish::write(&folder, &figures)?;
    say!("\nWritten to {}", folder.display());
    Ok(verdict(&figures, audit))
}

/// Says whether everything was kept.
fn verdict(figures: &Figures, audit: Result<()>) -> ExitCode {
    let runs = || figures.series.iter().flat_map(|series| &series.runs);
    let missing: u64 = runs().map(|run| run.missing).sum();
    let oversold: u64 = runs().map(|run| run.oversold).sum();
    if missing > 0 || oversold > 0 {
        say!("{missing} acknowledged orders did not end, {oversold} items were oversold.");
        return ExitCode::FAILURE;
    }
    if let Err(error) = audit {
        say!("The databases do not agree: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Where the figures go: what is less than a full run does not replace the published ones.
pub(crate) fn folder(arguments: &Arguments) -> PathBuf {
    let usual = if arguments.is_full() { "docs" } else { "target/bench" };
    arguments.out.clone().unwrap_or_else(|| machine::root().join(usual))
}

/// The folder of the programs that are measured, and of the load generator.
fn binaries(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(folder) = &arguments.services {
        return Ok(folder.clone());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(own.parent().unwrap_or(Path::new(".")).to_owned())
}

impl<'a> Suite<'a> {
    /// Starts everything, for this many tasks.
    async fn start(arguments: &'a Arguments, tasks: usize) -> Result<Self> {
        let binaries = binaries(arguments)?;
        let steps = progress::steps();
        let delay = arguments.link_delay.map(Duration::from_millis);
        let system = System::start(&binaries, delay, &steps).await?;
        let sql = steps.step("Databases for the limits", Databases::make(&system.stack)).await?;
        let progress = Progress::new(tasks * arguments.runs() as usize);
        Ok(Self { arguments, binaries, system, sql, progress, series: Vec::new(), first_rate: 0.0 })
    }

    async fn warm_up(&mut self) -> Result<()> {
        self.progress.begin("warming up");
        self.first_rate = self.scenario(&scenario::typical(), FIRST).await?.orders_per_second;
        Ok(())
    }

    /// All runs of a phase: its tasks take turns.
    async fn phase(&mut self, phase: Phase, tasks: &[Task]) -> Result<()> {
        match phase {
            Phase::TwoInstances => self.system.add_instances().await?,
            Phase::Preloaded => {
                self.progress.begin("putting in the rows of ten million orders");
                let begin = clock::now();
                preload::fill(&self.system).await?;
                let seconds = (clock::now() - begin).num_seconds();
                self.progress.note(&format!("    {} orders put in: {seconds} s", preload::ORDERS));
            }
            Phase::Ordinary | Phase::Overload => {}
        }
        for round in 1..=self.arguments.runs() {
            for task in tasks {
                self.progress.begin(task.title());
                let run = self.once(*task).await;
                let run = run.with_context(|| format!("{} was not measured", task.name()))?;
                self.note(*task, round, run);
            }
        }
        if phase == Phase::TwoInstances {
            self.system.remove_instances().await?;
        }
        Ok(())
    }

    async fn once(&self, task: Task) -> Result<Run> {
        match task {
            Task::Scenario(scenario) => self.scenario(&scenario, self.length(&scenario)).await,
            Task::Limit(limit) => {
                self.system.at_rest().await?;
                let length = self.length(&scenario::typical());
                let Self { system, binaries, sql, .. } = self;
                limit.run(&Bench { system, binaries, sql, length }).await
            }
        }
    }

    async fn scenario(&self, scenario: &Scenario, length: Length) -> Result<Run> {
        let load = run::load_of(&self.system, scenario, length, self.capacity());
        run::run(&self.system, &load, &self.binaries).await
    }

    fn length(&self, scenario: &Scenario) -> Length {
        let seconds = match scenario.pace {
            Pace::Overload(_) if self.arguments.quick => QUICK_OVERLOAD_SECONDS,
            Pace::Overload(_) => OVERLOAD_SECONDS,
            Pace::Rate(_) => self.arguments.seconds().max(LIGHT_SECONDS),
            Pace::Clients(_) => self.arguments.seconds(),
        };
        Length { seconds, warmup_seconds: WARMUP_SECONDS }
    }

    /// The best rate measured so far.
    fn capacity(&self) -> f64 {
        let scenarios = self.series.iter().filter(|series| series.kind == Kind::Scenario);
        let rates = scenarios.filter_map(Series::rate).map(|rate| rate.median);
        rates.fold(self.first_rate, f64::max)
    }

    fn note(&mut self, task: Task, round: u32, mut run: Run) {
        if task.phase() != Phase::Overload {
            // Only that is plotted second by second.
            run.timeline.clear();
        }
        self.progress.end(&told(task, round, &run));
        if let Some(series) = self.series.iter_mut().find(|series| series.name == task.name()) {
            series.runs.push(run);
        } else {
            self.series.push(Series {
                name: task.name().to_owned(),
                title: task.title().to_owned(),
                kind: task.kind(),
                runs: vec![run],
            });
        }
    }
}

/// A run in a line.
fn told(task: Task, round: u32, run: &Run) -> String {
    let (name, rate) = (task.name(), whole(run.orders_per_second));
    let mut parts = vec![format!("{round:>2}  {name:16} {rate:>9} orders/s")];
    if let Some(latency) = run.latency_ms.get("terminal") {
        let (p50, p99) = (short(latency.p50), short(latency.p99));
        parts.push(format!("to terminal p50 {p50:>6} p99 {p99:>6} ms"));
    }
    if let Some(cpu) = run.cpu_per_thousand(tables::is_system) {
        parts.push(format!("{cpu:.3} CPU s/1,000"));
    }
    parts.join("  ")
}
