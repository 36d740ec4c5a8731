//! The topics as `redpanda/topics.toml` wants them: creates what is missing, sets what differs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};
use serde::Deserialize;

use crate::config::KafkaSecurity;

const EMBEDDED: &str = include_str!("../../../redpanda/topics.toml");
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first connection may take.
const REACH: Duration = Duration::from_secs(15);
/// How long the brokers of a cluster may take to come together.
const GATHERING: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);
/// How long a segment may take to fill where nothing else is set: Redpanda's default; Kafka's is
/// half of it.
const LONGEST_SEGMENT: Duration = Duration::from_hours(14 * 24);
/// As many copies as the broker's own default says.
const BROKER_DEFAULT: i32 = -1;
/// How many copies must have a record before it is acknowledged. Redpanda has no such setting: there
/// most of them must, always.
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// What `redpanda/topics.toml` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicsFile {
    topics: BTreeMap<String, TopicSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicSpec {
    #[serde(default)]
    co_partitioned: bool,
    partitions: u16,
    #[serde(default)]
    config: BTreeMap<String, Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Setting {
    Number(i64),
    Flag(bool),
    Text(String),
}

impl From<&Setting> for serde_json::Value {
    fn from(setting: &Setting) -> Self {
        match setting {
            Setting::Number(number) => (*number).into(),
            Setting::Flag(flag) => (*flag).into(),
            Setting::Text(text) => text.as_str().into(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Flag(flag) => flag.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

impl TopicsFile {
    /// The file as it was when this program was built.
    pub fn embedded() -> Result<Self> {
        Self::parse(EMBEDDED)
    }

    /// Reads such a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        text.map_err(anyhow::Error::from)
            .and_then(|text| Self::parse(&text))
            .with_context(|| format!("cannot read the topics in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: Self = toml::from_str(text)?;
        let mut counts = BTreeMap::new();
        for (name, topic) in &file.topics {
            ensure!(topic.partitions > 0, "topic {name} has no partitions");
            if topic.co_partitioned {
                counts.insert(topic.partitions, name);
            }
        }
        let names: Vec<_> = counts.values().collect();
        ensure!(
            counts.len() <= 1,
            "the co-partitioned topics {names:?} differ in their partitions"
        );
        Ok(file)
    }

    /// How long a record may stay in any of the topics: its retention, and as long as the segment
    /// it stands in may take to fill, since segments go as a whole. None if there is no bound.
    pub fn longest_life(&self) -> Option<Duration> {
        let lives = self.topics.values().map(|topic| {
            let millis = |name: &str| match topic.config.get(name) {
                Some(Setting::Number(millis)) => u64::try_from(*millis).ok(),
                _ => None,
            };
            let segment = millis("segment.ms").map_or(LONGEST_SEGMENT, Duration::from_millis);
            Some(Duration::from_millis(millis("retention.ms")?).saturating_add(segment))
        });
        lives.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The partitions of a topic; none if the file does not have it.
    pub fn partitions(&self, topic: &str) -> u16 {
        self.topics.get(topic).map_or(0, |topic| topic.partitions)
    }

    /// The settings of a topic.
    pub fn config(&self, topic: &str) -> serde_json::Map<String, serde_json::Value> {
        let settings = self.topics.get(topic).into_iter().flat_map(|topic| &topic.config);
        settings.map(|(name, value)| (name.clone(), value.into())).collect()
    }

    /// With three copies a record is acknowledged when two have it: one broker may be away. With
    /// fewer, the broker's own setting is left alone.
    fn replicated(&self, replication: Option<u16>) -> Self {
        let mut file = self.clone();
        if replication.is_some_and(|copies| copies >= 3) {
            for topic in file.topics.values_mut() {
                topic.config.entry(MIN_IN_SYNC.to_owned()).or_insert(Setting::Number(2));
            }
        }
        file
    }

    fn prefixed(&self, prefix: &str) -> BTreeMap<String, &TopicSpec> {
        let topics = self.topics.iter();
        topics.map(|(name, topic)| (format!("{prefix}{name}"), topic)).collect()
    }
}

/// What [`apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A topic was missing.
    Created {
        /// Its name.
        topic: String,
        /// Its partitions.
        partitions: u16,
    },
    /// A setting was another.
    Altered {
        /// The topic's name.
        topic: String,
        /// The setting's name.
        setting: String,
        /// Its value before.
        from: String,
        /// Its value now.
        to: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { topic, partitions } => {
                write!(formatter, "{topic}: created with {partitions} partitions")
            }
            Self::Altered { topic, setting, from, to } => {
                write!(formatter, "{topic}: {setting} was {from}, is {to}")
            }
        }
    }
}

/// A broker, and which of its topics are meant.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Its addresses, as host:port,host:port.
    pub brokers: String,
    /// How one gets in.
    pub security: KafkaSecurity,
    /// What stands before each topic's name.
    pub prefix: String,
    /// Copies of each partition; none: as many as the broker makes by itself.
    pub replication: Option<u16>,
}

impl Target {
    /// The topics of this prefix on a broker that lets everybody in.
    pub fn open(brokers: &str, prefix: &str) -> Self {
        Self { brokers: brokers.to_owned(), prefix: prefix.to_owned(), ..Self::default() }
    }
}

/// A topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Its partitions; none when the topic is missing.
    pub partitions: usize,
    /// The settings that the file speaks of.
    pub config: BTreeMap<String, String>,
}

/// Makes the broker's topics what the file says. A partition count that differs is an error:
/// changing it would send orders to other partitions. So is a replication that differs from one
/// that is asked for: changing it moves data, which is for an operator to plan.
pub async fn apply(target: &Target, file: &TopicsFile) -> Result<Vec<Change>> {
    let admin = Admin::connect(target).await?;
    admin.wait_for_brokers(target.replication.unwrap_or(1)).await?;
    let file = file.replicated(target.replication);
    let wanted = file.prefixed(&target.prefix);
    let mut changes = Vec::new();
    let existing = admin.partitions(&wanted).await?;
    for (name, topic) in &wanted {
        if !existing.contains_key(name) {
            changes.extend(admin.create(name, topic, target.replication).await?);
        }
    }
    for (name, shape) in admin.all_partitions(&wanted).await? {
        let topic = wanted[&name];
        let Shape { partitions, copies } = shape;
        ensure!(
            partitions == usize::from(topic.partitions),
            partitions_differ(&name, partitions, topic)
        );
        if let Some(wanted) = target.replication {
            ensure!(
                copies == usize::from(wanted),
                "topic {name} has {copies} copies of each partition, not {wanted}; `apply` does not move data"
            );
        }
        changes.extend(admin.alter(&name, topic).await?);
    }
    Ok(changes)
}

fn partitions_differ(name: &str, count: usize, topic: &TopicSpec) -> String {
    let wanted = topic.partitions;
    let why = if topic.co_partitioned {
        "; it is co-partitioned with the status table, so the count can only change by moving to a new topic"
    } else {
        ""
    };
    format!("topic {name} has {count} partitions, not {wanted}{why}")
}

/// The file's topics as the broker has them.
pub async fn describe(target: &Target, file: &TopicsFile) -> Result<Vec<TopicState>> {
    let admin = Admin::connect(target).await?;
    let wanted = file.prefixed(&target.prefix);
    let existing = admin.partitions(&wanted).await?;
    let mut states = Vec::new();
    for (name, topic) in wanted {
        let partitions = existing.get(&name).map_or(0, |shape| shape.partitions);
        let mut config = BTreeMap::new();
        if partitions > 0 {
            let resource = admin.config(&name).await?;
            for setting in topic.config.keys() {
                config.insert(setting.clone(), value(&resource, setting));
            }
        }
        states.push(TopicState { name, partitions, config });
    }
    Ok(states)
}

/// Deletes the file's topics with this prefix: what a test made for itself.
pub async fn delete(target: &Target, file: &TopicsFile) -> Result<()> {
    ensure!(!target.prefix.is_empty(), "only topics of a prefix are deleted");
    let admin = Admin::connect(target).await?;
    let wanted = file.prefixed(&target.prefix);
    let names: Vec<_> = wanted.keys().map(String::as_str).collect();
    for result in admin.client.delete_topics(&names, &admin.options).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((topic, error)) => return Err(error).context(format!("cannot delete {topic}")),
        }
    }
    Ok(())
}

fn value(resource: &ConfigResource, setting: &str) -> String {
    let entry = resource.get(setting).and_then(|entry| entry.value.clone());
    entry.unwrap_or_default()
}

/// Whether the broker has this setting, as every broker has those of the file.
fn is_known(resource: &ConfigResource, setting: &str) -> bool {
    setting != MIN_IN_SYNC || resource.get(setting).is_some()
}

struct Admin {
    client: Arc<AdminClient<DefaultClientContext>>,
    options: AdminOptions,
}

/// What a topic's records are spread over.
#[derive(Debug, Clone, Copy)]
struct Shape {
    partitions: usize,
    /// Of the partition that has the fewest.
    copies: usize,
}

impl Shape {
    fn of(topic: &MetadataTopic) -> Self {
        let copies = topic.partitions().iter().map(|partition| partition.replicas().len());
        Self { partitions: topic.partitions().len(), copies: copies.min().unwrap_or(0) }
    }
}

impl Admin {
    async fn connect(target: &Target) -> Result<Self> {
        let settings = sagabus::client(&target.security.client(&target.brokers));
        let client = settings.create().context("cannot make a client of the broker")?;
        let is_anonymous = target.security.login.is_none();
        let reach = tokio::task::spawn_blocking(move || sagabus::reach(&settings, REACH));
        reach.await?.map_err(|error| {
            let hint = if is_anonymous { ": no KAFKA_USER is set" } else { "" };
            anyhow!("{error}{hint}")
        })?;
        let client = Arc::new(client);
        let options =
            AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        Ok(Self { client, options })
    }

    /// Brokers of a cluster that starts join one after the other.
    async fn wait_for_brokers(&self, wanted: u16) -> Result<()> {
        let deadline = Instant::now() + GATHERING;
        loop {
            let there = self.metadata().await?.brokers().len();
            if there >= usize::from(wanted) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{wanted} copies of each partition need as many brokers, and there are {there}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn metadata(&self) -> Result<Metadata> {
        let client = Arc::clone(&self.client);
        // All topics are asked for: asking for one by name makes some brokers create it.
        let fetch = move || client.inner().fetch_metadata(None, TIMEOUT);
        let metadata = tokio::task::spawn_blocking(fetch).await?;
        metadata.context("the broker does not tell its topics")
    }

    /// The shapes of those topics that exist.
    async fn partitions<T>(&self, topics: &BTreeMap<String, T>) -> Result<BTreeMap<String, Shape>> {
        let metadata = self.metadata().await?;
        let existing = metadata.topics().iter();
        Ok(existing
            .filter(|topic| topics.contains_key(topic.name()))
            .map(|topic| (topic.name().to_owned(), Shape::of(topic)))
            .collect())
    }

    /// The shapes of all topics, waiting for those just created: the controller answers
    /// before the broker knows of them.
    async fn all_partitions<T>(
        &self,
        topics: &BTreeMap<String, T>,
    ) -> Result<BTreeMap<String, Shape>> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let existing = self.partitions(topics).await?;
            if existing.len() == topics.len() {
                return Ok(existing);
            }
            let missing = topics.keys().find(|name| !existing.contains_key(*name));
            ensure!(Instant::now() < deadline, "the topic {missing:?} does not appear");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn create(
        &self,
        name: &str,
        spec: &TopicSpec,
        replication: Option<u16>,
    ) -> Result<Option<Change>> {
        let config: Vec<_> =
            spec.config.iter().map(|(setting, value)| (setting, value.to_string())).collect();
        let copies = TopicReplication::Fixed(replication.map_or(BROKER_DEFAULT, i32::from));
        let mut topic = NewTopic::new(name, i32::from(spec.partitions), copies);
        for (setting, value) in &config {
            topic = topic.set(setting, value);
        }
        let result = self.client.create_topics([&topic], &self.options).await?;
        match single(result)? {
            Ok(_) => {
                Ok(Some(Change::Created { topic: name.to_owned(), partitions: spec.partitions }))
            }
            // Somebody else applied the same file at this moment.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(None),
            Err((_, error)) => Err(error).context(format!("cannot create the topic {name}")),
        }
    }

    async fn config(&self, name: &str) -> Result<ConfigResource> {
        let topic = ResourceSpecifier::Topic(name);
        let result = self.client.describe_configs([&topic], &self.options).await?;
        single(result)?.with_context(|| format!("cannot read the settings of {name}"))
    }

    async fn alter(&self, name: &str, spec: &TopicSpec) -> Result<Vec<Change>> {
        let resource = self.config(name).await?;
        let changes: Vec<_> = spec
            .config
            .iter()
            .filter(|(setting, _)| is_known(&resource, setting))
            .map(|(setting, to)| (setting, value(&resource, setting), to.to_string()))
            .filter(|(_, from, to)| from != to)
            .map(|(setting, from, to)| Change::Altered {
                topic: name.to_owned(),
                setting: setting.clone(),
                from,
                to,
            })
            .collect();
        if !changes.is_empty() {
            self.set(name, spec, &resource).await?;
            self.wait_set(name, spec).await?;
        }
        Ok(changes)
    }

    /// Settings, too, are there only a moment after the answer.
    async fn wait_set(&self, name: &str, spec: &TopicSpec) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let resource = self.config(name).await?;
            let mut settings =
                spec.config.iter().filter(|(setting, _)| is_known(&resource, setting));
            if settings.all(|(setting, to)| value(&resource, setting) == to.to_string()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the settings of {name} do not change");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The request replaces all of a topic's settings: those that the file does not speak of are
    /// repeated as they are.
    async fn set(&self, name: &str, spec: &TopicSpec, resource: &ConfigResource) -> Result<()> {
        let own = resource
            .entries
            .iter()
            .filter(|entry| matches!(entry.source, ConfigSource::DynamicTopic));
        let mut settings: BTreeMap<&str, String> =
            own.filter_map(|entry| Some((entry.name.as_str(), entry.value.clone()?))).collect();
        let wanted = spec.config.iter().filter(|(setting, _)| is_known(resource, setting));
        for (setting, value) in wanted {
            settings.insert(setting, value.to_string());
        }
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (setting, value) in &settings {
            alter = alter.set(setting, value);
        }
        let result = self.client.alter_configs([&alter], &self.options).await?;
        let result = single(result)?.map_err(|(_, error)| error);
        result.with_context(|| format!("cannot set the settings of {name}"))?;
        Ok(())
    }
}

fn single<T>(results: Vec<T>) -> Result<T> {
    let first = results.into_iter().next();
    first.ok_or_else(|| anyhow!("the broker answered nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_has_the_contracts_topics() -> Result<()> {
        use ordersaga_contract::Topic;
        let file = TopicsFile::embedded()?;
        for topic in Topic::EVENTS {
            let spec = &file.topics[topic.name()];
            assert!(spec.co_partitioned, "{topic}");
            assert_eq!(u32::from(spec.partitions), ordersaga_contract::PARTITIONS, "{topic}");
        }
        assert!(file.topics.contains_key(Topic::DeadLetter.name()));
        assert_eq!(file.topics.len(), Topic::EVENTS.len() + 1);
        let retention = &file.topics["incoming"].config["retention.ms"];
        assert_eq!(retention.to_string(), "604800000");
        Ok(())
    }

    #[test]
    fn refuses_co_partitioned_topics_of_different_counts() {
        let text = "[topics.a]\nco_partitioned = true\npartitions = 2\n\
                    [topics.b]\nco_partitioned = true\npartitions = 3\n";
        let error = TopicsFile::parse(text).map(drop).unwrap_err().to_string();
        assert!(error.contains("differ"), "{error}");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(TopicsFile::parse("[topics.a]\npartitions = 2\nretention = 3\n").is_err());
        assert!(TopicsFile::parse("[topics.a]\npartitions = 0\n").is_err());
    }

    #[test]
    fn a_record_outlives_its_retention_by_its_segment() -> Result<()> {
        let life = |text: &str| anyhow::Ok(TopicsFile::parse(text)?.longest_life());
        let days = |days: u64| Some(Duration::from_hours(24 * days));
        let week = "[topics.a]\npartitions = 1\nconfig = { \"retention.ms\" = 604_800_000 }\n";
        let day = "[topics.b]\npartitions = 1\n\
                   config = { \"retention.ms\" = 86_400_000, \"segment.ms\" = 86_400_000 }\n";
        assert_eq!(life(week)?, days(21));
        assert_eq!(life(day)?, days(2));
        assert_eq!(life(&[week, day].concat())?, days(21));
        assert_eq!(life("[topics.a]\npartitions = 1\n")?, None);
        assert_eq!(life(&week.replace("604_800_000", "-1"))?, None);
        Ok(())
    }

    #[test]
    fn prefixes_names() -> Result<()> {
        let file = TopicsFile::parse("[topics.a]\npartitions = 2\n")?;
        let names: Vec<_> = file.prefixed("t7.").into_keys().collect();
        assert_eq!(names, ["t7.a"]);
        Ok(())
    }
}
