//! The core: a heap of events, cores that serve jobs in turns, stages that form batches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use hdrhistogram::Histogram;

use crate::network::{Clients, Nanos, Network, SECOND, Step, nanos};

/// How often a machine does what it does without load.
const TICK: Nanos = SECOND / 100;
/// Work that belongs to no stage.
const NO_STAGE: usize = usize::MAX;

/// How long to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Load that does not count, before.
    pub warm_up: Nanos,
    /// Load that counts.
    pub measured: Nanos,
    /// How long after the load the last order may take to end.
    pub drain: Nanos,
    /// Length of an interval of the report.
    pub interval: Nanos,
}

/// What happened.
#[derive(Debug, Clone)]
pub struct Report {
    /// Orders placed, of the whole time, as all that follow up to `last_end`.
    pub placed: u64,
    /// Orders ended.
    pub terminal: u64,
    /// Orders found on their way when the time was over, counted in queues and jobs.
    pub on_way: u64,
    /// When the last order ended.
    pub last_end: Nanos,
    /// Orders placed in the measured time, that ended.
    pub orders: u64,
    /// Their latencies to the acknowledgement, in microseconds.
    pub create: Histogram<u64>,
    /// And to the end.
    pub end: Histogram<u64>,
    /// CPU seconds by part, from the begin of the measured time to the last end.
    pub cpu: BTreeMap<String, f64>,
    /// Used share of the busiest machine of each part, over the measured time.
    pub busiest: BTreeMap<String, f64>,
    /// All intervals since the begin.
    pub intervals: Vec<Interval>,
}

/// A part of the time.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Orders acknowledged in it.
    pub acknowledged: u64,
    /// Orders ended in it.
    pub terminal: u64,
    /// The latencies of those, in microseconds.
    pub end: Histogram<u64>,
    /// Orders in each part at its end.
    pub queues: BTreeMap<&'static str, u64>,
    /// Orders placed and not ended at its end.
    pub in_flight: u64,
}

#[derive(Clone, Copy)]
struct Order {
    placed: Nanos,
    client: u32,
    partition: u16,
    hot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(u32),
    /// A pause is over.
    Wake(usize),
    /// A job has had its turn: machine, job, time used.
    Turn(usize, usize, Nanos),
    /// A job has waited.
    Next(usize),
    Tick,
    Lost(usize),
    TakenOver(usize),
    Back(usize),
    Interval,
}

struct Job {
    stage: usize,
    step: usize,
    batch: Vec<Order>,
    left: Nanos,
    locks: bool,
}

#[derive(Default)]
struct Cores {
    running: usize,
    queue: VecDeque<usize>,
    busy: Nanos,
    busy_before: Nanos,
    down: bool,
    /// Who does the work.
    by: usize,
}

#[derive(Default)]
struct Worker {
    queue: VecDeque<Order>,
    busy: bool,
    due: Nanos,
    /// The last moment it is to be woken at.
    wake: Nanos,
    size: usize,
    inside: u64,
}

/// A simulation under way.
struct Run<'a> {
    network: &'a Network,
    span: Span,
    random: fastrand::Rng,
    now: Nanos,
    sequence: u64,
    agenda: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    cores: Vec<Cores>,
    workers: Vec<Worker>,
    jobs: Vec<Job>,
    free: Vec<usize>,
    locks: BTreeMap<usize, VecDeque<usize>>,
    report: Report,
}

/// Simulates the network. The same seed gives the same report.
pub fn simulate(network: &Network, span: Span, seed: u64) -> Report {
    let mut run = Run::new(network, span, seed);
    run.begin();
    let load_ends = span.warm_up + span.measured;
    while let Some(Reverse((at, _, event))) = run.agenda.pop() {
        let all_ended = at > load_ends && run.report.terminal == run.report.placed;
        if at > load_ends + span.drain || all_ended {
            break;
        }
        run.now = at;
        run.handle(event);
    }
    run.finish()
}

fn histogram() -> Histogram<u64> {
    // Up to an hour, in microseconds.
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are allowed")
}

impl Interval {
    fn new() -> Self {
        let queues = BTreeMap::new();
        Self { acknowledged: 0, terminal: 0, end: histogram(), queues, in_flight: 0 }
    }
}

impl<'a> Run<'a> {
    fn new(network: &'a Network, span: Span, seed: u64) -> Self {
        let cores = |by| Cores { by, ..Cores::default() };
        let report = Report {
            placed: 0,
            terminal: 0,
            on_way: 0,
            last_end: 0,
            orders: 0,
            create: histogram(),
            end: histogram(),
            cpu: BTreeMap::new(),
            busiest: BTreeMap::new(),
            intervals: vec![Interval::new()],
        };
        Self {
            network,
            span,
            random: fastrand::Rng::with_seed(seed),
            now: 0,
            sequence: 0,
            agenda: BinaryHeap::new(),
            cores: (0..network.machines.len()).map(cores).collect(),
            workers: network.stages.iter().map(|_| Worker::default()).collect(),
            jobs: Vec::new(),
            free: Vec::new(),
            locks: BTreeMap::new(),
            report,
        }
    }

    fn begin(&mut self) {
        match self.network.clients {
            Clients::Open(_) => self.at(0, Event::Arrival(0)),
            Clients::Closed(clients) => {
                (0..clients).for_each(|one| self.at(0, Event::Arrival(one)));
            }
        }
        self.at(TICK, Event::Tick);
        self.at(self.span.interval, Event::Interval);
        let Some(loss) = self.network.loss else { return };
        for (at, machine) in self.network.machines.iter().enumerate() {
            if machine.datacentre == loss.datacentre {
                self.at(loss.from, Event::Lost(at));
                self.at(loss.until, Event::Back(at));
                if machine.takeover > 0 {
                    self.at(loss.from + machine.takeover, Event::TakenOver(at));
                }
            }
        }
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.sequence += 1;
        self.agenda.push(Reverse((at, self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival(client) => self.arrive(client),
            Event::Wake(stage) => self.form_batch(stage),
            Event::Turn(machine, job, used) => self.end_turn(machine, job, used),
            Event::Next(job) => self.advance(job),
            Event::Tick => self.tick(),
            Event::Lost(machine) => self.cores[machine].down = true,
            Event::TakenOver(machine) => self.take_over(machine),
            Event::Back(machine) => {
                self.cores[machine].down = false;
                self.cores[machine].by = machine;
                self.give_turns(machine);
            }
            Event::Interval => self.end_interval(),
        }
    }

    fn loaded(&self) -> bool {
        self.now < self.span.warm_up + self.span.measured
    }

    fn arrive(&mut self, client: u32) {
        if !self.loaded() {
            return;
        }
        if let Clients::Open(rate) = self.network.clients {
            let pause = crate::network::Length { fixed: 0.0, random: 1e6 / rate };
            let pause = nanos(pause.draw(&mut self.random));
            self.at(self.now + pause, Event::Arrival(client));
        }
        let (network, draw) = (self.network, self.random.f64());
        let hot = draw < network.hot_item;
        let hot_partition = !hot && draw < network.hot_item + network.hot_partition;
        let fixed = hot || hot_partition;
        let system = if fixed { 0 } else { self.random.usize(..network.entries.len()) };
        let partition = if hot_partition { 0 } else { self.random.u16(..network.partitions) };
        let entries = &network.entries[system];
        let entry = entries[self.random.usize(..entries.len())];
        self.report.placed += 1;
        self.enter(entry, Order { placed: self.now, client, partition, hot });
        self.form_batch(entry);
    }

    fn enter(&mut self, stage: usize, order: Order) {
        self.workers[stage].inside += 1;
        self.workers[stage].queue.push_back(order);
    }

    /// Begins a batch if there are orders, the worker is free and its pause is over.
    fn form_batch(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.busy || worker.queue.is_empty() {
            return;
        }
        let batching = self.network.stages[at].batching;
        if self.now < worker.due {
            let due = worker.due;
            if std::mem::replace(&mut worker.wake, due) != due {
                self.at(due, Event::Wake(at));
            }
            return;
        }
        let limit = batching.map_or(usize::MAX, |batching| batching.limit);
        let batch: Vec<_> = worker.queue.drain(..limit.min(worker.queue.len())).collect();
        if let Some(batching) = batching {
            worker.busy = true;
            worker.size = batch.len().max(worker.size / 2);
            let pause = batching.share * worker.size as u64;
            worker.due = self.now + pause.min(batching.longest);
        }
        let items = self.network.items;
        let shared = 1.0 - (-(batch.len() as f64).powi(2) / items).exp();
        let locks = batch.iter().any(|order| order.hot) || self.random.f64() < shared;
        let job = self.job(Job { stage: at, step: 0, batch, left: 0, locks });
        self.perform(job);
    }

    fn job(&mut self, job: Job) -> usize {
        let Some(at) = self.free.pop() else {
            self.jobs.push(job);
            return self.jobs.len() - 1;
        };
        self.jobs[at] = job;
        at
    }

    fn advance(&mut self, job: usize) {
        self.jobs[job].step += 1;
        self.perform(job);
    }

    /// Performs steps until one takes time or the stage is done.
    fn perform(&mut self, job: usize) {
        let network = self.network;
        loop {
            let Job { stage, step, .. } = self.jobs[job];
            let steps = network.stages.get(stage).map_or(&[][..], |stage| &stage.steps);
            match steps.get(step) {
                None => return self.leave(job),
                Some(Step::Cpu { machine, batch, order }) => {
                    let orders = self.jobs[job].batch.len() as f64;
                    let micros = batch.draw(&mut self.random) + order * orders;
                    self.jobs[job].left = nanos(micros / network.machines[*machine].speed);
                    return self.queue(*machine, job);
                }
                Some(Step::Wait(length)) => {
                    let waited = nanos(length.draw(&mut self.random));
                    return self.at(self.now + waited, Event::Next(job));
                }
                Some(Step::Lock(lock)) if self.jobs[job].locks => {
                    let waiting = self.locks.entry(*lock).or_default();
                    waiting.push_back(job);
                    if waiting.len() > 1 {
                        return;
                    }
                }
                Some(Step::Unlock(lock)) if self.jobs[job].locks => {
                    let waiting = self.locks.entry(*lock).or_default();
                    waiting.pop_front();
                    let next = waiting.front().copied();
                    if let Some(next) = next {
                        self.at(self.now, Event::Next(next));
                    }
                }
                Some(Step::Lock(_) | Step::Unlock(_)) => {}
                Some(Step::Acknowledge) => self.acknowledge(job),
                Some(Step::End) => self.end(job),
            }
            self.jobs[job].step += 1;
        }
    }

    fn acknowledge(&mut self, job: usize) {
        let closed = matches!(self.network.clients, Clients::Closed(_));
        for at in 0..self.jobs[job].batch.len() {
            let order = self.jobs[job].batch[at];
            if self.counts(order) {
                self.report.create.saturating_record((self.now - order.placed) / 1_000);
            }
            if closed {
                self.at(self.now, Event::Arrival(order.client));
            }
        }
        let orders = self.jobs[job].batch.len() as u64;
        self.interval().acknowledged += orders;
    }

    fn end(&mut self, job: usize) {
        for at in 0..self.jobs[job].batch.len() {
            let order = self.jobs[job].batch[at];
            let micros = (self.now - order.placed) / 1_000;
            let counts = self.counts(order);
            let interval = self.interval();
            interval.terminal += 1;
            interval.end.saturating_record(micros);
            self.report.terminal += 1;
            if counts {
                self.report.orders += 1;
                self.report.end.saturating_record(micros);
            }
        }
        self.report.last_end = self.now;
    }

    fn counts(&self, order: Order) -> bool {
        order.placed >= self.span.warm_up
    }

    fn interval(&mut self) -> &mut Interval {
        self.report.intervals.last_mut().expect("there is always one")
    }

    /// Sends the orders of a done stage on and frees its worker.
    fn leave(&mut self, job: usize) {
        let (stage, batch) = (self.jobs[job].stage, std::mem::take(&mut self.jobs[job].batch));
        self.free.push(job);
        if stage == NO_STAGE {
            return;
        }
        let network = self.network;
        self.workers[stage].inside -= batch.len() as u64;
        for table in &network.stages[stage].next {
            for order in &batch {
                self.enter(table[usize::from(order.partition)], *order);
            }
            let mut reached = table.clone();
            reached.sort_unstable();
            reached.dedup();
            for next in reached {
                self.form_batch(next);
            }
        }
        self.workers[stage].busy = false;
        self.form_batch(stage);
    }

    fn queue(&mut self, machine: usize, job: usize) {
        let machine = self.cores[machine].by;
        self.cores[machine].queue.push_back(job);
        self.give_turns(machine);
    }

    fn give_turns(&mut self, machine: usize) {
        while !self.cores[machine].down
            && self.cores[machine].running < self.network.machines[machine].cores
            && let Some(job) = self.cores[machine].queue.pop_front()
        {
            self.cores[machine].running += 1;
            let turn = self.jobs[job].left.min(self.network.quantum);
            self.at(self.now + turn, Event::Turn(machine, job, turn));
        }
    }

    fn end_turn(&mut self, machine: usize, job: usize, used: Nanos) {
        let cores = &mut self.cores[machine];
        cores.running -= 1;
        cores.busy += used;
        self.jobs[job].left -= used;
        let done = self.jobs[job].left == 0;
        if !done {
            cores.queue.push_back(job);
        }
        self.give_turns(machine);
        if done {
            self.advance(job);
        }
    }

    fn tick(&mut self) {
        for at in 0..self.network.machines.len() {
            let machine = &self.network.machines[at];
            if machine.idle > 0.0 && !self.cores[at].down {
                let left = nanos(machine.idle * TICK as f64 / 1_000.0 / machine.speed);
                let job = Job { stage: NO_STAGE, step: 0, batch: Vec::new(), left, locks: false };
                let job = self.job(job);
                self.queue(at, job);
            }
        }
        if self.now == self.span.warm_up || self.now == self.span.warm_up + self.span.measured {
            self.count_cpu();
        }
        self.at(self.now + TICK, Event::Tick);
    }

    /// At the begin and at the end of the measured time.
    fn count_cpu(&mut self) {
        for (cores, machine) in self.cores.iter_mut().zip(&self.network.machines) {
            if self.now == self.span.warm_up {
                cores.busy_before = cores.busy;
            } else {
                let time = self.span.measured as f64 * machine.cores as f64;
                let used = (cores.busy - cores.busy_before) as f64 / time;
                let busiest = self.report.busiest.entry(machine.part.clone()).or_default();
                *busiest = busiest.max(used);
            }
        }
    }

    /// The next data centre's machine of the same part does the work of a lost one.
    fn take_over(&mut self, lost: usize) {
        let machines = &self.network.machines;
        let (count, part) = (machines.len(), &machines[lost].part);
        let others = (1..count).map(|step| (lost + step) % count);
        let by = others.into_iter().find(|at| machines[*at].part == *part && !self.cores[*at].down);
        if !self.cores[lost].down {
            return;
        }
        let Some(by) = by else { return };
        self.cores[lost].by = by;
        let jobs = std::mem::take(&mut self.cores[lost].queue);
        self.cores[by].queue.extend(jobs);
        self.give_turns(by);
    }

    fn end_interval(&mut self) {
        let mut queues = BTreeMap::<_, u64>::new();
        for (worker, stage) in self.workers.iter().zip(&self.network.stages) {
            *queues.entry(stage.part).or_default() += worker.inside;
        }
        let in_flight = self.report.placed - self.report.terminal;
        let interval = self.interval();
        (interval.queues, interval.in_flight) = (queues, in_flight);
        self.report.intervals.push(Interval::new());
        self.at(self.now + self.span.interval, Event::Interval);
    }

    fn finish(mut self) -> Report {
        for (cores, machine) in self.cores.iter().zip(&self.network.machines) {
            let cpu = self.report.cpu.entry(machine.part.clone()).or_default();
            *cpu += (cores.busy - cores.busy_before) as f64 / SECOND as f64;
        }
        let stages = &self.network.stages;
        let waiting = self.workers.iter().zip(stages).filter(|(_, stage)| !stage.aside);
        let waiting: usize = waiting.map(|(worker, _)| worker.queue.len()).sum();
        let on_way = |job: &&Job| stages.get(job.stage).is_some_and(|stage| !stage.aside);
        let working: usize = self.jobs.iter().filter(on_way).map(|job| job.batch.len()).sum();
        self.report.on_way = (waiting + working) as u64;
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Batching, Length, Machine, Stage};

    const SPAN: Span =
        Span { warm_up: 10 * SECOND, measured: 400 * SECOND, drain: 60 * SECOND, interval: SECOND };

    /// One core, and a stage that takes a random time of it for each order.
    fn single(rate: f64, micros: f64, batching: Option<Batching>) -> Network {
        let machine = Machine { part: "all".into(), cores: 1, speed: 1.0, ..Machine::default() };
        let cpu =
            Step::Cpu { machine: 0, batch: Length { fixed: 0.0, random: micros }, order: 0.0 };
        let steps = vec![cpu, Step::Acknowledge, Step::End];
        let stage = Stage { part: "all", steps, batching, next: Vec::new(), aside: false };
        Network {
            machines: vec![machine],
            stages: vec![stage],
            entries: vec![vec![0]],
            partitions: 1,
            quantum: 3_600 * SECOND,
            items: 1e12,
            hot_item: 0.0,
            hot_partition: 0.0,
            clients: Clients::Open(rate),
            loss: None,
        }
    }

    /// M/M/1: orders at rate λ, served at rate μ, are 1/(μ-λ) under way on average.
    #[test]
    fn a_single_queue_is_as_long_as_theory_says() {
        for (rate, micros) in [(500.0, 1_000.0), (800.0, 1_000.0), (90.0, 10_000.0)] {
            let report = simulate(&single(rate, micros, None), SPAN, 7);
            let theory = 1e6 / (1e6 / micros - rate);
            let error = report.end.mean() / theory - 1.0;
            assert!(error.abs() < 0.1, "{rate}/s of {micros} µs: {} {theory}", report.end.mean());
        }
    }

    #[test]
    fn a_core_is_used_as_much_as_the_load_wants() {
        let report = simulate(&single(700.0, 1_000.0, None), SPAN, 7);
        assert!((report.busiest["all"] - 0.7).abs() < 0.02, "{:?}", report.busiest);
    }

    #[test]
    fn every_order_placed_has_ended_or_is_on_its_way() {
        // Twice what the core can do, and no time to drain.
        let span = Span { measured: 20 * SECOND, drain: 0, ..SPAN };
        for seed in 1..=5 {
            let report = simulate(&single(2_000.0, 1_000.0, None), span, seed);
            assert_eq!(report.placed, report.terminal + report.on_way);
            assert!(report.on_way > 20_000, "{}", report.on_way);
        }
    }

    #[test]
    fn a_seed_gives_one_report_and_another_seed_another() {
        let batching = Some(Batching { limit: 10, share: nanos(100.0), longest: nanos(1_000.0) });
        let of = |seed| {
            let report = simulate(&single(900.0, 500.0, batching), SPAN, seed);
            (report.placed, report.terminal, report.last_end, report.end.mean().to_bits())
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_batch_serves_many_where_one_by_one_would_not_keep_up() {
        let batching = Batching { limit: 1_000, share: 0, longest: 0 };
        let span = Span { measured: 20 * SECOND, ..SPAN };
        let report = simulate(&single(5_000.0, 1_000.0, Some(batching)), span, 3);
        assert_eq!(report.placed, report.terminal);
        assert!(report.end.value_at_quantile(0.99) < 20_000, "{:?}", report.end.max());
    }
}
