//! The order desk: applies the commands of many requests in one transaction, with the events that
//! tell of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use ordersaga_contract::{ClientId, EventKind, ItemId, Order, OrderId, Quantity, SellerId};
use ordersaga_runtime::event::{failure, publish};
use ordersaga_runtime::http::Principal;
use ordersaga_runtime::idempotency::{Claim, Keys};
use ordersaga_runtime::{clock, postgres};
use ordersaga_saga::order::Input;
use parking_lot::Mutex;
use sagabus::backoff::Backoff;
use sagabus::{Batch, Batches, Checkout, Failure, Halves, Outbox, Pace, crash};
use sqlx::{Connection, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::{self, Advanced, NewOrder, Told};
use crate::ids::Ids;

/// Commands in one transaction, at the most.
pub(crate) const BATCH: usize = 1_000;
/// Commands that may wait; one more is refused at once.
pub(crate) const QUEUE: usize = 8_192;
/// Requests for many orders that may wait, each with up to a batch of them.
pub(crate) const BULKS: usize = 16;
/// How long a batch is tried before its requests are told that the database does not answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Place(Placement),
    /// `of`: only if it is this client's order; else it is unknown.
    Cancel {
        order: OrderId,
        of: Option<ClientId>,
        key: Option<Key>,
    },
}

/// An order to be.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) item_id: ItemId,
    pub(crate) seller_id: SellerId,
    pub(crate) client_id: ClientId,
    pub(crate) quantity: Quantity,
    pub(crate) key: Option<Key>,
    pub(crate) traceparent: Option<String>,
}

/// An `Idempotency-Key` header's value, as it is kept: nobody else's can be the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The order was placed: now, or by an earlier request under the same key.
    Placed { order: OrderId, is_replayed: bool },
    /// The order is cancelled. `is_replayed`: by an earlier request under the same key.
    Cancelled { is_replayed: bool },
    /// No such order.
    Unknown,
    /// The key was used for another request.
    KeyReused,
    /// The key is new, and as many are remembered as may be: nothing was done.
    KeysFull,
    /// The database takes no writes now: nothing was done.
    ReadOnly,
    /// The database refuses this very command, whenever it is asked: nothing was done.
    Refused,
    /// The database did not answer: the command may or may not have had its effect.
    Undecided,
}

/// A command with the id that its order gets, once one was drawn.
struct Pending {
    command: Command,
    id: Option<OrderId>,
}

#[derive(Clone)]
pub(crate) struct Desk {
    pool: PgPool,
    outbox: Outbox,
    keys: Keys,
    ids: Arc<Mutex<Ids>>,
}

/// Why commands were not committed.
enum Unsettled {
    /// The database refuses one of them.
    Refused(Failure),
    /// What to answer to all that are left.
    All(Answer),
}

impl Key {
    pub(crate) fn new(principal: &Principal, value: &str) -> Self {
        Self(principal.own_key(value))
    }
}

impl Placement {
    fn order(&self, order_id: OrderId) -> Order {
        let Self { item_id, seller_id, client_id, quantity, .. } = *self;
        Order { order_id, item_id, seller_id, client_id, quantity }
    }
}

impl Command {
    fn key(&self) -> Option<&str> {
        let (Self::Place(Placement { key, .. }) | Self::Cancel { key, .. }) = self;
        key.as_ref().map(|key| key.0.as_str())
    }

    /// What makes two requests the same request.
    fn request(&self) -> String {
        match self {
            Self::Place(Placement { item_id, seller_id, client_id, quantity, .. }) => {
                format!("create {item_id} {seller_id} {client_id} {quantity}")
            }
            Self::Cancel { order, .. } => format!("cancel {order}"),
        }
    }
}

impl Desk {
    pub(crate) fn new(pool: PgPool, outbox: Outbox, keys: Keys) -> Self {
        Self { pool, outbox, keys, ids: Arc::default() }
    }

    /// Commits batch after batch until stopped.
    pub(crate) async fn serve(
        self,
        batches: Batches<Command, Answer>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        batches.run(Pace::first(), stop, |commands| self.commit(commands)).await;
        Ok(())
    }

    /// Commits the orders of one request after another, each request's together, until stopped.
    /// Beside [`Desk::serve`]: who places one order waits for nobody who places a thousand.
    pub(crate) async fn serve_bulks(
        self,
        bulks: Batches<Vec<Command>, Vec<Answer>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let commit = async |bulks: Vec<Vec<Command>>| {
            let mut answers = Vec::with_capacity(bulks.len());
            for commands in bulks {
                answers.push(self.commit(commands).await);
            }
            answers
        };
        bulks.run(Pace::first(), stop, commit).await;
        Ok(())
    }

    /// Commits a batch and answers each command in its place. A command that the database refuses
    /// spoils no other.
    async fn commit(&self, commands: Vec<Command>) -> Vec<Answer> {
        let count = commands.len();
        let pending = commands.into_iter().map(|command| Pending { command, id: None });
        let mut halves = Halves::new(pending.collect());
        let (time, give_up) = (clock::now(), Instant::now() + PATIENCE);
        let mut answers = Vec::with_capacity(count);
        while let Some(mut pending) = halves.take() {
            match self.settle(&mut pending, time, give_up).await {
                Ok(settled) => answers.extend(settled),
                Err(Unsettled::Refused(error)) => {
                    if let Some(Pending { command, .. }) = halves.refused(pending) {
                        let (request, error) = (command.request(), error.to_string());
                        tracing::error!(request, error, "a command cannot be stored");
                        answers.push(Answer::Refused);
                    }
                }
                Err(Unsettled::All(answer)) => {
                    answers.resize(count, answer);
                    break;
                }
            }
        }
        answers
    }

    /// Commits commands together, however often it takes until `give_up`.
    ///
    /// A transaction whose end is unknown is repeated *under the same order ids and time*: what an
    /// earlier try did commit is then recognised and not done again. On a read-only database no
    /// try can help soon.
    async fn settle(
        &self,
        pending: &mut [Pending],
        time: DateTime<Utc>,
        give_up: Instant,
    ) -> Result<Vec<Answer>, Unsettled> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let (mut unconfirmed, mut is_first) = (false, true);
        // Asked once: keys that one try has claimed may commit yet, and the next has to wait for them.
        let full = self.keys.are_full();
        loop {
            let attempt = self.attempt(pending, time, full, is_first);
            is_first = false;
            let Ok(outcome) = tokio::time::timeout_at(give_up, attempt).await else {
                return Err(Unsettled::All(Answer::Undecided));
            };
            let error = match outcome {
                Ok(answers) => {
                    crash::point("desk.after_commit");
                    return Ok(answers);
                }
                Err(error) => error,
            };
            unconfirmed |= postgres::is_unconfirmed(&error);
            if postgres::is_read_only(&error) && !unconfirmed {
                return Err(Unsettled::All(Answer::ReadOnly));
            }
            if postgres::is_broken(&error) {
                postgres::close_idle(&self.pool);
            }
            match failure(error) {
                poison @ Failure::Poison(_) => return Err(Unsettled::Refused(poison)),
                retry @ Failure::Retry(_) => {
                    let error = retry.to_string();
                    tracing::warn!(commands = pending.len(), error, "a batch is tried again");
                }
            }
            backoff.wait().await;
        }
    }

    /// Commits commands: the first time by one statement, if they are such as one can be made of.
    async fn attempt(
        &self,
        pending: &mut [Pending],
        time: DateTime<Utc>,
        full: bool,
        is_first: bool,
    ) -> anyhow::Result<Vec<Answer>> {
        let mut connection = Checkout::take(&self.pool).await?;
        self.draw_ids(&mut connection, pending).await?;
        let placed = if is_first {
            self.place_at_once(&mut connection, pending, time, full).await
        } else {
            None
        };
        let answers = match placed {
            Some(Ok(answers)) => answers,
            Some(Err(error)) if !is_taken(&error) => return Err(error),
            // One of the keys or ids is somebody's.
            Some(Err(_)) | None => self.transact(&mut connection, pending, time, full).await?,
        };
        connection.keep();
        Ok(answers)
    }

    /// Places orders by a statement that commits by itself and fails if a key or an id is taken.
    /// `None` if there is something else to do.
    async fn place_at_once(
        &self,
        connection: &mut sqlx::PgConnection,
        pending: &[Pending],
        time: DateTime<Utc>,
        full: bool,
    ) -> Option<anyhow::Result<Vec<Answer>>> {
        let (mut new, mut claims) = (Vec::with_capacity(pending.len()), BTreeMap::new());
        for Pending { command, id } in pending {
            let (Command::Place(placement), Some(id)) = (command, id) else { return None };
            if let Some(key) = command.key() {
                let claim = Claim::new(key, &command.request(), id.get());
                if full || claims.insert(key, claim).is_some() {
                    return None;
                }
            }
            new.push(NewOrder {
                order: placement.order(*id),
                traceparent: placement.traceparent.clone(),
            });
        }
        let mut batch = Batch::new(time);
        for NewOrder { order, traceparent } in &new {
            publish(&mut batch, *order, EventKind::OrderPlaced, traceparent.as_deref());
        }
        let claims: Vec<_> = claims.into_values().collect();
        let until = self.keys.remembered_until(time);
        crash::point("desk.before_commit");
        let placed = db::place_at_once(connection, &self.outbox, &new, &claims, until, batch).await;
        Some(placed.map(|()| {
            let placed =
                |new: NewOrder| Answer::Placed { order: new.order.order_id, is_replayed: false };
            new.into_iter().map(placed).collect()
        }))
    }

    /// Draws an id for each placement that has none.
    async fn draw_ids(
        &self,
        connection: &mut sqlx::PgConnection,
        pending: &mut [Pending],
    ) -> anyhow::Result<()> {
        let needs = |pending: &&mut Pending| {
            matches!(pending.command, Command::Place(_)) && pending.id.is_none()
        };
        let mut without: Vec<_> = pending.iter_mut().filter(needs).collect();
        let ids = loop {
            if let Some(ids) = self.ids.lock().take(without.len()) {
                break ids;
            }
            let first = db::next_block(connection).await?;
            self.ids.lock().add(first);
        };
        for (pending, id) in without.iter_mut().zip(ids) {
            pending.id = Some(id);
        }
        Ok(())
    }

    async fn transact(
        &self,
        connection: &mut Checkout,
        pending: &mut [Pending],
        time: DateTime<Utc>,
        full: bool,
    ) -> anyhow::Result<Vec<Answer>> {
        let mut batch = Batch::new(time);
        let mut transaction = connection.begin().await?;
        let mut answers = vec![Answer::Unknown; pending.len()];
        let holders = self.claim(&mut transaction, pending, time, full, &mut answers).await?;
        let new = decide(pending, &holders, &mut answers)?;
        let inserted = db::insert_orders(&mut transaction, &new, time).await?;
        if !db::are_ours(&mut transaction, &new, &inserted, time).await? {
            // A server that crashed may hand out ids again that it had not yet written down; one
            // that was restored, all ids there are.
            for pending in pending.iter_mut() {
                pending.id = None;
            }
            transaction.rollback().await?;
            self.ids.lock().clear();
            db::skip_taken_ids(connection).await?;
            anyhow::bail!("order ids were given out twice");
        }
        for order in &new {
            if inserted.contains(&order.order.order_id) {
                let traceparent = order.traceparent.as_deref();
                publish(&mut batch, order.order, EventKind::OrderPlaced, traceparent);
            }
        }
        let cancelled =
            self.cancel(&mut transaction, pending, &holders, &mut answers, &mut batch).await?;
        crash::point("desk.before_commit");
        self.outbox.commit(transaction, batch).await?;
        cancelled.committed();
        Ok(answers)
    }

    /// Claims the batch's keys, each for the first command that has it, and returns who holds
    /// which. Not for the cancel of an unknown order, or of another client's: it has no effect that could be repeated, and
    /// its key must not stand in the way of the request that was meant. Should the order commit
    /// before this batch does, the cancel still finds none. While there are too many keys, new ones
    /// are not claimed, and their commands answered so.
    async fn claim(
        &self,
        transaction: &mut sqlx::PgConnection,
        pending: &[Pending],
        time: DateTime<Utc>,
        full: bool,
        answers: &mut [Answer],
    ) -> anyhow::Result<HashMap<String, Claim>> {
        let cancelled: Vec<_> = pending
            .iter()
            .filter_map(|pending| match &pending.command {
                Command::Cancel { order, key: Some(_), .. } => Some(*order),
                _ => None,
            })
            .collect();
        let known = db::known_orders(transaction, &cancelled).await?;
        let (mut claims, mut keys, mut claimed) = (Vec::new(), HashSet::new(), HashSet::new());
        for Pending { command, id } in pending {
            let order_id = match command {
                Command::Place(_) => *id,
                Command::Cancel { order, of, .. } => {
                    known.get(order).is_some_and(|owner| is_of(*owner, *of)).then_some(*order)
                }
            };
            let Some(key) = command.key() else { continue };
            keys.insert(key);
            if let Some(order_id) = order_id
                && claimed.insert(key)
                && !full
            {
                claims.push(Claim::new(key, &command.request(), order_id.get()));
            }
        }
        let keys: Vec<_> = keys.into_iter().collect();
        let holders = self.keys.claim(transaction, &claims, &keys, time).await?;
        for (Pending { command, .. }, answer) in pending.iter().zip(answers) {
            let refused = |key: &str| claimed.contains(key) && !holders.contains_key(key);
            if command.key().is_some_and(refused) {
                *answer = Answer::KeysFull;
            }
        }
        Ok(holders)
    }

    async fn cancel(
        &self,
        transaction: &mut sqlx::PgConnection,
        pending: &[Pending],
        holders: &HashMap<String, Claim>,
        answers: &mut [Answer],
        batch: &mut Batch,
    ) -> anyhow::Result<Advanced> {
        let unclaimed = |command: &Command| command.key().is_some_and(|k| !holders.contains_key(k));
        let mut cancels: Vec<_> = pending
            .iter()
            .zip(answers)
            .filter_map(|(Pending { command, .. }, answer)| match command {
                Command::Cancel { order, of, .. }
                    if *answer != Answer::KeyReused && !unclaimed(command) =>
                {
                    Some((*order, *of, command.key(), answer))
                }
                _ => None,
            })
            .collect();
        let (input, at) = (Input::ClientCancels, batch.time());
        let inputs: Vec<_> = cancels
            .iter()
            .map(|(order, of, ..)| Told { order: *order, of: *of, input, at })
            .collect();
        let advanced = db::advance(transaction, &inputs, batch).await?;
        let mut seen = HashSet::new();
        for (order, of, key, answer) in &mut cancels {
            if advanced.known.get(order).is_some_and(|owner| is_of(*owner, *of)) {
                let is_replayed = key.is_some_and(|key| {
                    !seen.insert(key) || holders.get(key).is_some_and(|holder| !holder.is_fresh)
                });
                **answer = Answer::Cancelled { is_replayed };
            }
        }
        Ok(advanced)
    }
}

/// Whether an order of this owner is for a client to cancel.
fn is_of(owner: ClientId, client: Option<ClientId>) -> bool {
    client.is_none_or(|client| client == owner)
}

/// Whether a key or an id is somebody's already.
fn is_taken(error: &anyhow::Error) -> bool {
    let error = postgres::of_database(error).and_then(sqlx::Error::as_database_error);
    let constraint = error.and_then(sqlx::error::DatabaseError::constraint);
    matches!(constraint, Some("orders_pkey" | "idempotency_key_pkey"))
}

/// Decides which placements become orders: all but those whose key was refused or used before. A
/// repetition gets the holder's order, be it of long ago or of this very batch: what commits
/// together is answered together.
fn decide(
    pending: &[Pending],
    holders: &HashMap<String, Claim>,
    answers: &mut [Answer],
) -> anyhow::Result<Vec<NewOrder>> {
    let mut new = Vec::new();
    for (Pending { command, id }, answer) in pending.iter().zip(answers) {
        let holder = command.key().and_then(|key| holders.get(key));
        let reused = holder.is_some_and(|holder| !holder.is_for(&command.request()));
        if reused {
            *answer = Answer::KeyReused;
        }
        let Command::Place(placement) = command else { continue };
        if reused || *answer == Answer::KeysFull {
            continue;
        }
        let id = id.context("an order without an id")?;
        let placed = holder.map_or(Ok(id), |holder| holder.id.try_into())?;
        *answer = Answer::Placed { order: placed, is_replayed: placed != id };
        if placed == id {
            let traceparent = placement.traceparent.clone();
            new.push(NewOrder { order: placement.order(id), traceparent });
        }
    }
    Ok(new)
}
