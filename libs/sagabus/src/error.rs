//! Why something did not happen, and whether trying again can help.

use std::error::Error as StdError;
use std::fmt;

use rdkafka::error::KafkaError;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// Any error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Classes of SQLSTATE by which Postgres refuses the data, whenever it is asked: data exception,
/// integrity constraint violation, `WITH CHECK OPTION` violation, program limit exceeded, and what
/// a trigger raises.
const REFUSED: [&str; 5] = ["22", "23", "44", "54", "P0"];

/// Why a [`Handler`](crate::Handler) did not apply its records.
///
/// Any error becomes one: [`Failure::Poison`] if Postgres refuses the data itself or if a [`Poison`]
/// is among its sources, else [`Failure::Retry`].
#[derive(Debug)]
pub enum Failure {
    /// Trying again may help: the database is away, or another transaction was faster.
    Retry(BoxError),
    /// No repetition helps: one of the records can never be applied. It becomes a dead letter, and
    /// the others are applied.
    Poison(BoxError),
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if is_final(&*error) { Self::Poison(error) } else { Self::Retry(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Retry(error) | Self::Poison(error)) = self;
        formatter.write_str(&with_sources(&**error))
    }
}

/// Says that a record can never be read or applied, and why.
#[derive(Debug)]
pub struct Poison(Inner);

/// What remains to be seen of a [`Poison`] in the sources of an error that was boxed elsewhere.
#[derive(Debug)]
struct Inner(BoxError);

impl Poison {
    /// For this reason.
    pub fn new(why: impl Into<BoxError>) -> Self {
        Self(Inner(why.into()))
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StdError for Poison {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StdError for Inner {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Why the relay or a consumer cannot go on, or one of its steps failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Postgres, or the way to it.
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// Postgres was silent.
    #[error("no answer")]
    NoAnswer(#[from] NoAnswer),
    /// Postgres takes no writes.
    #[error("no writes")]
    ReadOnly(#[from] ReadOnly),
    /// A commit.
    #[error("commit")]
    Commit(#[from] CommitError),
    /// The broker, or its client.
    #[error("broker")]
    Kafka(#[from] KafkaError),
    /// What invalidates caches.
    #[error("telling caches")]
    Caches(#[source] BoxError),
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[from] std::io::Error),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self::Other(why.into())
    }
}

/// Why a transaction did not commit, as far as one knows.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The database has refused it, or one of the statements before: nothing of it happened.
    #[error("nothing was committed")]
    RolledBack(#[source] sqlx::Error),
    /// The database was asked to commit and did not say that it has: it may have happened.
    #[error("the commit was not confirmed")]
    Unconfirmed(#[source] sqlx::Error),
}

/// The database did not answer within the time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within the time limit")]
pub struct NoAnswer;

/// The database takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database is read-only")]
pub struct ReadOnly;

/// Why a bus could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The registry has metrics of these names: another bus, or something else.
    #[error("registering metrics")]
    Metrics(#[from] prometheus::Error),
}

/// An error with all that caused it.
pub fn with_sources(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some say what caused them themselves.
        let own = error.to_string();
        if !text.ends_with(&own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text
}

/// An error and its causes.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// What Postgres itself has said, wherever in an error it stands: some ways to box an error hide its
/// outermost type, and leave its sources.
pub(crate) fn answer<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a dyn DatabaseError> {
    chain(error).find_map(|cause| match cause.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(answer)) => Some(&**answer),
        Some(_) => None,
        None => cause.downcast_ref::<Box<dyn DatabaseError>>().map(|answer| &**answer),
    })
}

/// The first cause that is of Postgres or the way to it.
pub(crate) fn of_database<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a sqlx::Error> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// Whether an error would come again however often the same is tried.
fn is_final(error: &(dyn StdError + 'static)) -> bool {
    // What cannot be decoded another version may have written: it is waited for.
    let cannot_be_sent = |error| matches!(error, Some(&sqlx::Error::Encode(_)));
    answer(error).is_some_and(is_refusal)
        || chain(error).any(|cause| {
            cause.is::<Poison>() || cause.is::<Inner>() || cannot_be_sent(cause.downcast_ref())
        })
}

fn is_refusal(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    // No partition takes the row, which has a code of this class, too: one is missing, and will be
    // there again.
    let routine = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine);
    let is_misrouted = routine == Some("ExecFindPartition");
    // A sequence that was left behind by a copy gives out numbers of rows that are there still.
    let is_outbox = error.constraint() == Some("outbox_pkey");
    let is_refused = REFUSED.iter().any(|class| code.starts_with(class));
    is_refused && !is_misrouted && !is_outbox
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_retried_unless_it_would_come_again() {
        let is_poison = |error: anyhow::Error| matches!(Failure::from(error), Failure::Poison(_));
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(!is_poison(anyhow!("an order was decided meanwhile")));
        assert!(!is_poison(sqlx::Error::PoolTimedOut.into()));
        assert!(!is_poison(anyhow::Error::from(sqlx::Error::Io(broken)).context("adding facts")));
        let stored = Poison::new("0 is no quantity");
        assert!(is_poison(anyhow::Error::from(stored).context("reading reservations")));
        assert!(is_poison(Poison::new("0 is no quantity").into()));
        let newer = sqlx::Error::Decode("another version wrote this".into());
        assert!(!is_poison(anyhow::Error::from(newer).context("reading reservations")));
        let refused = sqlx::Error::Encode("too long".into());
        assert!(is_poison(anyhow::Error::from(Error::from(refused)).context("adding facts")));
    }

    #[test]
    fn an_error_is_told_with_its_sources_each_once() {
        let error = CommitError::Unconfirmed(sqlx::Error::PoolClosed);
        let text = with_sources(&Error::from(error));
        assert!(text.contains("the commit was not confirmed: "), "{text}");
        assert_eq!(text.matches("not confirmed").count(), 1, "{text}");
    }
}
