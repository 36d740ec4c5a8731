//! The nodes that hold the status partitions: which node owns which partition, and reading an
//! order straight from its owner, which costs a tenth of reading it through the coordinator.

use std::time::Duration;

use anyhow::Context;
use ordersaga_contract::{OrderId, PARTITIONS, partition_of};
use ordersaga_runtime::health::{Dependency, Health};
use ordersaga_runtime::postgres::{self, Lease, NoAnswer, within};
use parking_lot::RwLock;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Node;
use crate::db::{self, History};

/// How long reading an order from its node, or through the coordinator, may take.
const DIRECT_LIMIT: Duration = Duration::from_secs(1);
const DETOUR_LIMIT: Duration = Duration::from_secs(2);

/// All nodes.
pub(crate) struct Shards {
    nodes: Vec<Shard>,
    coordinator: PgPool,
    /// Few reads at a time go through the coordinator: its connections are for writing.
    detours: Semaphore,
    /// The owner of each partition, as the coordinator's catalog has it.
    owners: RwLock<Vec<Option<Owner>>>,
}

struct Shard {
    name: &'static str,
    pool: PgPool,
    dependency: Dependency,
}

#[derive(Clone, PartialEq, Eq)]
struct Owner {
    /// Index into the nodes.
    node: usize,
    table: String,
}

impl Shards {
    pub(crate) fn new(
        nodes: &[Node],
        health: &Health,
        coordinator: PgPool,
        connections: u32,
    ) -> anyhow::Result<Self> {
        let nodes = nodes
            .iter()
            .map(|node| {
                let pool = postgres::pool(node.url.expose(), crate::NAME, connections)
                    .with_context(|| format!("SHARDS: {}", node.name))?;
                Ok(Shard { name: node.name, pool, dependency: health.awaited(node.name) })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            nodes,
            coordinator,
            detours: Semaphore::new(2),
            owners: RwLock::new(vec![None; PARTITIONS as usize]),
        })
    }

    /// How many nodes there are.
    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The node that owns a partition, as a number below [`Shards::count`].
    pub(crate) fn owner_of(&self, partition: u32) -> usize {
        self.owner(partition).map_or(0, |owner| owner.node)
    }

    fn owner(&self, partition: u32) -> Option<Owner> {
        self.owners.read().get(partition as usize)?.clone()
    }

    /// Learns from the coordinator's catalog where the partitions lie; fails as well if nothing
    /// can be written there.
    async fn locate(&self) -> anyhow::Result<()> {
        let mut lease = Lease::take(&self.coordinator).await?;
        let partitions = db::partitions(&mut lease).await?;
        let writable = postgres::ensure_writable(&mut lease).await;
        lease.keep();
        let mut owners = vec![None; PARTITIONS as usize];
        for partition in partitions {
            let node = self.nodes.iter().position(|node| node.name == partition.server);
            let node = node.with_context(|| format!("SHARDS lacks {}", partition.server))?;
            let owner = owners
                .get_mut(usize::try_from(partition.remainder)?)
                .context("more partitions than the topics have")?;
            *owner = Some(Owner { node, table: partition.table });
        }
        anyhow::ensure!(owners.iter().all(Option::is_some), "a partition is missing");
        if *self.owners.read() != owners {
            *self.owners.write() = owners;
        }
        // Last: statuses can be read all the same.
        writable
    }

    /// Keeps the coordinator's state, and what is known of the partitions, until stopped.
    pub(crate) async fn keep_coordinator(
        &self,
        database: Dependency,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let watch = postgres::watch(&self.coordinator, &database, || self.locate());
        stop.run_until_cancelled(Box::pin(watch)).await;
        Ok(())
    }

    /// Keeps a node's state, until stopped.
    pub(crate) async fn keep(&self, name: &str, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(shard) = self.nodes.iter().find(|shard| shard.name == name) else {
            return Ok(());
        };
        let query = "SELECT FROM order_event_00 LIMIT 0";
        postgres::keep(shard.pool.clone(), shard.dependency.clone(), query, stop).await
    }

    /// The name of the node an order lies on.
    pub(crate) fn name_of(&self, order: OrderId) -> &'static str {
        self.nodes[self.owner_of(partition_of(order))].name
    }

    /// What was heard of an order: from its owner, or through the coordinator where the owner
    /// cannot be asked directly. An owner that is down is not waited for; one that is read-only
    /// still knows what it heard before.
    pub(crate) async fn history(&self, order: OrderId) -> anyhow::Result<Option<History>> {
        let owner = self.owner(partition_of(order)).context("the partitions are not known yet")?;
        let shard = &self.nodes[owner.node];
        anyhow::ensure!(shard.dependency.is_readable(), "{} is down", shard.name);
        let read = || db::history(&shard.pool, &owner.table, order);
        match within(DIRECT_LIMIT, postgres::repeat(&shard.pool, read)).await {
            Ok(history) => Ok(history),
            // It hangs: through the coordinator it would too, and hold up the coordinator.
            Err(error) if error.is::<NoAnswer>() => Err(error),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "a direct read");
                let _turn = self.detours.acquire().await?;
                let read = || db::history(&self.coordinator, "order_event", order);
                within(DETOUR_LIMIT, postgres::repeat(&self.coordinator, read)).await
            }
        }
    }
}
