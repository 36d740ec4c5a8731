//! What the figures were taken on, and with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ordersaga_devstack::{Cluster, KAFKA_VERSION};
use ordersaga_figures::Machine;

use crate::system::System;

/// Settings of Postgres that decide about durability and speed.
const SETTINGS: [&str; 12] = [
    "autovacuum",
    "checkpoint_timeout",
    "commit_delay",
    "fsync",
    "full_page_writes",
    "jit",
    "max_wal_size",
    "shared_buffers",
    "synchronous_commit",
    "wal_compression",
    "wal_level",
    "wal_sync_method",
];

/// The machine.
pub(crate) fn machine() -> Machine {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    Machine {
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
        memory_bytes: memory(&read("/proc/meminfo")),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

/// The first value of this name in a file of `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut found = values.filter(|(other, _)| other.trim() == name);
    found.next().map(|(_, value)| value.trim().to_owned())
}

fn memory(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").and_then(|value| {
        value.split_whitespace().next().and_then(|number| number.parse::<u64>().ok())
    });
    kib.unwrap_or_default() * 1024
}

/// Versions of everything that takes part.
pub(crate) async fn versions(system: &System) -> Result<BTreeMap<String, String>> {
    let postgres: String = sqlx::query_scalar("SHOW server_version")
        .fetch_one(system.onlooker.sql(Cluster::CreateOrder))
        .await?;
    let versions = [
        ("ordersaga", commit(&root())),
        ("Postgres", Some(postgres)),
        ("Kafka", Some(KAFKA_VERSION.to_owned())),
        ("Redis", said("redis-server", "--version").and_then(|text| after(&text, "v="))),
        ("Java", said("java", "--version")),
        ("rustc", said("rustc", "--version")),
    ];
    let known = versions.into_iter().filter_map(|(name, version)| {
        let version = version?.lines().next()?.to_owned();
        Some((name.to_owned(), version))
    });
    Ok(known.collect())
}

/// What decides about durability and speed, by part. All Postgres nodes have the same.
pub(crate) async fn settings(
    system: &System,
) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let postgres: Vec<(String, String)> =
        sqlx::query_as("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1)")
            .bind(SETTINGS.map(str::to_owned).to_vec())
            .fetch_all(system.onlooker.sql(Cluster::CreateOrder))
            .await?;
    Ok([("postgres".to_owned(), postgres.into_iter().collect())].into())
}

/// The workspace this program was built in.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// The commit that is checked out, and whether anything was changed since.
fn commit(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let said = ordersaga_devstack::run(command.current_dir(root).args(arguments)).ok()?;
        Some(said.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if changed { format!("{commit} with changes") } else { commit })
}

fn said(program: &str, argument: &str) -> Option<String> {
    ordersaga_devstack::run(Command::new(program).arg(argument)).ok()
}

/// The word after this text.
fn after(text: &str, begin: &str) -> Option<String> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\nmodel name\t: X\n";
        assert_eq!(field(cpuinfo, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(field(cpuinfo, "flags"), None);
        assert_eq!(memory("MemTotal:       24684088 kB\nMemFree: 1 kB\n"), 24_684_088 * 1024);
        assert_eq!(memory(""), 0);
    }

    #[test]
    fn finds_a_version_in_a_sentence() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(after(redis, "v=").as_deref(), Some("7.0.15"));
        assert_eq!(after("none", "v="), None);
    }
}
