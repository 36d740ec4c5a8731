//! What stands in a system's topics, read and written without the services' code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Partitions of each topic.
pub(crate) const PARTITIONS: i32 = 16;
/// The topics that carry events.
pub const EVENTS: [&str; 3] = ["incoming", "reservation", "reset"];
const TIMEOUT: Duration = Duration::from_secs(20);

/// Where a record stands: topic without prefix, partition, offset.
pub type Place = (String, i32, i64);

/// The topics of one system.
#[derive(Clone)]
pub struct Log {
    /// Host and port.
    pub broker: String,
    /// What the topics' names begin with.
    pub prefix: String,
}

/// A record, as read or to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Without prefix.
    pub topic: String,
    /// Where it is, or is to go.
    pub partition: i32,
    /// Ignored when written.
    pub offset: i64,
    /// Empty if it has none.
    pub key: Vec<u8>,
    /// Empty if it has none.
    pub payload: Vec<u8>,
    /// In order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A record to write.
    pub fn new(topic: &str, partition: i32, key: &str, payload: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            offset: 0,
            key: key.into(),
            payload: payload.into(),
            headers: Vec::new(),
        }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        (self.topic.clone(), self.partition, self.offset)
    }

    /// A header's text; the last of this name, since what is added to a record comes last.
    pub fn header(&self, name: &str) -> Option<String> {
        let header = self.headers.iter().rfind(|header| header.0 == name)?;
        String::from_utf8(header.1.clone()).ok()
    }
}

impl Log {
    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.broker).set("socket.nagle.disable", "true");
        client
    }

    fn consumer(&self) -> Result<BaseConsumer> {
        // The group is only a name that the client insists on: nothing is committed to it.
        let mut client = self.client();
        client.set("group.id", "onlooker").set("enable.auto.commit", "false");
        Ok(client.create()?)
    }

    /// The end of each partition of the event topics, by topic and partition.
    pub async fn ends(&self) -> Result<BTreeMap<(String, i32), i64>> {
        let log = self.clone();
        let ends = move || log.offsets_of(&log.consumer()?, &EVENTS, Offset::End);
        tokio::task::spawn_blocking(ends).await?
    }

    /// The first offset of each partition whose record is not older than this.
    pub(crate) async fn offsets_since(
        &self,
        topics: &[&'static str],
        since: DateTime<Utc>,
    ) -> Result<BTreeMap<(String, i32), i64>> {
        let (log, topics) = (self.clone(), topics.to_vec());
        let time = Offset::Offset(since.timestamp_millis().max(0));
        let begins = move || {
            let consumer = log.consumer()?;
            let ends = log.offsets_of(&consumer, &topics, Offset::End)?;
            let begins = log.offsets_of(&consumer, &topics, time)?;
            // Behind the newest record there is none: the broker then tells no offset.
            Ok(ends
                .into_iter()
                .map(|(at, end)| (at.clone(), *begins.get(&at).unwrap_or(&end)))
                .collect())
        };
        tokio::task::spawn_blocking(begins).await?
    }

    /// Where this stands in each partition of these topics: the end, or a time in milliseconds.
    fn offsets_of(
        &self,
        consumer: &BaseConsumer,
        topics: &[&str],
        of: Offset,
    ) -> Result<BTreeMap<(String, i32), i64>> {
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..PARTITIONS {
                asked.add_partition_offset(&self.name(topic), partition, of)?;
            }
        }
        let answered = consumer.offsets_for_times(asked, TIMEOUT).context("offsets of topics")?;
        answered
            .elements()
            .iter()
            .filter(|element| of == Offset::End || element.offset() != Offset::End)
            .map(|element| {
                let topic =
                    element.topic().strip_prefix(&self.prefix).context("a foreign topic")?;
                let Offset::Offset(end) = element.offset() else {
                    anyhow::bail!("{topic}/{}: {:?}", element.partition(), element.offset());
                };
                Ok(((topic.to_owned(), element.partition()), end))
            })
            .collect()
    }

    /// What each member of a consumer group has been assigned, by the broker's word.
    pub async fn members(&self, group: &str) -> Result<Vec<BTreeSet<(String, i32)>>> {
        let (log, group) = (self.clone(), format!("{}{group}", self.prefix));
        tokio::task::spawn_blocking(move || {
            let groups = log.consumer()?.client().fetch_group_list(Some(&group), TIMEOUT)?;
            let members = groups.groups().iter().flat_map(GroupInfo::members);
            members.map(|member| assigned(member.assignment().unwrap_or_default())).collect()
        })
        .await?
    }

    /// All records of these topics, each partition in its order.
    pub async fn read(&self, topics: &[&'static str]) -> Result<Vec<Record>> {
        self.fold(topics, Vec::new(), Vec::push).await
    }

    /// Gathers something from all records of these topics, each partition in its order, without
    /// holding more than one of them.
    pub async fn fold<T: Send + 'static>(
        &self,
        topics: &[&'static str],
        gathered: T,
        take: impl FnMut(&mut T, Record) + Send + 'static,
    ) -> Result<T> {
        self.fold_from(topics, BTreeMap::new(), gathered, take).await
    }

    /// The same from an offset of each partition; from the beginning where none is given.
    pub(crate) async fn fold_from<T: Send + 'static>(
        &self,
        topics: &[&'static str],
        from: BTreeMap<(String, i32), i64>,
        mut gathered: T,
        mut take: impl FnMut(&mut T, Record) + Send + 'static,
    ) -> Result<T> {
        let (log, topics) = (self.clone(), topics.to_vec());
        let read = move || {
            log.read_blocking(&topics, &from, &mut |record| take(&mut gathered, record))?;
            Ok(gathered)
        };
        tokio::task::spawn_blocking(read).await?
    }

    fn read_blocking(
        &self,
        topics: &[&str],
        begins: &BTreeMap<(String, i32), i64>,
        take: &mut dyn FnMut(Record),
    ) -> Result<()> {
        let consumer = self.consumer()?;
        let begin = |place: &(String, i32)| begins.get(place).copied().unwrap_or(0);
        let mut open: BTreeSet<(String, i32, i64)> = self
            .offsets_of(&consumer, topics, Offset::End)?
            .into_iter()
            .filter(|(place, end)| *end > begin(place))
            .map(|((topic, partition), end)| (topic, partition, end - 1))
            .collect();
        let mut from = TopicPartitionList::new();
        for (topic, partition, _) in &open {
            let begin = begins.get(&(topic.clone(), *partition)).copied();
            let begin = begin.map_or(Offset::Beginning, Offset::Offset);
            from.add_partition_offset(&self.name(topic), *partition, begin)?;
        }
        consumer.assign(&from)?;
        let mut deadline = Instant::now() + TIMEOUT;
        while !open.is_empty() {
            ensure!(Instant::now() < deadline, "the ends of {open:?} are not reached");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            deadline = Instant::now() + TIMEOUT;
            let record = self.record(&message?)?;
            open.remove(&record.place());
            take(record);
        }
        Ok(())
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> Result<Record> {
        let topic = message.topic().strip_prefix(&self.prefix).context("a foreign topic")?;
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Ok(Record {
            topic: topic.to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers
                .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
                .collect(),
        })
    }

    /// Follows the event topics from their beginning, whatever becomes of the broker meanwhile,
    /// until `take` says that it is enough. It is called a few times a second at least. Blocks.
    pub fn follow(&self, mut take: impl FnMut(Option<Record>) -> bool) -> Result<()> {
        let consumer = self.consumer()?;
        let mut from = TopicPartitionList::new();
        for topic in EVENTS {
            for partition in 0..PARTITIONS {
                from.add_partition_offset(&self.name(topic), partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&from)?;
        loop {
            let message = consumer.poll(Duration::from_millis(100));
            let record = message.and_then(Result::ok).and_then(|m| self.record(&m).ok());
            if !take(record) {
                return Ok(());
            }
        }
    }

    /// Writes records in this order, each to the partition it names.
    pub async fn write(&self, records: Vec<Record>) -> Result<()> {
        self.write_compressed(records, "none").await
    }

    /// The same, compressed by a codec that librdkafka knows by this name.
    pub async fn write_compressed(&self, records: Vec<Record>, codec: &'static str) -> Result<()> {
        let log = self.clone();
        tokio::task::spawn_blocking(move || log.write_blocking(&records, codec)).await?
    }

    fn write_blocking(&self, records: &[Record], codec: &str) -> Result<()> {
        let producer: BaseProducer = self
            .client()
            .set("enable.idempotence", "true")
            .set("compression.type", codec)
            // The topics of events take no larger batches.
            .set("batch.size", "60000")
            .set("linger.ms", "1")
            .create()?;
        for record in records {
            let topic = self.name(&record.topic);
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let record = BaseRecord::to(&topic)
                .partition(record.partition)
                .key(&record.key)
                .payload(&record.payload)
                .headers(headers);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(TIMEOUT)?;
        Ok(())
    }
}

/// Reads an assignment as the consumer protocol has it: version, then topics with their partitions.
fn assigned(bytes: &[u8]) -> Result<BTreeSet<(String, i32)>> {
    let mut rest = bytes;
    let mut take = |count: usize| {
        let taken = rest.split_off(..count).context("a cut assignment");
        taken.map(<[u8]>::to_vec)
    };
    let mut places = BTreeSet::new();
    if bytes.is_empty() {
        return Ok(places);
    }
    take(2)?;
    let number = |bytes: Vec<u8>| bytes.iter().fold(0_i32, |sum, byte| sum << 8 | i32::from(*byte));
    for _ in 0..number(take(4)?) {
        let length = usize::try_from(number(take(2)?))?;
        let topic = String::from_utf8(take(length)?)?;
        for _ in 0..number(take(4)?) {
            places.insert((topic.clone(), number(take(4)?)));
        }
    }
    Ok(places)
}
