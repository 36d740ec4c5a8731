//! A run: faults and orders side by side, then rest, then the checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::SecondsFormat;
use futures_util::future::join_all;
use ordersaga_checker::{Evidence, Log, Onlooker, Snapshot, Violation};
use ordersaga_devstack::{Cluster, Report as Steps, Service, Step};
use parking_lot::RwLock;

use crate::follow::Follower;
use crate::inject::Injector;
use crate::report::{Broken, FaultReport, Machine, Orders, Report, Second};
use crate::schedule::{Round, rounds};
use crate::system::{Options, System};
use crate::workload::{Addresses, Clients, FIRST_PROBE, Known};
use crate::{Arguments, SMALL_DISK, html};

/// Items on the shelves at the begin.
const ITEMS: u32 = 60;
/// Orders that show whether the system has recovered: so many that all 16 partitions get one in
/// 999 of 1,000 rounds.
const PROBES: usize = 160;
/// Clients go on wanting orders for so long after a fault.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// How soon all probes must be SHIPPING after everything was put right.
const RECOVERY_BOUND: Duration = Duration::from_mins(1);
/// How soon everything must be at rest once nobody asks for anything any more.
const REST_BOUND: Duration = Duration::from_mins(5);
const REST_PER_ORDER: Duration = Duration::from_millis(5);
/// How long orders of a round without faults are spread over.
const LAST_ROUND: Duration = Duration::from_secs(5);
/// Violations told with all that is known of their order.
const TOLD: usize = 20;
/// What the smallest disk holds, and what each order adds to it at the most.
const DISK: u64 = 384 << 20;
const DISK_PER_ORDER: u64 = 3 << 10;
/// Short, so that an outage of the store makes deadlines race with its answers.
const DEADLINE_SECONDS: u64 = 8;

struct Run<'a> {
    arguments: &'a Arguments,
    system: System,
    clients: Arc<Clients>,
    onlooker: Onlooker,
    follower: Follower,
    begin: Instant,
    /// The next client's number.
    next: i64,
    faults: Vec<FaultReport>,
    /// Faults that could not happen, and why.
    not_injected: Vec<String>,
    violations: Vec<Violation>,
}

/// Runs it, and prints and writes what was found. The exit code is 1 if a promise was broken.
pub(crate) async fn run(arguments: &Arguments, with_disk: bool) -> Result<ExitCode> {
    let Arguments { seed, faults, only, .. } = arguments;
    let rounds = rounds(*seed, *faults as usize, only.as_deref().unwrap_or_default());
    ensure!(*faults == 0 || !rounds.is_empty(), "no fault is called {only:?}");
    if arguments.schedule {
        for line in rounds.iter().flat_map(described) {
            say!("{line}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let started_at = ordersaga_runtime::clock::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut run = Run::start(arguments, with_disk).await?;
    run.faults(&rounds).await?;
    let evidence = run.check().await;
    let report = run.report(started_at, evidence.as_ref());
    let folder = arguments.output.clone();
    let folder = folder.unwrap_or_else(|| format!("target/chaos/seed-{}", arguments.seed).into());
    std::fs::create_dir_all(&folder)?;
    if !report.violations.is_empty() {
        keep_logs(run.system.logs(), &folder)?;
    }
    run.system.stop().await?;
    std::fs::write(folder.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    std::fs::write(folder.join("report.html"), html::page(&report))?;
    report.print();
    say!("Report: {}", folder.join("report.html").display());
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Keeps what the processes said, for whoever wants to know why.
fn keep_logs(logs: &Path, folder: &Path) -> Result<()> {
    let to = folder.join("logs");
    std::fs::create_dir_all(&to)?;
    for log in std::fs::read_dir(logs)? {
        let log = log?;
        std::fs::copy(log.path(), to.join(log.file_name()))?;
    }
    Ok(())
}

/// The steps of the start, a line for each.
fn steps() -> Steps {
    Steps::new(|step| match step {
        Step::Begin(_) => {}
        Step::End(name, time) => say!("{name}: {:.1} s", time.as_secs_f64()),
        Step::Failed(name) => say!("{name}: failed"),
        Step::Note(text) => say!("{text}"),
    })
}

fn described(round: &Round) -> Vec<String> {
    let faults = round.faults.iter().map(|fault| {
        let (after, length) = (fault.after.as_secs_f64(), fault.length.as_secs_f64());
        let (kind, target) = (fault.kind.name(), fault.kind.target());
        format!("  after {after:.1} s for {length:.1} s: {kind}, {target}")
    });
    let calm = format!("calm for {:.1} s", round.calm.as_secs_f64());
    [calm].into_iter().chain(faults).collect()
}

impl<'a> Run<'a> {
    async fn start(arguments: &'a Arguments, with_disk: bool) -> Result<Self> {
        let disk = DISK + u64::from(arguments.orders) * DISK_PER_ORDER;
        let options = Options {
            services: arguments.services.clone(),
            small_disk: with_disk.then_some((SMALL_DISK, disk)),
            settings: vec![(
                Service::CreateOrder,
                "ORDER_DEADLINE_SECONDS",
                DEADLINE_SECONDS.to_string(),
            )],
        };
        let system = System::start(options, &steps()).await?;
        let url = |service| system.service(service).url();
        let addresses = Addresses {
            create: RwLock::new(vec![url(Service::CreateOrder)]),
            status: url(Service::Monitoring),
            store: url(Service::Store),
        };
        let log = Log { broker: system.broker(), prefix: String::new() };
        let mut onlooker = Onlooker::new(system.databases(), log.clone(), system.redis_url())?;
        onlooker.urls = Service::ALL.map(|service| (service, url(service))).into();
        let begin = Instant::now();
        let clients = Clients::new(arguments.seed, addresses, begin)?;
        clients.known().history.deadline = Some(Duration::from_secs(DEADLINE_SECONDS));
        clients.stock(ITEMS).await?;
        let follower = Follower::start(log, begin, arguments.seed);
        Ok(Self {
            arguments,
            system,
            clients,
            onlooker,
            follower,
            begin,
            next: 1,
            faults: Vec::new(),
            not_injected: Vec::new(),
            violations: Vec::new(),
        })
    }

    /// Injects all faults while clients have their wishes, an equal part of them in each round.
    async fn faults(&mut self, rounds: &[Round]) -> Result<()> {
        let works = self.recovery().await.is_some();
        ensure!(works, "orders do not flow even before the first fault");
        // There is then something to repeat.
        while self.follower.sample.lock().is_empty() {
            ensure!(self.begin.elapsed() < RECOVERY_BOUND, "the topics cannot be followed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let browsers = self.clients.browse();
        let mut orders = i64::from(self.arguments.orders);
        let parts = i64::try_from(rounds.len())? + 1;
        for (number, round) in (1..).zip(rounds) {
            let minutes = self.begin.elapsed().as_secs() / 60;
            if self.arguments.minutes.is_some_and(|most| minutes >= u64::from(most)) {
                // Nor are there orders for the faults that do not happen.
                orders = self.next - 1;
                break;
            }
            let share = self.next_clients(orders * number / parts);
            let length = round.faults.iter().map(|fault| fault.after + fault.length).max();
            let length = round.calm + length.unwrap_or_default() + AFTERWARDS;
            let wishes = self.clients.wish(share, length);
            let faults = self.round(number, round);
            let ((), faults) = tokio::join!(wishes, faults);
            for fault in faults {
                match fault {
                    Ok(fault) => self.note(fault),
                    Err(error) => {
                        say!("Not injected: {error}");
                        self.not_injected.push(error);
                    }
                }
            }
            if self.arguments.fail_fast && !self.clients.known().seen.is_empty() {
                break;
            }
        }
        let rest = self.next_clients(orders);
        self.clients.wish(rest, LAST_ROUND).await;
        self.clients.finish().await;
        drop(browsers);
        Ok(())
    }

    fn next_clients(&mut self, upto: i64) -> std::ops::Range<i64> {
        let from = self.next;
        self.next = from.max(upto + 1);
        from..self.next
    }

    /// One round: its faults, and how soon orders flow again after the last of them.
    async fn round(&self, number: i64, round: &Round) -> Vec<Result<FaultReport, String>> {
        tokio::time::sleep(round.calm).await;
        let injector = Injector {
            system: &self.system,
            clients: &self.clients,
            log: self.onlooker.log.clone(),
            sample: self.follower.sample.clone(),
        };
        let seed = self.arguments.seed ^ number.unsigned_abs() << 32;
        let injected = round.faults.iter().enumerate().map(|(place, fault)| {
            let (injector, mut rng) = (&injector, fastrand::Rng::with_seed(seed + place as u64));
            async move {
                tokio::time::sleep(fault.after).await;
                let started = self.now();
                injector.inject(fault, &mut rng).await.map_err(|error| format!("{error:#}"))?;
                Ok(FaultReport {
                    kind: fault.kind.name().to_owned(),
                    target: fault.kind.target(),
                    overlapped: round.faults.len() > 1,
                    started,
                    healed: self.now(),
                    recovery: None,
                    acknowledged: 0,
                    ended: 0,
                })
            }
        });
        let injected = join_all(injected).await;
        let recovery = self.recovery().await;
        let with_recovery = |fault| FaultReport { recovery, ..fault };
        injected.into_iter().map(|fault: Result<_, _>| fault.map(with_recovery)).collect()
    }

    /// Seconds until orders of every partition have gone from create to SHIPPING.
    async fn recovery(&self) -> Option<f64> {
        let begin = Instant::now();
        let all = async {
            let item = self.clients.probe_item().await;
            join_all((0..PROBES).map(|_| self.clients.probe(item))).await
        };
        let shipping = tokio::time::timeout(RECOVERY_BOUND, all).await;
        shipping.is_ok().then(|| begin.elapsed().as_secs_f64())
    }

    /// Notes a fault, and that orders did not flow again after it.
    fn note(&mut self, fault: FaultReport) {
        let (done, all) = (self.faults.len() + 1, self.arguments.faults);
        say!("{done:4}/{all} {}", fault.line());
        if fault.recovery.is_none() {
            self.broken("I1", fault.line());
        }
        self.faults.push(fault);
    }

    fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Waits for rest, gathers everything and compares it; then lets every service consume
    /// everything again from the begin, which must change nothing. What cannot be checked is a
    /// violation too.
    async fn check(&mut self) -> Option<Evidence> {
        say!("Waiting until everything is at rest.");
        if let Err(error) = self.onlooker.at_rest(self.rest_bound()).await {
            self.broken("I1", format!("{error:#}"));
        }
        say!("Checking.");
        let (history, seen) = {
            let known = self.clients.known();
            (known.history.clone(), known.seen.clone())
        };
        self.violations.extend(seen);
        let evidence = match Evidence::gather(&self.onlooker, history).await {
            Ok(evidence) => evidence,
            Err(error) => {
                self.broken("not checked", format!("{error:#}"));
                return None;
            }
        };
        match evidence.violations(&self.onlooker).await {
            Ok(violations) => self.violations.extend(violations),
            Err(error) => self.broken("not checked", format!("{error:#}")),
        }
        if self.violations.is_empty() {
            say!("Checking that consuming everything again changes nothing.");
            if let Err(error) = self.consume_again(&evidence).await {
                self.broken("I11", format!("{error:#}"));
            }
        }
        Some(evidence)
    }

    /// All records of the run must be consumed within it.
    fn rest_bound(&self) -> Duration {
        REST_BOUND + REST_PER_ORDER * self.arguments.orders
    }

    /// I11: every service starts again from the topics' begin.
    async fn consume_again(&mut self, evidence: &Evidence) -> Result<()> {
        for service in Service::ALL {
            self.system.kill_service(service).await?;
        }
        for cluster in [Cluster::CreateOrder, Cluster::Store, Cluster::Monitoring] {
            sqlx::raw_sql("UPDATE sagabus.consumer_offset SET next_offset = 0")
                .execute(self.onlooker.sql(cluster))
                .await?;
        }
        for service in Service::ALL {
            self.system.start_service(service).await?;
        }
        for service in Service::ALL {
            self.system.service(service).wait_ready(RECOVERY_BOUND).await?;
        }
        self.onlooker.at_rest(self.rest_bound()).await?;
        let (before, after) = (&evidence.snapshot, Snapshot::take(&self.onlooker).await?);
        for (what, same) in [
            ("orders", before.orders == after.orders),
            ("reservations", before.reservations == after.reservations),
            ("items", before.items == after.items),
            ("facts", before.facts == after.facts),
            ("statuses", before.statuses == after.statuses),
        ] {
            if !same {
                self.broken("I11", format!("consuming everything again changed {what}"));
            }
        }
        Ok(())
    }

    fn broken(&mut self, invariant: &'static str, what: String) {
        self.violations.push(Violation { invariant, order: None, what });
    }

    fn report(&self, started_at: String, evidence: Option<&Evidence>) -> Report {
        let Arguments { seed, orders, faults, ref only, .. } = *self.arguments;
        let only = only.as_ref().map(|only| format!(" --only '{only}'")).unwrap_or_default();
        let known = self.clients.known();
        let ended = self.follower.ended();
        let mut faults_made = self.faults.clone();
        for fault in &mut faults_made {
            let span = fault.started..fault.healed;
            let during = |at: &Duration| span.contains(&at.as_secs_f64());
            fault.acknowledged = known.created.iter().filter(|(at, _)| during(at)).count();
            fault.ended = ended.iter().filter(|at| during(at)).count();
        }
        let story = |order| evidence.map(|evidence| evidence.story(order));
        let violations = self.violations.iter().enumerate().map(|(number, violation)| Broken {
            history: violation.order.filter(|_| number < TOLD).and_then(story).unwrap_or_default(),
            violation: violation.clone(),
        });
        Report {
            seed,
            command: format!(
                "cargo ordersaga chaos --seed {seed} --orders {orders} --faults {faults}{only}"
            ),
            started_at,
            seconds: self.now(),
            machine: machine(),
            orders: evidence.map(|evidence| outcomes(&known, evidence)).unwrap_or_default(),
            recovery: Report::recovery_of(&faults_made),
            faults: faults_made,
            timeline: timeline(&known, &ended),
            restarts: self.system.restarts(),
            not_injected: self.not_injected.clone(),
            violations: violations.collect(),
        }
    }
}

fn machine() -> Machine {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: kernel.trim().to_owned(),
        ordersaga: env!("CARGO_PKG_VERSION"),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
    }
}

fn outcomes(known: &Known, evidence: &Evidence) -> Orders {
    let statuses = evidence.snapshot.statuses.values();
    let mut cancelled: BTreeMap<String, usize> = BTreeMap::new();
    for status in statuses.clone().filter(|status| status.is_cancelled) {
        let reason = status.reason.clone().unwrap_or_default();
        *cancelled.entry(reason).or_default() += 1;
    }
    let wishes = known.history.wishes.values();
    Orders {
        wanted: known.history.wishes.range(..FIRST_PROBE).count(),
        probes: known.history.wishes.range(FIRST_PROBE..).count(),
        requests: wishes.map(|wish| wish.sent as usize).sum(),
        acknowledged: known.history.placed.len(),
        made: evidence.snapshot.orders.len(),
        shipping: statuses.filter(|status| status.step == "SHIPPING").count(),
        cancelled,
        cancellations: known.history.cancelled.len(),
        reads: known.reads,
        refused: known.refused.clone(),
        records: evidence.told.records.len() + evidence.told.poison.len(),
        dead_letters: evidence.told.buried.values().map(std::collections::BTreeSet::len).sum(),
    }
}

fn timeline(known: &Known, ended: &[Duration]) -> Vec<Second> {
    let mut seconds: BTreeMap<u64, (Second, Vec<Duration>)> = BTreeMap::new();
    for (at, latency) in &known.created {
        let (second, latencies) = seconds.entry(at.as_secs()).or_default();
        second.created += 1;
        latencies.push(*latency);
    }
    for at in ended {
        seconds.entry(at.as_secs()).or_default().0.ended += 1;
    }
    for at in &known.errors {
        seconds.entry(at.as_secs()).or_default().0.errors += 1;
    }
    let last = seconds.last_key_value().map_or(0, |(last, _)| *last);
    let timeline = (0..=last).map(|at| {
        let (mut second, mut latencies) = seconds.remove(&at).unwrap_or_default();
        latencies.sort();
        let p99 = latencies.get(latencies.len().saturating_sub(1) * 99 / 100);
        second.p99_ms = p99.map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0);
        second
    });
    timeline.collect()
}
