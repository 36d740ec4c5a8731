//! Items as the API shows them: from the cache if it has them, else from the database, with one
//! load at a time per item.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use ordersaga_contract::ItemId;
use ordersaga_runtime::idempotency::Keys;
use ordersaga_runtime::postgres;
use ordersaga_runtime::rows::Rows;
use parking_lot::Mutex;
use sagabus::within;
use sqlx::PgPool;

use crate::cache::{Cache, Lookup};
use crate::db::{self, Added, NewItem};
use crate::view::ItemView;

/// An item with its version, if there is one.
type Loaded = Option<(ItemView, i64)>;
type Load = Shared<BoxFuture<'static, Result<Loaded, Arc<anyhow::Error>>>>;

/// How long loading an item, or adding one, may take.
const LOAD_LIMIT: Duration = Duration::from_secs(5);
const ADD_LIMIT: Duration = Duration::from_secs(8);

pub(crate) struct Items {
    pool: PgPool,
    cache: Arc<Cache>,
    keys: Keys,
    rows: Rows,
    /// By item and the cache's epoch: a load of an earlier epoch may have begun before a change that
    /// its epoch's end stands for.
    loading: Arc<Mutex<HashMap<(ItemId, String), Load>>>,
}

impl Items {
    pub(crate) fn new(pool: PgPool, cache: Arc<Cache>, keys: Keys, rows: Rows) -> Self {
        Self { pool, cache, keys, rows, loading: Arc::default() }
    }

    /// The item, if there is one.
    pub(crate) async fn find(&self, item: ItemId) -> anyhow::Result<Option<ItemView>> {
        let (epoch, version) = match self.cache.get(item).await {
            Lookup::Found(view) => return Ok(Some(*view)),
            Lookup::KnownAbsent => return Ok(None),
            Lookup::Miss { epoch, version } => (epoch, version),
            // Nobody knows of a load under way whether it began before the item's last change.
            Lookup::Bypass => return Ok(read(&self.pool, item).await?.map(|(view, _)| view)),
        };
        let joined = self.load(item, epoch).await.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let loaded = match joined {
            // Somebody began to load it before it changed; the cache knows of the change.
            Some((_, old)) if old < version => read(&self.pool, item).await?,
            loaded => loaded,
        };
        Ok(loaded.map(|(view, _)| view))
    }

    /// Adds an item. Whether it was added is not known if the error is
    /// [unconfirmed](sagabus::CommitError::Unconfirmed) or [`sagabus::NoAnswer`].
    pub(crate) async fn add(&self, new: &NewItem) -> anyhow::Result<Added> {
        let add = || db::add_item(&self.pool, &self.keys, &self.rows, new);
        let added = within(ADD_LIMIT, postgres::repeat(&self.pool, add)).await?;
        if let Added::Item { item, .. } = added {
            // Somebody may have asked for the id before it existed.
            self.cache.forget_absence(item).await;
        }
        Ok(added)
    }

    fn load(&self, item: ItemId, epoch: String) -> Load {
        let mut loading = self.loading.lock();
        let key = (item, epoch.clone());
        let done = key.clone();
        let start = || {
            let (pool, cache) = (self.pool.clone(), self.cache.clone());
            let loading = self.loading.clone();
            let load = async move {
                let found = AssertUnwindSafe(read(&pool, item)).catch_unwind().await;
                loading.lock().remove(&done);
                let found = found.unwrap_or_else(|_| Err(anyhow::anyhow!("loading panicked")));
                if let Ok(found) = &found {
                    cache.put(item, found.as_ref(), &epoch).await;
                }
                found.map_err(Arc::new)
            };
            // A task of its own: it must end even if everybody who waits for it goes away.
            let task = tokio::spawn(load);
            async move { task.await.unwrap_or_else(|error| Err(Arc::new(error.into()))) }
                .boxed()
                .shared()
        };
        loading.entry(key).or_insert_with(start).clone()
    }
}

/// Reads from the database.
async fn read(pool: &PgPool, item: ItemId) -> anyhow::Result<Loaded> {
    within(LOAD_LIMIT, postgres::repeat(pool, || db::find_item(pool, item))).await
}
