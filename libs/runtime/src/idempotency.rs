//! Idempotency keys: what a request made under an `Idempotency-Key`, written down in the
//! transaction that makes it. A repetition is answered with that; one that comes while its first
//! request commits waits for it, at whichever instance.
//!
//! The table is `idempotency_key (key, fingerprint, …, expires_at)`, with the id of what was made
//! under the name it has in that service.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use sagabus::{Checkout, within};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::IdempotencyConfig;
use crate::rows::Rows;

/// Keys forgotten by one statement, how often it is looked for them, and how long that may take.
const FORGOTTEN: i64 = 5_000;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(8);

/// A service's keys.
#[derive(Debug, Clone)]
pub struct Keys {
    ttl: Duration,
    rows: Rows,
    claim: String,
    holders: String,
}

/// A key with its request and the id of what that request made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: Vec<u8>,
    /// What the request made.
    pub id: i64,
    /// Whether it was claimed just now, and not by an earlier request.
    pub is_fresh: bool,
}

impl Claim {
    /// A request, in words that tell it from any other, which makes what has this id.
    pub fn new(key: impl Into<String>, request: &str, id: i64) -> Self {
        Self { key: key.into(), fingerprint: fingerprint(request), id, is_fresh: true }
    }

    /// Whether the key is held for this request: if not, it cannot be used for it.
    pub fn is_for(&self, request: &str) -> bool {
        self.fingerprint == fingerprint(request)
    }
}

fn fingerprint(request: &str) -> Vec<u8> {
    Sha256::digest(request).to_vec()
}

impl Keys {
    /// Keys that are remembered as long, and as many, as the configuration says; `column` is where
    /// the table has the id.
    pub fn new(column: &'static str, config: &IdempotencyConfig) -> Self {
        let claim = format!(
            "INSERT INTO idempotency_key AS k (key, fingerprint, {column}, expires_at) \
             SELECT key, fingerprint, id, $4 \
             FROM unnest($1::text[], $2::bytea[], $3::bigint[]) u (key, fingerprint, id) \
             ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, \
                 {column} = excluded.{column}, expires_at = excluded.expires_at \
             WHERE k.expires_at <= $5 RETURNING key"
        );
        let holders = format!(
            "SELECT key, fingerprint, {column} FROM idempotency_key \
             WHERE key = ANY($1) AND expires_at > $2"
        );
        let rows = Rows::new("idempotency_key", config.keys_limit);
        Self { ttl: config.ttl, rows, claim, holders }
    }

    /// Whether as many keys are remembered as may be: then no more are to be claimed, and requests
    /// under new ones to be refused. Forgetting the oldest early would make room as well; but whoever
    /// repeats a request under one of them was promised that nothing is done twice, while a refused
    /// request has done nothing.
    pub fn are_full(&self) -> bool {
        self.rows.is_full()
    }

    /// Until when a key claimed now is remembered.
    pub fn remembered_until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + self.ttl
    }

    /// Claims keys that nobody holds or whose time is over, and returns who holds each of `keys` now.
    pub async fn claim(
        &self,
        connection: &mut PgConnection,
        claims: &[Claim],
        keys: &[&str],
        now: DateTime<Utc>,
    ) -> anyhow::Result<HashMap<String, Claim>> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        // In one order everywhere: two instances that claim the same keys must not deadlock.
        let claims: BTreeMap<_, _> = claims.iter().map(|claim| (&claim.key, claim)).collect();
        let claimed: Vec<String> = sqlx::query_scalar(AssertSqlSafe(self.claim.clone()))
            .bind(claims.keys().map(|key| key.as_str()).collect::<Vec<_>>())
            .bind(claims.values().map(|claim| claim.fingerprint.clone()).collect::<Vec<_>>())
            .bind(claims.values().map(|claim| claim.id).collect::<Vec<_>>())
            .bind(self.remembered_until(now))
            .bind(now)
            .fetch_all(&mut *connection)
            .await
            .context("claiming idempotency keys")?;
        // A statement of its own: it sees the holder whose commit the first one waited for.
        let holders: Vec<(String, Vec<u8>, i64)> =
            sqlx::query_as(AssertSqlSafe(self.holders.clone()))
                .bind(keys)
                .bind(now)
                .fetch_all(connection)
                .await
                .context("reading idempotency keys")?;
        let claimed: HashSet<_> = claimed.into_iter().collect();
        let holders = holders.into_iter().map(|(key, fingerprint, id)| {
            let is_fresh = claimed.contains(&key);
            (key.clone(), Claim { key, fingerprint, id, is_fresh })
        });
        Ok(holders.collect())
    }

    /// Forgets keys whose time is over, and counts the others, until stopped. A failed look is made
    /// up for by the next.
    pub async fn forget(self, pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            while !stop.is_cancelled() {
                match within(LIMIT, forget_some(&pool)).await {
                    Ok(FORGOTTEN..) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "forgetting keys failed");
                        break;
                    }
                }
            }
            self.rows.look(&pool).await;
        }
        Ok(())
    }
}

async fn forget_some(pool: &PgPool) -> anyhow::Result<i64> {
    let mut connection = Checkout::take(pool).await?;
    let forgotten = sqlx::query(
        "DELETE FROM idempotency_key WHERE key = ANY(ARRAY( \
             SELECT key FROM idempotency_key WHERE expires_at <= $1 LIMIT $2))",
    )
    .bind(clock::now())
    .bind(FORGOTTEN)
    .execute(&mut *connection)
    .await
    .context("forgetting idempotency keys")?;
    connection.keep();
    Ok(forgotten.rows_affected().cast_signed())
}
