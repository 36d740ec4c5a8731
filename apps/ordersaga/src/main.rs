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
mod completion;
mod demo;
mod deny;
mod detach;
mod dlq;
#[cfg(test)]
mod docs_test;
mod doctor;
mod down;
mod events;
mod exit_codes;
mod fuzz;
mod guide;
mod handed_over;
mod help;
mod http;
mod install;
mod load;
mod logs;
mod man;
mod metrics;
mod model;
mod openapi;
mod order;
mod playground;
mod progress;
mod race;
mod restarts;
mod retention;
mod sdk;
mod simulate;
mod state;
mod status;
mod stream;
mod supervisor;
mod target;
mod test;
mod tool;
mod top;
mod topics;
mod tree;
mod up;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Runs the order saga on this machine, shows it, tests it, plans and repairs it.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what is missing to run; --tool: this tool on PATH
    Install(tool::Arguments),
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
    /// Finds what is wrong with machine and system, and what mends it
    Doctor(doctor::Arguments),
    /// Shows the system live: rates, latencies, lag, stuck and new orders
    Top(top::Arguments),
    /// Shows an order as each witness has it, and what disagrees
    Order(order::Arguments),
    /// Waits for ready services, an empty pipeline, or an order's step
    Wait(wait::Arguments),
    /// Leads an order through a race, step by step, and checks its end
    Try(race::Arguments),
    /// Plays the README's session on the running stack, with checks
    Demo(demo::Arguments),
    /// Runs all tests on parts of their own, also beside a running stack
    Test(test::Arguments),
    /// Holds the services to their API documents by generated requests
    Fuzz(fuzz::Arguments),
    /// Holds dependencies to deny.toml: licences, sources, advisories
    Deny,
    /// Runs everything under load and faults, and checks what it promises
    Chaos(chaos::Arguments),
    /// Attacks the services as hostile clients do; they must serve on
    Attack(attack::Arguments),
    /// Puts load on the running stack: orders a second, latencies, checks
    Load(load::Arguments),
    /// Measures throughput, latency and cost, and what the machine allows
    Bench(bench::Arguments),
    /// Says what a load needs: network, tables, topics, nodes and money
    Capacity(Box<capacity::Arguments>),
    /// Simulates many machines: queues, a lost data centre, hot items
    Simulate(simulate::Arguments),
    /// Checks the protocol in every order of events that faults allow
    Model(model::Arguments),
    /// Makes an API key, and the entry for it in `API_KEYS_FILE`
    #[command(subcommand)]
    ApiKey(api_key::Command),
    /// Applies or shows the topics of redpanda/topics.toml
    Topics(topics::Arguments),
    /// Lists, shows, replays or discards records that were not readable
    Dlq(dlq::Arguments),
    /// Shows the events of all orders as they come, or of some
    Events(events::Arguments),
    /// Removes the facts of old, finished orders from the shards
    Retention(retention::Arguments),
    /// Makes a package of clients in a language from the API documents
    Sdk(sdk::Arguments),
    /// Writes or compares the API documents and collections in openapi/
    #[command(subcommand)]
    Openapi(openapi::Command),
    /// Shows the help of a command, or what the tool exits with
    Help(help::Arguments),
}

fn main() -> ExitCode {
    completion::answer();
    match start() {
        Ok(code) => code,
        Err(error) => {
            say_error!("ordersaga: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start() -> Result<ExitCode> {
    let words: Vec<_> = std::env::args_os().collect();
    match handed_over::help(&words)? {
        Some(code) => Ok(code),
        None => run(tree::parse(&words).command).await,
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Install(arguments) => tool::run(&arguments),
        Command::Up(arguments) => up::run(arguments).await,
        Command::Supervise(arguments) => supervisor::detached(arguments).await,
        Command::Down(arguments) => down::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Doctor(arguments) => blocking(move || doctor::run(&arguments)).await,
        Command::Top(arguments) => top::run(arguments).await,
        Command::Order(arguments) => blocking(move || order::run(&arguments)).await,
        Command::Wait(arguments) => blocking(move || wait::run(&arguments)).await,
        Command::Try(arguments) => race::run(arguments).await,
        Command::Demo(arguments) => blocking(move || demo::run(&arguments)).await,
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
        Command::Events(arguments) => events::run(&arguments),
        Command::Retention(arguments) => retention::run(&arguments),
        Command::Sdk(arguments) => sdk::run(arguments).await,
        Command::Openapi(command) => openapi::run(command),
        Command::Help(arguments) => help::run(&arguments),
    }
}

/// Runs a command that waits for answers.
async fn blocking(command: impl FnOnce() -> Result<ExitCode> + Send + 'static) -> Result<ExitCode> {
    tokio::task::spawn_blocking(command).await?
}
