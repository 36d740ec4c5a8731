//! The SQL of service-create-order. Each function is one or two statements, those that write for a
//! whole batch and in the caller's transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use ordersaga_contract::{Cancellation, ClientId, Fact, Order, OrderId, Reason};
use ordersaga_runtime::event::publish;
use ordersaga_runtime::idempotency::Claim;
use ordersaga_saga::order::{Input, OrderState, Transition, advance as decide};
use prometheus::HistogramVec;
use sagabus::{Batch, Checkout, Insert, Outbox};
use sqlx::migrate::Migrator;
use sqlx::{FromRow, PgConnection, PgPool};
use std::sync::LazyLock;

/// The migrations of this service's database.
pub(crate) static MIGRATIONS: &Migrator = {
    static MIGRATOR: Migrator = sqlx::migrate!("../../sql/create-order");
    &MIGRATOR
};

static SAGA: LazyLock<HistogramVec> = LazyLock::new(|| {
    let saga = prometheus::register_histogram_vec!(
        "saga_duration_seconds",
        "Time from an order's placement to its reservation or its end.",
        &["outcome"],
        vec![0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]
    )
    .expect("registered once");
    // A count that is first seen at 1 has not risen, to whoever watches it.
    for outcome in ["reserved", "client", "store", "deadline"] {
        saga.with_label_values(&[outcome]);
    }
    saga
});

/// Shows the metrics from the start, at zero.
pub(crate) fn show_metrics() {
    LazyLock::force(&SAGA);
}

/// An order to insert.
pub(crate) struct NewOrder {
    pub(crate) order: Order,
    pub(crate) traceparent: Option<String>,
}

/// The first of the next [`BLOCK`](crate::ids::BLOCK) ids, which are nobody else's.
pub(crate) async fn next_block(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let block = sqlx::query_scalar("SELECT nextval('order_id_seq')").fetch_one(connection);
    block.await.context("taking order ids")
}

/// Inserts orders and the keys under which they were placed, with their events, in one statement that
/// commits by itself. Fails if an id or a key is taken.
pub(crate) async fn place_at_once(
    connection: &mut PgConnection,
    outbox: &Outbox,
    new: &[NewOrder],
    claims: &[Claim],
    until: DateTime<Utc>,
    batch: Batch,
) -> anyhow::Result<()> {
    const PLACED: &str = "placed AS ( \
         INSERT INTO orders (order_id, item_id, seller_id, client_id, quantity, state, traceparent, \
                             created_at, updated_at) \
         SELECT o, i, s, c, q, 1, t, $2, $2 \
         FROM unnest($7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], \
                     $12::text[]) u (o, i, s, c, q, t))";
    // In one order everywhere: two instances that insert the same keys must not deadlock.
    const KEYED: &str = ", keyed AS ( \
         INSERT INTO idempotency_key (key, fingerprint, order_id, expires_at) \
         SELECT k, f, o, $16 FROM unnest($13::text[], $14::bytea[], $15::bigint[]) u (k, f, o) \
         ORDER BY k)";
    let effects = if claims.is_empty() { PLACED.to_owned() } else { format!("{PLACED}{KEYED}") };
    outbox
        .commit_at_once(
            connection,
            &effects,
            |insert| {
                let insert = bind_orders(insert, new);
                if claims.is_empty() {
                    return insert;
                }
                insert
                    .bind(claims.iter().map(|claim| claim.key.clone()).collect::<Vec<_>>())
                    .bind(claims.iter().map(|claim| claim.fingerprint.clone()).collect::<Vec<_>>())
                    .bind(claims.iter().map(|claim| claim.id).collect::<Vec<_>>())
                    .bind(until)
            },
            batch,
        )
        .await?;
    Ok(())
}

/// Binds the orders' columns that are not the same for all of them: six parameters.
fn bind_orders<'q>(insert: Insert<'q>, new: &[NewOrder]) -> Insert<'q> {
    let column = |value: fn(&Order) -> i64| new.iter().map(|n| value(&n.order)).collect::<Vec<_>>();
    insert
        .bind(column(|order| order.order_id.get()))
        .bind(column(|order| order.item_id.get()))
        .bind(column(|order| order.seller_id.get()))
        .bind(column(|order| order.client_id.get()))
        .bind(column(|order| order.quantity.get()))
        .bind(new.iter().map(|n| n.traceparent.clone()).collect::<Vec<_>>())
}

/// Moves the ids to be given out past those that are taken. Waits for transactions that have taken
/// ids: not to be called in one.
pub(crate) async fn skip_taken_ids(connection: &mut PgConnection) -> anyhow::Result<()> {
    let skip = sqlx::query("SELECT skip_taken_order_ids()");
    skip.execute(connection).await.context("skipping taken order ids")?;
    Ok(())
}

/// Inserts the orders that are not there yet, and returns which those were.
pub(crate) async fn insert_orders(
    connection: &mut PgConnection,
    new: &[NewOrder],
    time: DateTime<Utc>,
) -> anyhow::Result<HashSet<OrderId>> {
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    let insert = sqlx::query_scalar(
        "INSERT INTO orders (order_id, item_id, seller_id, client_id, quantity, state, \
                             traceparent, created_at, updated_at) \
         SELECT o, i, s, c, q, 1, t, $7, $7 \
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], \
                     $6::text[]) u (o, i, s, c, q, t) \
         ON CONFLICT (order_id) DO NOTHING RETURNING order_id",
    );
    let inserted = bind_orders(insert, new)
        .bind(time)
        .fetch_all(connection)
        .await
        .context("inserting orders")?;
    inserted.into_iter().map(|id| Ok(id.try_into()?)).collect()
}

/// Whether the orders that were there already are those of an earlier try of this same batch, and
/// not others under the same ids.
pub(crate) async fn are_ours(
    connection: &mut PgConnection,
    new: &[NewOrder],
    inserted: &HashSet<OrderId>,
    time: DateTime<Utc>,
) -> anyhow::Result<bool> {
    let there = new.iter().map(|n| n.order).filter(|order| !inserted.contains(&order.order_id));
    let there: Vec<_> = there.collect();
    if there.is_empty() {
        return Ok(true);
    }
    let ours: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM orders o \
         JOIN unnest($1::bigint[], $2::bigint[]) u (order_id, client_id) USING (order_id, client_id) \
         WHERE o.created_at = $3",
    )
    .bind(there.iter().map(|order| order.order_id.get()).collect::<Vec<_>>())
    .bind(there.iter().map(|order| order.client_id.get()).collect::<Vec<_>>())
    .bind(time)
    .fetch_one(connection)
    .await
    .context("looking at orders already there")?;
    Ok(usize::try_from(ours)? == there.len())
}

/// Which of these orders exist, and whose they are. What exists stays: nothing deletes orders, or
/// gives them to another client.
pub(crate) async fn known_orders(
    connection: &mut PgConnection,
    orders: &[OrderId],
) -> anyhow::Result<HashMap<OrderId, ClientId>> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    let known: Vec<(i64, i64)> =
        sqlx::query_as("SELECT order_id, client_id FROM orders WHERE order_id = ANY($1)")
            .bind(orders.iter().map(|order| order.get()).collect::<Vec<_>>())
            .fetch_all(connection)
            .await
            .context("looking for orders to cancel")?;
    known.into_iter().map(|(order, client)| Ok((order.try_into()?, client.try_into()?))).collect()
}

/// Orders still waiting for the store that were placed before `placed_before`, by their ids, from
/// behind `after` on.
pub(crate) async fn overdue(
    connection: &mut PgConnection,
    placed_before: DateTime<Utc>,
    after: Option<OrderId>,
    limit: i64,
) -> anyhow::Result<Vec<OrderId>> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT order_id FROM orders WHERE state = 1 AND created_at < $1 AND order_id > $2 \
         ORDER BY order_id LIMIT $3",
    )
    .bind(placed_before)
    .bind(after.map_or(0, OrderId::get))
    .bind(limit)
    .fetch_all(connection)
    .await
    .context("looking for overdue orders")?;
    ids.into_iter().map(|id| Ok(id.try_into()?)).collect()
}

#[derive(FromRow)]
struct OrderRow {
    order_id: i64,
    item_id: i64,
    seller_id: i64,
    client_id: i64,
    quantity: i32,
    state: i16,
    traceparent: Option<String>,
    created_at: DateTime<Utc>,
}

/// An order as it is stored.
pub(crate) struct StoredOrder {
    pub(crate) order: Order,
    pub(crate) state: OrderState,
    pub(crate) cancellation: Option<Cancellation>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    /// Events of it may wait to be published.
    pub(crate) events_wait: bool,
}

/// The order, if there is one.
pub(crate) async fn find_order(
    pool: &PgPool,
    order: OrderId,
) -> anyhow::Result<Option<StoredOrder>> {
    #[derive(FromRow)]
    struct Row {
        #[sqlx(flatten)]
        order: OrderRow,
        ended_by: Option<i16>,
        reason: Option<i16>,
        updated_at: DateTime<Utc>,
    }
    let mut connection = Checkout::take(pool).await?;
    let row: Option<Row> = sqlx::query_as(
        "SELECT order_id, item_id, seller_id, client_id, quantity, state, traceparent, created_at, \
                ended_by, reason, updated_at FROM orders WHERE order_id = $1",
    )
    .bind(order.get())
    .fetch_optional(&mut *connection)
    .await
    .context("finding an order")?;
    let found = match row {
        Some(Row { order, ended_by, reason, updated_at }) => Some(StoredOrder {
            events_wait: Outbox::may_hold(&mut connection, &[order.created_at, updated_at])
                .await
                .context("looking at the outbox")?,
            cancellation: cancellation_of(ended_by, reason),
            state: state_of(order.state)?,
            created_at: order.created_at,
            order: order.order()?,
            updated_at,
        }),
        None => None,
    };
    connection.keep();
    Ok(found)
}

/// Who ended an order and why, by the codes of both.
fn cancellation_of(ended_by: Option<i16>, reason: Option<i16>) -> Option<Cancellation> {
    let initiator = Fact::from_code(ended_by?)?.initiator()?;
    Some(Cancellation { initiator, reason: Reason::from_code(reason?)? })
}

/// What inputs have made of an order.
struct Change {
    from: OrderState,
    to: Transition,
    /// When what was told last was decided.
    at: DateTime<Utc>,
}

/// What [`advance`] found and did.
#[derive(Default)]
pub(crate) struct Advanced {
    /// The orders that exist, and whose they are.
    pub(crate) known: HashMap<OrderId, ClientId>,
    /// How each order that changed went on, and its age in seconds.
    outcomes: Vec<(&'static str, f64)>,
}

impl Advanced {
    /// How many orders changed.
    pub(crate) fn changed(&self) -> usize {
        self.outcomes.len()
    }

    /// The transaction has committed: let the metrics know.
    pub(crate) fn committed(&self) {
        for (outcome, age) in &self.outcomes {
            SAGA.with_label_values(&[outcome]).observe(*age);
        }
    }
}

/// What is told to an order, and when that was decided.
pub(crate) struct Told {
    pub(crate) order: OrderId,
    /// It is only for an order of this client.
    pub(crate) of: Option<ClientId>,
    pub(crate) input: Input,
    pub(crate) at: DateTime<Utc>,
}

/// Applies inputs to orders by the saga's rules, writes the changes and adds their events to
/// `batch`. The orders are locked, in the order of their ids, until the transaction ends.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    inputs: &[Told],
    batch: &mut Batch,
) -> anyhow::Result<Advanced> {
    let ids: Vec<_> = inputs.iter().map(|told| told.order.get()).collect();
    if ids.is_empty() {
        return Ok(Advanced::default());
    }
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT order_id, item_id, seller_id, client_id, quantity, state, traceparent, created_at \
         FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR NO KEY UPDATE",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await
    .context("reading orders")?;
    let known: HashMap<OrderId, OrderRow> = rows
        .into_iter()
        .map(|row| Ok((row.order_id.try_into()?, row)))
        .collect::<anyhow::Result<_>>()?;

    let mut changes: BTreeMap<OrderId, Change> = BTreeMap::new();
    for Told { order, of, input, at } in inputs {
        let Some(row) = known.get(order) else { continue };
        if of.is_some_and(|client| client.get() != row.client_id) {
            continue;
        }
        let stored = state_of(row.state)?;
        let now = changes.get(order).map_or(stored, |change| change.to.state);
        let Some(to) = decide(now, *input) else { continue };
        if let Some(event) = to.publish {
            publish(batch, row.order()?, event, row.traceparent.as_deref());
        }
        changes.insert(*order, Change { from: stored, to, at: *at });
    }
    write(connection, &changes, batch.time()).await?;
    let outcomes = changes.iter().map(|(order, change)| {
        let age = (change.at - known[order].created_at).as_seconds_f64();
        (outcome(change.to), age.max(0.0))
    });
    let outcomes = outcomes.collect();
    let known = known.into_iter().map(|(order, row)| Ok((order, row.client_id.try_into()?)));
    Ok(Advanced { outcomes, known: known.collect::<anyhow::Result<_>>()? })
}

async fn write(
    connection: &mut PgConnection,
    changes: &BTreeMap<OrderId, Change>,
    time: DateTime<Utc>,
) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let ended = |change: &Change| change.to.cancellation;
    let ended_by: Vec<_> = changes
        .values()
        .map(|c| ended(c).map(|end| ordersaga_contract::EventKind::OrderReset(end).fact().code()))
        .collect();
    let written = sqlx::query(
        "UPDATE orders o SET state = c.after, ended_by = c.ended_by, reason = c.reason, \
                             updated_at = $6 \
         FROM unnest($1::bigint[], $2::smallint[], $3::smallint[], $4::smallint[], \
                     $5::smallint[]) c (order_id, before, after, ended_by, reason) \
         WHERE o.order_id = c.order_id AND o.state = c.before",
    )
    .bind(changes.keys().map(|order| order.get()).collect::<Vec<_>>())
    .bind(changes.values().map(|c| code_of(c.from)).collect::<Vec<_>>())
    .bind(changes.values().map(|c| code_of(c.to.state)).collect::<Vec<_>>())
    .bind(ended_by)
    .bind(changes.values().map(|c| ended(c).map(|end| end.reason.code())).collect::<Vec<_>>())
    .bind(time)
    .execute(connection)
    .await
    .context("writing orders")?;
    ensure!(written.rows_affected() == changes.len() as u64, "a locked order changed");
    Ok(())
}

impl OrderRow {
    fn order(&self) -> anyhow::Result<Order> {
        Ok(Order {
            order_id: self.order_id.try_into()?,
            item_id: self.item_id.try_into()?,
            seller_id: self.seller_id.try_into()?,
            client_id: self.client_id.try_into()?,
            quantity: i64::from(self.quantity).try_into()?,
        })
    }
}

fn code_of(state: OrderState) -> i16 {
    match state {
        OrderState::Placed => 1,
        OrderState::Reserved => 2,
        OrderState::Cancelled => 3,
    }
}

fn state_of(code: i16) -> anyhow::Result<OrderState> {
    [OrderState::Placed, OrderState::Reserved, OrderState::Cancelled]
        .into_iter()
        .find(|state| code_of(*state) == code)
        .context("an unknown order state")
}

fn outcome(transition: Transition) -> &'static str {
    match transition.cancellation {
        None => "reserved",
        Some(end) => end.initiator.name(),
    }
}
