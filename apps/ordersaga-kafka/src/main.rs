//! The part of the `ordersaga` tool that speaks to the broker. It is a program of its own because
//! librdkafka needs a C++ compiler and make, which the tool itself installs where they are missing.

#[macro_use]
extern crate ordersaga_terminal;

mod access;
#[cfg(test)]
mod console;
mod dlq;
mod events;
mod schemas;
mod topics;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use ordersaga_runtime::config::KafkaSecurity;

#[derive(Parser)]
#[command(version, about = "Manages the topics and the dead letters of ordersaga")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The topics of redpanda/topics.toml
    #[command(subcommand)]
    Topics(topics::Command),
    /// What is published of the events: JSON Schemas and the document of all channels
    #[command(subcommand)]
    Schemas(schemas::Command),
    /// Records that a consumer could not read: looks at them, puts them back, sets them aside
    Dlq(dlq::Arguments),
    /// The events of all orders, as they come
    Events(events::Arguments),
}

/// Which topics a command is about.
#[derive(clap::Args)]
struct Broker {
    /// The broker's addresses
    #[arg(long, global = true, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// What stands before each topic's name
    #[arg(long, global = true, env = "KAFKA_TOPIC_PREFIX", default_value = "")]
    prefix: String,
    #[command(flatten)]
    security: KafkaSecurity,
}

#[tokio::main]
async fn main() -> ExitCode {
    // A shell that completes the command line asks; that ends the process.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Not clap's own 2: that says that letters are blocked.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments.command).await {
        Ok(code) => code,
        Err(error) => {
            say_error!("ordersaga-kafka: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Topics(command) => topics::run(command).await,
        Command::Schemas(command) => schemas::run(&command),
        Command::Dlq(arguments) => dlq::run(arguments).await,
        Command::Events(arguments) => {
            tokio::task::spawn_blocking(|| events::run(arguments)).await?
        }
    }
}
