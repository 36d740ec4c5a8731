//! Settings of service-monitoring-order.

use std::time::Duration;

use clap::{Args, Parser};
use ordersaga_runtime::config::{self, MigrationConfig, Secret, SecretParser};
use ordersaga_runtime::service::ServiceConfig;

/// Follows every topic and answers for the status of each order.
#[derive(Parser, Clone, Debug)]
#[command(name = "service-monitoring-order", version, about, after_help = config::MIGRATE_HELP)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) service: ServiceConfig,
    #[command(flatten)]
    pub(crate) nodes: NodesConfig,
    /// Milliseconds a status request waits for an order nobody has heard of yet, before its 404.
    #[arg(long, env = "STATUS_GRACE_MS", default_value = "500", value_parser = config::milliseconds)]
    pub(crate) status_grace_ms: Duration,
    /// Milliseconds the store may take to answer before an order counts as stuck. Half of the
    /// deadline of orders, so that it shows before the deadline ends it.
    #[arg(long, env = "STUCK_AFTER_MS", default_value = "30000", value_parser = config::milliseconds)]
    pub(crate) stuck_after_ms: Duration,
}

/// Brings the coordinator and the nodes up to date, as their owners and for as long as it takes, and
/// ends.
#[derive(Parser, Clone, Debug)]
pub(crate) struct Migration {
    #[command(flatten)]
    pub(crate) coordinator: MigrationConfig,
    #[command(flatten)]
    pub(crate) nodes: NodesConfig,
    /// The same nodes under their owner's role.
    #[arg(long = "shards-migration", env = "SHARDS_MIGRATION", hide_env_values = true,
          value_parser = ANY)]
    owned: Secret,
}

/// Where the status partitions lie.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodesConfig {
    /// The nodes that hold the status partitions, as name=URL,name=URL. The role may select and
    /// insert: `shard1=postgres://ordersaga_fdw:password@host:port/database`.
    #[arg(long, env = "SHARDS", hide_env_values = true, value_parser = ANY)]
    shards: Secret,
}

const ANY: SecretParser = SecretParser { prefixes: &[] };

/// A node that holds status partitions.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The server's name in the coordinator, and in answers.
    pub(crate) name: &'static str,
    pub(crate) url: Secret,
}

impl Config {
    /// From the environment; ends the process with a clear message if a setting is wrong.
    pub(crate) fn from_environment() -> Self {
        config::parse(&[("http_listen", "127.0.0.1:8001"), ("kafka_group", "monitoring")])
    }
}

impl Migration {
    /// From the environment, if the process was started as `service-monitoring-order migrate`.
    pub(crate) fn from_environment() -> Option<Self> {
        config::migration(crate::NAME)
    }

    /// The owners' URLs of all nodes, by name.
    pub(crate) fn owners(&self, nodes: &[Node]) -> anyhow::Result<Vec<(String, Secret)>> {
        let owners = parse("SHARDS_MIGRATION", self.owned.expose())?;
        for node in nodes {
            let named = owners.iter().any(|owner| owner.0 == node.name);
            anyhow::ensure!(named, "SHARDS_MIGRATION lacks {}", node.name);
        }
        Ok(owners)
    }
}

impl NodesConfig {
    /// The nodes, in the order named.
    pub(crate) fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        let nodes = parse("SHARDS", self.shards.expose())?;
        anyhow::ensure!(!nodes.is_empty(), "SHARDS names no node");
        // Once per process: names are labels of metrics and dependencies for its lifetime.
        Ok(nodes.into_iter().map(|(name, url)| Node { name: name.leak(), url }).collect())
    }
}

/// Reads `name=URL,name=URL` without ever repeating a URL in an error.
fn parse(variable: &str, list: &str) -> anyhow::Result<Vec<(String, Secret)>> {
    let mut nodes: Vec<(String, Secret)> = Vec::new();
    for node in list.split(',') {
        let Some((name, url)) = node.trim().split_once('=') else {
            anyhow::bail!("{variable}: name=URL,name=URL is expected");
        };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        anyhow::ensure!(
            name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_plain),
            "{variable}: a node's name is of a-z, 0-9 and _, a letter first"
        );
        anyhow::ensure!(
            url.starts_with("postgres://") || url.starts_with("postgresql://"),
            "{variable}: the URL of {name} begins with postgres://"
        );
        anyhow::ensure!(nodes.iter().all(|n| n.0 != name), "{variable}: {name} is named twice");
        nodes.push((name.to_owned(), Secret::new(url)));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_urls() {
        let nodes = parse("SHARDS", "shard1=postgres://a:b@h/d, shard2=postgres://c@h/d").unwrap();
        assert_eq!(nodes[1].0, "shard2");
        assert_eq!(nodes[0].1.expose(), "postgres://a:b@h/d");
    }

    #[test]
    fn errors_name_the_variable_and_never_the_url() {
        for list in [
            "postgres://u:hush@h/d",
            "Shard=postgres://u:hush@h/d",
            "a=mysql://u:hush@h",
            "a=postgres://u:hush@h/d,a=postgres://u:hush@h/d",
        ] {
            let error = parse("SHARDS", list).unwrap_err().to_string();
            assert!(error.contains("SHARDS") && !error.contains("hush"), "{error}");
        }
    }
}
