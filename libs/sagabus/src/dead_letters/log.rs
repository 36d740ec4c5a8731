//! Reading the topic `dead-letter`, putting letters back, and saying what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Entry, Header, Letter, NoEntry, Place, Resolution};
use crate::raw_record::{self, Found};
use crate::{Error, kafka};

type Result<T, E = Error> = std::result::Result<T, E>;

/// How long the broker may be silent before reading is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the broker may take for a record.
const DELIVERY_MS: &str = "30000";

/// Where a record stands in the topic `dead-letter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// The topic `dead-letter` of one environment, and the topics its letters come from.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    kafka: ClientConfig,
    prefix: String,
    name: String,
}

impl DeadLetters {
    /// The topic `name`, of an environment whose topics have this prefix. Connects when first used.
    pub fn new(kafka: ClientConfig, prefix: &str, name: &str) -> Self {
        Self { kafka, prefix: prefix.to_owned(), name: name.to_owned() }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        kafka::client(&self.kafka)
    }

    /// Folds every record there is at present, in no particular order across partitions. Payloads
    /// come one at a time: what is kept of them is the caller's choice.
    pub async fn fold<B: Send + 'static>(
        &self,
        book: B,
        add: fn(&mut B, Position, Result<Entry, NoEntry>),
    ) -> Result<B> {
        let own = self.clone();
        let fold = move || {
            let mut book = book;
            let reader = Reader::new(&own)?;
            let from = reader.partitions()?.into_iter().map(|partition| (partition, None));
            reader.read(from.collect(), |position, entry| {
                add(&mut book, position, entry);
                true
            })?;
            Ok(book)
        };
        joined(tokio::task::spawn_blocking(fold).await)
    }

    /// Reads these letters as a whole.
    pub async fn fetch(&self, positions: &[Position]) -> Result<BTreeMap<Position, Letter>> {
        let (own, wanted) = (self.clone(), positions.iter().copied().collect::<BTreeSet<_>>());
        let fetch = move || {
            let reader = Reader::new(&own)?;
            let mut letters = BTreeMap::new();
            let partitions: BTreeSet<_> =
                wanted.iter().map(|position| position.partition).collect();
            for partition in partitions {
                let mut open: BTreeSet<_> = wanted
                    .iter()
                    .filter(|position| position.partition == partition)
                    .copied()
                    .collect();
                let first = open.first().map(|position| position.offset);
                reader.read([(partition, first)].into(), |position, entry| {
                    if let (true, Ok(Entry::Letter(letter))) = (open.remove(&position), entry) {
                        letters.insert(position, letter);
                    }
                    !open.is_empty()
                })?;
            }
            let missing = wanted.iter().find(|position| !letters.contains_key(position));
            match missing {
                Some(gone) => Err(Error::other(format!("{gone:?} of {} is gone", own.name))),
                None => Ok(letters),
            }
        };
        joined(tokio::task::spawn_blocking(fetch).await)
    }

    /// What stands now where a letter comes from.
    pub async fn at_origin(&self, origin: &Place) -> Result<Found> {
        let (mut settings, topic) = (self.client(), self.topic(&origin.topic));
        settings.set("group.id", self.topic("dead-letters"));
        let Place { partition, offset, .. } = *origin;
        let read = move || raw_record::read(&settings, &topic, partition, offset, PATIENCE);
        joined(tokio::task::spawn_blocking(read).await)
    }

    /// What puts records back and writes resolutions.
    pub fn writer(&self) -> Result<Writer> {
        let mut client = self.client();
        kafka::write_safely(&mut client).set("message.timeout.ms", DELIVERY_MS);
        let producer = client.create()?;
        Ok(Writer { letters: self.clone(), producer })
    }
}

struct Reader {
    topic: String,
    client: BaseConsumer,
}

impl Reader {
    fn new(letters: &DeadLetters) -> Result<Self> {
        kafka::reach(&letters.client(), PATIENCE)?;
        let client = letters
            .client()
            // A name the client insists on: nothing is committed to it.
            .set("group.id", letters.topic("dead-letters"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            // Letters may be large, and a service reads them beside its work.
            .set("queued.max.messages.kbytes", "8192")
            .create()?;
        Ok(Self { topic: letters.topic(&letters.name), client })
    }

    fn partitions(&self) -> Result<Vec<i32>> {
        // All topics are asked for: asking for one by name makes some brokers create it.
        let metadata = self.client.fetch_metadata(None, PATIENCE)?;
        let mut topics = metadata.topics().iter();
        let topic = topics.find(|topic| topic.name() == self.topic);
        let topic =
            topic.ok_or_else(|| Error::other(format!("there is no topic {}", self.topic)))?;
        Ok(topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
    }

    /// Reads partitions from an offset, or from their beginning, to their present end, or until
    /// `each` has enough.
    fn read(
        &self,
        from: BTreeMap<i32, Option<i64>>,
        mut each: impl FnMut(Position, Result<Entry, NoEntry>) -> bool,
    ) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, first) in &from {
            let first = first.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&self.topic, *partition, first)?;
        }
        self.client.assign(&list)?;
        let mut open: BTreeSet<i32> = from.into_keys().collect();
        let mut heard = Instant::now();
        while !open.is_empty() {
            let polled = self.client.poll(Duration::from_millis(100));
            match polled {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let position =
                        Position { partition: message.partition(), offset: message.offset() };
                    if !each(position, entry(&message)) {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.remove(&partition);
                }
                None | Some(Err(_)) if heard.elapsed() < PATIENCE => {}
                None => {
                    let why = format!("{} cannot be read to its end", self.topic);
                    return Err(Error::other(why));
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn entry(message: &BorrowedMessage<'_>) -> Result<Entry, NoEntry> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    Entry::read(owned(message.key()), owned(message.payload()), kafka::headers(message))
}

/// Writes to `dead-letter` and to the topics its letters come from: idempotent, `acks=all`.
pub struct Writer {
    letters: DeadLetters,
    producer: FutureProducer,
}

impl Writer {
    /// Puts letters back where they came from, in this order, with their attempt counted. For each
    /// the offset at which it stands now, once every in-sync replica has it. Of two letters on one
    /// partition the later may get there when the earlier does not: letters whose order matters
    /// belong in two calls.
    pub async fn replay(&self, letters: &[Letter]) -> Vec<Result<i64>> {
        let records = letters.iter().map(|letter| {
            let topic = self.letters.topic(&letter.origin.topic);
            let (key, payload) = (letter.key.as_deref(), letter.payload.as_deref());
            self.send(&topic, letter.origin.partition, key, payload, &letter.headers_to_replay())
        });
        acknowledged(records.collect()).await
    }

    /// Says what became of a letter, in each partition that holds a copy of it: there the letter
    /// goes before its resolution when the topic's retention is over, and never after it.
    pub async fn resolve(&self, resolved: &[(Resolution, BTreeSet<i32>)]) -> Result<()> {
        let topic = self.letters.topic(&self.letters.name);
        let mut records = Vec::new();
        for (resolution, partitions) in resolved {
            let headers = resolution.all_headers();
            for partition in partitions {
                records.push(self.send(&topic, *partition, None, Some(b""), &headers));
            }
        }
        acknowledged(records).await.into_iter().try_for_each(|record| record.map(drop))
    }

    fn send(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<DeliveryFuture> {
        let mut all = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            all = all.insert(KafkaHeader { key, value: value.as_deref() });
        }
        let record = FutureRecord {
            topic,
            partition: Some(partition),
            payload,
            key,
            timestamp: None,
            headers: Some(all),
        };
        self.producer.send_result(record).map_err(|(error, _)| error.into())
    }
}

fn joined<T>(task: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    task.unwrap_or_else(|error| Err(Error::other(format!("reading was given up: {error}"))))
}

async fn acknowledged(records: Vec<Result<DeliveryFuture>>) -> Vec<Result<i64>> {
    let mut outcomes = Vec::with_capacity(records.len());
    for record in records {
        outcomes.push(match record {
            Ok(delivery) => match delivery.await {
                Ok(Ok(delivered)) => Ok(delivered.offset),
                Ok(Err((error, _))) => Err(error.into()),
                Err(_) => Err(Error::other("the producer gave no answer")),
            },
            Err(error) => Err(error),
        });
    }
    outcomes
}
