//! What is simulated: machines, and stages through which orders pass in batches.

/// Nanoseconds since the begin of the simulation.
pub type Nanos = u64;

/// A second.
pub const SECOND: Nanos = 1_000_000_000;

/// Microseconds as the simulation counts time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of times above zero")]
pub fn nanos(micros: f64) -> Nanos {
    (micros * 1_000.0).round() as Nanos
}

/// A length of time, in microseconds: a fixed part and one that is exponentially distributed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Length {
    /// What it always takes.
    pub fixed: f64,
    /// The mean of the rest.
    pub random: f64,
}

impl Length {
    /// Always as long.
    pub fn fixed(micros: f64) -> Self {
        Self { fixed: micros, random: 0.0 }
    }

    /// This and so much more.
    #[must_use]
    pub fn and(self, micros: f64) -> Self {
        Self { fixed: self.fixed + micros, ..self }
    }

    pub(crate) fn draw(self, random: &mut fastrand::Rng) -> f64 {
        let waited = if self.random > 0.0 { -(1.0 - random.f64()).ln() } else { 0.0 };
        self.fixed + self.random * waited
    }
}

/// Cores that serve jobs first come first served, in turns of [`Network::quantum`].
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// For the report: machines of the same part are summed.
    pub part: String,
    /// How many jobs it serves at once.
    pub cores: usize,
    /// How fast, compared with those that were measured on.
    pub speed: f64,
    /// CPU seconds a second that it uses whatever the load.
    pub idle: f64,
    /// Where it stands.
    pub datacentre: usize,
    /// How long after its loss another of its part does its work; 0 is never.
    pub takeover: Nanos,
}

/// What a batch goes through in a stage.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// CPU of a machine: for the batch, and for each order (microseconds).
    Cpu {
        /// Its index.
        machine: usize,
        /// Once.
        batch: Length,
        /// For each order.
        order: f64,
    },
    /// The network, a disk.
    Wait(Length),
    /// Takes a lock if the batch touches what another may (see [`Network::items`]).
    Lock(usize),
    /// Gives it back.
    Unlock(usize),
    /// The client hears that its order is accepted.
    Acknowledge,
    /// The order has ended.
    End,
}

/// How a stage forms batches (`sagabus::Pace`).
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// Orders of a batch at most.
    pub limit: usize,
    /// The pause after a batch, for each order of it.
    pub share: Nanos,
    /// The longest pause.
    pub longest: Nanos,
}

/// A step of the pipeline, served by one worker.
#[derive(Debug, Clone)]
pub struct Stage {
    /// For the report: stages of the same part are summed.
    pub part: &'static str,
    /// In this order.
    pub steps: Vec<Step>,
    /// One batch after the other; without it every batch is served as it comes.
    pub batching: Option<Batching>,
    /// Where the orders go then: each table has a stage for each partition.
    pub next: Vec<Vec<usize>>,
    /// Whether the order's end does not wait for it.
    pub aside: bool,
}

/// Who places orders.
#[derive(Debug, Clone, Copy)]
pub enum Clients {
    /// So many orders a second at random moments, whatever the system does.
    Open(f64),
    /// So many clients, each of which places its next order when the last is acknowledged.
    Closed(u32),
}

/// What happens to a data centre, and when.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Which.
    pub datacentre: usize,
    /// From when on.
    pub from: Nanos,
    /// Until when.
    pub until: Nanos,
}

/// Everything that is simulated.
#[derive(Debug, Clone)]
pub struct Network {
    /// By index.
    pub machines: Vec<Machine>,
    /// By index.
    pub stages: Vec<Stage>,
    /// Where orders come in: by system, one stage for each instance.
    pub entries: Vec<Vec<usize>>,
    /// Of each system's topics.
    pub partitions: u16,
    /// How long a job has a core before the next one's turn.
    pub quantum: Nanos,
    /// Items of a system; two batches of `n` share one with probability 1 - exp(-n²/items).
    pub items: f64,
    /// Share of all orders that want one item, which is in system 0.
    pub hot_item: f64,
    /// Share of all orders that fall into partition 0 of system 0.
    pub hot_partition: f64,
    /// Who places orders.
    pub clients: Clients,
    /// A data centre that is lost.
    pub loss: Option<Loss>,
}
