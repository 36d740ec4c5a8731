//! What a system holds once it is at rest, read by SQL and HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use ordersaga_devstack::{Cluster, Service};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sqlx::FromRow;

use crate::onlooker::Onlooker;
use crate::said::Said;

/// Statuses asked for at once.
const ASKED: usize = 32;
/// How long monitoring may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything a system holds once it is at rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What create-order has.
    pub orders: BTreeMap<i64, OrderRow>,
    /// What the store has.
    pub items: BTreeMap<i64, ItemRow>,
    /// What the store decided, by order.
    pub reservations: BTreeMap<i64, ReservationRow>,
    /// What the shards have, by shard and table.
    pub facts: BTreeMap<(Cluster, i32), Vec<Said>>,
    /// What monitoring answers.
    pub statuses: BTreeMap<i64, Status>,
}

/// An order of create-order.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct OrderRow {
    /// The order.
    pub order_id: i64,
    /// Its item.
    pub item_id: i64,
    /// Its seller.
    pub seller_id: i64,
    /// Its client.
    pub client_id: i64,
    /// Its units.
    pub quantity: i32,
    /// 1 placed, 2 reserved, 3 cancelled.
    pub state: i16,
    /// The fact that ended it.
    pub ended_by: Option<i16>,
    /// Why it ended.
    pub reason: Option<i16>,
    /// Its last change.
    pub updated_at: DateTime<Utc>,
}

/// An item of the store.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ItemRow {
    /// The item.
    pub item_id: i64,
    /// Whose it is.
    pub seller_id: i64,
    /// Units there are.
    pub quantity: i64,
    /// Units held.
    pub reserved: i64,
    /// Rises with each change.
    pub version: i64,
    /// Its last change.
    pub updated_at: DateTime<Utc>,
}

/// What the store decided of an order.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ReservationRow {
    /// The order.
    pub order_id: i64,
    /// The item it names.
    pub item_id: i64,
    /// Its units.
    pub quantity: i32,
    /// 1 reserved, 2 released, 3 refused, 4 cancelled before it was seen.
    pub state: i16,
    /// Why it was refused.
    pub reason: Option<i16>,
    /// Its last change.
    pub updated_at: DateTime<Utc>,
}

/// What monitoring shows of an order, by its published specification.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// `UNDER_RESERVATION`, `SHIPPING` or `CANCELLED`.
    pub step: String,
    /// Whether stock is held for it.
    pub is_reserved: bool,
    /// Whether it is over.
    pub is_cancelled: bool,
    /// Why it is over.
    pub reason: Option<String>,
    /// When the last was said of it.
    pub update_date: DateTime<Utc>,
    /// The node it lies on.
    pub shard: String,
    /// What was said of it: here only how much.
    pub facts: Vec<IgnoredAny>,
}

impl Snapshot {
    /// Reads everything.
    pub async fn take(onlooker: &Onlooker) -> Result<Self> {
        let orders = onlooker.sql(Cluster::CreateOrder);
        let orders: Vec<OrderRow> =
            sqlx::query_as("SELECT * FROM orders").fetch_all(orders).await?;
        let items = onlooker.items().await?;
        let all = RangeInclusive::new(i64::MIN, i64::MAX);
        Ok(Self { items, ..Self::read(onlooker, orders, all, |_| true).await? })
    }

    /// Reads what there is besides of orders within a range of ids, of those that are wanted; items
    /// are left out.
    pub(crate) async fn read(
        onlooker: &Onlooker,
        orders: Vec<OrderRow>,
        range: RangeInclusive<i64>,
        is_wanted: impl Fn(i64) -> bool,
    ) -> Result<Self> {
        let (first, last) = range.into_inner();
        let reservations: Vec<ReservationRow> =
            sqlx::query_as("SELECT * FROM reservation WHERE order_id BETWEEN $1 AND $2")
                .bind(first)
                .bind(last)
                .fetch_all(onlooker.sql(Cluster::Store))
                .await?;
        let reservations = reservations.into_iter().filter(|row| is_wanted(row.order_id));
        let mut facts = BTreeMap::new();
        for shard in [Cluster::Shard1, Cluster::Shard2] {
            for table in 0..16 {
                let query = format!(
                    "SELECT * FROM order_event_{table:02} WHERE order_id BETWEEN $1 AND $2 \
                     ORDER BY order_id, fact"
                );
                let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(first).bind(last);
                let mut found: Vec<Said> = query.fetch_all(onlooker.sql(shard)).await?;
                found.retain(|said| is_wanted(said.order_id));
                facts.insert((shard, table), found);
            }
        }
        let known: BTreeSet<i64> =
            facts.values().flatten().map(|said: &Said| said.order_id).collect();
        let statuses = stream::iter(known)
            .map(|order| async move { anyhow::Ok((order, onlooker.status(order).await?)) })
            .buffer_unordered(ASKED)
            .try_collect()
            .await?;
        Ok(Self {
            orders: orders.into_iter().map(|row| (row.order_id, row)).collect(),
            items: BTreeMap::new(),
            reservations: reservations.map(|row| (row.order_id, row)).collect(),
            facts,
            statuses,
        })
    }

    /// The facts of all shards.
    pub fn all_facts(&self) -> BTreeSet<&Said> {
        self.facts.values().flatten().collect()
    }
}

impl Onlooker {
    /// All items of the store.
    pub(crate) async fn items(&self) -> Result<BTreeMap<i64, ItemRow>> {
        let items = sqlx::query_as("SELECT * FROM item").fetch_all(self.sql(Cluster::Store));
        let items: Vec<ItemRow> = items.await?;
        Ok(items.into_iter().map(|row| (row.item_id, row)).collect())
    }

    /// Asks again while monitoring says that it cannot tell just now.
    async fn status(&self, order: i64) -> Result<Status> {
        let url = format!("{}/api/v1/status", self.urls[&Service::Monitoring]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.http.get(&url).query(&[("order_id", order)]);
            let answer = request.send().await.and_then(reqwest::Response::error_for_status);
            match answer {
                Ok(answer) => return Ok(answer.json().await?),
                Err(error) => {
                    ensure!(Instant::now() < deadline, "status of order {order}: {error}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
