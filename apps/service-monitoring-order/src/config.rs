//! Settings of service-monitoring-order.

use std::time::Duration;

use clap::Parser;
use ordersaga_runtime::config::{self, Secret, SecretParser};
use ordersaga_runtime::service::ServiceConfig;

/// Follows every topic and answers for the status of each order.
#[derive(Parser, Clone, Debug)]
#[command(name = "service-monitoring-order", version, about)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) service: ServiceConfig,
    /// The nodes that hold the status partitions, as name=URL,name=URL. The role may select and
    /// insert: `shard1=postgres://ordersaga_fdw:password@host:port/database`.
    #[arg(long, env = "SHARDS", hide_env_values = true, value_parser = ANY)]
    shards: Secret,
    /// The same nodes under their owner's role. When set, their migrations run at start.
    #[arg(long, env = "SHARDS_MIGRATION", hide_env_values = true, value_parser = ANY)]
    shards_migration: Option<Secret>,
    /// Milliseconds a status request waits for an order nobody has heard of yet, before its 404.
    #[arg(long, env = "STATUS_GRACE_MS", default_value = "500", value_parser = config::milliseconds)]
    pub(crate) status_grace_ms: Duration,
}

const ANY: SecretParser = SecretParser { prefixes: &[] };

/// A node that holds status partitions.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The server's name in the coordinator, and in answers.
    pub(crate) name: &'static str,
    pub(crate) url: Secret,
    pub(crate) owner_url: Option<Secret>,
}

impl Config {
    /// From the environment; ends the process with a clear message if a setting is wrong.
    pub(crate) fn from_environment() -> Self {
        config::parse(&[("http_listen", "127.0.0.1:8001"), ("kafka_group", "monitoring")])
    }

    /// The nodes, in the order named.
    pub(crate) fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        let owners = match &self.shards_migration {
            Some(list) => parse("SHARDS_MIGRATION", list.expose())?,
            None => Vec::new(),
        };
        let nodes = parse("SHARDS", self.shards.expose())?;
        anyhow::ensure!(!nodes.is_empty(), "SHARDS names no node");
        Ok(nodes
            .into_iter()
            .map(|(name, url)| Node {
                owner_url: owners.iter().find(|owner| owner.0 == name).map(|o| o.1.clone()),
                // Once per process: names are labels of metrics and dependencies for its lifetime.
                name: name.leak(),
                url,
            })
            .collect())
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
