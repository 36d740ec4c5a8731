//! What stands on the meters before and after a run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ordersaga_checker::{Cached, Segments};
use ordersaga_devstack::{Cluster, resident_bytes};
use ordersaga_figures::Database;

use crate::proc::Processes;
use crate::sampler::Group;
use crate::system::System;

/// What stands on the meters at one moment.
#[derive(Debug)]
pub(crate) struct Meters {
    /// By group.
    pub(crate) written_bytes: Vec<u64>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) topics: BTreeMap<String, Segments>,
    pub(crate) cache: Cached,
}

/// What stands on a Postgres node's meters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    /// Write-ahead log since the beginning.
    wal_bytes: i64,
    /// The next transaction's id.
    transactions: i64,
    /// Bytes of the tables and indexes, but for the outbox: what passes through that is gone
    /// again, and vacuum gives its space back at any time.
    relations: BTreeMap<String, u64>,
}

impl Meters {
    pub(crate) async fn read(system: &System, groups: &[Group]) -> Result<Self> {
        let mut nodes = Vec::new();
        for cluster in Cluster::ALL {
            nodes.push(Node::read(system, cluster).await?);
        }
        let processes = Processes::look();
        Ok(Self {
            written_bytes: groups.iter().map(|g| processes.written_bytes(&g.pids)).collect(),
            nodes,
            topics: system
                .onlooker
                .log
                .segments(&system.stack.parts().folder.join("broker/data"))?,
            cache: system.onlooker.cached_bytes().await?,
        })
    }
}

impl Node {
    async fn read(system: &System, cluster: Cluster) -> Result<Self> {
        let (wal_bytes, transactions) = sqlx::query_as(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, \
                    pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
        )
        .fetch_one(system.onlooker.sql(cluster))
        .await
        .with_context(|| format!("reading the meters of {cluster}"))?;
        let mut relations = system.onlooker.relation_bytes(cluster).await?;
        relations.retain(|name, _| !name.starts_with("outbox"));
        Ok(Self { cluster, wal_bytes, transactions, relations })
    }

    /// What happened since `before`.
    pub(crate) fn since(&self, before: &Self) -> Database {
        let grown = |after: i64, before: i64| u64::try_from(after - before).unwrap_or_default();
        let relations: BTreeMap<_, _> = self
            .relations
            .iter()
            .map(|(name, bytes)| {
                let before = before.relations.get(name).copied().unwrap_or_default();
                (name.clone(), bytes.saturating_sub(before))
            })
            .collect();
        Database {
            name: self.cluster.name().to_owned(),
            wal_bytes: grown(self.wal_bytes, before.wal_bytes),
            transactions: grown(self.transactions, before.transactions),
            stored_bytes: relations.values().sum(),
            relations,
        }
    }
}

/// Memory of each group now, shared pages in proportion.
pub(crate) fn memory(groups: &[Group]) -> Vec<u64> {
    groups.iter().map(|group| group.pids.iter().map(|pid| resident_bytes(*pid)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrank_did_not_grow() {
        let sized = |bytes| BTreeMap::from([("item".to_owned(), bytes)]);
        let before =
            Node { cluster: Cluster::Store, wal_bytes: 10, transactions: 5, relations: sized(100) };
        let after = Node { wal_bytes: 30, transactions: 6, relations: sized(90), ..before.clone() };
        let since = after.since(&before);
        assert_eq!((since.wal_bytes, since.transactions, since.stored_bytes), (20, 1, 0));
    }
}
