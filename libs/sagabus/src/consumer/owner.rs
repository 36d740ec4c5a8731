//! The task that has all a consumer knows: it takes what librdkafka has, sorts it into lanes, begins
//! their batches, and keeps the group informed. Whoever else knows something sends it here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{CommitMode, Consumer as _, MessageStream, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{ClientConfig, Offset, Statistics, TopicPartitionList};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::{Done, Run, TRANSACTION_TIMEOUT};
use super::dead_letter::DeadLetter;
use super::observe::Observed;
use super::progress::Heard;
use super::queue::{Item, Queue, Raw, Slot};
use super::rebalance::{Callbacks, Handover, Loading, Next, number};
use super::{BATCH, Consumer, Handler, PAUSE_ABOVE, Place, RESUME_BELOW, Record};
use crate::error::with_sources;
use crate::kafka::{self, Refusal};
use crate::{Error, Message, Pace, Received, cloud_event};

/// Records taken in one round before batches are begun, and those in flight go on.
const ROUND: usize = 1_000;
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(2);
/// How often the group's offsets follow the database's.
const GROUP_COMMIT: Duration = Duration::from_secs(1);
/// When the owner looks again if nothing happens before.
const LATER: Duration = Duration::from_mins(1);

pub(super) type Client = StreamConsumer<Callbacks>;
pub(super) type Batches<'c> = FuturesUnordered<BoxFuture<'c, (Done, Duration)>>;
pub(super) type Events = UnboundedSender<Event>;

/// What the owner is told.
pub(super) enum Event {
    /// The group has given it partitions, or taken them.
    Assigned(TopicPartitionList),
    Revoked,
    /// Once a second, by librdkafka.
    Statistics(Box<Statistics>),
    /// A lane's batch has failed and is tried again.
    Retry {
        lane: usize,
        why: &'static str,
    },
    /// A part of it has been applied.
    GoesOn {
        lane: usize,
    },
}

/// What the consumer knows.
pub(super) struct Owner<'c, H: Handler> {
    pub(super) consumer: &'c Consumer<H>,
    pub(super) client: &'c Arc<Client>,
    pub(super) refusal: Arc<Refusal>,
    pub(super) lanes: Vec<Lane<'c, H::Message>>,
    /// The lanes' batches in flight.
    pub(super) running: Batches<'c>,
    /// Batches of partitions that were taken away, until their transactions end: the offsets fence
    /// them.
    pub(super) late: Batches<'c>,
    /// Batches that ended while something else was waited for.
    ended: Vec<(Done, Duration)>,
    /// What librdkafka has told last, until it is looked at.
    statistics: Option<Box<Statistics>>,
    events: Events,
    pub(super) stop: CancellationToken,
    /// Cancelled when what is in flight is not ours any more, or the consumer stops.
    pub(super) void: CancellationToken,
    pub(super) handover: Option<Handover>,
    pub(super) loading: Option<Loading<'c>>,
    /// It has partitions and consumes them.
    pub(super) is_assigned: bool,
    /// The next offset of each assigned partition: applied, and fetched.
    pub(super) applied: HashMap<Place, i64>,
    pub(super) fetched: HashMap<Place, i64>,
    /// The group has not been told of everything applied since then.
    group_is_behind: Option<Instant>,
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

/// Records whose effects go to one place.
pub(super) struct Lane<'c, M> {
    pub(super) queue: Queue<'c, M>,
    pace: Pace,
    /// A batch is in flight.
    pub(super) is_busy: bool,
    /// Since when that batch has failed, and the newest reason.
    pub(super) retried: Option<(Instant, &'static str)>,
    /// The partitions paused because the queue is long: librdkafka forgets a pause only when told.
    pub(super) paused: Option<TopicPartitionList>,
}

/// Consumes until stopped.
pub(super) async fn run<H: Handler>(
    consumer: &Consumer<H>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (events, told) = unbounded_channel();
    let refusal = Arc::new(Refusal::default());
    let callbacks = Callbacks {
        events: events.clone(),
        refusal: refusal.clone(),
        is_leaving: AtomicBool::new(false),
        calls: AtomicU64::new(0),
    };
    let mut member = Member(Some(Arc::new(subscribe(consumer, callbacks)?)));
    let ended = match &member.0 {
        Some(client) => own(consumer, client, refusal, (events, told), stop).await,
        None => Ok(()),
    };
    if let Some(left) = member.leave()
        && tokio::time::timeout(LEAVE, left).await.is_err()
    {
        tracing::debug!("the broker did not hear that this consumer leaves");
    }
    ended
}

async fn own<'c, H: Handler>(
    consumer: &'c Consumer<H>,
    client: &'c Arc<Client>,
    refusal: Arc<Refusal>,
    (events, told): (Events, UnboundedReceiver<Event>),
    stop: CancellationToken,
) -> Result<(), Error> {
    let lane = |_| Lane {
        queue: Queue::default(),
        pace: Pace::following(),
        is_busy: false,
        retried: None,
        paused: None,
    };
    let owner = Owner {
        consumer,
        client,
        refusal,
        lanes: (0..consumer.handler.lanes()).map(lane).collect(),
        running: FuturesUnordered::new(),
        late: FuturesUnordered::new(),
        ended: Vec::new(),
        statistics: None,
        events,
        void: stop.child_token(),
        stop,
        handover: None,
        loading: None,
        is_assigned: false,
        applied: HashMap::new(),
        fetched: HashMap::new(),
        group_is_behind: None,
        errors: 0,
        heard: None,
        errors_at_record: HashMap::new(),
        blocked: HashSet::new(),
        observed: Observed::default(),
    };
    owner.run(told).await
}

/// The client, which leaves the group when it goes.
struct Member(Option<Arc<Client>>);

impl Member {
    /// Leaves the group, which spares whoever comes next the session timeout. It hangs on a broker
    /// that is gone, so a thread does it that nobody waits for.
    fn leave(&mut self) -> Option<oneshot::Receiver<()>> {
        let client = self.0.take()?;
        client.context().is_leaving.store(true, Ordering::Release);
        let (done, left) = oneshot::channel();
        std::thread::spawn(move || {
            // A rebalance may wait for it, and would keep the client from closing.
            let _ = client.unassign();
            drop(client);
            let _ = done.send(());
        });
        Some(left)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Settings of a client that reads as this consumer's group.
pub(super) fn settings<H>(consumer: &Consumer<H>) -> ClientConfig {
    let mut settings = kafka::client(&consumer.bus.kafka);
    settings.set("group.id", &consumer.group);
    settings
}

fn subscribe<H: Handler>(consumer: &Consumer<H>, callbacks: Callbacks) -> Result<Client, Error> {
    let session = consumer.session_timeout.as_millis();
    let is_aside = consumer.handler.is_aside();
    let mut settings = settings(consumer);
    settings
        // Equal partitions of all topics go to one member: what belongs together meets in one place.
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
    let client = Client::from_config_and_context(&settings, callbacks)?;
    let topics: Vec<_> = consumer.topics.iter().map(|topic| topic.full_name.as_str()).collect();
    client.subscribe(&topics)?;
    Ok(client)
}

impl<'c, H: Handler> Owner<'c, H> {
    async fn run(mut self, mut told: UnboundedReceiver<Event>) -> Result<(), Error> {
        let client: &'c Client = self.client;
        let mut stream = client.stream();
        while !self.stop.is_cancelled() {
            while let Ok(event) = told.try_recv() {
                self.hear_of(event);
            }
            if let Some(statistics) = self.statistics.take() {
                self.observe(&statistics).await?;
            }
            let is_full = self.take(&mut stream).await?;
            for (done, took) in std::mem::take(&mut self.ended) {
                self.end_batch(done, took)?;
            }
            self.go_on();
            self.start_batches();
            self.steer()?;
            self.tell_group();
            if is_full {
                // What is there is taken without waiting: others have work, too.
                tokio::task::yield_now().await;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(ended) = ended(&mut self.running, &mut self.late) => self.ended.push(ended),
                Some(event) = told.recv() => self.hear_of(event),
                Some(positions) = loaded(&mut self.loading) => self.begin(positions)?,
                Some(polled) = stream.next() => {
                    self.receive(polled).await?;
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        self.end().await
    }

    /// Lets batches in flight end, so that what the group hears last is the truth.
    async fn end(mut self) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + TRANSACTION_TIMEOUT;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, ended(&mut self.running, &mut self.late)).await
        {
            self.ended.push(ended);
        }
        for (done, took) in std::mem::take(&mut self.ended) {
            self.end_batch(done, took)?;
        }
        if self.group_is_behind.is_some() {
            self.commit_to_group();
        }
        Ok(())
    }

    /// Waits for something while batches go on.
    pub(super) async fn meanwhile<T>(&mut self, mut work: BoxFuture<'_, T>) -> T {
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                Some(ended) = ended(&mut self.running, &mut self.late) => self.ended.push(ended),
            }
        }
    }

    fn hear_of(&mut self, event: Event) {
        match event {
            Event::Assigned(partitions) => self.hand_over(Next::Assign(partitions)),
            Event::Revoked => self.hand_over(Next::Unassign),
            Event::Statistics(statistics) => self.statistics = Some(statistics),
            Event::Retry { lane, why } => {
                let lane = &mut self.lanes[lane];
                if lane.is_busy {
                    lane.retried.get_or_insert((Instant::now(), why)).1 = why;
                    lane.queue.detach();
                }
            }
            Event::GoesOn { lane } => self.lanes[lane].retried = None,
        }
    }

    /// Takes what is there, up to a bound; true if there may be more.
    async fn take(&mut self, stream: &mut MessageStream<'c, Callbacks>) -> Result<bool, Error> {
        let mut taken = 0;
        while taken < ROUND {
            let calls = self.client.context().calls.load(Ordering::Acquire);
            if let Some(polled) = stream.next().now_or_never().flatten() {
                taken += self.receive(polled).await?;
            } else if self.client.context().calls.load(Ordering::Acquire) == calls {
                // Nothing was found, not even what is no record, as a report.
                self.observed.queue_was_empty();
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Queues a record, and tells its weight.
    async fn receive(
        &mut self,
        polled: Result<BorrowedMessage<'c>, KafkaError>,
    ) -> Result<usize, Error> {
        match polled {
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => Err(error.into()),
            Err(error) => {
                self.hear(&error);
                Ok(1)
            }
            Ok(message) => Ok(self.queue(message).await.unwrap_or(1)),
        }
    }

    /// What was known of partitions counts no more: they have been assigned anew.
    pub(super) fn forget(&mut self) {
        self.errors_at_record.clear();
        self.blocked.clear();
        self.observed = Observed::default();
    }

    fn hear(&mut self, error: &KafkaError) {
        tracing::debug!(%error, "poll");
        let Some(code) = error.rdkafka_error_code() else { return };
        let errors = &self.consumer.bus.metrics.errors;
        errors.with_label_values(&[&format!("{code:?}")]).inc();
        self.refusal.note(error, "reported instead of a record");
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

    async fn queue(&mut self, message: BorrowedMessage<'c>) -> Option<usize> {
        let topic = self.consumer.topic_of(message.topic())?;
        let partition = u32::try_from(message.partition()).ok()?;
        let (place, offset) = ((topic, partition), message.offset());
        let from = *self.fetched.get(&place)?;
        if offset > from && !self.may_skip(place, from, offset).await {
            return None;
        }
        self.fetched.insert(place, offset + 1);
        if self.errors > 0 {
            self.errors_at_record.insert(place, self.errors);
        }
        let (item, is_urgent) = self.read(Slot { place, from, offset }, message);
        let weight = item.weight;
        let lane = &mut self.lanes[self.consumer.handler.lane_of(partition)];
        // A lane that does not get on is not to hold the broker's answers in memory.
        let item = if lane.retried.is_some() { item.detached() } else { item };
        lane.queue.push(item, is_urgent);
        Some(weight)
    }

    /// Reads a record, and tells whether somebody waits for it.
    fn read(&self, slot: Slot, raw: BorrowedMessage<'c>) -> (Item<'c, H::Message>, bool) {
        let Consumer { bus, handler, .. } = self.consumer;
        let topic = self.consumer.name(slot.place);
        let created = kafka::created(&raw);
        if let Some(created) = created {
            let now = Duration::from_micros((bus.clock)().timestamp_micros().unsigned_abs());
            let passed = now.saturating_sub(created).as_secs_f64();
            bus.metrics.transit.with_label_values(&[topic]).observe(passed);
        }
        let received = Received {
            topic,
            partition: slot.place.1,
            key: raw.key().unwrap_or_default(),
            payload: raw.payload().unwrap_or_default(),
            created,
        };
        match H::Message::decode(&received) {
            Ok(message) => {
                let (traceparent, header_bytes) = headers(&raw);
                let record = Record { message, traceparent };
                let is_urgent = handler.is_urgent(&record);
                let bytes = raw.payload_len() + raw.key_len() + header_bytes;
                (Item::message(slot, record, Raw::Borrowed(raw), bytes), is_urgent)
            }
            Err(error) => {
                let (key, payload) = (raw.key(), raw.payload());
                let (headers, error) = (kafka::headers(&raw), with_sources(&error));
                (Item::dead(slot, DeadLetter::new(key, payload, headers, &error)), false)
            }
        }
    }

    /// Whether the records between two offsets may be passed over: there are none, or they were
    /// gone. The client also passes over one that it cannot read, after it has reported an error.
    async fn may_skip(&mut self, place: Place, from: i64, to: i64) -> bool {
        if self.blocked.contains(&place) {
            return false;
        }
        if self.has_complained(place) && self.hides_a_record(place, from, to).await {
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

    /// How long a lane waits before its next batch; `None` if it has nothing to begin.
    fn rest(lane: &Lane<'c, H::Message>) -> Option<Duration> {
        let rest = lane.queue.rest()?.max(lane.pace.rest());
        (!lane.is_busy).then_some(rest)
    }

    fn start_batches(&mut self) {
        for number in 0..self.lanes.len() {
            let lane = &mut self.lanes[number];
            if Self::rest(lane) != Some(Duration::ZERO) {
                continue;
            }
            lane.is_busy = true;
            let items = lane.queue.take(BATCH);
            let run = Run {
                consumer: self.consumer,
                lane: number,
                events: self.events.clone(),
                void: self.void.clone(),
            };
            self.running.push(Box::pin(async move {
                let begun = Instant::now();
                let done = run.settle(items).await;
                (done, begun.elapsed())
            }));
        }
    }

    fn end_batch(&mut self, done: Done, took: Duration) -> Result<(), Error> {
        let time = &self.consumer.bus.metrics.batch_time;
        time.with_label_values(&[&done.lane.to_string()]).observe(took.as_secs_f64());
        let lane = &mut self.lanes[done.lane];
        lane.pace.took(took);
        lane.is_busy = false;
        lane.retried = None;
        for (place, to) in done.applied {
            // Those taken away meanwhile are not here.
            if let Some(applied) = self.applied.get_mut(&place) {
                *applied = to;
                self.group_is_behind.get_or_insert_with(Instant::now);
            }
        }
        if done.is_fenced && self.handover.is_none() && !self.stop.is_cancelled() {
            tracing::info!("offsets were moved elsewhere: starting again from them");
            self.start_over()?;
        }
        Ok(())
    }

    /// When there is something to do, if nothing happens before.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let lanes = self.lanes.iter().filter_map(Self::rest).map(|rest| now + rest);
        let handover = self.handover.as_ref().map(|handover| handover.until);
        let group = self.group_is_behind.map(|since| since + GROUP_COMMIT);
        lanes.chain(handover).chain(group).min().unwrap_or(now + LATER)
    }

    /// Pauses the partitions of lanes that are far behind, and lets those that caught up go on.
    fn steer(&mut self) -> Result<(), Error> {
        for number in 0..self.lanes.len() {
            let waiting = self.lanes[number].queue.weight();
            let is_paused = self.lanes[number].paused.is_some();
            if !is_paused && waiting > PAUSE_ABOVE {
                let partitions = self.partitions_of(number);
                self.client.pause(&partitions)?;
                self.lanes[number].paused = Some(partitions);
            } else if waiting < RESUME_BELOW
                && let Some(partitions) = self.lanes[number].paused.take()
            {
                self.client.resume(&partitions)?;
            }
        }
        Ok(())
    }

    fn partitions_of(&self, lane: usize) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for place in self.applied.keys() {
            if self.consumer.handler.lane_of(place.1) == lane {
                list.add_partition(&self.consumer.topics[place.0].full_name, number(*place));
            }
        }
        list
    }

    /// Tells the group how far the database is: for lag displays, not for ourselves.
    fn tell_group(&mut self) {
        if self.group_is_behind.is_some_and(|since| since.elapsed() >= GROUP_COMMIT) {
            self.commit_to_group();
        }
    }

    fn commit_to_group(&mut self) {
        self.group_is_behind = None;
        let mut list = TopicPartitionList::with_capacity(self.applied.len());
        for (place, offset) in &self.applied {
            let topic = &self.consumer.topics[place.0].full_name;
            let offset = Offset::Offset(*offset);
            if let Err(error) = list.add_partition_offset(topic, number(*place), offset) {
                tracing::debug!(%error, "an offset the group cannot hold");
            }
        }
        crate::crash::point("consumer.before_group_commit");
        if list.count() > 0
            && let Err(error) = self.client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the group's offsets stay behind");
        }
    }
}

/// The next batch that ends; `None` if none is in flight. Those that come late go on, too.
async fn ended(running: &mut Batches<'_>, late: &mut Batches<'_>) -> Option<(Done, Duration)> {
    loop {
        tokio::select! {
            Some(ended) = running.next(), if !running.is_empty() => return Some(ended),
            Some(_) = late.next(), if !late.is_empty() => {}
            else => return None,
        }
    }
}

/// What is being loaded, once it is; `None` at once if nothing is.
async fn loaded(loading: &mut Option<Loading<'_>>) -> Option<HashMap<Place, i64>> {
    Some(loading.as_mut()?.await)
}

/// The trace context that a record came with, and how many bytes its headers have.
fn headers(message: &BorrowedMessage<'_>) -> (Option<String>, usize) {
    let (mut traceparent, mut bytes) = (None, 0);
    kafka::reading_headers(|| {
        for header in message.headers().into_iter().flat_map(Headers::iter) {
            bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
            if header.key == cloud_event::TRACEPARENT {
                traceparent = header.value.and_then(|value| std::str::from_utf8(value).ok());
            }
        }
    });
    let traceparent = traceparent.filter(|context| cloud_event::is_traceparent(context));
    (traceparent.map(str::to_owned), bytes)
}
