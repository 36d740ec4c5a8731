//! `topics`: the topics as `redpanda/topics.toml` wants them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use ordersaga_runtime::topics::{self, TopicsFile};

use crate::Broker;
use crate::schemas::{self, Registry};

/// What to do with the topics.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Creates the topics that are missing and sets the settings that differ; registers the events'
    /// schemas, if a Schema Registry is given
    Apply(Apply),
    /// Shows the topics as the broker has them; fails when one is missing
    Describe(Target),
}

#[derive(clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    registry: Registry,
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
    fn topics(&self) -> Result<TopicsFile> {
        match &self.file {
            Some(path) => TopicsFile::load(path),
            None => TopicsFile::embedded(),
        }
    }
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Apply(Apply { target, registry }) => {
            apply(&target).await?;
            for schema in schemas::register(&registry, &target.broker.prefix).await? {
                say!("{schema}");
            }
        }
        Command::Describe(target) => describe(&target).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(target: &Target) -> Result<()> {
    let Broker { brokers, prefix } = &target.broker;
    let changes = topics::apply(brokers, prefix, &target.topics()?).await?;
    for change in &changes {
        say!("{change}");
    }
    if changes.is_empty() {
        say!("all topics are as they should be");
    }
    Ok(())
}

async fn describe(target: &Target) -> Result<()> {
    let Broker { brokers, prefix } = &target.broker;
    let states = topics::describe(brokers, prefix, &target.topics()?).await?;
    let mut missing = Vec::new();
    for topic in states {
        if topic.partitions == 0 {
            say!("{:<24} missing", topic.name);
            missing.push(topic.name);
            continue;
        }
        let config = topic.config.iter();
        let config: Vec<_> = config.map(|(name, value)| format!("{name}={value}")).collect();
        say!("{:<24} {:>3} partitions  {}", topic.name, topic.partitions, config.join(" "));
    }
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    Ok(())
}
