//! Postgres: pools that fail soon instead of hanging, and migrations at start.

use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Secret;
use crate::health::Dependency;

/// How long one statement may take before Postgres ends it. Every statement of the services is a
/// few milliseconds' work; what takes longer waits for something that is not coming.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may be silent while others wait for what it has locked. A process that is
/// frozen keeps its connections: only the server can end them.
pub const SILENCE: Duration = Duration::from_secs(2);

/// How long a probe may take before the database counts as gone.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// How soon a database that went or came shows.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Connection settings from a URL. An IPv6 address stands in brackets there and without them
/// everywhere else.
pub fn parse(url: &str) -> anyhow::Result<PgConnectOptions> {
    let options: PgConnectOptions = url.parse().context("not a Postgres URL")?;
    let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Ok(match bare.map(str::to_owned) {
        Some(address) => options.host(&address),
        None => options,
    })
}

/// Connection settings from a URL, with the session settings every service wants.
pub fn options(url: &str, application: &str) -> anyhow::Result<PgConnectOptions> {
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    let silence = SILENCE.as_millis().to_string();
    Ok(parse(url)?.application_name(application).options([
        ("statement_timeout", timeout.as_str()),
        ("lock_timeout", "3000"),
        // Shorter than others wait for its locks; and it holds back the outbox's horizon.
        ("idle_in_transaction_session_timeout", silence.as_str()),
        // A client whose host vanished must not hold its locks for two hours.
        ("tcp_user_timeout", "10000"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        // A plan prepared while a table was empty stays cached and scans it when it is full.
        ("enable_seqscan", "off"),
        // The penalty that stands for "off" would make every small scan worth compiling.
        ("jit", "off"),
    ]))
}

/// For a connection whose session holds a lock: the server ends the session, and with it the lock,
/// when its client has been silent for so long, in a transaction or not, or takes no answer.
#[must_use]
pub fn holding(options: PgConnectOptions, silence: Duration) -> PgConnectOptions {
    let silence = silence.as_millis().to_string();
    let limits =
        ["idle_session_timeout", "idle_in_transaction_session_timeout", "tcp_user_timeout"];
    options.options(limits.map(|limit| (limit, silence.as_str())))
}

/// A pool that connects when first used: the database may come up later than the service.
pub fn pool(url: &str, application: &str, connections: u32) -> anyhow::Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(3))
        // A ping before each use would add a round trip; a broken connection shows itself by its
        // first statement.
        .test_before_acquire(false)
        .connect_lazy_with(options(url, application)?))
}

/// A connection out of a pool that goes back only if it is [kept](Lease::keep). One whose work was
/// given up in the middle, by a time limit or because nobody waits any more, is closed: it may be
/// inside a transaction, or still be waiting for an answer that never comes.
pub struct Lease(PoolConnection<Postgres>, bool);

impl Lease {
    /// Takes a connection.
    pub async fn take(pool: &PgPool) -> sqlx::Result<Self> {
        Ok(Self(pool.acquire().await?, false))
    }

    /// The work is done: the connection may be used again.
    pub fn keep(mut self) {
        self.1 = true;
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.1 {
            self.0.close_on_drop();
        }
    }
}

/// Gives up after `limit`: a frozen server answers none of Postgres' own time limits.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(anyhow!(NoAnswer)))
}

/// The database did not answer within the time limit.
#[derive(Debug, thiserror::Error)]
#[error("no answer within the time limit")]
pub struct NoAnswer;

/// A row holds a code that this version does not know: reading it again will not help.
#[derive(Debug, thiserror::Error)]
#[error("an unknown {0}")]
pub struct UnknownCode(pub &'static str);

async fn probe(pool: &PgPool, query: &'static str) -> anyhow::Result<()> {
    let mut lease = Lease::take(pool).await?;
    sqlx::query(query).execute(&mut *lease).await?;
    lease.keep();
    Ok(())
}

/// A database's schema, and how one knows that it is there.
pub struct Schema {
    /// What brings it up to date.
    pub migrations: &'static Migrator,
    /// The owner's URL; without it somebody else migrates.
    pub owner: Option<Secret>,
    /// A query that succeeds as soon as the service can work.
    pub probe: &'static str,
}

impl Schema {
    /// Brings the schema up to date, waiting for the database as long as it takes, and from then
    /// on keeps `database` true to what the probe finds once a second.
    pub async fn keep(
        self,
        pool: PgPool,
        database: Dependency,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let keep = async {
            if let Some(owner) = &self.owner {
                migrate(owner.expose(), self.migrations, &database).await;
            }
            loop {
                match within(PROBE_LIMIT, probe(&pool, self.probe)).await {
                    Ok(()) => database.up(),
                    Err(error) => database.down(brief(&error)),
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        };
        // Boxed: with the TLS handshake in it a connection attempt is large.
        stop.run_until_cancelled(Box::pin(keep)).await;
        Ok(())
    }
}

/// Brings a schema up to date as its owner, waiting for the database as long as it takes.
/// Instances that start together take turns: sqlx holds an advisory lock meanwhile. One that is
/// frozen loses its turn.
pub async fn migrate(url: &str, migrations: &Migrator, database: &Dependency) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    while let Err(error) = migrate_once(url, migrations).await {
        tracing::warn!(error = format!("{error:#}"), "migrations wait");
        database.down(format_args!("migrations wait: {}", brief(&error)));
        backoff.wait().await;
    }
}

async fn migrate_once(url: &str, known: &Migrator) -> anyhow::Result<()> {
    let options = holding(parse(url)?.application_name("migrations"), SILENCE);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let migrated = apply(&pool, known).await;
    pool.close().await;
    migrated
}

/// Applies what is missing. What a newer version applied besides is left alone: its schema serves
/// the version before as well, which may be started again when the newer one proves bad.
async fn apply(pool: &PgPool, known: &Migrator) -> anyhow::Result<()> {
    let mut migrations = Migrator::with_migrations(known.iter().cloned().collect());
    migrations.set_ignore_missing(true);
    migrations.run(pool).await.context("a migration failed")?;
    let applied: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
            .fetch_all(pool)
            .await?;
    let (newer, astray): (Vec<_>, Vec<_>) = applied
        .into_iter()
        .filter(|version| !known.version_exists(*version))
        .partition(|version| known.iter().all(|migration| migration.version < *version));
    ensure!(astray.is_empty(), "migrations {astray:?} are not of this service");
    if !newer.is_empty() {
        tracing::warn!(migrations = ?newer, "a newer version has migrated the database");
    }
    Ok(())
}

/// What may be shown on `/ready`: the kind of failure, never a statement's text.
pub(crate) fn brief(error: &anyhow::Error) -> &'static str {
    if error.is::<NoAnswer>() {
        return "does not answer";
    }
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::PoolTimedOut) => "no connection within the time limit",
        // How rustls' errors come.
        Some(sqlx::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            "no trusted connection"
        }
        Some(sqlx::Error::Tls(_)) => "no trusted connection",
        Some(sqlx::Error::Io(_)) => "not reachable",
        // Class 28, invalid authorization: the role, its password, or pg_hba.conf.
        Some(sqlx::Error::Database(error)) if error.code().is_some_and(|c| c.starts_with("28")) => {
            "refuses the role or its password"
        }
        Some(sqlx::Error::Database(_)) => "refuses the query",
        _ => "not usable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_loses_its_brackets_and_other_hosts_stay() {
        for (url, host) in [
            ("postgres://u:p@[::1]:5432/d", "::1"),
            ("postgres://u:p@[2001:db8::7]/d?sslmode=verify-full", "2001:db8::7"),
            ("postgres://u:p@127.0.0.1:5432/d", "127.0.0.1"),
            ("postgres://u:p@db.example.org/d", "db.example.org"),
        ] {
            assert_eq!(parse(url).unwrap().get_host(), host);
        }
    }
}
