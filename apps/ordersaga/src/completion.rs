//! Completion for shells, also of what is only known while a stack runs. Nothing is built for it,
//! and it needs no workspace: what cannot be found out at once is not offered.

use std::path::PathBuf;
use std::time::Duration;

use clap::Arg;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use ordersaga_devstack::{Cluster, Service};
use serde::Deserialize;
use ureq::Agent;

use crate::state::Folder;
use crate::{handed_over, tree};
use ordersaga_devstack::state::State;

/// By this variable a shell asks, and says which one it is.
pub(crate) const VARIABLE: &str = "COMPLETE";
/// Somebody waits with a finger on the key.
const WITHIN: Duration = Duration::from_millis(300);
/// How many orders are offered.
const ORDERS: usize = 20;
/// As in redpanda/topics.toml, which a test holds to it.
const TOPICS: [&str; 4] = ["incoming", "reservation", "reset", "dead-letter"];

/// Answers a shell that asks, and ends the process. It is called before there are threads.
pub(crate) fn answer() {
    if std::env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty() || shell == "0") {
        return;
    }
    handed_over::complete();
    CompleteEnv::with_factory(tree::tree).complete();
}

/// An argument with what completes it, by its name: an order is an order everywhere.
pub(crate) fn with_completer(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "order" | "order_id" | "orders" => argument.add(ArgValueCandidates::new(orders)),
        "topic" | "topics" => argument.add(ArgValueCandidates::new(topics)),
        _ => argument,
    }
}

/// The processes of the running stack; without one, those that every stack has.
pub(crate) fn processes() -> Vec<CompletionCandidate> {
    let running = running().map(|state| state.processes.into_iter().map(|process| process.name));
    let mut names: Vec<_> = running.map_or_else(usual_processes, Iterator::collect);
    names.push("supervisor".to_owned());
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn usual_processes() -> Vec<String> {
    let parts = Cluster::ALL.map(Cluster::name).into_iter().chain(["redis", "broker"]);
    parts.chain(Service::ALL.map(Service::name)).map(str::to_owned).collect()
}

fn topics() -> Vec<CompletionCandidate> {
    TOPICS.map(CompletionCandidate::new).into()
}

/// The newest orders, as monitoring knows them.
fn orders() -> Vec<CompletionCandidate> {
    let name = Service::Monitoring.name();
    let state = running();
    let processes = state.iter().flat_map(|state| &state.processes);
    let port = processes.filter(|process| process.name == name).map(|process| process.port).next();
    newest_orders(port.unwrap_or(Service::Monitoring.port())).unwrap_or_default()
}

/// A page of the orders' list, as far as it is needed.
#[derive(Deserialize)]
struct Page {
    items: Vec<Order>,
}

#[derive(Deserialize)]
struct Order {
    order_id: i64,
    step: String,
}

fn newest_orders(port: u16) -> Option<Vec<CompletionCandidate>> {
    let config = Agent::config_builder().proxy(None).timeout_global(Some(WITHIN)).build();
    let url = format!("http://127.0.0.1:{port}/api/v1/orders?limit={ORDERS}");
    let mut answer = Agent::from(config).get(url).call().ok()?;
    listed(&answer.body_mut().read_to_string().ok()?)
}

fn listed(page: &str) -> Option<Vec<CompletionCandidate>> {
    let page: Page = serde_json::from_str(page).ok()?;
    let orders = page.items.into_iter().enumerate().map(|(at, order)| {
        let candidate = CompletionCandidate::new(order.order_id.to_string());
        candidate.help(Some(order.step.into())).display_order(Some(at))
    });
    Some(orders.collect())
}

/// The stack that the command line is about.
fn running() -> Option<State> {
    let words: Vec<_> = std::env::args_os().collect();
    let at = words.iter().position(|word| word == "--data");
    let folder = at.and_then(|at| words.get(at + 1)).map(PathBuf::from);
    State::load(&Folder::at(folder).for_look()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use serde_json::Value;

    use super::*;

    #[test]
    fn topics_are_those_there_are() -> anyhow::Result<()> {
        let file = std::fs::read_to_string(crate::cargo::root().join("redpanda/topics.toml"))?;
        let file: toml::Table = toml::from_str(&file)?;
        let topics = file["topics"].as_table().into_iter().flatten();
        let names: BTreeSet<_> = topics.map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, TOPICS.into());
        Ok(())
    }

    #[test]
    fn orders_are_read_as_the_api_lists_them() -> anyhow::Result<()> {
        let file = crate::cargo::root().join("openapi/service-monitoring-order.json");
        let document: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let answer = &document["paths"]["/api/v1/orders"]["get"]["responses"]["200"];
        let example = &answer["content"]["application/json"]["example"];
        let orders = listed(&example.to_string()).unwrap_or_default();
        let first = orders.first().map(|order| order.get_value().to_owned());
        assert_eq!(first, Some(example["items"][0]["order_id"].to_string().into()));
        assert!(listed("no page").is_none());
        Ok(())
    }

    #[test]
    fn without_an_answer_no_order_is_offered() -> anyhow::Result<()> {
        // It takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0")?;
        assert!(newest_orders(silent.local_addr()?.port()).is_none());
        Ok(())
    }
}
