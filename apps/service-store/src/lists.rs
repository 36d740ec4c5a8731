//! Lists: items, and what is held of one, page by page, straight from the database.

use std::time::Duration;

use anyhow::Context;
use ordersaga_contract::{ClientId, ItemId, OrderId, SellerId};
use ordersaga_runtime::postgres;
use sagabus::{Checkout, within};
use sqlx::{PgPool, Postgres, QueryBuilder};
use tokio::sync::Semaphore;

use crate::view::{ItemSummary, ReservationDetails};

/// Pages that are read at the same time: the pool's other connections are left to orders.
const AT_ONCE: usize = 2;
/// How long reading one may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Reads lists.
pub(crate) struct Lists {
    pool: PgPool,
    turns: Semaphore,
}

/// Which items are asked for.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) seller: Option<SellerId>,
    /// What their names begin with.
    pub(crate) name: Option<String>,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    /// The last one, if others follow.
    pub(crate) next: Option<i64>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` rows at the most, out of as many as are [to be read](rows_to_read)
    /// for it.
    fn cut(mut rows: Vec<T>, limit: usize, id: impl Fn(&T) -> i64) -> Self {
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().map(id).filter(|_| is_more);
        Self { rows, next }
    }
}

/// One more than a page has: whether others follow is known without another look.
fn rows_to_read(limit: usize) -> anyhow::Result<i64> {
    Ok(i64::try_from(limit)?.saturating_add(1))
}

impl Lists {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, turns: Semaphore::new(AT_ONCE) }
    }

    /// Items behind `after`: newest first, or where names are asked for, by name.
    pub(crate) async fn items(
        &self,
        filter: &Filter,
        after: Option<ItemId>,
        limit: usize,
    ) -> anyhow::Result<Page<ItemSummary>> {
        self.read(|| items(&self.pool, filter, after, limit)).await
    }

    /// What is held of an item, or was, for orders older than `after`, of one client or of all, newest
    /// order first; none if there is no such item.
    pub(crate) async fn reservations(
        &self,
        item: ItemId,
        client: Option<ClientId>,
        after: Option<OrderId>,
        limit: usize,
    ) -> anyhow::Result<Option<Page<ReservationDetails>>> {
        self.read(|| reservations(&self.pool, item, client, after, limit)).await
    }

    async fn read<T, F: Future<Output = anyhow::Result<T>>>(
        &self,
        read: impl Fn() -> F,
    ) -> anyhow::Result<T> {
        let _turn = self.turns.acquire().await?;
        within(LIMIT, postgres::repeat(&self.pool, read)).await
    }
}

async fn items(
    pool: &PgPool,
    filter: &Filter,
    after: Option<ItemId>,
    limit: usize,
) -> anyhow::Result<Page<ItemSummary>> {
    let mut connection = Checkout::take(pool).await?;
    let rows: Vec<ItemSummary> = select_items(filter, after, rows_to_read(limit)?)
        .build_query_as()
        .fetch_all(&mut *connection)
        .await
        .context("listing items")?;
    connection.keep();
    Ok(Page::cut(rows, limit, |item| item.item_id))
}

/// Conditions that nobody asks for are left out and not made true: one plan for all would use no
/// index.
fn select_items(filter: &Filter, after: Option<ItemId>, limit: i64) -> QueryBuilder<Postgres> {
    let mut select = QueryBuilder::new(
        "SELECT item_id, seller_id, name AS item_name, price, quantity, quantity - reserved AS available, \
                reserved FROM item WHERE true",
    );
    if let Some(seller) = filter.seller {
        select.push(" AND seller_id = ").push_bind(seller.get());
    }
    let after = after.map(ItemId::get);
    if let Some(name) = &filter.name {
        select.push(" AND name COLLATE \"C\" >= ").push_bind(name);
        // No character comes behind this one.
        select.push(" AND name COLLATE \"C\" < ").push_bind(format!("{name}\u{10ffff}"));
        if let Some(after) = after {
            select.push(" AND (name COLLATE \"C\", item_id) > ");
            select.push("(SELECT name, item_id FROM item WHERE item_id = ").push_bind(after);
            select.push(")");
        }
        select.push(" ORDER BY name COLLATE \"C\", item_id");
    } else {
        select.push(" AND item_id < ").push_bind(after.unwrap_or(i64::MAX));
        select.push(" ORDER BY item_id DESC");
    }
    select.push(" LIMIT ").push_bind(limit);
    select
}

async fn reservations(
    pool: &PgPool,
    item: ItemId,
    client: Option<ClientId>,
    after: Option<OrderId>,
    limit: usize,
) -> anyhow::Result<Option<Page<ReservationDetails>>> {
    let mut connection = Checkout::take(pool).await?;
    let rows: Vec<ReservationDetails> =
        select_reservations(item, client, after, rows_to_read(limit)?)
            .build_query_as()
            .fetch_all(&mut *connection)
            .await
            .context("listing reservations")?;
    // Where something is held there is an item.
    let is_item = !rows.is_empty()
        || sqlx::query_scalar("SELECT EXISTS (SELECT FROM item WHERE item_id = $1)")
            .bind(item.get())
            .fetch_one(&mut *connection)
            .await
            .context("looking for an item")?;
    connection.keep();
    Ok(is_item.then(|| Page::cut(rows, limit, |held| held.order_id)))
}

fn select_reservations(
    item: ItemId,
    client: Option<ClientId>,
    after: Option<OrderId>,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let mut select = QueryBuilder::new(
        "SELECT order_id, client_id, quantity::bigint, state, updated_at AS time FROM reservation \
         WHERE state <= 2 AND item_id = ",
    );
    select.push_bind(item.get());
    select.push(" AND order_id < ").push_bind(after.map_or(i64::MAX, OrderId::get));
    if let Some(client) = client {
        select.push(" AND client_id = ").push_bind(client.get());
    }
    select.push(" ORDER BY order_id DESC LIMIT ").push_bind(limit);
    select
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However long a list is and however large its pages are, one after the other they are
        /// all of it, each row once, and only the last has none behind it.
        #[test]
        fn pages_one_after_the_other_are_the_whole_list(length in 0_i64..60, limit in 1_usize..20) {
            let list: Vec<i64> = (1..=length).rev().collect();
            let (mut listed, mut after) = (Vec::new(), i64::MAX);
            loop {
                let rest = list.iter().copied().filter(|id| *id < after);
                let read = rest.take(usize::try_from(rows_to_read(limit).unwrap()).unwrap());
                let page = Page::cut(read.collect(), limit, |id| *id);
                prop_assert!(page.rows.len() <= limit);
                prop_assert_eq!(page.next.is_some(), page.rows.last().is_some_and(|id| *id > 1));
                listed.extend(page.rows);
                let Some(next) = page.next else { break };
                prop_assert!(next < after, "it gets on");
                after = next;
            }
            prop_assert_eq!(listed, list);
        }
    }
}
