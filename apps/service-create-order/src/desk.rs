//! The order desk: applies the commands of many requests in one transaction, with the events that
//! tell of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use ordersaga_contract::{ClientId, EventKind, ItemId, Order, OrderId, Quantity, SellerId};
use ordersaga_runtime::backoff::Backoff;
use ordersaga_runtime::group_commit::Batches;
use ordersaga_runtime::idempotency::{Claim, Keys};
use ordersaga_runtime::outbox::{Batch, Outbox};
use ordersaga_runtime::postgres::{self, Lease, Unconfirmed};
use ordersaga_runtime::{clock, crash};
use ordersaga_saga::order::Input;
use sqlx::{Connection, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::{self, Advanced, NewOrder};

/// Commands in one transaction, at the most.
pub(crate) const BATCH: usize = 1_000;
/// Commands that may wait; one more is refused at once.
pub(crate) const QUEUE: usize = 8_192;
/// How long a batch is tried before its requests are told that the database does not answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Place(Placement),
    Cancel { order: OrderId, key: Option<Key> },
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

/// An `Idempotency-Key` header's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Placed(OrderId),
    Cancelled,
    /// No such order.
    Unknown,
    /// The key was used for another request.
    KeyReused,
    /// The database takes no writes now: nothing was done.
    ReadOnly,
    /// The database did not answer: the command may or may not have had its effect.
    Undecided,
}

pub(crate) struct Desk {
    pool: PgPool,
    outbox: Outbox,
    keys: Keys,
}

impl Key {
    pub(crate) fn new(value: String) -> Self {
        Self(value)
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
        Self { pool, outbox, keys }
    }

    /// Commits batch after batch until stopped.
    pub(crate) async fn serve(
        self,
        batches: Batches<Command, Answer>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        batches.run(stop, |commands| self.commit(commands)).await;
        Ok(())
    }

    /// Commits a batch and answers each command in its place.
    ///
    /// A transaction whose end is unknown is repeated *under the same order ids and time*: what an
    /// earlier try did commit is then recognised and not done again. On a read-only database no
    /// try can help soon.
    async fn commit(&self, commands: Vec<Command>) -> Vec<Answer> {
        let time = clock::now();
        let give_up = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let (mut ids, mut unconfirmed) = (Vec::new(), false);
        loop {
            let attempt =
                tokio::time::timeout_at(give_up, self.transact(&commands, &mut ids, time));
            match attempt.await {
                Ok(Ok(answers)) => {
                    self.outbox.committed();
                    crash::point("desk.after_commit");
                    return answers;
                }
                Ok(Err(error)) => {
                    unconfirmed |= error.is::<Unconfirmed>();
                    if postgres::is_read_only(&error) && !unconfirmed {
                        return vec![Answer::ReadOnly; commands.len()];
                    }
                    if postgres::is_broken(&error) {
                        postgres::close_idle(&self.pool);
                    }
                    let error = format!("{error:#}");
                    tracing::warn!(commands = commands.len(), error, "a batch is tried again");
                }
                Err(_) => return vec![Answer::Undecided; commands.len()],
            }
            backoff.wait().await;
        }
    }

    async fn transact(
        &self,
        commands: &[Command],
        ids: &mut Vec<OrderId>,
        time: DateTime<Utc>,
    ) -> anyhow::Result<Vec<Answer>> {
        let mut batch = Batch::new(time);
        let mut lease = Lease::take(&self.pool).await?;
        let mut transaction = lease.begin().await?;
        let placements = commands.iter().filter(|c| matches!(c, Command::Place(_))).count();
        if ids.len() < placements {
            *ids = db::next_order_ids(&mut transaction, placements).await?;
        }
        let mut answers = vec![Answer::Unknown; commands.len()];
        let holders = self.claim(&mut transaction, commands, ids, time).await?;
        let new = decide(commands, ids, &holders, &mut answers)?;
        let inserted = db::insert_orders(&mut transaction, &new, time).await?;
        if !db::are_ours(&mut transaction, &new, &inserted, time).await? {
            // A server that crashed may hand out ids again that it had not yet written down; one
            // that was restored, all ids there are.
            ids.clear();
            transaction.rollback().await?;
            db::skip_taken_ids(&mut lease).await?;
            lease.keep();
            anyhow::bail!("order ids were given out twice");
        }
        for order in &new {
            if inserted.contains(&order.order.order_id) {
                batch.push(order.order, EventKind::OrderPlaced, order.traceparent.as_deref());
            }
        }
        let cancelled =
            self.cancel(&mut transaction, commands, &holders, &mut answers, &mut batch).await?;
        self.outbox.append(&mut transaction, &batch).await?;
        crash::point("desk.before_commit");
        postgres::commit(transaction).await?;
        lease.keep();
        cancelled.committed();
        Ok(answers)
    }

    /// Claims the batch's keys, each for the first command that has it, and returns who holds
    /// which. Not for the cancel of an unknown order: it has no effect that could be repeated, and
    /// its key must not stand in the way of the request that was meant. Should the order commit
    /// before this batch does, the cancel still finds none.
    async fn claim(
        &self,
        transaction: &mut sqlx::PgConnection,
        commands: &[Command],
        ids: &[OrderId],
        time: DateTime<Utc>,
    ) -> anyhow::Result<HashMap<String, Claim>> {
        let cancelled: Vec<_> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Cancel { order, key: Some(_) } => Some(*order),
                _ => None,
            })
            .collect();
        let known = db::known_orders(transaction, &cancelled).await?;
        let (mut ids, mut claims) = (ids.iter(), Vec::new());
        let (mut keys, mut claimed) = (HashSet::new(), HashSet::new());
        for command in commands {
            let order_id = match command {
                Command::Place(_) => Some(*ids.next().context("an order without an id")?),
                Command::Cancel { order, .. } => known.get(order).copied(),
            };
            let Some(key) = command.key() else { continue };
            keys.insert(key);
            if let Some(order_id) = order_id
                && claimed.insert(key)
            {
                claims.push(Claim::new(key, &command.request(), order_id.get()));
            }
        }
        let keys: Vec<_> = keys.into_iter().collect();
        self.keys.claim(transaction, &claims, &keys, time).await
    }

    async fn cancel(
        &self,
        transaction: &mut sqlx::PgConnection,
        commands: &[Command],
        holders: &HashMap<String, Claim>,
        answers: &mut [Answer],
        batch: &mut Batch,
    ) -> anyhow::Result<Advanced> {
        let unclaimed = |command: &Command| command.key().is_some_and(|k| !holders.contains_key(k));
        let mut cancels: Vec<_> = commands
            .iter()
            .zip(answers)
            .filter_map(|(command, answer)| match command {
                Command::Cancel { order, .. }
                    if *answer != Answer::KeyReused && !unclaimed(command) =>
                {
                    Some((*order, answer))
                }
                _ => None,
            })
            .collect();
        let inputs: Vec<_> =
            cancels.iter().map(|(order, _)| (*order, Input::ClientCancels)).collect();
        let advanced = db::advance(transaction, &inputs, batch).await?;
        for (order, answer) in &mut cancels {
            if advanced.known.contains(order) {
                **answer = Answer::Cancelled;
            }
        }
        Ok(advanced)
    }
}

/// Decides which placements become orders: all but those whose key was used before. A repetition
/// gets the holder's order, be it of long ago or of this very batch: what commits together is
/// answered together.
fn decide(
    commands: &[Command],
    ids: &[OrderId],
    holders: &HashMap<String, Claim>,
    answers: &mut [Answer],
) -> anyhow::Result<Vec<NewOrder>> {
    let (mut ids, mut new) = (ids.iter(), Vec::new());
    for (command, answer) in commands.iter().zip(answers) {
        let holder = command.key().and_then(|key| holders.get(key));
        let reused = holder.is_some_and(|holder| !holder.is_for(&command.request()));
        if reused {
            *answer = Answer::KeyReused;
        }
        let Command::Place(placement) = command else { continue };
        let id = *ids.next().context("an order without an id")?;
        if reused {
            continue;
        }
        let placed = holder.map_or(Ok(id), |holder| holder.id.try_into())?;
        *answer = Answer::Placed(placed);
        if placed == id {
            let traceparent = placement.traceparent.clone();
            new.push(NewOrder { order: placement.order(id), traceparent });
        }
    }
    Ok(new)
}
