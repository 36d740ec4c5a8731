//! The part of the `ordersaga` tool that speaks to the broker. It is a program of its own because
//! librdkafka needs a C++ compiler and make, which the tool itself installs where they are missing.
#![allow(clippy::print_stdout, reason = "a command line program answers on standard output")]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use ordersaga_runtime::topics::{self, TopicsFile};

#[derive(Parser)]
#[command(version, about = "Manages the topics of ordersaga")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The topics of redpanda/topics.toml
    #[command(subcommand)]
    Topics(Topics),
}

#[derive(Subcommand)]
enum Topics {
    /// Creates the topics that are missing and sets the settings that differ
    Apply(Target),
    /// Shows the topics as the broker has them; fails when one is missing
    Describe(Target),
}

#[derive(clap::Args)]
struct Target {
    /// The broker's addresses
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// What stands before each topic's name
    #[arg(long, env = "KAFKA_TOPIC_PREFIX", default_value = "")]
    prefix: String,
    /// Another file than the one built in
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Target {
    fn topics(&self) -> Result<TopicsFile> {
        match &self.file {
            Some(path) => TopicsFile::load(path),
            None => TopicsFile::embedded(),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place left to say it.
            let _ = writeln!(std::io::stderr(), "ordersaga-kafka: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Command::Topics(command): Command) -> Result<()> {
    match command {
        Topics::Apply(target) => apply(&target).await,
        Topics::Describe(target) => describe(&target).await,
    }
}

async fn apply(target: &Target) -> Result<()> {
    let changes = topics::apply(&target.brokers, &target.prefix, &target.topics()?).await?;
    for change in &changes {
        println!("{change}");
    }
    if changes.is_empty() {
        println!("all topics are as they should be");
    }
    Ok(())
}

async fn describe(target: &Target) -> Result<()> {
    let states = topics::describe(&target.brokers, &target.prefix, &target.topics()?).await?;
    let mut missing = Vec::new();
    for topic in states {
        if topic.partitions == 0 {
            println!("{:<24} missing", topic.name);
            missing.push(topic.name);
            continue;
        }
        let config = topic.config.iter();
        let config: Vec<_> = config.map(|(name, value)| format!("{name}={value}")).collect();
        println!("{:<24} {:>3} partitions  {}", topic.name, topic.partitions, config.join(" "));
    }
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    Ok(())
}
