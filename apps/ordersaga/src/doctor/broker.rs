//! The broker, as far as it can be told without its protocol.

use std::env;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::finding::Finding;
use super::seen::Surroundings;
use crate::topics;

const LIMIT: Duration = Duration::from_secs(5);

/// Where the broker is: that of the environment, else of the local stack.
fn brokers(seen: &Surroundings) -> Option<String> {
    let named = env::var("KAFKA_BROKERS").ok().filter(|named| !named.is_empty());
    named.or_else(|| Some(seen.running()?.parts.broker_address()))
}

const NOT_KNOWN: &str = "no stack runs here, and KAFKA_BROKERS names no broker";

/// Something takes connections there.
pub(super) fn address(seen: &Surroundings) -> Vec<Finding> {
    let Some(brokers) = brokers(seen) else { return vec![Finding::unknown(NOT_KNOWN)] };
    brokers.split(',').map(|broker| judge_address(broker, connect(broker.trim()))).collect()
}

fn connect(address: &str) -> Result<()> {
    let address = address.to_socket_addrs()?.next().context("it has no address")?;
    TcpStream::connect_timeout(&address, LIMIT)?;
    Ok(())
}

fn judge_address(broker: &str, connected: Result<()>) -> Finding {
    match connected {
        Ok(()) => Finding::ok(format!("{broker} takes connections")),
        Err(error) => Finding::problem(format!("{broker} takes no connection: {error:#}"))
            .mend("start it, then see: ordersaga logs broker")
            .runbook("BrokerDown"),
    }
}

/// The topics are as redpanda/topics.toml says, by the program that speaks to the broker, if it is
/// built.
pub(super) fn topics(seen: &Surroundings) -> Vec<Finding> {
    let Some(brokers) = brokers(seen) else { return vec![Finding::unknown(NOT_KNOWN)] };
    vec![match topics::describe_if_built(&brokers) {
        None => Finding::unknown("the program that speaks to the broker is not built")
            .mend("ordersaga topics describe"),
        Some(command) => judge_topics(describe(command)),
    }]
}

fn describe(command: Result<Command>) -> Result<()> {
    ordersaga_devstack::run(&mut command?).map(drop)
}

fn judge_topics(described: Result<()>) -> Finding {
    match described {
        Ok(()) => Finding::ok("all are there"),
        Err(error) => Finding::problem(format!("they are not all there: {error:#}"))
            .mend("ordersaga topics apply")
            .runbook("BrokerDown"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_broker_that_takes_no_connection_is_a_problem() {
        let port = ordersaga_devstack::free_port().unwrap();
        let address = format!("127.0.0.1:{port}");
        assert_eq!(judge_address(&address, connect(&address)).level, Level::Problem);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(judge_address(&address, connect(&address)).level, Level::Ok);
    }

    #[test]
    fn topics_that_are_missing_are_made_by_a_command() {
        let found = judge_topics(Err(anyhow::anyhow!("reset is missing")));
        assert_eq!(found.mend.as_deref(), Some("ordersaga topics apply"));
        assert_eq!(judge_topics(Ok(())).level, Level::Ok);
    }
}
