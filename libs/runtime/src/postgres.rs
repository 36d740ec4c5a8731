//! Postgres as the services use it: settings, what is done again when a connection breaks, the state
//! that `/ready` shows, and migrations.

use std::time::Duration;

use anyhow::{Context, ensure};
use sagabus::backoff::Backoff;
use sagabus::{Checkout, CommitError, ReadOnly, within};
use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio_util::sync::CancellationToken;

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
/// How often work is done again when its connection breaks. Once is enough if they all broke at
/// one time; the others are for trouble that goes on.
const REPETITIONS: u32 = 3;

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
        // Shorter than others wait for its locks.
        ("idle_in_transaction_session_timeout", silence.as_str()),
        // A client whose host vanished must not hold its locks for two hours.
        ("tcp_user_timeout", "10000"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        // A plan prepared while a table was empty stays cached and scans it when it is full.
        ("enable_seqscan", "off"),
        // Every statement finds its rows by an index, whatever its values are: to plan it again for
        // each of them costs as much as to run it.
        ("plan_cache_mode", "force_generic_plan"),
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

/// Whether a commit may or may not have happened: its answer did not come.
pub fn is_unconfirmed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(CommitError::Unconfirmed(_))))
}

/// Does what `attempt` does, on a connection that it takes from the pool, and does it again if that
/// connection proves to be broken: the server may be up all the same. Not after a commit without
/// an answer. A statement outside of a transaction must therefore only read.
pub async fn repeat<T, F: Future<Output = anyhow::Result<T>>>(
    pool: &PgPool,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(50));
    for _ in 0..REPETITIONS {
        match attempt().await {
            Err(error) if is_broken(&error) && !is_unconfirmed(&error) => {
                tracing::debug!(error = format!("{error:#}"), "again on another connection");
                close_idle(pool);
                backoff.wait().await;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

/// Closes the connections nobody uses: what became of one may have become of all.
pub fn close_idle(pool: &PgPool) {
    while let Some(mut connection) = pool.try_acquire() {
        connection.close_on_drop();
    }
}

/// Whether the connection has ended, by an error of its own or because the server ended it.
pub fn is_broken(error: &anyhow::Error) -> bool {
    of_database(error).is_some_and(sagabus::is_broken)
}

/// Whether the database takes no writes: it recovers as a standby, or was made read-only.
pub fn is_read_only(error: &anyhow::Error) -> bool {
    let read_only = |error: &sqlx::Error| {
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("25006"))
    };
    is_of::<ReadOnly>(error) || of_database(error).is_some_and(read_only)
}

/// The first cause that is of Postgres or the way to it.
pub fn of_database(error: &anyhow::Error) -> Option<&sqlx::Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn is_of<E: std::error::Error + 'static>(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<E>().is_some())
}

async fn probe(pool: &PgPool, query: &'static str) -> anyhow::Result<()> {
    let mut connection = Checkout::take(pool).await?;
    sqlx::query(query).execute(&mut *connection).await?;
    sagabus::ensure_writable(&mut connection).await?;
    connection.keep();
    Ok(())
}

/// Keeps `database` true to what `probe` finds once a second. A read-only server's connections are
/// closed: the next ones may lead to another server, or be set otherwise.
pub async fn watch<F: Future<Output = anyhow::Result<()>>>(
    pool: &PgPool,
    database: &Dependency,
    probe: impl Fn() -> F,
) {
    loop {
        match within(PROBE_LIMIT, repeat(pool, &probe)).await {
            Ok(()) => database.up(),
            Err(error) if is_read_only(&error) => {
                close_idle(pool);
                database.readable(sagabus::brief(&*error));
            }
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "a probe failed");
                database.down(sagabus::brief(&*error));
            }
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// Keeps `database` true to what `query` finds once a second, until stopped. It succeeds as soon as
/// the service can work: the schema is there.
pub async fn keep(
    pool: PgPool,
    database: Dependency,
    query: &'static str,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let watch = watch(&pool, &database, || probe(&pool, query));
    // Boxed: with the TLS handshake in it a connection attempt is large.
    stop.run_until_cancelled(Box::pin(watch)).await;
    Ok(())
}

/// Brings the schemas of `database` up to date as its owner, one after the other, waiting for it as
/// long as it takes. Processes that do so at the same time take turns: sqlx holds an advisory lock
/// meanwhile. One that is frozen loses its turn.
pub async fn migrate(database: &str, url: &str, migrations: &[&Migrator]) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    while let Err(error) = migrate_once(url, migrations).await {
        tracing::warn!(database, error = format!("{error:#}"), "migrations wait");
        backoff.wait().await;
    }
}

async fn migrate_once(url: &str, migrations: &[&Migrator]) -> anyhow::Result<()> {
    let options = holding(parse(url)?.application_name("migrations"), SILENCE);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let mut migrated = Ok(());
    for known in migrations {
        if migrated.is_ok() {
            migrated = apply(&pool, known).await;
        }
    }
    pool.close().await;
    migrated
}

/// Applies what is missing. What a newer version applied besides is left alone: its schema serves
/// the version before as well, which may be started again when the newer one proves bad.
async fn apply(pool: &PgPool, known: &Migrator) -> anyhow::Result<()> {
    let mut migrations = Migrator::with_migrations(known.iter().cloned().collect());
    migrations.dangerous_set_table_name(known.table_name.clone());
    for schema in known.create_schemas.iter() {
        migrations.create_schema(schema.clone());
    }
    migrations.set_ignore_missing(true);
    migrations.run(pool).await.context("a migration failed")?;
    let applied = format!("SELECT version FROM {} ORDER BY version", known.table_name);
    let applied: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(applied)).fetch_all(pool).await?;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::ErrorKind;

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

    /// How often work is done that always fails in this way.
    async fn attempts(error: impl Fn() -> anyhow::Error) -> u32 {
        let (pool, made) = (pool("postgres://127.0.0.1:1/none", "test", 1).unwrap(), Cell::new(0));
        let failed: anyhow::Result<()> = repeat(&pool, || async {
            made.set(made.get() + 1);
            Err(error())
        })
        .await;
        failed.unwrap_err();
        made.get()
    }

    #[test]
    fn a_read_only_server_is_known_as_one_however_it_is_said() {
        let said = || sagabus::Error::from(ReadOnly);
        for error in [said().into(), anyhow::Error::from(said()).context("looking")] {
            assert!(is_read_only(&error));
            assert_eq!(sagabus::brief(&*error), "read-only");
        }
    }

    #[tokio::test]
    async fn what_a_broken_connection_did_not_do_is_done_again() {
        let reset = || sqlx::Error::Io(ErrorKind::ConnectionReset.into());
        assert_eq!(attempts(|| anyhow::Error::new(reset()).context("finding")).await, 4);
        let unconfirmed = || anyhow::Error::new(CommitError::Unconfirmed(reset()));
        assert_eq!(attempts(|| unconfirmed().context("adding")).await, 1, "it may be done");
        assert_eq!(attempts(|| sqlx::Error::PoolTimedOut.into()).await, 1, "nobody is there");
        assert_eq!(attempts(|| ReadOnly.into()).await, 1, "it would be refused again");
    }
}
