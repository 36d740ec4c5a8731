//! What the store knows for itself of an order, and what its cache and its database have of an item
//! at the same moment.

use std::sync::Arc;
use std::time::Duration;

use ordersaga_contract::{ItemId, OrderId};
use ordersaga_runtime::postgres;
use sagabus::within;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::cache::{Cache, Cached};
use crate::db::{self, StoredReservation};
use crate::view::ItemView;

/// What is read at the same time: the pool's other connections are left to orders.
const AT_ONCE: usize = 2;
/// How long reading it may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Reads it.
pub(crate) struct Witness {
    pool: PgPool,
    cache: Arc<Cache>,
    turns: Semaphore,
}

/// An item as the cache and the database have it.
pub(crate) struct Both {
    pub(crate) cached: Cached,
    pub(crate) view: ItemView,
    pub(crate) version: i64,
}

impl Witness {
    pub(crate) fn new(pool: PgPool, cache: Arc<Cache>) -> Self {
        Self { pool, cache, turns: Semaphore::new(AT_ONCE) }
    }

    /// What was decided for an order, if anything was.
    pub(crate) async fn reservation(
        &self,
        order: OrderId,
    ) -> anyhow::Result<Option<StoredReservation>> {
        let _turn = self.turns.acquire().await?;
        let read = || db::find_reservation(&self.pool, order);
        within(LIMIT, postgres::repeat(&self.pool, read)).await
    }

    /// An item, if there is one. The cache is asked first: what it has can be no newer than what the
    /// database has afterwards, whatever changes in between.
    pub(crate) async fn item(&self, item: ItemId) -> anyhow::Result<Option<Both>> {
        let _turn = self.turns.acquire().await?;
        let cached = self.cache.look(item).await;
        let read = || db::find_item(&self.pool, item);
        let found = within(LIMIT, postgres::repeat(&self.pool, read)).await?;
        Ok(found.map(|(view, version)| Both { cached, view, version }))
    }
}
