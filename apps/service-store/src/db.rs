//! The SQL of service-store, but for that of [lists](crate::lists). Each function is one or two
//! statements for a whole batch.

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use ordersaga_contract::{ItemId, Order, OrderId, Reason, SellerId};
use ordersaga_runtime::idempotency::{Claim, Keys};
use ordersaga_runtime::rows::Rows;
use ordersaga_runtime::{clock, postgres};
use ordersaga_saga::stock::{Ledger, Reservation, Stock};
use sagabus::{Checkout, Outbox, crash};
use sqlx::migrate::Migrator;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection, PgPool};

use crate::view::{ItemView, ReservationView};

/// The migrations of this service's database.
pub(crate) static MIGRATIONS: &Migrator = {
    static MIGRATOR: Migrator = sqlx::migrate!("../../sql/store");
    &MIGRATOR
};

/// A reservation, or an item of which only the id, the seller and how much there is and is held are set.
#[derive(FromRow)]
struct LedgerRow {
    order_id: Option<i64>,
    item_id: i64,
    seller_id: i64,
    client_id: Option<i64>,
    quantity: i64,
    reserved: Option<i64>,
    state: Option<i16>,
    reason: Option<i16>,
}

/// Reads what the store has of these orders and of the items they are about. The items are locked,
/// in the order of their ids, until the transaction ends.
pub(crate) async fn load(
    connection: &mut PgConnection,
    orders: &[Order],
) -> anyhow::Result<Ledger> {
    let rows: Vec<LedgerRow> = sqlx::query_as(
        "WITH known AS (SELECT order_id, item_id, seller_id, client_id, quantity, state, reason \
                        FROM reservation WHERE order_id = ANY($1)), \
              named AS (SELECT unnest($2::bigint[]) AS item_id UNION SELECT item_id FROM known), \
              locked AS (SELECT item_id, seller_id, quantity, reserved FROM item \
                         WHERE item_id = ANY(ARRAY(SELECT item_id FROM named)) \
                         ORDER BY item_id FOR NO KEY UPDATE) \
         SELECT order_id, item_id, seller_id, client_id, quantity::bigint, NULL::bigint AS reserved, \
                state, reason FROM known \
         UNION ALL SELECT NULL, item_id, seller_id, NULL, quantity, reserved, NULL, NULL FROM locked",
    )
    .bind(orders.iter().map(|order| order.order_id.get()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.item_id.get()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
    .context("reading reservations and locking items")?;
    let (mut stock, mut reservations) = (Vec::new(), Vec::new());
    for row in rows {
        if row.order_id.is_some() {
            reservations.push(row.reservation()?);
        } else {
            stock.push((row.item_id.try_into()?, row.stock()?));
        }
    }
    Ok(Ledger::new(stock, reservations))
}

/// Writes the reservations and the stock that changed; returns each changed item's new version.
/// Fails, to be tried again, if another transaction decided one of the orders meanwhile.
pub(crate) async fn write(
    connection: &mut PgConnection,
    ledger: &Ledger,
    time: DateTime<Utc>,
) -> anyhow::Result<Vec<(i64, i64)>> {
    let changed: Vec<_> = ledger.changed_orders().collect();
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let column =
        |value: fn(&Order) -> i64| changed.iter().map(|(o, _)| value(o)).collect::<Vec<_>>();
    let (states, reasons): (Vec<_>, Vec<_>) = changed.iter().map(|(_, r)| encode(*r)).unzip();
    let (items, reserved): (Vec<_>, Vec<_>) =
        ledger.changed_items().map(|(item, stock)| (item.get(), stock.reserved)).unzip();
    let (written, items, versions): (i64, Vec<i64>, Vec<i64>) = sqlx::query_as(
        "WITH written AS ( \
             INSERT INTO reservation AS r (order_id, item_id, seller_id, client_id, quantity, \
                                           state, reason, updated_at) \
             SELECT o, i, s, c, q, state, reason, $8 \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], \
                         $6::smallint[], $7::smallint[]) u (o, i, s, c, q, state, reason) \
             ON CONFLICT (order_id) DO UPDATE SET state = excluded.state, updated_at = $8 \
             WHERE r.state = 1 AND excluded.state = 2 RETURNING 1), \
         stocked AS ( \
             UPDATE item i SET reserved = u.reserved, version = version + 1, updated_at = $8 \
             FROM unnest($9::bigint[], $10::bigint[]) u (item_id, reserved) \
             WHERE i.item_id = u.item_id RETURNING i.item_id, i.version) \
         SELECT (SELECT count(*) FROM written), coalesce(array_agg(item_id), '{}'), \
                coalesce(array_agg(version), '{}') FROM stocked",
    )
    .bind(column(|order| order.order_id.get()))
    .bind(column(|order| order.item_id.get()))
    .bind(column(|order| order.seller_id.get()))
    .bind(column(|order| order.client_id.get()))
    .bind(column(|order| order.quantity.get()))
    .bind(states)
    .bind(reasons)
    .bind(time)
    .bind(items)
    .bind(reserved)
    .fetch_one(connection)
    .await
    .context("writing reservations and stock")?;
    ensure!(usize::try_from(written)? == changed.len(), "an order was decided meanwhile");
    Ok(items.into_iter().zip(versions).collect())
}

/// An item to be.
#[derive(Debug)]
pub(crate) struct NewItem {
    pub(crate) seller_id: SellerId,
    pub(crate) price: i64,
    pub(crate) name: String,
    pub(crate) quantity: i64,
    /// The request's `Idempotency-Key`.
    pub(crate) key: Option<String>,
}

impl NewItem {
    /// What makes two requests the same request.
    fn request(&self) -> String {
        let Self { seller_id, price, name, quantity, .. } = self;
        format!("add {seller_id} {price} {quantity} {name}")
    }
}

/// What adding an item came to.
#[derive(Clone, Copy)]
pub(crate) enum Added {
    /// This item was added: now, or by an earlier request under the same key.
    Item { item: ItemId, is_replayed: bool },
    /// The key was used for another request.
    KeyReused,
    /// The key is new, and as many are remembered as may be.
    KeysFull,
    /// There are as many items as may be.
    ItemsFull,
}

impl Added {
    fn of(holder: &Claim, new: &NewItem) -> anyhow::Result<Self> {
        if !holder.is_for(&new.request()) {
            return Ok(Self::KeyReused);
        }
        Ok(Self::Item { item: holder.id.try_into()?, is_replayed: !holder.is_fresh })
    }
}

/// Adds an item, or finds the one that its key stands for. After an error it is certainly not
/// added, unless the error is [unconfirmed](sagabus::CommitError::Unconfirmed).
pub(crate) async fn add_item(
    pool: &PgPool,
    keys: &Keys,
    rows: &Rows,
    new: &NewItem,
) -> anyhow::Result<Added> {
    let mut connection = Checkout::take(pool).await?;
    let full = if rows.is_full() {
        Some(Added::ItemsFull)
    } else if new.key.is_some() && keys.are_full() {
        Some(Added::KeysFull)
    } else {
        None
    };
    if let Some(full) = full {
        let answer = held(&mut connection, keys, new).await?;
        connection.keep();
        return Ok(answer.unwrap_or(full));
    }
    let mut added = try_add(&mut connection, keys, new).await;
    if added.as_ref().is_err_and(is_taken) {
        // A server that was restored gives out ids again.
        tracing::warn!("item ids were given out twice");
        let skip = sqlx::query("SELECT skip_taken_item_ids()").execute(&mut *connection);
        skip.await.context("skipping taken item ids")?;
        added = try_add(&mut connection, keys, new).await;
    }
    let added = added?;
    connection.keep();
    Ok(added)
}

/// What the request's key stands for already: a repetition is answered, whatever is full.
async fn held(
    connection: &mut PgConnection,
    keys: &Keys,
    new: &NewItem,
) -> anyhow::Result<Option<Added>> {
    let Some(key) = &new.key else { return Ok(None) };
    let holders = keys.claim(connection, &[], &[key], clock::now()).await?;
    holders.get(key).map(|holder| Added::of(holder, new)).transpose()
}

/// The item comes before its key, which is written down with the item's id; it is taken back if the
/// key proves to be held.
async fn try_add(
    connection: &mut PgConnection,
    keys: &Keys,
    new: &NewItem,
) -> anyhow::Result<Added> {
    let mut transaction = connection.begin().await?;
    let item = insert_item(&mut transaction, new).await?;
    if let Some(key) = &new.key {
        let claim = Claim::new(key, &new.request(), item.get());
        let holders = keys.claim(&mut transaction, &[claim], &[key], clock::now()).await?;
        let holder = holders.get(key).context("a key that nobody holds")?;
        if holder.id != item.get() {
            transaction.rollback().await?;
            return Added::of(holder, new);
        }
    }
    crash::point("items.before_commit");
    sagabus::commit(transaction).await?;
    crash::point("items.after_commit");
    Ok(Added::Item { item, is_replayed: false })
}

async fn insert_item(connection: &mut PgConnection, new: &NewItem) -> anyhow::Result<ItemId> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO item (seller_id, price, name, quantity) VALUES ($1, $2, $3, $4) \
         RETURNING item_id",
    )
    .bind(new.seller_id.get())
    .bind(new.price)
    .bind(&new.name)
    .bind(new.quantity)
    .fetch_one(connection)
    .await
    .context("adding an item")?;
    Ok(id.try_into()?)
}

fn is_taken(error: &anyhow::Error) -> bool {
    let error = postgres::of_database(error).and_then(sqlx::Error::as_database_error);
    error.is_some_and(|error| error.constraint() == Some("item_pkey"))
}

#[derive(FromRow)]
struct ItemRow {
    seller_id: i64,
    price: i64,
    name: String,
    quantity: i64,
    reserved: i64,
    version: i64,
    updated_at: DateTime<Utc>,
    reservations: Json<Vec<ReservationView>>,
}

/// An item with its newest reservations, and the version they belong to: one statement, so that
/// all of it is of one moment.
pub(crate) async fn find_item(
    pool: &PgPool,
    item: ItemId,
) -> anyhow::Result<Option<(ItemView, i64)>> {
    let mut connection = Checkout::take(pool).await?;
    let row: Option<ItemRow> = sqlx::query_as(
        "SELECT seller_id, price, name, quantity, reserved, version, updated_at, \
                coalesce((SELECT jsonb_agg(jsonb_build_object('order_id', order_id, 'time', time, \
                     'state', CASE state WHEN 1 THEN 'RESERVED' ELSE 'RELEASED' END) \
                     ORDER BY order_id DESC) \
                 FROM (SELECT order_id, state, updated_at AS time FROM reservation \
                       WHERE item_id = $1 AND state <= 2 ORDER BY order_id DESC LIMIT 20) r), \
                '[]') AS reservations \
         FROM item WHERE item_id = $1",
    )
    .bind(item.get())
    .fetch_optional(&mut *connection)
    .await
    .context("finding an item")?;
    connection.keep();
    Ok(row.map(|row| {
        let view = ItemView {
            item_id: item.get(),
            seller_id: row.seller_id,
            price: row.price,
            item_name: row.name,
            is_reserved: row.reserved > 0,
            date: row.updated_at,
            quantity: row.quantity,
            available: row.quantity - row.reserved,
            reserved: row.reserved,
            reservations: row.reservations.0,
        };
        (view, row.version)
    }))
}

/// What was decided for an order.
pub(crate) struct StoredReservation {
    pub(crate) order: Order,
    pub(crate) reservation: Reservation,
    pub(crate) time: DateTime<Utc>,
    /// The event that tells of it may wait to be published.
    pub(crate) events_wait: bool,
}

/// What was decided for an order, if anything was.
pub(crate) async fn find_reservation(
    pool: &PgPool,
    order: OrderId,
) -> anyhow::Result<Option<StoredReservation>> {
    #[derive(FromRow)]
    struct Row {
        #[sqlx(flatten)]
        row: LedgerRow,
        updated_at: DateTime<Utc>,
    }
    let mut connection = Checkout::take(pool).await?;
    let found: Option<Row> = sqlx::query_as(
        "SELECT order_id, item_id, seller_id, client_id, quantity::bigint, NULL::bigint AS reserved, \
                state, reason, updated_at FROM reservation WHERE order_id = $1",
    )
    .bind(order.get())
    .fetch_optional(&mut *connection)
    .await
    .context("finding a reservation")?;
    let found = match found {
        Some(Row { row, updated_at: time }) => {
            let (order, reservation) = row.reservation()?;
            let events_wait = Outbox::may_hold(&mut connection, &[time]).await;
            let events_wait = events_wait.context("looking at the outbox")?;
            Some(StoredReservation { order, reservation, time, events_wait })
        }
        None => None,
    };
    connection.keep();
    Ok(found)
}

/// Notes a doubt: the cache may hold items older than the database.
pub(crate) async fn doubt_cache(pool: &PgPool) -> anyhow::Result<()> {
    let mut connection = Checkout::take(pool).await?;
    sqlx::query("UPDATE cache_state SET doubts = doubts + 1").execute(&mut *connection).await?;
    connection.keep();
    Ok(())
}

/// The number of the newest doubt, if it is not settled: what [`settle_doubts`] takes.
pub(crate) async fn cache_doubts(pool: &PgPool) -> anyhow::Result<Option<i64>> {
    let mut connection = Checkout::take(pool).await?;
    let doubts = sqlx::query_scalar("SELECT doubts FROM cache_state WHERE doubts > settled")
        .fetch_optional(&mut *connection)
        .await?;
    connection.keep();
    Ok(doubts)
}

/// Notes that everything cached before the doubt of this number has been set aside.
pub(crate) async fn settle_doubts(pool: &PgPool, doubts: i64) -> anyhow::Result<()> {
    let mut connection = Checkout::take(pool).await?;
    sqlx::query("UPDATE cache_state SET settled = greatest(settled, $1)")
        .bind(doubts)
        .execute(&mut *connection)
        .await?;
    connection.keep();
    Ok(())
}

impl LedgerRow {
    fn stock(&self) -> anyhow::Result<Stock> {
        let reserved = self.reserved.context("an item of which nothing is known to be held")?;
        Ok(Stock { seller_id: self.seller_id.try_into()?, quantity: self.quantity, reserved })
    }

    fn reservation(&self) -> anyhow::Result<(Order, Reservation)> {
        let order = Order {
            order_id: self.order_id.context("no order")?.try_into()?,
            item_id: self.item_id.try_into()?,
            seller_id: self.seller_id.try_into()?,
            client_id: self.client_id.context("no client")?.try_into()?,
            quantity: self.quantity.try_into()?,
        };
        let reason = self.reason.and_then(Reason::from_code);
        let reservation = match (self.state, reason) {
            (Some(1), None) => Reservation::Reserved,
            (Some(2), None) => Reservation::Released,
            (Some(3), Some(reason)) => Reservation::Refused(reason),
            (Some(4), None) => Reservation::Cancelled,
            _ => anyhow::bail!("an unknown reservation state"),
        };
        Ok((order, reservation))
    }
}

fn encode(reservation: Reservation) -> (i16, Option<i16>) {
    match reservation {
        Reservation::Reserved => (1, None),
        Reservation::Released => (2, None),
        Reservation::Refused(reason) => (3, Some(reason.code())),
        Reservation::Cancelled => (4, None),
    }
}
