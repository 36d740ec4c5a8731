//! What stands on the meters before and after a run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ordersaga_checker::EVENTS;
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
    pub(crate) kafka_bytes: u64,
}

/// What stands on a Postgres node's meters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    /// Write-ahead log since the beginning.
    wal_bytes: i64,
    /// The next transaction's id.
    transactions: i64,
    /// Size of the tables with their indexes, but for the outbox: what passes through that is gone
    /// again, and vacuum gives its space back at any time.
    stored_bytes: i64,
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
            kafka_bytes: log_bytes(&system.stack.parts().folder.join("broker/data"))?,
        })
    }
}

impl Node {
    async fn read(system: &System, cluster: Cluster) -> Result<Self> {
        let (wal_bytes, transactions, stored_bytes) = sqlx::query_as(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, \
                    pg_snapshot_xmax(pg_current_snapshot())::text::bigint, \
                    (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class \
                     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \
                       AND relname <> 'outbox')",
        )
        .fetch_one(system.onlooker.sql(cluster))
        .await
        .with_context(|| format!("reading the meters of {cluster}"))?;
        Ok(Self { cluster, wal_bytes, transactions, stored_bytes })
    }

    /// What happened since `before`.
    pub(crate) fn since(&self, before: &Self) -> Database {
        let grown = |after: i64, before: i64| u64::try_from(after - before).unwrap_or_default();
        Database {
            name: self.cluster.name().to_owned(),
            wal_bytes: grown(self.wal_bytes, before.wal_bytes),
            transactions: grown(self.transactions, before.transactions),
            stored_bytes: grown(self.stored_bytes, before.stored_bytes),
        }
    }
}

/// Memory of each group now, shared pages in proportion.
pub(crate) fn memory(groups: &[Group]) -> Vec<u64> {
    groups.iter().map(|group| group.pids.iter().map(|pid| resident_bytes(*pid)).sum()).collect()
}

/// Bytes in the segments of the event topics, whose folders lie in the broker's data folder.
fn log_bytes(data: &Path) -> Result<u64> {
    let mut bytes = 0;
    for folder in fs::read_dir(data).with_context(|| format!("no logs in {}", data.display()))? {
        let folder = folder?;
        let name = folder.file_name();
        let topic = name.to_str().and_then(|name| name.rsplit_once('-'));
        if topic.is_some_and(|(topic, _)| EVENTS.contains(&topic)) {
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                if file.path().extension().is_some_and(|extension| extension == "log") {
                    bytes += file.metadata()?.len();
                }
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_of_event_topics_count() -> Result<()> {
        let data = tempfile::tempdir()?;
        for (folder, file) in [
            ("incoming-0", "0.log"),
            ("incoming-0", "0.index"),
            ("reset-15", "7.log"),
            ("__consumer_offsets-3", "0.log"),
            ("limit.incoming-1", "0.log"),
        ] {
            let folder = data.path().join(folder);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(file), [0; 100])?;
        }
        fs::write(data.path().join("meta.properties"), "x")?;
        assert_eq!(log_bytes(data.path())?, 200);
        Ok(())
    }

    #[test]
    fn what_shrank_did_not_grow() {
        let before =
            Node { cluster: Cluster::Store, wal_bytes: 10, transactions: 5, stored_bytes: 100 };
        let after = Node { wal_bytes: 30, transactions: 6, stored_bytes: 90, ..before.clone() };
        let since = after.since(&before);
        assert_eq!((since.wal_bytes, since.transactions, since.stored_bytes), (20, 1, 0));
    }
}
