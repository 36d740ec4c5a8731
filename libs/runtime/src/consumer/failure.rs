//! Why records were not applied, and whether trying again can help.

use std::fmt;

use ordersaga_contract::OutOfRange;
use sqlx::postgres::PgDatabaseError;

/// Classes of SQLSTATE by which Postgres refuses the data, whenever it is asked: data exception,
/// integrity constraint violation, `WITH CHECK OPTION` violation, program limit exceeded, and what
/// a trigger raises.
const REFUSED: [&str; 5] = ["22", "23", "44", "54", "P0"];

/// Why a [`Handler`](super::Handler) did not apply its records.
#[derive(Debug)]
pub enum ApplyError {
    /// Trying again may help: the database is away, or another transaction was faster.
    Retry(anyhow::Error),
    /// No repetition helps: one of the records can never be applied. It becomes a dead letter, and
    /// the others are applied.
    Poison(anyhow::Error),
}

impl From<anyhow::Error> for ApplyError {
    fn from(error: anyhow::Error) -> Self {
        if is_final(&error) { Self::Poison(error) } else { Self::Retry(error) }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Retry(error) | Self::Poison(error)) = self;
        write!(formatter, "{error:#}")
    }
}

/// Whether an error would come again however often the same is tried.
fn is_final(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<OutOfRange>() || cause.downcast_ref::<sqlx::Error>().is_some_and(is_refusal)
    })
}

fn is_refusal(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // No partition takes the row, which has a code of this class, too: one is missing, and
            // will be there again.
            let postgres = error.try_downcast_ref::<PgDatabaseError>();
            let routine = postgres.and_then(PgDatabaseError::routine);
            let is_misrouted = routine == Some("ExecFindPartition");
            // A sequence that was left behind by a copy gives out numbers of rows that are there still.
            let is_outbox = error.constraint() == Some("outbox_pkey");
            let is_refused = REFUSED.iter().any(|class| code.starts_with(class));
            is_refused && !is_misrouted && !is_outbox
        }
        sqlx::Error::Encode(_) => true,
        // What cannot be decoded another version may have written: it is waited for.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use ordersaga_contract::Quantity;

    use super::*;

    #[test]
    fn an_error_is_retried_unless_it_would_come_again() {
        let is_poison =
            |error: anyhow::Error| matches!(ApplyError::from(error), ApplyError::Poison(_));
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(!is_poison(anyhow!("an order was decided meanwhile")));
        assert!(!is_poison(sqlx::Error::PoolTimedOut.into()));
        assert!(!is_poison(anyhow::Error::from(sqlx::Error::Io(broken)).context("adding facts")));
        let stored = Quantity::try_from(0).unwrap_err();
        assert!(is_poison(anyhow::Error::from(stored).context("reading reservations")));
        let newer = sqlx::Error::Decode("another version wrote this".into());
        assert!(!is_poison(anyhow::Error::from(newer).context("reading reservations")));
    }
}
