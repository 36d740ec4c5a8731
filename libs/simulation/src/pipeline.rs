//! Ordersaga as a [`Network`]: which stages an order passes, and what each costs.

use crate::fit::Costs;
use crate::network::{
    Batching, Clients, Length, Loss, Machine, Nanos, Network, SECOND, Stage, Step, nanos,
};

/// Data centres that the parts are spread over.
pub const DATACENTRES: usize = 3;
/// Copies of each record.
const COPIES: f64 = 3.0;
/// Orders of a group commit and events of a consumer's batch (`desk.rs`, `consumer/mod.rs`).
const CREATE_LIMIT: usize = 1_000;
const CONSUMER_LIMIT: usize = 2_000;
/// Pauses: `group_commit.rs`, `pace.rs`.
const CREATE_PACE: (f64, f64) = (30.0, 10_000.0);
const PACE: (f64, f64) = (500.0, 40_000.0);
const PACE_ASIDE: (f64, f64) = (500.0, 100_000.0);

/// How many there are of what.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Whole systems: databases, relays and topics of their own, items divided among them.
    pub systems: usize,
    /// Instances of each service of each system.
    pub instances: usize,
    /// Nodes with status of each system.
    pub shards: usize,
    /// Brokers, shared by all systems.
    pub brokers: usize,
    /// Of each topic.
    pub partitions: u16,
}

/// How long things take that are no CPU, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// A commit's wait for the disk, and for its replica.
    pub commit: Length,
    /// From the broker's acknowledgement until a reader has the record, copies included.
    pub hop: Length,
    /// There and back between two machines.
    pub network: f64,
}

/// Cores of each part's machines, or one machine for everything.
pub type Sizes<'a> = &'a dyn Fn(&str) -> Option<(usize, f64)>;

/// After its loss, when another machine does a part's work.
fn takeover(part: &str) -> Nanos {
    match part {
        // Patroni's ttl.
        part if part.starts_with("postgres") => 30 * SECOND,
        // Sessions of brokers (Kafka's default) and consumers (`--kafka-session-timeout-ms`).
        "broker" => 9 * SECOND,
        _ => 6 * SECOND,
    }
}

struct Builder<'a> {
    costs: &'a Costs,
    delays: Delays,
    sizes: Sizes<'a>,
    machines: Vec<Machine>,
    stages: Vec<Stage>,
}

/// The pipeline in this shape. `sizes` gives a part's cores and speed; if none, everything shares
/// machine 0, which is what it says of `all`.
pub fn pipeline(costs: &Costs, shape: Shape, delays: Delays, sizes: Sizes) -> Network {
    let mut build = Builder { costs, delays, sizes, machines: Vec::new(), stages: Vec::new() };
    if let Some((cores, speed)) = sizes("all") {
        let machine = Machine { part: "all".into(), cores, speed, ..Machine::default() };
        build.machines.push(machine);
    }
    let brokers: Vec<_> = (0..shape.brokers).map(|at| build.machine("broker", at)).collect();
    let mut entries = Vec::new();
    for system in 0..shape.systems {
        entries.push(build.system(system, shape, &brokers));
    }
    Network {
        machines: build.machines,
        stages: build.stages,
        entries,
        partitions: shape.partitions,
        // The kernel's base slice on two cores is of this order; an assumption.
        quantum: SECOND / 1_000,
        items: 1_000.0,
        hot_item: 0.0,
        hot_partition: 0.0,
        clients: Clients::Open(100.0),
        loss: None,
    }
}

impl Network {
    /// With these clients.
    #[must_use]
    pub fn under(self, clients: Clients) -> Self {
        Self { clients, ..self }
    }

    /// Without a data centre for a while.
    #[must_use]
    pub fn without(self, loss: Loss) -> Self {
        Self { loss: Some(loss), ..self }
    }
}

impl Builder<'_> {
    /// A machine for a process of this part, or the one that all share.
    fn machine(&mut self, process: &str, at: usize) -> usize {
        let part = if process.starts_with("postgres shard") { "postgres shards" } else { process };
        let idle = self.costs.get(process).idle;
        let Some((cores, speed)) = (self.sizes)(part) else {
            self.machines[0].idle += idle;
            return 0;
        };
        let (part, datacentre) = (part.to_owned(), at % DATACENTRES);
        let takeover = takeover(&part);
        self.machines.push(Machine { part, cores, speed, idle, datacentre, takeover });
        self.machines.len() - 1
    }

    /// CPU of a process: `batch` and `order` say which shares of its costs.
    fn cpu(&self, machine: usize, process: &str, batch: f64, order: f64) -> Step {
        let cost = self.costs.get(process);
        Step::Cpu { machine, batch: Length::fixed(cost.batch * batch), order: cost.order * order }
    }

    fn stage(
        &mut self,
        part: &'static str,
        pace: Option<(usize, (f64, f64))>,
        steps: Vec<Step>,
    ) -> usize {
        let batching = pace.map(|(limit, (share, longest))| Batching {
            limit,
            share: nanos(share),
            longest: nanos(longest),
        });
        let aside = part == "closing" || part == "monitoring";
        self.stages.push(Stage { part, steps, batching, next: Vec::new(), aside });
        self.stages.len() - 1
    }

    /// One broker's partitions of a topic, and where their records go.
    fn topic(&mut self, brokers: &[usize], shape: Shape, readers: &[Vec<usize>]) -> Vec<usize> {
        // Half of what an order costs it: one of two records. A batch reaches every broker.
        let single = (self.sizes)("broker").is_none();
        let copies = if single { 1.0 } else { COPIES };
        let each = 1.0 / brokers.len() as f64;
        let hop = Step::Wait(self.delays.hop);
        let stages: Vec<_> = brokers
            .iter()
            .map(|machine| {
                let cpu = self.cpu(*machine, "broker", 0.5 * each * copies, 0.5 * copies);
                let stage = self.stage("broker", None, vec![cpu, hop]);
                self.stages[stage].next = readers.to_vec();
                stage
            })
            .collect();
        by_partition(&stages, shape)
    }

    /// A stage of a consumer with its database.
    fn consumer(&mut self, part: &'static str, steps: [Step; 2], lock: Option<usize>) -> usize {
        let pace = if part == "store" { PACE } else { PACE_ASIDE };
        let commit = Step::Wait(self.delays.commit.and(self.delays.network));
        let [own, database] = steps;
        let mut all = vec![own];
        all.extend(lock.map(Step::Lock));
        all.extend([database, commit]);
        all.extend(lock.map(Step::Unlock));
        self.stage(part, Some((CONSUMER_LIMIT, pace)), all)
    }

    /// One system; the stages where its orders come in.
    fn system(&mut self, system: usize, shape: Shape, brokers: &[usize]) -> Vec<usize> {
        let machines = |build: &mut Self, part: &str| -> Vec<usize> {
            (0..shape.instances).map(|at| build.machine(part, at)).collect()
        };
        let creates = machines(self, "create-order");
        let stores = machines(self, "store");
        let monitorings = machines(self, "monitoring");
        let order_db = self.machine("postgres create-order", system);
        let stock_db = self.machine("postgres store", system);

        let facts = self.monitoring(system, shape, &monitorings);
        let closing = self.closing(shape, &creates, order_db);
        let end = self.stage("end", None, vec![Step::End]);
        let everyone = |stage: usize| vec![stage; usize::from(shape.partitions)];
        let reservation = self.topic(brokers, shape, &[facts.clone(), closing, everyone(end)]);

        let relay = self.cpu(stores[0], "store", 0.0, 0.5);
        let redis = self.machine("redis", system);
        let redis = self.cpu(redis, "redis", 1.0, 1.0);
        let relay = self.stage("store relay", Some((usize::MAX, PACE)), vec![relay, redis]);
        self.stages[relay].next = vec![reservation];
        let lanes: Vec<_> = stores
            .iter()
            .map(|machine| {
                let own = self.cpu(*machine, "store", 1.0, 0.5);
                let database = self.cpu(stock_db, "postgres store", 1.0, 1.0);
                let lane = self.consumer("store", [own, database], Some(system));
                self.stages[lane].next = vec![everyone(relay)];
                lane
            })
            .collect();
        let incoming = self.topic(brokers, shape, &[facts, by_partition(&lanes, shape)]);
        self.front(shape, &creates, order_db, incoming)
    }

    /// Monitoring: each instance has a lane for each node; an order has two facts.
    fn monitoring(&mut self, system: usize, shape: Shape, instances: &[usize]) -> Vec<usize> {
        let coordinator = self.machine("postgres monitoring", system);
        let nodes: Vec<_> = (0..shape.shards)
            .map(|at| self.machine(&format!("postgres shard{}", at % 2 + 1), system + at))
            .collect();
        let mut lanes = Vec::new();
        for machine in instances {
            for (at, node) in nodes.iter().enumerate() {
                let own = self.cpu(*machine, "monitoring", 1.0, 0.5);
                let database = self.cpu(coordinator, "postgres monitoring", 1.0, 0.5);
                let lane = self.consumer("monitoring", [own, database], None);
                // Each of the two nodes measured took half of the orders.
                let fact = self.cpu(*node, &format!("postgres shard{}", at % 2 + 1), 1.0, 1.0);
                self.stages[lane].steps.insert(2, fact);
                lanes.push(lane);
            }
        }
        let partition =
            |at: usize| (at / shape.shards % instances.len()) * shape.shards + at % shape.shards;
        (0..usize::from(shape.partitions)).map(|at| lanes[partition(at)]).collect()
    }

    /// Create-order's consumer of the store's answers.
    fn closing(&mut self, shape: Shape, creates: &[usize], database: usize) -> Vec<usize> {
        let rest = self.beside_http();
        let lanes: Vec<_> = creates
            .iter()
            .map(|machine| {
                let own = self.cpu(*machine, "create-order", 1.0, rest / 2.0);
                let database = self.cpu(database, "postgres create-order", 1.0, 0.5);
                self.consumer("closing", [own, database], None)
            })
            .collect();
        by_partition(&lanes, shape)
    }

    /// The share of an order's CPU in create-order that is not HTTP.
    fn beside_http(&self) -> f64 {
        let order = self.costs.get("create-order").order;
        (1.0 - self.costs.http / order).max(0.0)
    }

    /// HTTP, group commit and relay.
    fn front(
        &mut self,
        shape: Shape,
        creates: &[usize],
        db: usize,
        incoming: Vec<usize>,
    ) -> Vec<usize> {
        let rest = self.beside_http();
        let everyone = |stage: usize| vec![stage; usize::from(shape.partitions)];
        let relay = self.cpu(creates[0], "create-order", 0.0, rest / 2.0);
        let relay = self.stage("relay", Some((usize::MAX, PACE)), vec![relay]);
        self.stages[relay].next = vec![incoming];
        let shared = (self.sizes)("create-order").is_none();
        let load = if shared { self.machine("load", 0) } else { creates[0] };
        let load_costs = self.cpu(load, "load", 0.0, 1.0);
        let commit = Step::Wait(self.delays.commit.and(self.delays.network));
        let network = Step::Wait(Length::fixed(self.delays.network));
        creates
            .iter()
            .map(|machine| {
                let own = self.cpu(*machine, "create-order", 1.0, 0.0);
                let database = self.cpu(db, "postgres create-order", 1.0, 0.5);
                let steps = vec![own, database, commit, Step::Acknowledge];
                let desk = self.stage("create-order", Some((CREATE_LIMIT, CREATE_PACE)), steps);
                self.stages[desk].next = vec![everyone(relay)];
                let http = self.cpu(*machine, "create-order", 0.0, 1.0 - rest);
                let mut steps = vec![network, http];
                if shared {
                    steps.insert(0, load_costs);
                }
                let entry = self.stage("http", None, steps);
                self.stages[entry].next = vec![everyone(desk)];
                entry
            })
            .collect()
    }
}

/// Partitions dealt out in turn.
fn by_partition(stages: &[usize], shape: Shape) -> Vec<usize> {
    (0..usize::from(shape.partitions)).map(|at| stages[at % stages.len()]).collect()
}
