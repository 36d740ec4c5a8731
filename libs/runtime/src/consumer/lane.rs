//! A lane: the queue of records whose effects go to one place, and the task that applies them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::OptionFuture;
use ordersaga_contract::Topic;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::Notify;

use super::packed::Packed;
use super::poison::Poison;
use super::{
    ASIDE, ApplyError, BATCH, BATCH_SIZE, BATCH_TIME, Handler, Place, RECORDS, Record, Shared,
};
use crate::backoff::Backoff;
use crate::halves::Halves;
use crate::pace::Pace;
use crate::postgres::{self, Lease};
use crate::{clock, crash, outbox, trace};

/// A transaction that takes longer than this is given up and repeated.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The SQLSTATE by which `move_offsets` says that an offset was elsewhere.
const FENCE: &str = "FENCE";

/// What an event takes, about.
const EVENT_BYTES: usize = 1_024;

#[derive(Default)]
pub(super) struct Lane {
    pub(super) queue: Mutex<Queue>,
    /// Something was queued.
    pub(super) arrived: Notify,
    /// Held while a batch is applied: a rebalance waits for it.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// The partitions paused because the queue is long: librdkafka forgets a pause only when told.
    pub(super) paused: Mutex<Option<TopicPartitionList>>,
}

/// Records on their way, in order.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    weight: usize,
    /// When the first of them has waited long enough for others; none while somebody waits for one.
    due: Option<Instant>,
}

impl Queue {
    pub(super) fn extend(&mut self, items: Vec<Item>, is_urgent: bool) {
        if is_urgent {
            self.due = None;
        } else if self.items.is_empty() {
            self.due = Some(Instant::now() + ASIDE);
        }
        self.weight += items.iter().map(Item::weight).sum::<usize>();
        self.items.extend(items);
    }

    /// How long they wait for others still; `None` if there are none.
    fn rest(&self) -> Option<Duration> {
        let due = if self.weight < BATCH { self.due } else { None };
        let rest = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
        (!self.items.is_empty()).then_some(rest)
    }

    /// What it holds, counted in ordinary records.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The first items of about this weight: one at least, if there is any.
    fn take(&mut self, weight: usize) -> Vec<Item> {
        let mut taken = 0;
        let count = self.items.iter().take_while(|item| {
            let begun = taken < weight;
            taken += item.weight();
            begun
        });
        let items: Vec<_> = self.items.drain(..count.count()).collect();
        self.weight -= items.iter().map(Item::weight).sum::<usize>();
        items
    }
}

/// A record in a lane.
pub(super) struct Item {
    pub(super) place: Place,
    /// The partition's next offset before this record and after it. They follow on from record to
    /// record, so that a batch which does not continue what was applied is fenced.
    pub(super) from: i64,
    pub(super) offset: i64,
    pub(super) content: Result<(Record, Packed), Box<Poison>>,
}

impl Item {
    /// 1 for an ordinary record, more for a large one, which is kept as it was: a flood of those must
    /// not fill the memory.
    pub(super) fn weight(&self) -> usize {
        let bytes = match &self.content {
            Ok((_, packed)) => packed.bytes(),
            Err(poison) => poison.bytes,
        };
        1 + bytes / EVENT_BYTES
    }

    /// Turns an event that can never be applied into what becomes a dead letter.
    fn condemn(&mut self, error: &anyhow::Error) {
        if let Ok((_, packed)) = &self.content {
            let raw = packed.unpack(self.offset);
            self.content = Err(Box::new(Poison::of(raw, &format!("{error:#}"))));
        }
    }
}

/// A batch with the offsets it moves.
struct Batch {
    records: Vec<Record>,
    /// Where the records stand, and how they were.
    slots: Vec<(Slot, Packed)>,
    poison: Vec<(Slot, Box<Poison>)>,
    moves: HashMap<Place, Move>,
}

/// Where a record stands: see [`Item`].
#[derive(Clone, Copy)]
struct Slot {
    place: Place,
    from: i64,
    offset: i64,
}

/// A partition's next offset before and after a batch.
struct Move {
    from: i64,
    to: i64,
}

enum Outcome<A> {
    Applied(A),
    /// The database's offsets are not those this batch starts from: somebody else has moved them.
    Fenced,
}

/// How trying a batch ended.
enum Settled {
    Applied,
    /// It is not ours any more, or the consumer stops.
    Void,
    /// One of its records can never be applied.
    Poisoned(Batch, anyhow::Error),
}

impl<H: Handler> Shared<H> {
    /// Applies what arrives until the consumer stops.
    pub(super) async fn run_lane(&self, number: usize) {
        let lane = &self.lanes[number];
        let mut pace = Pace::following();
        let time = BATCH_TIME.with_label_values(&[&number.to_string()]);
        while !self.stop.is_cancelled() {
            let rest = lane.queue.lock().rest().map(|rest| rest.max(pace.rest()));
            if rest == Some(Duration::ZERO) {
                let _turn = lane.turn.lock().await;
                let epoch = self.epoch();
                let items = lane.queue.lock().take(BATCH);
                let begun = Instant::now();
                self.settle(number, epoch, items).await;
                self.retried.lock().remove(&number);
                time.observe(begun.elapsed().as_secs_f64());
                pace.took(begun.elapsed());
                continue;
            }
            let rested: OptionFuture<_> = rest.map(tokio::time::sleep).into();
            tokio::select! {
                () = lane.arrived.notified() => {}
                Some(()) = rested => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Applies items, however often it takes, unless their partitions are taken away meanwhile.
    /// One that can never be applied becomes a dead letter.
    async fn settle(&self, lane: usize, epoch: u64, items: Vec<Item>) {
        let mut halves = Halves::new(items);
        while let Some(items) = halves.take() {
            match self.try_batch(lane, epoch, Batch::new(items)).await {
                Settled::Applied => {}
                Settled::Void => return,
                Settled::Poisoned(batch, error) => {
                    if let Some(mut culprit) = halves.refused(batch.into_items()) {
                        culprit.condemn(&error);
                        halves.put_back(culprit);
                    }
                }
            }
        }
    }

    async fn try_batch(&self, lane: usize, epoch: u64, mut batch: Batch) -> Settled {
        let group = &self.consumer.kafka.group;
        let mut processing = trace::Processing::begin(group, &mut batch.records);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while self.epoch() == epoch && !self.out_of_step.load(Ordering::Acquire) {
            let transact = async { Ok(self.transact(&batch).await) };
            let tried = postgres::within(TRANSACTION_TIMEOUT, transact).await;
            match tried.unwrap_or_else(|error| Err(ApplyError::Retry(error))) {
                Ok(Outcome::Applied(applied)) => {
                    crash::point("consumer.after_commit");
                    self.handler.committed(applied, &batch.records);
                    self.advance(epoch, &batch);
                    self.retried.lock().remove(&lane);
                    return Settled::Applied;
                }
                Ok(Outcome::Fenced) => {
                    tracing::info!(lane, "offsets were moved elsewhere: starting again from them");
                    self.out_of_step.store(true, Ordering::Release);
                    return Settled::Void;
                }
                Err(ApplyError::Poison(error)) if !batch.records.is_empty() => {
                    processing.retried(&format!("{error:#}"));
                    return Settled::Poisoned(batch, error);
                }
                Err(ApplyError::Retry(error) | ApplyError::Poison(error)) => {
                    processing.retried(&format!("{error:#}"));
                    self.note_retry(lane, batch.records.len(), &error);
                }
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.stop.cancelled() => break,
            }
        }
        Settled::Void
    }

    fn note_retry(&self, lane: usize, records: usize, error: &anyhow::Error) {
        let why = postgres::brief(error);
        self.retried.lock().entry(lane).or_insert((Instant::now(), why)).1 = why;
        tracing::warn!(lane, records, error = format!("{error:#}"), "a batch is tried again");
    }

    async fn transact(&self, batch: &Batch) -> Result<Outcome<H::Applied>, ApplyError> {
        let retry = |error: sqlx::Error| ApplyError::Retry(error.into());
        let mut lease = Lease::take(&self.consumer.pool).await.map_err(retry)?;
        // First, and a statement of its own: what follows must see the last holder's effects.
        let moving = AssertSqlSafe(format!("BEGIN; {}", batch.move_offsets()));
        let mut transaction = match lease.begin_with(moving).await {
            Ok(transaction) => transaction,
            Err(error) if is_fence(&error) => return Ok(Outcome::Fenced),
            Err(error) => return Err(retry(error)),
        };
        for (slot, poison) in &batch.poison {
            let (topic, partition) = slot.place;
            let error = &poison.error;
            tracing::warn!(%topic, partition, slot.offset, error, "a record goes to dead-letter");
            let buried = poison.bury(&mut transaction, slot.place, slot.offset).await;
            buried.map_err(ApplyError::Retry)?;
        }
        let mut events = outbox::Batch::new(clock::now());
        let applied = match self.handler.apply(&mut transaction, &batch.records, &mut events).await
        {
            Ok(applied) => applied,
            Err(error) => {
                // The server has answered: its connection is as good as before. Halving a batch
                // would otherwise pay for a new one at each step.
                if matches!(error, ApplyError::Poison(_)) && transaction.rollback().await.is_ok() {
                    lease.keep();
                }
                return Err(error);
            }
        };
        crash::point("consumer.before_commit");
        self.consumer.outbox.commit(transaction, events).await.map_err(ApplyError::Retry)?;
        lease.keep();
        Ok(Outcome::Applied(applied))
    }

    fn advance(&self, epoch: u64, batch: &Batch) {
        let mut applied = self.applied.lock();
        if self.epoch() == epoch {
            applied.extend(batch.moves.iter().map(|(place, m)| (*place, m.to)));
            self.group_is_behind.store(true, Ordering::Release);
        }
        drop(applied);
        BATCH_SIZE.observe(batch.records.len() as f64);
        for record in &batch.records {
            let topic: Topic = record.event.kind.fact().topic();
            RECORDS.with_label_values(&[topic.name(), "applied"]).inc();
        }
        for (slot, _) in &batch.poison {
            RECORDS.with_label_values(&[slot.place.0.name(), "dead_lettered"]).inc();
        }
    }
}

/// Whether an offset was elsewhere: raised by `move_offsets`.
fn is_fence(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(FENCE))
}

impl Batch {
    /// A statement that moves every offset from where the records start, and fails if any is
    /// elsewhere. Of names and numbers only, so that it can travel with `BEGIN`.
    fn move_offsets(&self) -> String {
        let list = |value: &dyn Fn(&Place, &Move) -> String| {
            let values: Vec<_> = self.moves.iter().map(|(place, m)| value(place, m)).collect();
            values.join(",")
        };
        let topics = list(&|(topic, _), _| topic.name().to_owned());
        let partitions = list(&|(_, partition), _| partition.to_string());
        let (from, to) = (list(&|_, m| m.from.to_string()), list(&|_, m| m.to.to_string()));
        format!("SELECT move_offsets('{{{topics}}}', '{{{partitions}}}', '{{{from}}}', '{{{to}}}')")
    }

    fn new(items: Vec<Item>) -> Self {
        let mut batch = Self {
            records: Vec::with_capacity(items.len()),
            slots: Vec::with_capacity(items.len()),
            poison: Vec::new(),
            moves: HashMap::new(),
        };
        for Item { place, from, offset, content } in items {
            batch.moves.entry(place).or_insert(Move { from, to: from }).to = offset + 1;
            let slot = Slot { place, from, offset };
            match content {
                Ok((record, packed)) => {
                    batch.records.push(record);
                    batch.slots.push((slot, packed));
                }
                Err(poison) => batch.poison.push((slot, poison)),
            }
        }
        batch
    }

    /// What it was made of, in the order of each partition.
    fn into_items(self) -> Vec<Item> {
        let item = |slot: Slot, content| {
            let Slot { place, from, offset } = slot;
            Item { place, from, offset, content }
        };
        let events = self.slots.into_iter().zip(self.records);
        let events = events.map(|((slot, packed), record)| item(slot, Ok((record, packed))));
        let poison = self.poison.into_iter().map(|(slot, poison)| item(slot, Err(poison)));
        let mut items: Vec<_> = events.chain(poison).collect();
        items.sort_by_key(|item| item.offset);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poison(offset: i64, poison: Poison) -> Item {
        let place = (Topic::Incoming, 0);
        Item { place, from: offset, offset, content: Err(Box::new(poison)) }
    }

    #[test]
    fn large_records_count_for_many() {
        let payload = vec![0; 900_000];
        let large = |offset| poison(offset, Poison::new(None, Some(&payload), vec![], ""));
        let mut queue = Queue::default();
        queue.extend((0..10).map(large).collect(), true);
        assert!(queue.weight() > 8_000);
        let offsets = |items: Vec<Item>| items.iter().map(|i| i.offset).collect::<Vec<_>>();
        assert_eq!(offsets(queue.take(1)), [0]);
        assert_eq!(offsets(queue.take(1_000)), [1, 2]);
        assert_eq!(offsets(queue.take(usize::MAX)), (3..10).collect::<Vec<_>>());
        assert_eq!(queue.weight(), 0);
        assert!(queue.take(1).is_empty());
    }

    #[test]
    fn what_nobody_waits_for_waits_for_others_until_somebody_does() {
        let item = |offset| vec![poison(offset, Poison::new(None, None, vec![], ""))];
        let mut queue = Queue::default();
        assert_eq!(queue.rest(), None);
        queue.extend(item(1), false);
        queue.extend(item(2), false);
        assert!(queue.rest().is_some_and(|rest| !rest.is_zero() && rest <= ASIDE));
        queue.extend(item(3), true);
        queue.extend(item(4), false);
        assert_eq!(queue.rest(), Some(Duration::ZERO));
        assert_eq!(queue.take(BATCH).len(), 4);
        queue.extend(item(5), false);
        assert!(queue.rest().is_some_and(|rest| !rest.is_zero()));
        queue.extend((6..).flat_map(item).take(BATCH).collect(), false);
        assert_eq!(queue.rest(), Some(Duration::ZERO), "a batch is full");
    }

    #[test]
    fn a_record_counts_for_many_whatever_is_large_of_it() {
        let (large, name) = (vec![0; 800_000], "n".repeat(800_000));
        for large in [
            Poison::new(Some(&large), None, vec![], ""),
            Poison::new(None, Some(&large), vec![], ""),
            Poison::new(None, None, vec![(name, None)], ""),
            Poison::new(None, None, vec![("a".to_owned(), Some(large.clone()))], ""),
            Poison::new(None, None, vec![(String::new(), None); 13_000], ""),
        ] {
            assert!(poison(0, large).weight() > 700);
        }
    }
}
