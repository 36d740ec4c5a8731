//! The polling thread: takes what librdkafka has, sorts it into lanes, and keeps the group informed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use ordersaga_contract::{Event, cloud_event};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::assignment::Callbacks;
use super::lane::Item;
use super::observe::Observed;
use super::packed::Packed;
use super::poison::Poison;
use super::progress::Heard;
use super::{ERRORS, Handler, PAUSE_ABOVE, Place, RESUME_BELOW, Record, Shared, TRANSIT};
use crate::config::KafkaConfig;
use crate::kafka;

/// How long a poll waits: it bounds how late a pause, a resume or a stop is noticed.
const POLL: Duration = Duration::from_millis(50);
/// Records taken in one round before the lanes are told.
const ROUND: usize = 5_000;
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(2);
/// How often the group's offsets follow the database's.
const GROUP_COMMIT: Duration = Duration::from_secs(1);

pub(super) type Client<H> = BaseConsumer<Callbacks<H>>;

/// What the polling thread alone knows.
pub(super) struct Poller<'a, H: Handler> {
    pub(super) shared: &'a Arc<Shared<H>>,
    /// Errors reported about partitions, and the newest. They do not say of which.
    errors: u64,
    pub(super) heard: Option<Heard>,
    /// How many there had been when a partition last brought a record.
    errors_at_record: HashMap<Place, u64>,
    /// Partitions of which a record was passed over since it cannot be read: nothing behind it is
    /// taken until it can, or has been stepped over.
    pub(super) blocked: HashSet<Place>,
    pub(super) observed: Observed,
}

/// Polls until the consumer stops.
pub(super) fn run<H: Handler>(shared: &Arc<Shared<H>>) -> anyhow::Result<()> {
    let client = subscribe(shared)?;
    let mut poller = Poller {
        shared,
        errors: 0,
        heard: None,
        errors_at_record: HashMap::new(),
        blocked: HashSet::new(),
        observed: Observed::default(),
    };
    let mut committed = Instant::now();
    while !shared.stop.is_cancelled() {
        poller.poll_round(&client)?;
        if shared.out_of_step.load(Ordering::Acquire) {
            let assigned = client.assignment()?;
            shared.assign(&client, &assigned)?;
            poller.forget();
        }
        shared.steer(&client)?;
        if committed.elapsed() >= GROUP_COMMIT {
            shared.commit_to_group(&client);
            committed = Instant::now();
        }
        poller.observe(&client)?;
    }
    // Let a batch in flight end, so that what the group hears last is the truth.
    shared.wait_for_lanes();
    shared.commit_to_group(&client);
    leave(client);
    Ok(())
}

/// Leaves the group, which spares whoever comes next the session timeout. It hangs on a broker
/// that is gone: then nobody waits for it.
fn leave<H: Handler>(client: Client<H>) {
    let (done, left) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(client);
        done.send(())
    });
    if left.recv_timeout(LEAVE).is_err() {
        tracing::debug!("the broker did not hear that this consumer leaves");
    }
}

/// Settings of a client that reads as this consumer's group.
pub(super) fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = kafka::client(config);
    settings.set("group.id", &config.group);
    settings
}

fn subscribe<H: Handler>(shared: &Arc<Shared<H>>) -> anyhow::Result<Client<H>> {
    let config = &shared.consumer.kafka;
    let session = config.session_timeout.as_millis();
    let is_aside = shared.handler.is_aside();
    let mut settings = settings(config);
    settings
        // Equal partitions of all topics go to one member: an order's events meet in one place.
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Only for offsets the topic has already dropped: what is left is consumed from its start.
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", session.to_string())
        .set("heartbeat.interval.ms", (session / 3).to_string())
        .set("max.poll.interval.ms", "300000")
        // What nobody waits for is told in larger pieces.
        .set("fetch.wait.max.ms", if is_aside { "100" } else { "500" })
        .set("fetch.min.bytes", if is_aside { "1000000" } else { "1" })
        // A partition of which so many wait to be taken is left out of a fetch, and not heard of until
        // that fetch ends: they must be more than a batch.
        .set("queued.min.messages", "20000")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100")
        // A topic created after this service started is found soon.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true");
    let client = Client::from_config_and_context(&settings, Callbacks(shared.clone()))
        .context("consumer settings")?;
    let topics: Vec<_> = shared.consumer.topics.iter().map(|t| shared.topic_name(*t)).collect();
    client.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(client)
}

impl<H: Handler> Poller<'_, H> {
    /// Takes what is there, up to a bound, waiting a moment for the first record.
    fn poll_round(&mut self, client: &Client<H>) -> anyhow::Result<()> {
        let shared = self.shared;
        let mut queued: Vec<Vec<Item>> = shared.lanes.iter().map(|_| Vec::new()).collect();
        let mut epoch = shared.epoch();
        let mut wait = POLL;
        let mut taken = 0;
        while taken < ROUND {
            let polled = client.poll(wait);
            // A rebalance within the poll voids what came before it.
            if shared.epoch() != epoch {
                epoch = shared.epoch();
                queued.iter_mut().for_each(Vec::clear);
                self.forget();
            }
            match polled {
                None => {
                    self.observed.queue_was_empty();
                    break;
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(error).context("the consumer cannot go on");
                }
                Some(Err(error)) => self.hear(&error),
                Some(Ok(message)) => {
                    if let Some(item) = self.read(&message) {
                        taken += item.weight();
                        queued[shared.handler.lane_of(item.place.1)].push(item);
                    }
                }
            }
            wait = Duration::ZERO;
        }
        shared.enqueue(queued);
        Ok(())
    }

    /// What was known of partitions counts no more: they have been assigned anew.
    fn forget(&mut self) {
        self.errors_at_record.clear();
        self.blocked.clear();
        self.observed = Observed::default();
    }

    fn hear(&mut self, error: &KafkaError) {
        tracing::debug!(%error, "poll");
        let Some(code) = error.rdkafka_error_code() else { return };
        ERRORS.with_label_values(&[&format!("{code:?}")]).inc();
        self.shared.refusal.note(error, "reported instead of a record");
        // Of the way to the broker, not of a partition.
        let is_transport = matches!(
            code,
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
        );
        if !is_transport {
            self.errors += 1;
            self.heard = Some(Heard { at: Instant::now(), error: error.to_string() });
        }
    }

    fn read(&mut self, message: &BorrowedMessage<'_>) -> Option<Item> {
        let topic = self.shared.topic_of(message.topic())?;
        let partition = u32::try_from(message.partition()).ok()?;
        let (place, offset) = ((topic, partition), message.offset());
        let from = *self.shared.fetched.lock().get(&place)?;
        if offset > from && !self.may_skip(place, from, offset) {
            return None;
        }
        let key = message.key().unwrap_or_default();
        let payload = message.payload().unwrap_or_default();
        let content = match Event::decode(topic, partition, key, payload) {
            Ok(event) => {
                let record = Record { event, traceparent: traceparent(message) };
                Ok((record, Packed::of(message)))
            }
            Err(error) => {
                let (key, payload) = (message.key(), message.payload());
                let (headers, error) = (kafka::headers(message), error.to_string());
                Err(Box::new(Poison::new(key, payload, headers, &error)))
            }
        };
        if let Some(created) = message.timestamp().to_millis() {
            let passed = crate::clock::now().timestamp_millis() - created;
            TRANSIT.with_label_values(&[topic.name()]).observe(passed.max(0) as f64 / 1_000.0);
        }
        self.shared.fetched.lock().insert(place, offset + 1);
        if self.errors > 0 {
            self.errors_at_record.insert(place, self.errors);
        }
        Some(Item { place, from, offset, content })
    }

    /// Whether the records between two offsets may be passed over: there are none, or they were
    /// gone. The client also passes over one that it cannot read, after it has reported an error.
    fn may_skip(&mut self, place: Place, from: i64, to: i64) -> bool {
        if self.blocked.contains(&place) {
            return false;
        }
        if self.has_complained(place) && self.hides_a_record(place, from, to) {
            self.blocked.insert(place);
            return false;
        }
        // From the beginning of a topic that has lost its own.
        if from > 0 {
            self.observed.skipped(place, from, to);
        }
        true
    }

    /// Whether an error was reported since the partition last brought a record.
    pub(super) fn has_complained(&self, place: Place) -> bool {
        self.errors > self.errors_at_record.get(&place).copied().unwrap_or_default()
    }
}

impl<H: Handler> Shared<H> {
    fn enqueue(&self, queued: Vec<Vec<Item>>) {
        for (lane, items) in self.lanes.iter().zip(queued) {
            if !items.is_empty() {
                let urgent = |item: &Item| match &item.content {
                    Ok((record, _)) => self.handler.is_urgent(record),
                    Err(_) => false,
                };
                let is_urgent = items.iter().any(urgent);
                lane.queue.lock().extend(items, is_urgent);
                lane.arrived.notify_one();
            }
        }
    }

    /// Pauses the partitions of lanes that are far behind, and lets those that caught up go on.
    fn steer(&self, client: &Client<H>) -> anyhow::Result<()> {
        for (number, lane) in self.lanes.iter().enumerate() {
            let waiting = lane.queue.lock().weight();
            let mut paused = lane.paused.lock();
            if paused.is_none() && waiting > PAUSE_ABOVE {
                let partitions = self.partitions_of(number)?;
                client.pause(&partitions)?;
                *paused = Some(partitions);
            } else if waiting < RESUME_BELOW
                && let Some(partitions) = paused.take()
            {
                client.resume(&partitions)?;
            }
        }
        Ok(())
    }

    fn partitions_of(&self, lane: usize) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in self.applied.lock().keys() {
            if self.handler.lane_of(*partition) == lane {
                list.add_partition(&self.topic_name(*topic), i32::try_from(*partition)?);
            }
        }
        Ok(list)
    }

    /// Tells the group how far the database is: for lag displays, not for ourselves.
    fn commit_to_group(&self, client: &Client<H>) {
        if !self.group_is_behind.swap(false, Ordering::AcqRel) {
            return;
        }
        let positions: Vec<(Place, i64)> =
            self.applied.lock().iter().map(|(place, offset)| (*place, *offset)).collect();
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for ((topic, partition), offset) in positions {
            let Ok(partition) = i32::try_from(partition) else { continue };
            let offset = Offset::Offset(offset);
            if let Err(error) =
                list.add_partition_offset(&self.topic_name(topic), partition, offset)
            {
                tracing::debug!(%error, "an offset the group cannot hold");
            }
        }
        crate::crash::point("consumer.before_group_commit");
        if list.count() > 0
            && let Err(error) = client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the group's offsets stay behind");
        }
    }
}

fn traceparent(message: &BorrowedMessage<'_>) -> Option<String> {
    let header = kafka::reading_headers(|| {
        let header = message.headers()?.iter().find(|h| h.key == cloud_event::TRACEPARENT)?;
        std::str::from_utf8(header.value?).ok()
    });
    header?.filter(|context| cloud_event::is_traceparent(context)).map(str::to_owned)
}
