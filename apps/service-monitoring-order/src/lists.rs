//! Lists: what is asked of all nodes at once, straight from them, and counts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use ordersaga_contract::{Fact, OrderId};
use ordersaga_runtime::postgres;
use sagabus::within;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::db;
use crate::page::{Filter, Page, Part, merge};
use crate::progress::Progress;
use crate::shards::{Shards, Source};

/// Lists that are read at the same time, at the most: their connections are for statuses, too.
const AT_ONCE: usize = 2;
/// How long one statement of a list may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Facts that one statement reads: for a page of the newest orders, and else.
const FEW_FACTS: usize = 300;
const MANY_FACTS: usize = 2_000;
/// What [`FEW_FACTS`] suffices for, if each order has as many as there are.
const FEW_ORDERS: usize = FEW_FACTS / Fact::ALL.len() - 1;
/// Orders of a node that are looked at for one page, at the least, if there are not enough of those
/// asked for among them.
const LOOK_AT: usize = 5_000;

/// Reads lists.
pub(crate) struct Lists {
    shards: Arc<Shards>,
    coordinator: PgPool,
    progress: Arc<Progress>,
    turns: Semaphore,
}

/// A page of orders, and what it lacks.
pub(crate) struct Listed {
    pub(crate) page: Page,
    /// Nodes that could not be read.
    pub(crate) missing: Vec<&'static str>,
    pub(crate) as_of: Option<DateTime<Utc>>,
}

/// Records by minute, newest first, and by fact.
pub(crate) struct Counts {
    pub(crate) minutes: Vec<(DateTime<Utc>, BTreeMap<Fact, i64>)>,
    pub(crate) as_of: Option<DateTime<Utc>>,
}

impl Lists {
    pub(crate) fn new(shards: Arc<Shards>, coordinator: PgPool, progress: Arc<Progress>) -> Self {
        Self { shards, coordinator, progress, turns: Semaphore::new(AT_ONCE) }
    }

    /// For statuses of what is listed.
    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    /// The newest orders that are older than `after`.
    pub(crate) async fn newest(
        &self,
        filter: Filter,
        after: Option<OrderId>,
        limit: usize,
    ) -> anyhow::Result<Listed> {
        let _turn = self.turns.acquire().await?;
        let as_of = self.progress.until();
        let ids = self.ids(&filter, after).await?;
        let sources = self.shards.sources()?;
        let scans = sources.iter().map(|source| scan(source, &filter, ids.clone(), limit));
        let (mut parts, mut missing, mut first) = (Vec::new(), Vec::new(), None);
        for (source, part) in sources.iter().zip(join_all(scans).await) {
            match part {
                Ok(part) => parts.push(part),
                Err(error) => {
                    tracing::debug!(node = source.name, error = format!("{error:#}"), "a list");
                    missing.push(source.name);
                    first = first.or(Some(error));
                }
            }
        }
        if let Some(error) = first.filter(|_| parts.is_empty()) {
            return Err(error.context("no node could be read"));
        }
        Ok(Listed { page: merge(parts, limit), missing, as_of })
    }

    /// Where the orders' ids are to be looked for.
    async fn ids(&self, filter: &Filter, after: Option<OrderId>) -> anyhow::Result<Range<i64>> {
        let (mut first, mut last) = (None, None);
        if filter.from.is_some() || filter.to.is_some() {
            let read = || db::placed_within(&self.coordinator, filter.from, filter.to);
            let read = within(LIMIT, postgres::repeat(&self.coordinator, read)).await;
            // They shorten the way, no more.
            match read {
                Ok(ids) => (first, last) = ids,
                Err(error) => tracing::debug!(error = format!("{error:#}"), "ids of a time"),
            }
        }
        let end = last.map_or(i64::MAX, |last| last.saturating_add(1));
        let after = after.map_or(i64::MAX, OrderId::get);
        Ok(first.unwrap_or(OrderId::MIN)..end.min(after))
    }

    /// Counts of the newest `minutes` minutes within a time.
    pub(crate) async fn counts(
        &self,
        time: Range<DateTime<Utc>>,
        minutes: usize,
    ) -> anyhow::Result<Counts> {
        let _turn = self.turns.acquire().await?;
        let as_of = self.progress.until();
        let read = || db::counts(&self.coordinator, time.clone(), minutes);
        let minutes = within(LIMIT, postgres::repeat(&self.coordinator, read)).await?;
        Ok(Counts { minutes, as_of })
    }
}

/// Looks for `limit` orders on one node. Having looked at many it tells what it has found.
async fn scan(
    source: &Source,
    filter: &Filter,
    ids: Range<i64>,
    limit: usize,
) -> anyhow::Result<Part> {
    anyhow::ensure!(source.is_readable, "{} is down", source.name);
    let is_short = filter.is_none() && limit <= FEW_ORDERS;
    let rows = if is_short { FEW_FACTS } else { MANY_FACTS };
    let mut part = Part::default();
    let mut end = ids.end;
    while ids.start < end {
        let read = || db::newest(&source.pool, &source.tables, ids.start..=end - 1, rows);
        let newest = within(LIMIT, postgres::repeat(&source.pool, read)).await?;
        part.scanned += newest.histories.len();
        let oldest = newest.histories.last().map(|history| history.order.order_id);
        part.found.extend(newest.histories.into_iter().filter(|history| filter.admits(history)));
        if newest.is_all {
            part.reach = None;
            break;
        }
        let oldest = oldest.context("an order with more facts than there are")?;
        part.reach = Some(oldest);
        if part.found.len() >= limit || part.scanned >= LOOK_AT {
            break;
        }
        end = oldest.get();
        if end <= ids.start {
            part.reach = None;
        }
    }
    Ok(part)
}
