//! `ordersaga`: brings the whole system up on one machine, tries it, tests it and takes it down.

#[macro_use]
extern crate ordersaga_terminal;

mod api_key;
mod attack;
mod bench;
mod capacity;
mod cargo;
mod chaos;
mod collections;
mod demo;
mod deny;
mod detach;
mod dlq;
#[cfg(test)]
mod docs_test;
mod down;
mod fuzz;
mod install;
mod load;
mod logs;
mod model;
mod openapi;
mod progress;
mod restarts;
mod retention;
mod sdk;
mod simulate;
mod state;
mod status;
mod supervisor;
mod test;
mod topics;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what is missing to build and run everything
    Install,
    /// Starts everything and shows where it is; installs what is missing
    Up(up::Arguments),
    /// Is the background process of `up --detach`
    #[command(hide = true)]
    Supervise(supervisor::Arguments),
    /// Stops what `up --detach` left running
    Down(down::Arguments),
    /// Shows each process, its memory and whether it is ready
    Status(status::Arguments),
    /// Shows the logs of one process, or of all
    Logs(logs::Arguments),
    /// Plays the session of the README against the running stack and checks each answer
    Demo(demo::Arguments),
    /// Runs all tests on real parts of their own; works beside a running stack
    Test(test::Arguments),
    /// Holds the services' answers to their API documents, by generated requests (schemathesis)
    Fuzz(fuzz::Arguments),
    /// Holds dependencies to deny.toml: licences, sources, bans, advisories (cargo-deny)
    Deny,
    /// Runs everything under load and faults, and checks that it kept its promises
    Chaos(chaos::Arguments),
    /// Attacks the services as hostile clients would, and checks that they go on serving others
    Attack(attack::Arguments),
    /// Puts load on the running stack: orders a second, latencies, and whether all orders ended
    Load(load::Arguments),
    /// Measures throughput, latency and cost on a stack of its own, and what the machine allows
    Bench(bench::Arguments),
    /// Says what a load needs: requests, network, tables, caches, topics, nodes and money
    Capacity(Box<capacity::Arguments>),
    /// Simulates the pipeline past one machine: queues, a lost data centre, something hot
    Simulate(simulate::Arguments),
    /// Checks the protocol in every order of events that a few orders and faults allow
    Model(model::Arguments),
    /// Makes an API key, and the entry for it in `API_KEYS_FILE`
    #[command(subcommand)]
    ApiKey(api_key::Command),
    /// Applies or shows the topics of redpanda/topics.toml
    Topics(topics::Arguments),
    /// Lists, shows, replays or discards the records that a consumer could not read
    Dlq(dlq::Arguments),
    /// Removes the facts of old, finished orders from the shards
    Retention(retention::Arguments),
    /// Makes a package of clients in a language from the API documents, with a pinned generator
    Sdk(sdk::Arguments),
    /// Writes or compares the committed API documents and collections in openapi/
    #[command(subcommand)]
    Openapi(openapi::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            say_error!("ordersaga: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Install => install::ensure(false).map(|()| ExitCode::SUCCESS),
        Command::Up(arguments) => up::run(arguments).await,
        Command::Supervise(arguments) => supervisor::detached(arguments).await,
        Command::Down(arguments) => down::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Demo(arguments) => {
            tokio::task::spawn_blocking(move || demo::run(&arguments)).await?
        }
        Command::Test(arguments) => test::run(&arguments).await,
        Command::Fuzz(arguments) => fuzz::run(arguments).await,
        Command::Deny => deny::run(),
        Command::Chaos(arguments) => chaos::run(arguments),
        Command::Attack(arguments) => attack::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Capacity(arguments) => capacity::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Model(arguments) => model::run(&arguments),
        Command::ApiKey(command) => api_key::run(command),
        Command::Topics(arguments) => topics::run(&arguments),
        Command::Dlq(arguments) => dlq::run(&arguments),
        Command::Retention(arguments) => retention::run(&arguments),
        Command::Sdk(arguments) => sdk::run(arguments).await,
        Command::Openapi(command) => openapi::run(command),
    }
}
