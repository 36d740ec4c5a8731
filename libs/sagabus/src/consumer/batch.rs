//! A batch: the transaction that applies records and moves their offsets.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection};
use tokio_util::sync::CancellationToken;

use super::dead_letter::DeadLetter;
use super::owner::{Event, Events};
use super::queue::{Content, Item, Raw, Slot};
use super::rebalance::number;
use super::{Consumer, Handler, Place, Record};
use crate::backoff::Backoff;
use crate::database::{self, within};
use crate::dead_letters;
use crate::error::with_sources;
use crate::{Checkout, Failure, Halves, crash, outbox, trace};

/// A transaction that takes longer than this is given up and repeated.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The SQLSTATE by which `move_offsets` says that an offset was elsewhere.
const FENCE: &str = "FENCE";

/// What a batch needs besides its records.
pub(super) struct Run<'c, H> {
    pub(super) consumer: &'c Consumer<H>,
    pub(super) lane: usize,
    pub(super) events: Events,
    /// Cancelled when the records are not ours any more, or the consumer stops: an attempt under way
    /// ends, and none follows.
    pub(super) void: CancellationToken,
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Done {
    pub(super) lane: usize,
    /// The next offset of each partition of which something was applied.
    pub(super) applied: HashMap<Place, i64>,
    /// The database's offsets are not those the batch starts from: somebody else has moved them.
    pub(super) is_fenced: bool,
}

/// Records with the offsets they move.
struct Batch<'c, M> {
    records: Vec<Record<M>>,
    /// Where the records stand, and how they were.
    slots: Vec<(Slot, Raw<'c>)>,
    dead: Vec<(Slot, Box<DeadLetter>)>,
    moves: HashMap<Place, Move>,
}

/// A partition's next offset before and after a batch.
struct Move {
    from: i64,
    to: i64,
}

/// How trying a batch ended.
enum Tried<'c, M> {
    Applied(HashMap<Place, i64>),
    Void,
    Fenced,
    /// One of its records can never be applied.
    Poisoned(Batch<'c, M>, String),
}

impl<H: Handler> Run<'_, H> {
    /// Applies items, however often it takes, unless their partitions are taken away meanwhile.
    /// One that can never be applied becomes a dead letter.
    pub(super) async fn settle(self, items: Vec<Item<'_, H::Message>>) -> Done {
        let mut done = Done { lane: self.lane, ..Done::default() };
        let mut halves = Halves::new(items);
        while let Some(items) = halves.take() {
            match self.try_batch(Batch::new(items)).await {
                Tried::Applied(moves) => {
                    done.applied.extend(moves);
                    if halves.has_more() {
                        let _ = self.events.send(Event::GoesOn { lane: self.lane });
                    }
                }
                Tried::Void => break,
                Tried::Fenced => {
                    done.is_fenced = true;
                    break;
                }
                Tried::Poisoned(batch, error) => {
                    if let Some(culprit) = halves.refused(batch.into_items()) {
                        halves.put_back(condemn(culprit, &error));
                    }
                }
            }
        }
        done
    }

    async fn try_batch<'c>(&self, mut batch: Batch<'c, H::Message>) -> Tried<'c, H::Message> {
        let Consumer { bus, group, handler, .. } = self.consumer;
        let traces = bus.traces.as_ref();
        let mut processing = trace::Processing::begin(traces, group, &mut batch.records);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !self.void.is_cancelled() {
            match within(TRANSACTION_TIMEOUT, self.transact(&batch)).await {
                Ok(Some(applied)) => {
                    crash::point("consumer.after_commit");
                    handler.committed(applied, &batch.records);
                    self.count(&batch);
                    return Tried::Applied(batch.moves.iter().map(|(p, m)| (*p, m.to)).collect());
                }
                Ok(None) => return Tried::Fenced,
                Err(Failure::Poison(error)) if !batch.records.is_empty() => {
                    let error = with_sources(&*error);
                    processing.retried(&error);
                    return Tried::Poisoned(batch, error);
                }
                Err(Failure::Retry(error) | Failure::Poison(error)) => {
                    let (why, error) = (database::brief(&*error), with_sources(&*error));
                    processing.retried(&error);
                    let (lane, records) = (self.lane, batch.records.len());
                    tracing::warn!(lane, records, error, "a batch is tried again");
                    let _ = self.events.send(Event::Retry { lane, why });
                }
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.void.cancelled() => break,
            }
        }
        Tried::Void
    }

    /// Applies a batch; `None` if its offsets were moved elsewhere.
    async fn transact(&self, batch: &Batch<'_, H::Message>) -> Result<Option<H::Applied>, Failure> {
        let Consumer { bus, handler, .. } = self.consumer;
        let retry = |error: sqlx::Error| Failure::Retry(error.into());
        let mut connection = Checkout::take(&bus.pool).await.map_err(retry)?;
        // First, and a statement of its own: what follows must see the last holder's effects.
        let moving = AssertSqlSafe(format!("BEGIN; {}", self.move_offsets(&batch.moves)));
        let mut transaction = match connection.begin_with(moving).await {
            Ok(transaction) => transaction,
            Err(error) if is_fence(&error) => return Ok(None),
            Err(error) => return Err(retry(error)),
        };
        for (slot, letter) in &batch.dead {
            let (origin, error) = (self.origin(slot), &letter.error);
            tracing::warn!(%origin, error, "a record goes to the dead letters");
            letter.insert(&mut transaction, &origin).await.map_err(retry)?;
        }
        let mut messages = outbox::Batch::new((bus.clock)());
        let applied = match handler.apply(&mut transaction, &batch.records, &mut messages).await {
            Ok(applied) => applied,
            Err(error) => {
                // The server has answered: its connection is as good as before. Halving a batch
                // would otherwise pay for a new one at each step.
                if matches!(error, Failure::Poison(_)) && transaction.rollback().await.is_ok() {
                    connection.keep();
                }
                return Err(error);
            }
        };
        crash::point("consumer.before_commit");
        let committed = bus.outbox.commit(transaction, messages).await;
        committed.map_err(|error| Failure::Retry(error.into()))?;
        connection.keep();
        Ok(Some(applied))
    }

    /// A statement that moves every offset from where the records start, and fails if any is
    /// elsewhere. Of names and numbers only, so that it can travel with `BEGIN`.
    fn move_offsets(&self, moves: &HashMap<Place, Move>) -> String {
        let list = |value: &dyn Fn(&Place, &Move) -> String| {
            let values: Vec<_> = moves.iter().map(|(place, m)| value(place, m)).collect();
            values.join(",")
        };
        let topics = list(&|place, _| self.consumer.name(*place).to_owned());
        let partitions = list(&|(_, partition), _| partition.to_string());
        let (from, to) = (list(&|_, m| m.from.to_string()), list(&|_, m| m.to.to_string()));
        format!(
            "SELECT sagabus.move_offsets('{{{topics}}}', '{{{partitions}}}', '{{{from}}}', \
             '{{{to}}}')"
        )
    }

    fn origin(&self, slot: &Slot) -> dead_letters::Place {
        dead_letters::Place {
            topic: self.consumer.name(slot.place).to_owned(),
            partition: number(slot.place),
            offset: slot.offset,
        }
    }

    fn count(&self, batch: &Batch<'_, H::Message>) {
        let metrics = &self.consumer.bus.metrics;
        metrics.batch_size.observe(batch.records.len() as f64);
        let slots = batch.slots.iter().map(|(slot, _)| (slot, "applied"));
        let dead = batch.dead.iter().map(|(slot, _)| (slot, "dead_lettered"));
        let mut counts: HashMap<(usize, &str), u64> = HashMap::new();
        for (slot, result) in slots.chain(dead) {
            *counts.entry((slot.place.0, result)).or_default() += 1;
        }
        for ((topic, result), count) in counts {
            let labels = [&*self.consumer.topics[topic].name, result];
            metrics.records.with_label_values(&labels).inc_by(count);
        }
    }
}

/// Whether an offset was elsewhere: raised by `move_offsets`.
fn is_fence(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(FENCE))
}

/// Turns a message that can never be applied into what becomes a dead letter.
fn condemn<'c, M>(item: Item<'c, M>, error: &str) -> Item<'c, M> {
    match item.content {
        Content::Message(_, raw) => Item::dead(item.slot, DeadLetter::of(raw.into_owned(), error)),
        Content::Dead(_) => item,
    }
}

impl<'c, M> Batch<'c, M> {
    fn new(items: Vec<Item<'c, M>>) -> Self {
        let mut batch = Self {
            records: Vec::with_capacity(items.len()),
            slots: Vec::with_capacity(items.len()),
            dead: Vec::new(),
            moves: HashMap::new(),
        };
        for Item { slot, content, .. } in items {
            let Slot { place, from, offset } = slot;
            batch.moves.entry(place).or_insert(Move { from, to: from }).to = offset + 1;
            match content {
                Content::Message(record, raw) => {
                    batch.records.push(record);
                    batch.slots.push((slot, raw));
                }
                Content::Dead(letter) => batch.dead.push((slot, letter)),
            }
        }
        batch
    }

    /// What it was made of, in the order of each partition.
    fn into_items(self) -> Vec<Item<'c, M>> {
        let records = self.slots.into_iter().zip(self.records);
        // What it weighs counts no more: it has left its queue.
        let messages = records.map(|((slot, raw), record)| Item::message(slot, record, raw, 0));
        let dead = self.dead.into_iter().map(|(slot, letter)| Item::dead(slot, *letter));
        let mut items: Vec<_> = messages.chain(dead).collect();
        items.sort_by_key(|item| item.slot.offset);
        items
    }
}
