//! Ways into a running system from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Databases, Service};
use reqwest::Client;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::records::{EVENTS, Log};

/// The databases that consume topics.
pub(crate) const CONSUMERS: [Cluster; 3] =
    [Cluster::CreateOrder, Cluster::Store, Cluster::Monitoring];
/// What waits there to be published.
const OUTBOXES: [&str; 3] = ["sagabus.outbox", "public.outbox", "sagabus.dead_letter"];
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a database's service consumes.
pub fn consumed(cluster: Cluster) -> &'static [&'static str] {
    match cluster {
        Cluster::CreateOrder => &["reservation", "reset"],
        Cluster::Store => &["incoming", "reset"],
        _ => &EVENTS,
    }
}

/// The next offset of each partition, by topic and partition.
pub(crate) type Ends = BTreeMap<(String, i32), i64>;

/// Somebody who can look into every part of a system.
#[derive(Clone)]
pub struct Onlooker {
    /// The topics.
    pub log: Log,
    /// A client of the services.
    pub http: Client,
    /// Base URL of each service that answers.
    pub urls: BTreeMap<Service, String>,
    /// URL of Redis.
    pub redis: String,
    pools: BTreeMap<Cluster, PgPool>,
}

impl Onlooker {
    /// Connects when first used.
    pub fn new(databases: &Databases, log: Log, redis: String) -> Result<Self> {
        let pools = Cluster::ALL.map(|cluster| {
            let options = PgPoolOptions::new().max_connections(2);
            Ok((cluster, options.connect_lazy(&databases[cluster].superuser_url())?))
        });
        Ok(Self {
            log,
            http: Client::builder().no_proxy().timeout(Duration::from_secs(40)).build()?,
            urls: BTreeMap::new(),
            redis,
            pools: pools.into_iter().collect::<Result<_>>()?,
        })
    }

    /// A database, as superuser.
    pub fn sql(&self, cluster: Cluster) -> &PgPool {
        &self.pools[&cluster]
    }

    /// A number that a query of one database gives.
    pub async fn number(&self, cluster: Cluster, query: &'static str) -> Result<i64> {
        let found = sqlx::query_scalar(query).fetch_one(self.sql(cluster)).await;
        found.with_context(|| format!("{cluster}: {query}"))
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for pool in self.pools.values() {
            pool.close().await;
        }
    }

    /// Waits until nothing is on its way any more: outboxes empty, every consumer at the end of its
    /// topics, no order undecided. Seen twice with nothing written between, this is rest: what a
    /// consumer did after the first look would have moved the topics' ends by the second.
    pub async fn at_rest(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut last = None;
        loop {
            // A database that just starts again cannot be asked: that is no rest either.
            let state = self.unrest().await.unwrap_or_else(|error| Err(format!("{error:#}")));
            if let Ok(ends) = &state
                && last.as_ref() == Some(ends)
            {
                return Ok(());
            }
            let late = Instant::now() >= deadline;
            ensure!(!late, "not at rest within {within:?}: {:?}", state.err());
            last = state.ok();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The ends of all topics, or what is still on its way.
    async fn unrest(&self) -> Result<Result<Ends, String>> {
        for cluster in CONSUMERS {
            for table in OUTBOXES {
                let count = format!("SELECT count(*) FROM {table}");
                let count = sqlx::query_scalar(sqlx::AssertSqlSafe(count));
                let waiting: i64 = count.fetch_one(self.sql(cluster)).await?;
                if waiting > 0 {
                    return Ok(Err(format!("{cluster}: {waiting} rows in {table}")));
                }
            }
        }
        let undecided = "SELECT count(*) FROM orders WHERE state = 1";
        let undecided = self.number(Cluster::CreateOrder, undecided).await?;
        if undecided > 0 {
            return Ok(Err(format!("{undecided} orders are undecided")));
        }
        let ends = self.log.ends().await?;
        Ok(match self.behind(&ends).await? {
            Some(behind) => Err(behind),
            None => Ok(ends),
        })
    }

    /// A consumer that has not applied its topics up to these ends, in words.
    async fn behind(&self, ends: &Ends) -> Result<Option<String>> {
        for cluster in CONSUMERS {
            let applied = self.offsets(cluster).await?;
            let behind = ends
                .iter()
                .filter(|((topic, _), _)| consumed(cluster).contains(&topic.as_str()))
                .find(|(place, end)| applied.get(place).copied().unwrap_or(0) < **end);
            if let Some((place, end)) = behind {
                let at = applied.get(place);
                return Ok(Some(format!("{cluster} is at {at:?} of {end} in {place:?}")));
            }
        }
        Ok(None)
    }

    /// Waits until everything is published and applied that was on its way at the call, and what was
    /// said in answer to it as well. Other things may be on their way then. The ends of the topics up
    /// to which that is so.
    pub(crate) async fn caught_up(&self, within: Duration) -> Result<Ends> {
        let deadline = Instant::now() + within;
        // What is said in answer to an event is answered by nobody.
        self.arrived(deadline).await?;
        self.arrived(deadline).await
    }

    async fn arrived(&self, deadline: Instant) -> Result<Ends> {
        for cluster in CONSUMERS {
            for table in OUTBOXES {
                let newest = format!("SELECT coalesce(max(id), 0) FROM {table}");
                let newest = sqlx::query_scalar(sqlx::AssertSqlSafe(newest));
                let newest: i64 = newest.fetch_one(self.sql(cluster)).await?;
                let query = format!("SELECT count(*) FROM {table} WHERE id <= $1");
                until(deadline, async || {
                    let waiting = sqlx::query_scalar(sqlx::AssertSqlSafe(query.clone()));
                    let waiting: i64 = waiting.bind(newest).fetch_one(self.sql(cluster)).await?;
                    Ok((waiting > 0).then(|| format!("{cluster}: {waiting} rows in {table}")))
                })
                .await?;
            }
        }
        let ends = self.log.ends().await?;
        until(deadline, async || self.behind(&ends).await).await?;
        Ok(ends)
    }

    /// How far a database has applied its topics.
    pub(crate) async fn offsets(&self, cluster: Cluster) -> Result<Ends> {
        let rows: Vec<(String, i32, i64)> =
            sqlx::query_as("SELECT topic, partition, next_offset FROM sagabus.consumer_offset")
                .fetch_all(self.sql(cluster))
                .await?;
        Ok(rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect())
    }
}

/// Looks until nothing is in the way any more; an error that tells what is when the time is over.
async fn until(deadline: Instant, look: impl AsyncFn() -> Result<Option<String>>) -> Result<()> {
    while let Some(what) = look().await? {
        ensure!(Instant::now() < deadline, "the system does not catch up: {what}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
