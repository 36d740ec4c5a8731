//! `topics`: the topics as `redpanda/topics.toml` wants them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use ordersaga_runtime::topics::{self, TopicsFile};
use serde::Serialize;

use crate::Broker;
use crate::access::{self, AccessFile};
use crate::schemas::{self, Registry};

const USERS: &str = "Users and rights are left alone unless the environment has their passwords: \
    KAFKA_PASSWORD_CREATE_ORDER, KAFKA_PASSWORD_STORE, KAFKA_PASSWORD_MONITORING, \
    KAFKA_PASSWORD_CONSOLE and KAFKA_PASSWORD_OPERATOR. The job itself logs in as a superuser of \
    the broker, by KAFKA_USER and KAFKA_PASSWORD.";

/// What to do with the topics.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Creates the topics that are missing and sets the settings that differ; makes users and their
    /// rights what redpanda/access.toml says; registers the events' schemas, if a Schema Registry
    /// is given
    #[command(after_help = USERS)]
    Apply(Apply),
    /// Shows the topics as the broker has them; fails when one is missing
    Describe(Describe),
}

#[derive(clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    registry: Registry,
    /// Copies of each partition [default: as many as the broker makes by itself]. From 3 on, two of
    /// them must have a record before it is acknowledged
    #[arg(long, value_name = "COPIES", env = "KAFKA_REPLICATION",
          value_parser = clap::value_parser!(u16).range(1..=9))]
    replication: Option<u16>,
    /// Another file of users and rights than the one built in
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Describe {
    #[command(flatten)]
    target: Target,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Target {
    #[command(flatten)]
    broker: Broker,
    /// Another file than the one built in
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Target {
    fn on_broker(&self, replication: Option<u16>) -> topics::Target {
        let Broker { brokers, prefix, security } = &self.broker;
        topics::Target {
            brokers: brokers.clone(),
            security: security.clone(),
            prefix: prefix.clone(),
            replication,
        }
    }

    fn topics(&self) -> Result<TopicsFile> {
        match &self.file {
            Some(path) => TopicsFile::load(path),
            None => TopicsFile::embedded(),
        }
    }
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Apply(arguments) => {
            apply(&arguments).await?;
            let prefix = &arguments.target.broker.prefix;
            schemas::register(&arguments.registry, prefix).await?;
        }
        Command::Describe(arguments) => describe(&arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(arguments: &Apply) -> Result<()> {
    let access = AccessFile::get(arguments.access.as_deref())?;
    // What is missing is said before anything is changed.
    let passwords = access.passwords()?;
    let target = arguments.target.on_broker(arguments.replication);
    let changes = topics::apply(&target, &arguments.target.topics()?).await?;
    for change in &changes {
        say!("{change}");
    }
    if changes.is_empty() {
        say!("all topics are as they should be");
    }
    access::apply(&target, &access, passwords).await
}

/// What `topics describe --json` says.
#[derive(Debug, Serialize)]
struct Described {
    /// Whether no topic is missing.
    is_complete: bool,
    topics: Vec<DescribedTopic>,
}

#[derive(Debug, Serialize)]
struct DescribedTopic {
    /// With its prefix.
    name: String,
    /// None if the topic is missing.
    partitions: Option<usize>,
    config: BTreeMap<String, String>,
}

async fn describe(arguments: &Describe) -> Result<()> {
    let target = &arguments.target;
    let states = topics::describe(&target.on_broker(None), &target.topics()?).await?;
    let described = Described::of(states);
    if arguments.json {
        say!("{}", ordersaga_terminal::json(&serde_json::to_string_pretty(&described)?));
    } else {
        for topic in &described.topics {
            say!("{}", topic.line());
        }
    }
    if !described.is_complete {
        let missing = described.topics.iter().filter(|topic| topic.partitions.is_none());
        let names: Vec<_> = missing.map(|topic| topic.name.as_str()).collect();
        bail!("missing: {}", names.join(", "));
    }
    Ok(())
}

impl Described {
    fn of(states: Vec<topics::TopicState>) -> Self {
        let topics = states.into_iter().map(|state| DescribedTopic {
            name: state.name,
            partitions: (state.partitions > 0).then_some(state.partitions),
            config: state.config,
        });
        let topics: Vec<_> = topics.collect();
        Self { is_complete: topics.iter().all(|topic| topic.partitions.is_some()), topics }
    }
}

impl DescribedTopic {
    fn line(&self) -> String {
        let Some(partitions) = self.partitions else {
            return format!("{:<24} missing", self.name);
        };
        let config = self.config.iter().map(|(name, value)| format!("{name}={value}"));
        let config: Vec<_> = config.collect();
        format!("{:<24} {partitions:>3} partitions  {}", self.name, config.join(" "))
    }
}
