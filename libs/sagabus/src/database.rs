//! Work on Postgres that may be given up at any point.

use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::Transaction;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, Postgres};

use crate::error::{answer, chain, of_database};
use crate::{CommitError, Error, NoAnswer, ReadOnly};

/// A connection out of a pool that goes back only if it is [kept](Checkout::keep). One whose work was
/// given up in the middle, by a time limit or because nobody waits any more, is closed: it may be
/// inside a transaction, or still be waiting for an answer that never comes.
pub struct Checkout {
    connection: PoolConnection<Postgres>,
    is_done: bool,
}

impl Checkout {
    /// Takes a connection.
    pub async fn take(pool: &PgPool) -> sqlx::Result<Self> {
        Ok(Self { connection: pool.acquire().await?, is_done: false })
    }

    /// The work is done: the connection may be used again.
    pub fn keep(mut self) {
        self.is_done = true;
    }
}

impl Deref for Checkout {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.close_on_drop();
        }
    }
}

/// Gives up after `limit`: a frozen server answers none of Postgres' own time limits.
pub async fn within<T, E: From<NoAnswer>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(NoAnswer.into()))
}

/// Commits, and tells apart what has not happened from what may have.
pub async fn commit(transaction: Transaction<'_, Postgres>) -> Result<(), CommitError> {
    transaction.commit().await.map_err(of_commit)
}

/// The error of a statement that commits.
pub(crate) fn of_commit(error: sqlx::Error) -> CommitError {
    let is_answer = matches!(error, sqlx::Error::Database(_));
    if is_answer && !is_broken(&error) {
        CommitError::RolledBack(error)
    } else {
        CommitError::Unconfirmed(error)
    }
}

/// Whether the connection has ended, by an error of its own or because the server ended it.
pub fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // Class 08, connection exception; the server or the session is being shut down or starting;
        // a session that idled too long, inside of a transaction or not.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08")
                || matches!(&*code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
        }),
        _ => false,
    }
}

/// Fails with [`ReadOnly`] if transactions of this connection cannot write.
pub async fn ensure_writable(connection: &mut PgConnection) -> Result<(), Error> {
    let read_only: String =
        sqlx::query_scalar("SHOW transaction_read_only").fetch_one(connection).await?;
    if read_only == "off" { Ok(()) } else { Err(ReadOnly.into()) }
}

/// What may be shown of an error to anybody: its kind, never a statement's text.
pub fn brief(error: &(dyn std::error::Error + 'static)) -> &'static str {
    if chain(error).any(|cause| cause.downcast_ref::<NoAnswer>().is_some()) {
        return "does not answer";
    }
    if chain(error).any(|cause| cause.downcast_ref::<ReadOnly>().is_some()) {
        return "read-only";
    }
    if let Some(answer) = answer(error) {
        return match answer.code().as_deref() {
            Some("25006") => "read-only",
            // Undefined table: nobody has migrated it yet.
            Some("42P01") => "is not migrated",
            // Class 28, invalid authorization: the role, its password, or pg_hba.conf.
            Some(code) if code.starts_with("28") => "refuses the role or its password",
            _ => "refuses the query",
        };
    }
    match of_database(error) {
        Some(sqlx::Error::PoolTimedOut) => "no connection within the time limit",
        // How rustls' errors come.
        Some(sqlx::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            "no trusted connection"
        }
        Some(sqlx::Error::Tls(_)) => "no trusted connection",
        Some(sqlx::Error::Io(_)) => "not reachable",
        _ => "not usable",
    }
}
