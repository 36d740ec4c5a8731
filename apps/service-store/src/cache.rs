//! The cache of items in Redis. It is versioned: an entry carries its item's version, and no script
//! here ever puts an older version over a newer one, so racing readers and writers cannot leave a
//! stale item behind.
//!
//! The relay tells the cache of every change *before* the change's events go out, and again after
//! a crash in between. When Redis cannot be told, the doubt is noted in the database; as soon as
//! Redis answers, everything cached before is set aside by a new epoch, and until then nothing is
//! read from it. Other instances learn of the doubt within a second: that, while Redis is in
//! trouble, bounds how old an answer can be. Redis away: answers come from Postgres, nothing fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use ordersaga_contract::ItemId;
use ordersaga_runtime::health::Dependency;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, TlsCertificates};
use sagabus::{BoxError, Invalidate, within};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db;
use crate::view::ItemView;

/// How long an id stays known to be no item's.
const ABSENCE_TTL: Duration = Duration::from_secs(5);
/// How long a mark of a newer version keeps an older one out: longer than any load can take.
/// Entries replace marks and must not live shorter.
pub(crate) const MARK_TTL: Duration = Duration::from_mins(1);
/// How long such a look may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// How soon trouble with Redis is noticed and made up for.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

static LOOKUPS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let lookups = prometheus::register_int_counter_vec!(
        "cache_requests_total",
        "Items asked of the cache, by result: hit, absent (known not to exist), miss, or bypass \
         (Redis is away or not to be trusted).",
        &["result"]
    )
    .expect("registered once");
    // A counter that is first seen at 1 has not risen, to whoever watches it.
    for result in ["hit", "absent", "miss", "bypass"] {
        lookups.with_label_values(&[result]);
    }
    lookups
});

/// Returns the epoch and the entry. An entry is `VERSION|JSON`; the JSON is empty for a mark that a
/// newer version exists, and `null` for an id that is no item's.
static GET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local epoch = redis.call('GET', 'item:epoch') or '0'
         return {epoch, redis.call('GET', 'item:' .. epoch .. ':' .. ARGV[1])}",
    )
});

/// Returns the entry, and for how many milliseconds it stays.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local key = 'item:' .. (redis.call('GET', 'item:epoch') or '0') .. ':' .. ARGV[1]
         return {redis.call('GET', key), redis.call('PTTL', key)}",
    )
});

/// Puts an entry (item, version, JSON, milliseconds, epoch) unless a newer version is known or the
/// epoch is another than when the caller looked.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local epoch = redis.call('GET', 'item:epoch') or '0'
         if epoch ~= ARGV[5] then return 0 end
         local key = 'item:' .. epoch .. ':' .. ARGV[1]
         local held = redis.call('GET', key)
         if held and tonumber(string.match(held, '^%d+')) > tonumber(ARGV[2]) then return 0 end
         redis.call('SET', key, ARGV[2] .. '|' .. ARGV[3], 'PX', ARGV[4])
         return 1",
    )
});

/// Replaces what is older than the given versions by marks: milliseconds, then item and version in
/// turn.
static MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local epoch = redis.call('GET', 'item:epoch') or '0'
         for i = 2, #ARGV, 2 do
           local key = 'item:' .. epoch .. ':' .. ARGV[i]
           local held = redis.call('GET', key)
           if not held or tonumber(string.match(held, '^%d+')) < tonumber(ARGV[i + 1]) then
             redis.call('SET', key, ARGV[i + 1] .. '|', 'PX', ARGV[1])
           end
         end
         return 1",
    )
});

/// What the cache knows of an item.
pub(crate) enum Lookup {
    /// The item.
    Found(Box<ItemView>),
    /// There is no such item.
    KnownAbsent,
    /// Nothing but, perhaps, that there is a version as high as this. What is loaded may be put
    /// under the epoch.
    Miss { epoch: String, version: i64 },
    /// The cache is not to be used now.
    Bypass,
}

/// What the cache has of an item, for who wants to see the cache and not the item.
pub(crate) enum Cached {
    /// The item, for so long.
    Item { version: i64, view: Box<ItemView>, expires_in_ms: i64 },
    /// That there is a version as high as this.
    Mark { version: i64, expires_in_ms: i64 },
    /// That there is no such item.
    Absent,
    /// Nothing.
    Nothing,
    /// The cache is not to be used now.
    Unusable,
}

pub(crate) struct Cache {
    redis: ConnectionManager,
    pool: PgPool,
    ttl: Duration,
    dependency: Dependency,
    /// Redis may hold items older than the database.
    suspect: AtomicBool,
    /// Doubts noted by this process.
    doubts: AtomicU64,
    /// The server process last seen: another one may have come back with old data.
    run_id: Mutex<Option<String>>,
}

impl Cache {
    /// A cache that connects when first used.
    pub(crate) fn new(
        config: &Config,
        pool: PgPool,
        dependency: Dependency,
    ) -> anyhow::Result<Self> {
        LazyLock::force(&LOOKUPS);
        let client = client(config)?;
        let settings = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(Duration::from_millis(300)))
            .set_response_timeout(Some(Duration::from_millis(300)));
        Ok(Self {
            redis: ConnectionManager::new_lazy_with_config(client, settings)?,
            pool,
            ttl: config.cache_ttl_seconds,
            dependency,
            // Until the first check has looked: a past failure may be marked in the database.
            suspect: AtomicBool::new(true),
            doubts: AtomicU64::new(0),
            run_id: Mutex::default(),
        })
    }

    /// What is known of an item.
    pub(crate) async fn get(&self, item: ItemId) -> Lookup {
        let lookup = self.try_get(item).await.unwrap_or(Lookup::Bypass);
        let result = match lookup {
            Lookup::Found(_) => "hit",
            Lookup::KnownAbsent => "absent",
            Lookup::Miss { .. } => "miss",
            Lookup::Bypass => "bypass",
        };
        LOOKUPS.with_label_values(&[result]).inc();
        lookup
    }

    async fn try_get(&self, item: ItemId) -> anyhow::Result<Lookup> {
        if !self.is_usable() {
            return Ok(Lookup::Bypass);
        }
        let mut redis = self.redis.clone();
        let answer = GET.arg(item.get()).invoke_async(&mut redis).await;
        let (epoch, entry): (String, Option<String>) = self.noticing(answer)?;
        let (version, json) = entry.as_deref().and_then(|e| e.split_once('|')).unwrap_or_default();
        Ok(match json {
            "" => Lookup::Miss { epoch, version: version.parse().unwrap_or(0) },
            "null" => Lookup::KnownAbsent,
            json => Lookup::Found(serde_json::from_str(json)?),
        })
    }

    /// What the cache has of an item. Counts as no lookup.
    pub(crate) async fn look(&self, item: ItemId) -> Cached {
        self.try_look(item).await.unwrap_or(Cached::Unusable)
    }

    async fn try_look(&self, item: ItemId) -> anyhow::Result<Cached> {
        if !self.is_usable() {
            return Ok(Cached::Unusable);
        }
        let mut redis = self.redis.clone();
        let answer = LOOK.arg(item.get()).invoke_async(&mut redis).await;
        let (entry, expires_in_ms): (Option<String>, i64) = self.noticing(answer)?;
        let Some((version, json)) = entry.as_deref().and_then(|e| e.split_once('|')) else {
            return Ok(Cached::Nothing);
        };
        let version = version.parse()?;
        Ok(match json {
            "" => Cached::Mark { version, expires_in_ms },
            "null" => Cached::Absent,
            json => {
                Cached::Item { version, view: Box::new(serde_json::from_str(json)?), expires_in_ms }
            }
        })
    }

    fn is_usable(&self) -> bool {
        !self.suspect.load(Ordering::Acquire) && self.dependency.is_up()
    }

    /// Offers what was loaded: an item with its version, or that there is none.
    pub(crate) async fn put(&self, item: ItemId, found: Option<&(ItemView, i64)>, epoch: &str) {
        let (version, json, ttl) = match found {
            Some((view, version)) => {
                let Ok(json) = serde_json::to_string(view) else { return };
                (*version, json, jittered(self.ttl))
            }
            None => (0, "null".to_owned(), ABSENCE_TTL),
        };
        let mut redis = self.redis.clone();
        let mut put = PUT.arg(item.get());
        put.arg(version).arg(json).arg(milliseconds(ttl)).arg(epoch);
        let _ = self.noticing(put.invoke_async::<i64>(&mut redis).await);
    }

    /// A new item: whoever asked for its id before must not be believed any longer. If Redis
    /// cannot be told, [`ABSENCE_TTL`] bounds the error.
    pub(crate) async fn forget_absence(&self, item: ItemId) {
        let _ = self.mark(&[(item.get(), 1)]).await;
    }

    async fn mark(&self, changed: &[(i64, i64)]) -> RedisResult<()> {
        let mut redis = self.redis.clone();
        let mut mark = MARK.arg(milliseconds(MARK_TTL));
        for (item, version) in changed {
            mark.arg(*item).arg(*version);
        }
        self.noticing(mark.invoke_async::<i64>(&mut redis).await).map(|_| ())
    }

    /// Lets no later reader wait for a Redis that has just failed.
    fn noticing<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        if let Err(error) = &answer {
            tracing::debug!(%error, "redis");
            self.dependency.down(brief(error));
        }
        answer
    }

    /// Watches Redis once a second, and renews the cache after trouble. Runs until stopped.
    pub(crate) async fn keep(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = within(CHECK_LIMIT, Box::pin(self.check())).await {
                tracing::debug!(error = format!("{error:#}"), "the cache is not used");
            }
        }
        Ok(())
    }

    async fn check(&self) -> anyhow::Result<()> {
        let doubts_before = self.doubts.load(Ordering::Acquire);
        let mut redis = self.redis.clone();
        let info: RedisResult<redis::InfoDict> =
            redis::cmd("INFO").arg("server").query_async(&mut redis).await;
        let run_id: String = self.noticing(info)?.get("run_id").unwrap_or_default();
        // To a process that has just started every server is another one: nobody may be left who
        // knew the last.
        let is_another = self.run_id.lock().as_ref() != Some(&run_id);
        if is_another {
            self.doubt().await?;
        }
        *self.run_id.lock() = Some(run_id);
        if let Some(doubts) = db::cache_doubts(&self.pool).await? {
            self.suspect.store(true, Ordering::Release);
            // Never used before: a number counted up would come again in a Redis that was emptied.
            let epoch = format!("{:016x}", fastrand::u64(..));
            let mut renew = redis::cmd("SET");
            renew.arg("item:epoch").arg(epoch);
            self.noticing(renew.query_async::<()>(&mut redis).await)?;
            db::settle_doubts(&self.pool, doubts).await?;
            tracing::info!("redis answers again: everything cached before is set aside");
        } else if self.doubts.load(Ordering::Acquire) == doubts_before {
            self.suspect.store(false, Ordering::Release);
        }
        self.dependency.up();
        Ok(())
    }

    /// From now on nobody here reads the cache, until a check has renewed it.
    async fn doubt(&self) -> anyhow::Result<()> {
        self.doubts.fetch_add(1, Ordering::AcqRel);
        self.suspect.store(true, Ordering::Release);
        within(CHECK_LIMIT, db::doubt_cache(&self.pool)).await.context("noting a doubt")?;
        // A check that came before the commit saw no doubt, and trusted Redis again.
        self.suspect.store(true, Ordering::Release);
        Ok(())
    }
}

impl Invalidate for Cache {
    fn invalidate(&self, changed: Vec<(i64, i64)>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            // A Redis that is known to be away is not waited for with every batch.
            if self.dependency.is_up() && self.mark(&changed).await.is_ok() {
                return Ok(());
            }
            Ok(self.doubt().await?)
        })
    }
}

fn client(config: &Config) -> anyhow::Result<Client> {
    // Which one rustls takes is left open where a build has several; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = config.redis_url.expose();
    let Some(file) = &config.redis_ca_file else {
        return Client::open(url).context("REDIS_URL");
    };
    let root_cert = std::fs::read(file).context("REDIS_CA_FILE")?;
    let trusted = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
    Client::build_with_tls(url, trusted).context("REDIS_URL with REDIS_CA_FILE")
}

/// What may be shown on `/ready`.
fn brief(error: &RedisError) -> &'static str {
    match error.kind() {
        ErrorKind::AuthenticationFailed => "refuses the user or its password",
        ErrorKind::Server(ServerErrorKind::NoPerm) => "does not grant the user a right",
        ErrorKind::Io if is_distrust(error) => "its certificate is not trusted",
        _ => "does not answer",
    }
}

/// rustls' errors come as input and output that is not valid.
fn is_distrust(error: &RedisError) -> bool {
    let source = std::error::Error::source(error);
    let shared = source.and_then(|s| s.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>());
    let io = shared.and_then(|shared| shared.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A tenth less at random, so that what was cached together does not expire together.
fn jittered(ttl: Duration) -> Duration {
    ttl.mul_f64(1.0 - fastrand::f64() / 10.0)
}
