//! How much room everything takes, by table, index, topic and cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ordersaga_devstack::Cluster;

use crate::records::EVENTS;
use crate::{Log, Onlooker};

/// Keys asked for at once.
const KEYS: usize = 1_000;

/// What lies in the segments of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segments {
    /// All of it.
    pub bytes: u64,
    /// Records are written, compressed and kept in batches.
    pub batches: u64,
}

/// What Redis holds of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cached {
    /// Entries.
    pub entries: u64,
    /// Their memory, keys and expiry included, as Redis tells it (`MEMORY USAGE`).
    pub bytes: u64,
}

impl Onlooker {
    /// Bytes of each table without its indexes, and of each index; those of the partitions of
    /// `order_event` together.
    pub async fn relation_bytes(&self, cluster: Cluster) -> Result<BTreeMap<String, u64>> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT regexp_replace(relname, '_\\d\\d(_pkey)?$', '\\1'), \
                    sum(CASE relkind WHEN 'r' THEN pg_table_size(oid) \
                        ELSE pg_relation_size(oid) END)::bigint \
             FROM pg_class WHERE relkind IN ('r', 'i') \
               AND relnamespace = 'public'::regnamespace GROUP BY 1",
        )
        .fetch_all(self.sql(cluster))
        .await
        .with_context(|| format!("sizes of {cluster}"))?;
        Ok(rows.into_iter().map(|(name, size)| (name, size.unsigned_abs())).collect())
    }

    /// What Redis holds of items.
    pub async fn cached_bytes(&self) -> Result<Cached> {
        let client = redis::Client::open(self.redis.as_str())?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let keys: Vec<String> = redis::cmd("KEYS").arg("item:*:*").query_async(&mut redis).await?;
        let mut bytes = 0;
        for keys in keys.chunks(KEYS) {
            let mut pipe = redis::pipe();
            for key in keys {
                pipe.cmd("MEMORY").arg("USAGE").arg(key);
            }
            let sizes: Vec<Option<u64>> = pipe.query_async(&mut redis).await?;
            bytes += sizes.into_iter().flatten().sum::<u64>();
        }
        Ok(Cached { entries: keys.len() as u64, bytes })
    }
}

impl Log {
    /// What lies in the segments of each event topic, below the broker's data folder.
    pub fn segments(&self, data: &Path) -> Result<BTreeMap<String, Segments>> {
        let mut topics = BTreeMap::new();
        for folder in
            fs::read_dir(data).with_context(|| format!("no logs in {}", data.display()))?
        {
            let folder = folder?;
            let name = folder.file_name();
            let topic = name.to_str().and_then(|name| name.strip_prefix(&self.prefix));
            let topic = topic.and_then(|name| name.rsplit_once('-')).map(|(topic, _)| topic);
            if let Some(topic) = topic.filter(|topic| EVENTS.contains(topic)) {
                let sum: &mut Segments = topics.entry(topic.to_owned()).or_default();
                add_segments(sum, &folder.path())?;
            }
        }
        Ok(topics)
    }
}

fn add_segments(sum: &mut Segments, folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            let segment = fs::read(&file)?;
            sum.bytes += segment.len() as u64;
            sum.batches += batches(&segment);
        }
    }
    Ok(())
}

/// Counts a segment's record batches: each begins with an offset of 8 bytes and 4 bytes that say
/// how long the rest is (Kafka's message format,
/// <https://kafka.apache.org/documentation/#recordbatch>).
fn batches(mut segment: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(length) = segment.get(8..12).and_then(|bytes| bytes.try_into().ok()) {
        let end = 12 + u32::from_be_bytes(length) as usize;
        let Some(rest) = segment.get(end..) else { break };
        count += 1;
        segment = rest;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_of_event_topics_count() -> Result<()> {
        let data = std::env::temp_dir().join(format!("ordersaga-sizes-{}", std::process::id()));
        for (folder, file) in [
            ("incoming-0", "0.log"),
            ("incoming-0", "0.index"),
            ("reset-15", "7.log"),
            ("__consumer_offsets-3", "0.log"),
            ("limit.incoming-1", "0.log"),
        ] {
            let folder = data.join(folder);
            fs::create_dir_all(&folder)?;
            // Two batches: an offset, a length of 38, and that many bytes.
            let batch = [&[0; 11][..], &[38], &[0; 38]].concat();
            fs::write(folder.join(file), batch.repeat(2))?;
        }
        fs::write(data.join("meta.properties"), "x")?;
        let of =
            |prefix: &str| Log { broker: String::new(), prefix: prefix.to_owned() }.segments(&data);
        let full = Segments { bytes: 100, batches: 2 };
        let own = BTreeMap::from([("incoming".to_owned(), full), ("reset".to_owned(), full)]);
        assert_eq!(of("")?, own);
        assert_eq!(of("limit.")?, BTreeMap::from([("incoming".to_owned(), full)]));
        fs::remove_dir_all(data)?;
        Ok(())
    }
}
