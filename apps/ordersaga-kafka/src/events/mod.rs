//! `events`: the three topics of the saga, read by a consumer that commits nothing.

mod line;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ordersaga_contract::{OrderId, Topic, partition_of};
use ordersaga_runtime::clock;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};

use crate::Broker;
use line::{Line, Wanted};

/// How long the broker may take for its first answers.
const REACH: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "Examples:
  ordersaga events tail                                  each event from now on, until Ctrl-C
  ordersaga events tail --order 17 --since 1h            what was said of an order
  ordersaga events tail --fact CANCELLED --client 7
  ordersaga events tail --json --limit 100 | jq .fact

Events of one order come in their order within a topic; those of several topics and orders as the \
broker has them, not by time. A record that is no event is shown as such, unless --client or \
--fact asks for events only.";

/// Arguments of `events`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows each event: time, topic/partition:offset, order, fact, client and item
    #[command(after_help = EXAMPLES)]
    Tail(Tail),
}

#[derive(clap::Args)]
struct Tail {
    #[command(flatten)]
    wanted: Wanted,
    /// Only this topic: incoming, reservation or reset
    #[arg(long, value_name = "TOPIC", value_parser = topic)]
    topic: Option<Topic>,
    /// Begins so long ago, as 5min or 1h, instead of now
    #[arg(long, value_name = "TIME")]
    since: Option<humantime::Duration>,
    /// A line of JSON for each record
    #[arg(long)]
    json: bool,
    /// Ends after so many lines
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

fn topic(name: &str) -> Result<Topic, String> {
    let found = Topic::EVENTS.into_iter().find(|topic| topic.name() == name);
    found.ok_or_else(|| "the topics are incoming, reservation and reset".to_owned())
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Command::Tail(tail) = arguments.command;
    tail.run(&arguments.broker)?;
    Ok(ExitCode::SUCCESS)
}

impl Tail {
    fn run(&self, broker: &Broker) -> Result<()> {
        let consumer: BaseConsumer = broker
            .security
            .client(&broker.brokers)
            // A name the client insists on: nothing is committed to it.
            .set("group.id", format!("{}dead-letters", broker.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .create()?;
        let places = self.places(&consumer, broker)?;
        consumer.assign(&places)?;
        let from = self.since.map_or_else(|| "now".to_owned(), |since| format!("{since} ago"));
        say_error!("Following {} partitions from {from} on; Ctrl-C ends it.", places.count());
        self.read(&consumer, &broker.prefix)
    }

    fn read(&self, consumer: &BaseConsumer, prefix: &str) -> Result<()> {
        let mut shown = 0;
        while self.limit.is_none_or(|limit| shown < limit) {
            let Some(record) = consumer.poll(POLL) else { continue };
            let record = record.context("the broker cannot be read")?;
            let Some(line) = Line::of(&record, prefix) else { continue };
            if self.wanted.admits(&line) {
                say!("{}", if self.json { line.json() } else { line.to_string() });
                shown += 1;
            }
        }
        Ok(())
    }

    /// Where reading begins in each partition that can have what is wanted.
    fn places(&self, consumer: &BaseConsumer, broker: &Broker) -> Result<TopicPartitionList> {
        let mut places = TopicPartitionList::new();
        let begin = self.since.map(|since| clock::now() - *since);
        for topic in Topic::EVENTS {
            if self.topic.is_some_and(|only| only != topic) {
                continue;
            }
            let name = format!("{}{topic}", broker.prefix);
            for partition in self.partitions(consumer, &name)? {
                let offset = match begin {
                    Some(begin) => Offset::Offset(begin.timestamp_millis()),
                    // The end as it is now, whenever reading begins.
                    None => Offset::Offset(consumer.fetch_watermarks(&name, partition, REACH)?.1),
                };
                places.add_partition_offset(&name, partition, offset)?;
            }
        }
        if begin.is_some() {
            // It takes times in the place of offsets, and gives offsets.
            places = consumer.offsets_for_times(places, REACH)?;
        }
        Ok(places)
    }

    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
        let metadata = consumer.fetch_metadata(Some(topic), REACH);
        let metadata = metadata.context("the broker does not answer: is the stack running?")?;
        let found = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let mut all: Vec<_> = found.map(MetadataPartition::id).collect();
        ensure!(!all.is_empty(), "there is no topic {topic}: `ordersaga topics apply` makes it");
        if let Some(order) = self.wanted.order {
            let own = i32::try_from(partition_of(OrderId::try_from(order)?))?;
            all.retain(|partition| *partition == own);
        }
        Ok(all)
    }
}
