//! The newest orders of a system that goes on taking orders.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use ordersaga_devstack::Cluster;

use crate::check::{Evidence, Stock};
use crate::history::History;
use crate::onlooker::Onlooker;
use crate::records::EVENTS;
use crate::said::Told;
use crate::snapshot::{OrderRow, Snapshot};

/// Topics hold seven days of events.
const OLDEST: Duration = Duration::from_hours(6 * 24);
/// Records are written after what they tell came true; clocks may differ by this.
const BEFORE: TimeDelta = TimeDelta::minutes(1);
/// How long it is waited for that nothing is on its way.
const REST: Duration = Duration::from_millis(500);
/// Items of which a client's view is compared with the database.
const ITEMS: usize = 200;

/// Which orders are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The newest so many.
    pub orders: u32,
    /// Those that changed within this time are left out, unless they should have ended long ago.
    pub settled: Duration,
    /// An order that is this old should have ended.
    pub overdue: Duration,
    /// How long what is on its way may take to arrive.
    pub within: Duration,
}

impl Evidence {
    /// Reads what there is of the newest orders, at most as old as the topics. Other orders may come
    /// and change meanwhile; one that does while this reads is left out. Of the history that of these
    /// orders is compared. What concerns all orders at once is only read if none is on its way.
    pub async fn newest(onlooker: &Onlooker, history: History, window: Window) -> Result<Self> {
        let rows = newest_orders(onlooker, window).await?;
        let before: BTreeMap<i64, OrderRow> =
            rows.iter().map(|row| (row.order_id, row.clone())).collect();
        let ids: HashSet<i64> = before.keys().copied().collect();
        let ends = onlooker.caught_up(window.within).await?;
        let first = before.keys().next().copied().unwrap_or(0);
        let last = before.keys().next_back().copied().unwrap_or(-1);
        let wanted = |order| ids.contains(&order);
        let mut snapshot = Snapshot::read(onlooker, rows, first..=last, wanted).await?;
        let first = snapshot.all_facts().iter().map(|said| said.at).min();
        let from = match first {
            Some(first) => onlooker.log.offsets_since(&EVENTS, first - BEFORE).await?,
            None => ends.clone(),
        };
        let of_records = ids.clone();
        let mut told =
            Told::read_from(&onlooker.log, from, move |order| of_records.contains(&order)).await?;
        told.end_letters_at(&ends);
        let changed = changed(onlooker, &before).await?;
        leave_out(&changed, &mut snapshot, &mut told);
        let stock = stock(onlooker, &mut snapshot).await?;
        let history = within(onlooker, history, &snapshot).await?;
        Ok(Self::new(snapshot, told, history, stock))
    }
}

async fn newest_orders(onlooker: &Onlooker, window: Window) -> Result<Vec<OrderRow>> {
    let rows = sqlx::query_as(
        "SELECT * FROM orders WHERE created_at > now() - make_interval(secs => $1) \
         AND (state <> 1 AND updated_at < now() - make_interval(secs => $2) \
              OR created_at < now() - make_interval(secs => $3)) \
         ORDER BY order_id DESC LIMIT $4",
    )
    .bind(OLDEST.as_secs_f64())
    .bind(window.settled.as_secs_f64())
    .bind(window.overdue.as_secs_f64())
    .bind(i64::from(window.orders));
    Ok(rows.fetch_all(onlooker.sql(Cluster::CreateOrder)).await?)
}

/// Which of these orders are not as they were.
async fn changed(onlooker: &Onlooker, before: &BTreeMap<i64, OrderRow>) -> Result<HashSet<i64>> {
    let ids: Vec<i64> = before.keys().copied().collect();
    let rows: Vec<OrderRow> = sqlx::query_as("SELECT * FROM orders WHERE order_id = ANY($1)")
        .bind(ids)
        .fetch_all(onlooker.sql(Cluster::CreateOrder))
        .await?;
    let is_changed = |row: &OrderRow| before.get(&row.order_id) != Some(row);
    Ok(rows.into_iter().filter(is_changed).map(|row| row.order_id).collect())
}

fn leave_out(changed: &HashSet<i64>, snapshot: &mut Snapshot, told: &mut Told) {
    let stays = |order: i64| !changed.contains(&order);
    snapshot.orders.retain(|order, _| stays(*order));
    snapshot.reservations.retain(|order, _| stays(*order));
    snapshot.statuses.retain(|order, _| stays(*order));
    for said in snapshot.facts.values_mut() {
        said.retain(|said| stays(said.order_id));
    }
    told.records.retain(|(_, said)| stays(said.order_id));
}

/// The stock, if nothing changes it while it is read.
async fn stock(onlooker: &Onlooker, snapshot: &mut Snapshot) -> Result<Option<Stock>> {
    if onlooker.at_rest(REST).await.is_err() {
        return Ok(None);
    }
    let before = onlooker.log.ends().await?;
    let items = onlooker.items().await?;
    let held: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT item_id, sum(quantity)::bigint FROM reservation WHERE state = 1 GROUP BY item_id",
    )
    .fetch_all(onlooker.sql(Cluster::Store))
    .await?;
    if onlooker.log.ends().await? != before || onlooker.at_rest(REST).await.is_err() {
        return Ok(None);
    }
    let mut asked: Vec<i64> = snapshot.orders.values().map(|row| row.item_id).collect();
    asked.sort_unstable();
    asked.dedup();
    asked.truncate(ITEMS);
    snapshot.items = items;
    Ok(Some(Stock { held: held.into_iter().collect(), asked }))
}

/// What the history has of the orders that were read, and of those that are gone.
async fn within(onlooker: &Onlooker, mut history: History, snapshot: &Snapshot) -> Result<History> {
    let placed: Vec<i64> = history.placed.iter().copied().collect();
    let there: Vec<i64> =
        sqlx::query_scalar("SELECT order_id FROM orders WHERE order_id = ANY($1)")
            .bind(placed)
            .fetch_all(onlooker.sql(Cluster::CreateOrder))
            .await?;
    let there: HashSet<i64> = there.into_iter().collect();
    let is_read = |order: &i64| snapshot.orders.contains_key(order);
    history.placed.retain(|order| is_read(order) || !there.contains(order));
    history.cancelled.retain(is_read);
    history.seen_cancelled.retain(is_read);
    Ok(history)
}
