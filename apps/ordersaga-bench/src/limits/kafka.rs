//! The broker with librdkafka alone: the records of real orders, produced once, and consumed as
//! often as the services do. The producer has the services' settings; the consumers fetch as far
//! ahead as librdkafka does by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ordersaga_checker::{Log, Record};
use ordersaga_contract::PARTITIONS;
use ordersaga_figures::Run;
use ordersaga_runtime::topics::{self, Target, TopicsFile};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Bench, Meter, groups};

/// Begins the names of the topics written to.
const PREFIX: &str = "limit.";
/// What an order says of itself when nothing goes wrong.
const TOPICS: [&str; 2] = ["incoming", "reservation"];
/// Who reads what: the store, create-order, monitoring.
const READERS: [&[&str]; 3] = [&["incoming"], &["reservation"], &["incoming", "reservation"]];
/// Records taken from each partition to be written again and again: enough of them that they
/// compress as differing ones do.
const SAMPLES: i64 = 128;
const PATIENCE: Duration = Duration::from_secs(30);

type Sender = ThreadedProducer<DefaultProducerContext>;

pub(super) async fn run(bench: &Bench<'_>) -> Result<Run> {
    let broker = bench.system.stack.parts().broker_address();
    topics::apply(&Target::open(&broker, PREFIX), &TopicsFile::embedded()?).await?;
    let log = Log { broker: broker.clone(), prefix: PREFIX.to_owned() };
    let ends: Vec<_> = log.ends().await?.into_iter().collect();
    let groups = groups(bench.system, "broker");
    let length = bench.length;
    tokio::task::spawn_blocking(move || {
        let samples = samples(&broker)?;
        let producer = producer(&broker)?;
        let flow = Arc::new(Flow::default());
        let readers = READERS.map(|topics| {
            let (broker, flow) = (broker.clone(), flow.clone());
            let from: Vec<_> =
                ends.iter().filter(|((t, _), _)| topics.contains(&t.as_str())).cloned().collect();
            std::thread::spawn(move || read(&broker, from, topics, &flow))
        });
        let warmup = Duration::from_secs(length.warmup_seconds.into());
        let before = produce(&producer, &samples, warmup)?;
        let meter = Meter::start(groups);
        let orders = produce(&producer, &samples, Duration::from_secs(length.seconds.into()))?;
        producer.flush(PATIENCE)?;
        flow.produced.store(before + orders, Ordering::Release);
        flow.done.store(true, Ordering::Release);
        for reader in readers {
            let read = reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
            read.context("consuming")?;
        }
        meter.run(orders)
    })
    .await?
}

/// What the readers are told.
#[derive(Default)]
struct Flow {
    /// Orders produced in all, once that is known.
    produced: AtomicU64,
    done: AtomicBool,
}

fn client(broker: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", broker).set("socket.nagle.disable", "true");
    client
}

fn consumer(broker: &str) -> Result<BaseConsumer> {
    let mut client = client(broker);
    client
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "16384");
    Ok(client.create()?)
}

fn producer(broker: &str) -> Result<Sender> {
    let mut client = client(broker);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // The topics take batches of 65,536 bytes: redpanda/topics.toml.
        .set("batch.size", "60000")
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536");
    Ok(client.create()?)
}

/// The newest records of real orders, each order's two.
fn samples(broker: &str) -> Result<[Vec<Record>; 2]> {
    let consumer = consumer(broker)?;
    let mut samples = [Vec::new(), Vec::new()];
    for (topic, samples) in TOPICS.iter().zip(&mut samples) {
        let mut from = TopicPartitionList::new();
        for partition in 0..PARTITIONS.cast_signed() {
            from.add_partition_offset(topic, partition, Offset::OffsetTail(SAMPLES))?;
        }
        consumer.assign(&from)?;
        let deadline = Instant::now() + PATIENCE;
        // What comes no more is not there.
        while Instant::now() < deadline {
            let wait = if samples.is_empty() { PATIENCE } else { Duration::from_millis(500) };
            let Some(message) = consumer.poll(wait) else { break };
            let message = message?;
            let headers = message.headers().into_iter().flat_map(rdkafka::message::Headers::iter);
            let headers = headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()));
            samples.push(Record {
                topic: format!("{PREFIX}{topic}"),
                partition: message.partition(),
                offset: 0,
                key: message.key().unwrap_or_default().to_vec(),
                payload: message.payload().unwrap_or_default().to_vec(),
                headers: headers.collect(),
            });
        }
        ensure!(!samples.is_empty(), "there is no record in {topic}");
    }
    Ok(samples)
}

/// Writes both records of as many orders as go in this time; how many.
fn produce(producer: &Sender, samples: &[Vec<Record>; 2], time: Duration) -> Result<u64> {
    let end = Instant::now() + time;
    let mut orders = 0;
    while Instant::now() < end {
        for _ in 0..100 {
            for samples in samples {
                let at = usize::try_from(orders).unwrap_or_default() % samples.len();
                send(producer, &samples[at])?;
            }
            orders += 1;
        }
    }
    Ok(orders)
}

fn send(producer: &Sender, record: &Record) -> Result<()> {
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    let headers = record
        .headers
        .iter()
        .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    let mut next = BaseRecord::to(&record.topic)
        .partition(record.partition)
        .key(&record.key)
        .payload(&record.payload)
        .headers(headers);
    while let Err((error, refused)) = producer.send(next) {
        let is_full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        ensure!(is_full, "the producer refuses records: {error}");
        next = refused;
        #[expect(clippy::disallowed_methods, reason = "the queue is asked again at once")]
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Consumes everything that is produced.
fn read(broker: &str, ends: Vec<((String, i32), i64)>, topics: &[&str], flow: &Flow) -> Result<()> {
    let consumer = consumer(broker)?;
    let mut from = TopicPartitionList::new();
    for ((topic, partition), end) in ends {
        from.add_partition_offset(&format!("{PREFIX}{topic}"), partition, Offset::Offset(end))?;
    }
    consumer.assign(&from)?;
    let mut read = 0;
    let mut last = Instant::now();
    loop {
        let all = flow.produced.load(Ordering::Acquire) * topics.len() as u64;
        if flow.done.load(Ordering::Acquire) && read >= all {
            return Ok(());
        }
        match consumer.poll(Duration::from_millis(50)) {
            Some(message) => {
                message?;
                read += 1;
                last = Instant::now();
            }
            None => ensure!(last.elapsed() < PATIENCE, "{read} of {all} records came"),
        }
    }
}
