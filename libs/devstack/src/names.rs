//! The fixed names: which clusters and services there are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The five Postgres clusters, one per database of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cluster {
    /// Orders, their outbox and idempotency keys.
    CreateOrder,
    /// Items, stock and reservations.
    Store,
    /// Coordinator of the status store.
    Monitoring,
    /// First half of the status partitions.
    Shard1,
    /// Second half of the status partitions.
    Shard2,
}

impl Cluster {
    /// All clusters, in the order they are listed to people.
    pub const ALL: [Self; 5] =
        [Self::CreateOrder, Self::Store, Self::Monitoring, Self::Shard1, Self::Shard2];

    /// Name of the cluster: its folder, its log and its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateOrder => "create-order",
            Self::Store => "store",
            Self::Monitoring => "monitoring",
            Self::Shard1 => "shard1",
            Self::Shard2 => "shard2",
        }
    }

    /// Name of the database in it, without a test's prefix.
    pub const fn database(self) -> &'static str {
        match self {
            Self::CreateOrder => "create_order",
            other => other.name(),
        }
    }

    /// Shards are written by the coordinator's role only and have no service role.
    pub const fn is_shard(self) -> bool {
        matches!(self, Self::Shard1 | Self::Shard2)
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The three services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Takes and cancels orders.
    CreateOrder,
    /// Answers for the status of an order.
    Monitoring,
    /// Holds items and reserves them.
    Store,
}

impl Service {
    /// All services, by port.
    pub const ALL: [Self; 3] = [Self::CreateOrder, Self::Monitoring, Self::Store];

    /// Name of its package and binary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateOrder => "service-create-order",
            Self::Monitoring => "service-monitoring-order",
            Self::Store => "service-store",
        }
    }

    /// Its port in a running stack.
    pub const fn port(self) -> u16 {
        match self {
            Self::CreateOrder => 8000,
            Self::Monitoring => 8001,
            Self::Store => 8002,
        }
    }

    /// Its consumer group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::CreateOrder => "create-order",
            Self::Monitoring => "monitoring",
            Self::Store => "storage",
        }
    }

    /// The cluster it works on.
    pub const fn cluster(self) -> Cluster {
        match self {
            Self::CreateOrder => Cluster::CreateOrder,
            Self::Monitoring => Cluster::Monitoring,
            Self::Store => Cluster::Store,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
