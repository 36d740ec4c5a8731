//! The nodes that hold the status partitions: which node owns which partition, and reading an
//! order straight from its owner, which costs a tenth of reading it through the coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use ordersaga_contract::{OrderId, PARTITIONS, partition_of};
use ordersaga_runtime::health::{Dependency, Health};
use ordersaga_runtime::postgres;
use parking_lot::{Mutex, RwLock};
use sagabus::{Batches, Checkout, GroupCommit, NoAnswer, Pace, group_commit, within};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Node;
use crate::db::{self, History};

/// How long reading an order from its node, or through the coordinator, may take.
const DIRECT_LIMIT: Duration = Duration::from_secs(1);
const DETOUR_LIMIT: Duration = Duration::from_secs(2);

/// Reads of a node that may wait, and that are done together, at the most.
const READS: usize = 10_000;
const READS_AT_ONCE: usize = 500;

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
    /// Reads that come while others are under way are done together.
    reads: GroupCommit<Read, Found>,
    batches: Mutex<Option<Batches<Read, Found>>>,
}

/// An order to be read, and the table it lies in.
struct Read {
    table: String,
    order: OrderId,
}

/// What was found of it. An error is that of all reads that were done together.
type Found = Result<Option<History>, Arc<anyhow::Error>>;

/// A node, and the tables of the partitions it owns.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) pool: PgPool,
    pub(crate) tables: Vec<String>,
    pub(crate) is_readable: bool,
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
                let (reads, batches) = group_commit(READS, READS_AT_ONCE);
                let (dependency, batches) = (health.awaited(node.name), Mutex::new(Some(batches)));
                Ok(Shard { name: node.name, pool, dependency, reads, batches })
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
        let mut connection = Checkout::take(&self.coordinator).await?;
        let partitions = db::partitions(&mut connection).await?;
        let writable = sagabus::ensure_writable(&mut connection).await;
        connection.keep();
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
        Ok(writable?)
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

    /// Reads orders from a node, until stopped.
    pub(crate) async fn read(&self, name: &str, stop: CancellationToken) -> anyhow::Result<()> {
        let shard = self.nodes.iter().find(|shard| shard.name == name);
        let Some((shard, batches)) = shard.and_then(|s| Some((s, s.batches.lock().take()?))) else {
            return Ok(());
        };
        batches.run(Pace::following(), stop, |reads| shard.read(reads)).await;
        Ok(())
    }

    /// Each node with its partitions, for what is asked of all of them.
    pub(crate) fn sources(&self) -> anyhow::Result<Vec<Source>> {
        let owners = self.owners.read();
        anyhow::ensure!(owners.iter().all(Option::is_some), "the partitions are not known yet");
        let sources = self.nodes.iter().enumerate().map(|(index, shard)| Source {
            name: shard.name,
            pool: shard.pool.clone(),
            tables: owners
                .iter()
                .flatten()
                .filter(|owner| owner.node == index)
                .map(|owner| owner.table.clone())
                .collect(),
            is_readable: shard.dependency.is_readable(),
        });
        Ok(sources.filter(|source| !source.tables.is_empty()).collect())
    }

    /// The name of the node an order lies on.
    pub(crate) fn name_of(&self, order: OrderId) -> &'static str {
        self.nodes[self.owner_of(partition_of(order))].name
    }

    /// The name of the node that owns each partition.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<&'static str>> {
        let owners = self.owners.read();
        let names = owners.iter().flatten().map(|owner| self.nodes[owner.node].name);
        let names: Vec<_> = names.collect();
        anyhow::ensure!(names.len() == owners.len(), "the partitions are not known yet");
        Ok(names)
    }

    /// What was heard of an order: from its owner, or through the coordinator where the owner
    /// cannot be asked directly. An owner that is down is not waited for; one that is read-only
    /// still knows what it heard before.
    pub(crate) async fn history(&self, order: OrderId) -> anyhow::Result<Option<History>> {
        let owner = self.owner(partition_of(order)).context("the partitions are not known yet")?;
        let shard = &self.nodes[owner.node];
        anyhow::ensure!(shard.dependency.is_readable(), "{} is down", shard.name);
        match shard.reads.submit(Read { table: owner.table, order }).await? {
            Ok(history) => Ok(history),
            // It hangs: through the coordinator it would too, and hold up the coordinator.
            Err(error) if error.is::<NoAnswer>() => Err(NoAnswer.into()),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "a direct read");
                // Boxed: every request would be as large as a connection attempt.
                Box::pin(self.through_the_coordinator(order)).await
            }
        }
    }

    async fn through_the_coordinator(&self, order: OrderId) -> anyhow::Result<Option<History>> {
        let _turn = self.detours.acquire().await?;
        let read = async || {
            let mut found = db::histories(&self.coordinator, "order_event", &[order]).await?;
            Ok(found.remove(&order))
        };
        within(DETOUR_LIMIT, postgres::repeat(&self.coordinator, read)).await
    }
}

impl Shard {
    /// Reads orders together, those of one table by one statement.
    async fn read(&self, reads: Vec<Read>) -> Vec<Found> {
        let mut tables: BTreeMap<&str, Vec<OrderId>> = BTreeMap::new();
        for Read { table, order } in &reads {
            tables.entry(table).or_default().push(*order);
        }
        let read = tables.into_iter().map(async |(table, orders)| {
            let read = || db::histories(&self.pool, table, &orders);
            let read = within(DIRECT_LIMIT, postgres::repeat(&self.pool, read)).await;
            (table, read.map_err(Arc::new))
        });
        // At the same time: one that is locked holds up the others no longer than its limit.
        let found: BTreeMap<_, _> = join_all(read).await.into_iter().collect();
        let found = |Read { table, order }: &Read| match &found[table.as_str()] {
            Ok(histories) => Ok(histories.get(order).cloned()),
            Err(error) => Err(error.clone()),
        };
        reads.iter().map(found).collect()
    }
}
