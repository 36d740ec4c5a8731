//! What goes wrong, and when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use ordersaga_devstack::{Cluster, Service};
use ordersaga_links::Link;

/// Something that goes wrong for a while.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// After the round's begin.
    pub(crate) after: Duration,
    pub(crate) length: Duration,
}

/// Faults that overlap, and the time without any before them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Round {
    pub(crate) calm: Duration,
    pub(crate) faults: Vec<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SIGKILL; started again afterwards.
    Kill(Target),
    /// SIGSTOP, then SIGCONT: for consumers mostly longer than their session.
    Freeze(Target),
    /// Something happens to the connection.
    Network(Link, Trouble),
    /// Records that were there before are written again, in another order.
    Repeat,
    /// The same, by clients that compress with other codecs than the services do.
    Compressed,
    /// Records that are no events are written to the topics.
    Poison,
    /// Events that the databases refuse, whenever they are applied, are written to the topics.
    Refused,
    /// Further instances of a service come and go.
    Rebalance(Service),
    /// One of two instances is frozen until the other has published what it left behind and has its
    /// partitions, and then goes on.
    Takeover(Service),
    /// A further instance of create-order whose clock is off by so many seconds.
    Clock(i64),
    /// The disk of a database is full.
    FullDisk,
    /// New sessions of a database cannot write, and the old ones end; those opened meanwhile stay
    /// so.
    ReadOnly(Cluster),
    /// All sessions of a database are ended, again and again.
    EndSessions(Cluster),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Service(Service),
    Postgres(Cluster),
    Redis,
    Broker,
}

/// What a proxy does to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// All connections are reset, again and again.
    Reset,
    /// No connection is accepted.
    Refuse,
    Delay,
    Throttle,
    /// Requests vanish.
    CutUp,
    /// Answers vanish: what was committed looks as if it were not.
    CutDown,
    /// Nothing passes.
    Cut,
}

impl Target {
    /// All there are.
    pub(crate) const ALL: [Self; 10] = [
        Self::Service(Service::CreateOrder),
        Self::Service(Service::Store),
        Self::Service(Service::Monitoring),
        Self::Postgres(Cluster::CreateOrder),
        Self::Postgres(Cluster::Store),
        Self::Postgres(Cluster::Monitoring),
        Self::Postgres(Cluster::Shard1),
        Self::Postgres(Cluster::Shard2),
        Self::Redis,
        Self::Broker,
    ];

    /// A part's name.
    pub(crate) fn part(self) -> &'static str {
        match self {
            Self::Service(service) => service.name(),
            Self::Postgres(cluster) => cluster.name(),
            Self::Redis => "redis",
            Self::Broker => "broker",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(cluster) => write!(formatter, "postgres {cluster}"),
            other => formatter.write_str(other.part()),
        }
    }
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::Reset,
        Self::Refuse,
        Self::Delay,
        Self::Throttle,
        Self::CutUp,
        Self::CutDown,
        Self::Cut,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Reset => "connections reset",
            Self::Refuse => "connections refused",
            Self::Delay => "slow connection",
            Self::Throttle => "narrow connection",
            Self::CutUp => "requests lost",
            Self::CutDown => "answers lost",
            Self::Cut => "connection cut",
        }
    }
}

impl Kind {
    /// What is done, for people and for grouping.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill -9",
            Self::Freeze(_) => "frozen",
            Self::Network(_, trouble) => trouble.name(),
            Self::Repeat => "records repeated and reordered",
            Self::Compressed => "records compressed by other codecs",
            Self::Poison => "poison records",
            Self::Refused => "events that the databases refuse",
            Self::Rebalance(_) => "instances come and go",
            Self::Takeover(_) => "frozen and replaced",
            Self::Clock(_) => "clock off",
            Self::FullDisk => "disk full",
            Self::ReadOnly(_) => "read-only",
            Self::EndSessions(_) => "sessions ended",
        }
    }

    /// To what.
    pub(crate) fn target(self) -> String {
        match self {
            Self::Kill(target) | Self::Freeze(target) => target.to_string(),
            Self::Network(link, _) => link.name().to_owned(),
            Self::Repeat | Self::Compressed | Self::Poison | Self::Refused => "topics".to_owned(),
            Self::Rebalance(service) | Self::Takeover(service) => service.to_string(),
            Self::Clock(seconds) => format!("service-create-order, {seconds:+} s"),
            Self::FullDisk => format!("postgres {}", crate::SMALL_DISK),
            Self::ReadOnly(cluster) | Self::EndSessions(cluster) => {
                Target::Postgres(cluster).to_string()
            }
        }
    }

    /// What two faults must not share to happen at once.
    fn place(self) -> String {
        match self {
            Self::FullDisk => Target::Postgres(crate::SMALL_DISK).to_string(),
            other => other.target(),
        }
    }

    /// Every fault there is, by category, each with how many of it come in a turn.
    fn all() -> Vec<(usize, Vec<Self>)> {
        let troubles = |link: Link| Trouble::ALL.map(|trouble| Self::Network(link, trouble));
        vec![
            (2, Target::ALL.map(Self::Kill).to_vec()),
            (2, Target::ALL.map(Self::Freeze).to_vec()),
            (6, Link::ALL.into_iter().flat_map(troubles).collect()),
            (1, vec![Self::Repeat]),
            (1, vec![Self::Compressed]),
            (1, vec![Self::Poison]),
            (1, vec![Self::Refused]),
            (1, Service::ALL.map(Self::Rebalance).to_vec()),
            (1, Service::ALL.map(Self::Takeover).to_vec()),
            (1, vec![Self::Clock(3_600), Self::Clock(-3_600)]),
            (1, vec![Self::FullDisk]),
            (1, Cluster::ALL.map(Self::ReadOnly).to_vec()),
            (1, Cluster::ALL.map(Self::EndSessions).to_vec()),
        ]
    }
}

/// Consumers that are silent for longer lose their partitions.
pub(crate) const SESSION: Duration = Duration::from_secs(6);

/// Rounds with so many faults in all. At first each category comes once, and within one each fault
/// once before any comes again: few faults are already of many kinds, and some more are all there
/// are.
/// `only` leaves those whose kind or target contains a text; none if nothing does.
pub(crate) fn rounds(seed: u64, faults: usize, only: &str) -> Vec<Round> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let named = |kind: &Kind| format!("{}, {}", kind.name(), kind.target()).contains(only);
    let mut categories: Vec<Deck> = Kind::all()
        .into_iter()
        .map(|(share, kinds)| {
            let kinds = kinds.into_iter().filter(named).collect();
            Deck { share, kinds, left: Vec::new() }
        })
        .filter(|deck| !deck.kinds.is_empty())
        .collect();
    if categories.is_empty() {
        return Vec::new();
    }
    let mut turn: Vec<usize> = (0..categories.len()).collect();
    rng.shuffle(&mut turn);
    let mut rounds = Vec::new();
    let mut left = faults;
    while left > 0 {
        let most = if left > 1 && rng.u32(..10) < 3 { 2 } else { 1 };
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < most {
            if turn.is_empty() {
                let decks = categories.iter().enumerate();
                turn = decks.flat_map(|(place, deck)| vec![place; deck.share]).collect();
                rng.shuffle(&mut turn);
            }
            let Some(category) = turn.pop() else { continue };
            let kind = categories[category].draw(&mut rng);
            if faults.iter().any(|other| other.kind.place() == kind.place()) {
                // It comes later; there may be no other for now.
                turn.insert(0, category);
                categories[category].left.push(kind);
                break;
            }
            let after = Duration::from_millis(rng.u64(..1_500)) * u32::from(!faults.is_empty());
            faults.push(Fault { kind, after, length: length(kind, &mut rng) });
        }
        left -= faults.len();
        rounds.push(Round { calm: Duration::from_millis(rng.u64(200..1_200)), faults });
    }
    rounds
}

/// Kinds that are drawn one after the other, and then again.
struct Deck {
    share: usize,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    fn draw(&mut self, rng: &mut fastrand::Rng) -> Kind {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            rng.shuffle(&mut self.left);
        }
        self.left.pop().expect("a category has kinds")
    }
}

fn length(kind: Kind, rng: &mut fastrand::Rng) -> Duration {
    let mut between = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    match kind {
        Kind::Kill(_) => between(100, 3_000),
        Kind::Freeze(Target::Service(_)) | Kind::Takeover(_) => SESSION + between(500, 3_000),
        Kind::Freeze(_) => between(1_000, 8_000),
        Kind::Network(..) => between(1_500, 7_000),
        Kind::Repeat | Kind::Compressed | Kind::Poison | Kind::Refused => between(500, 1_500),
        Kind::Rebalance(_) | Kind::Clock(_) => between(4_000, 7_000),
        Kind::FullDisk | Kind::ReadOnly(_) | Kind::EndSessions(_) => between(3_000, 6_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(rounds(1, 50, ""), rounds(1, 50, ""));
        assert_ne!(rounds(1, 50, ""), rounds(2, 50, ""));
    }

    #[test]
    fn few_faults_are_of_all_categories_and_many_are_all_there_are() {
        let kinds = |count| {
            let rounds = rounds(3, count, "");
            let faults: Vec<_> = rounds.into_iter().flat_map(|round| round.faults).collect();
            assert_eq!(faults.len(), count);
            faults.into_iter().map(|fault| fault.kind).collect::<Vec<_>>()
        };
        let few: std::collections::BTreeSet<_> =
            kinds(16).iter().map(std::mem::discriminant).map(|d| format!("{d:?}")).collect();
        assert_eq!(few.len(), 13, "{few:?}");
        let many = kinds(300);
        for kind in Kind::all().into_iter().flat_map(|(_, kinds)| kinds) {
            assert!(many.contains(&kind), "{kind:?} never happens");
        }
    }

    #[test]
    fn what_overlaps_is_not_the_same_thing_twice() {
        for round in rounds(4, 300, "") {
            let mut places: Vec<_> = round.faults.iter().map(|f| f.kind.place()).collect();
            places.dedup();
            assert_eq!(places.len(), round.faults.len());
        }
    }
}
