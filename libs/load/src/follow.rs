//! Follows the topics that tell how orders go on. Only as much of a record is looked at as is
//! needed: a record costs this program less than it cost the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use memchr::memmem::Finder;
use ordersaga_contract::{Fact, PARTITIONS, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::Plan;
use crate::answer::number;
use crate::clock::Clock;
use crate::live::Live;
use crate::orders::Orders;
use crate::said::{RELEASED, RESERVED, Said, Words, reset_by};
use crate::tally::Tally;

/// The topics that are followed: what they say ends the waiting for an order, or undoes it.
const TOPICS: [Topic; 2] = [Topic::Reservation, Topic::Reset];
const TIMEOUT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// From so many orders a second on the broker may wait for more records, so long and until there
/// are so many bytes: many at once are cheaper for all.
const DENSE: f64 = 1_000.0;
const DELAY_MS: u16 = 5;
const ENOUGH_BYTES: u32 = 1 << 16;
/// How long it waits for the first.
const SILENCE_MS: u16 = 100;

/// What the topics told.
pub(crate) struct Followed {
    pub(crate) tally: Tally,
    pub(crate) said: Words,
}

/// A thread that follows until it is asked for what it saw.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Followed>>,
}

/// How long the broker may keep a record back, in milliseconds.
pub(crate) fn delay_ms(plan: &Plan) -> u16 {
    if plan.rate.is_none_or(|rate| rate >= DENSE) { DELAY_MS } else { 0 }
}

/// A consumer that is where the topics end now.
pub(crate) fn at_the_end(plan: &Plan) -> Result<BaseConsumer> {
    let (wait, enough) = match delay_ms(plan) {
        0 => (SILENCE_MS, 1),
        delay => (delay, ENOUGH_BYTES),
    };
    let mut client = ClientConfig::new();
    plan.target.security.apply_to(&mut client);
    let consumer: BaseConsumer = client
        .set("bootstrap.servers", &plan.target.brokers)
        // Only a name that the client insists on: nothing is committed to it.
        .set("group.id", format!("{}ordersaga-load", plan.target.topic_prefix))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("socket.nagle.disable", "true")
        .set("fetch.wait.max.ms", wait.to_string())
        .set("fetch.min.bytes", enough.to_string())
        .set("max.partition.fetch.bytes", "4194304")
        .set("queued.max.messages.kbytes", "262144")
        .set("queued.min.messages", "1000000")
        .create()?;
    let mut asked = TopicPartitionList::new();
    for topic in TOPICS {
        for partition in 0..PARTITIONS {
            let partition = i32::try_from(partition)?;
            asked.add_partition_offset(&name(plan, topic), partition, Offset::End)?;
        }
    }
    let brokers = &plan.target.brokers;
    let ends = consumer
        .offsets_for_times(asked, TIMEOUT)
        .with_context(|| format!("the broker at {brokers} does not tell where the topics end"))?;
    for element in ends.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        element.error().with_context(|| format!("the end of {topic}, partition {partition}"))?;
    }
    consumer.assign(&ends)?;
    Ok(consumer)
}

fn name(plan: &Plan, topic: Topic) -> String {
    format!("{}{topic}", plan.target.topic_prefix)
}

/// Waits until something is said of this order, which shows that orders end and are followed.
pub(crate) fn await_end(consumer: &BaseConsumer, order: i64, within: Duration) -> Result<()> {
    let (key, deadline) = (order.to_string(), Instant::now() + within);
    while Instant::now() < deadline {
        if let Some(message) = consumer.poll(LOOK)
            && message?.key() == Some(key.as_bytes())
        {
            return Ok(());
        }
    }
    bail!(
        "order {order} was acknowledged, and {} s later nothing is said of it on the topics: does \
         the store run, and are these its broker and its topics' prefix?",
        within.as_secs()
    )
}

impl Follower {
    pub(crate) fn start(
        consumer: BaseConsumer,
        plan: &Plan,
        clock: Clock,
        orders: Arc<Orders>,
        live: Arc<Live>,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            reset: name(plan, Topic::Reset),
            released: Finder::new(Fact::Released.event_type()),
            initiator: Finder::new("\"initiator\":\""),
            tally: Tally::new(crate::clock::from_seconds(plan.warmup_seconds)),
            said: Words::default(),
            clock,
            orders,
            live,
        };
        let until = stop.clone();
        let thread = std::thread::Builder::new().name("follow".into()).spawn(move || {
            while !until.load(Ordering::Acquire) {
                match consumer.poll(LOOK) {
                    None => {}
                    Some(Ok(message)) => reader.take(&message),
                    Some(Err(error)) => worth_an_end(error)?,
                }
            }
            Ok(Followed { tally: reader.tally, said: reader.said })
        })?;
        Ok(Self { stop, thread })
    }

    /// Whether it has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Result<Followed> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the thread that follows the topics panicked"))?
    }
}

/// The client goes on by itself when the broker comes back; but not where records are gone.
fn worth_an_end(error: rdkafka::error::KafkaError) -> Result<()> {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable,
        ) => Ok(()),
        _ => Err(error).context("cannot follow the topics"),
    }
}

struct Reader {
    reset: String,
    released: Finder<'static>,
    initiator: Finder<'static>,
    tally: Tally,
    said: Words,
    clock: Clock,
    orders: Arc<Orders>,
    live: Arc<Live>,
}

impl Reader {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        self.live.records.fetch_add(1, Ordering::Relaxed);
        let payload = message.payload().unwrap_or_default();
        let said = self.read(message.topic() == self.reset, payload);
        if let Some(order) = message.key().and_then(number)
            && let Some(place) = self.orders.place(order)
        {
            self.note(place, said);
        }
    }

    /// What a record says.
    fn read(&self, is_reset: bool, payload: &[u8]) -> Said {
        if !is_reset {
            let is_release = self.released.find(payload).is_some();
            return if is_release { RELEASED } else { RESERVED };
        }
        let begin = self.initiator.find(payload).map(|at| at + self.initiator.needle().len());
        reset_by(begin.map_or(&[][..], |begin| &payload[begin..]))
    }

    fn note(&mut self, place: usize, said: Said) {
        if self.said.add(place, said) {
            let now = self.clock.now();
            if let Some(begun) = self.orders.ended(place, now) {
                self.tally.ended(begun, now);
                self.live.ended_there.fetch_add(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::{Cancellation, Event, EventKind, Initiator, Order, Reason};

    use super::*;
    use crate::said::{BY_CLIENT, BY_DEADLINE, BY_STORE, RESERVED_FIRST};

    fn reader() -> Reader {
        Reader {
            reset: "reset".to_owned(),
            released: Finder::new(Fact::Released.event_type()),
            initiator: Finder::new("\"initiator\":\""),
            tally: Tally::new(0),
            said: Words::default(),
            clock: Clock::start(),
            orders: Arc::new(Orders::new(1)),
            live: Arc::default(),
        }
    }

    /// What the follower makes of an event as the services write it.
    fn told(kind: EventKind) -> Said {
        let order = Order {
            order_id: 17.try_into().unwrap(),
            item_id: 1.try_into().unwrap(),
            seller_id: 1.try_into().unwrap(),
            client_id: 1.try_into().unwrap(),
            quantity: 1.try_into().unwrap(),
        };
        let time = std::time::SystemTime::UNIX_EPOCH.into();
        let event = Event { order, kind, time };
        reader().read(kind.fact().topic() == Topic::Reset, &event.encode())
    }

    #[test]
    fn records_say_the_same_as_the_events_they_are() {
        let reset = |initiator, reason| EventKind::OrderReset(Cancellation { initiator, reason });
        assert_eq!(told(EventKind::ItemReserved), RESERVED);
        assert_eq!(told(EventKind::ReservationReleased), RELEASED);
        assert_eq!(told(reset(Initiator::Client, Reason::CancelledByClient)), BY_CLIENT);
        assert_eq!(told(reset(Initiator::Store, Reason::OutOfStock)), BY_STORE);
        assert_eq!(told(reset(Initiator::Deadline, Reason::DeadlineExceeded)), BY_DEADLINE);
    }

    #[test]
    fn an_order_ends_once_with_the_first_that_is_said() {
        let mut reader = reader();
        reader.orders.begun(5, 0);
        for said in [RELEASED, BY_CLIENT, RESERVED, RESERVED] {
            reader.note(5, said);
        }
        assert_eq!(reader.tally.end.summary().count, 1);
        assert_eq!(reader.said.of(5), RELEASED | BY_CLIENT | RESERVED);
        reader.note(6, RESERVED);
        assert_eq!(reader.said.of(6), RESERVED | RESERVED_FIRST);
        assert_eq!(reader.live.ended(), 1, "6 was not acknowledged");
    }
}
