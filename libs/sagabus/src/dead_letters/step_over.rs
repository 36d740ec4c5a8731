//! What an operator does about a record that cannot be read: the consumer goes on behind it, and a
//! dead letter stands for it.

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::{Place, header};
use crate::consumer::DeadLetter;
use crate::raw_record::RawRecord;
use crate::{Error, database};

/// Moves a consumer's offset over the record at `origin`, where it stands, and leaves a dead letter
/// for it, as much of it as could be read; both or nothing. The consumer notices within seconds.
/// Fails if it stands elsewhere.
pub async fn step_over(
    database: &mut PgConnection,
    origin: &Place,
    raw: Option<RawRecord>,
    error: &str,
) -> Result<(), Error> {
    let raw = raw.unwrap_or_else(|| RawRecord {
        offset: origin.offset,
        time: None,
        key: None,
        payload: None,
        headers: vec![(header::CUT.to_owned(), None)],
    });
    let mut transaction = database.begin().await?;
    let moved = sqlx::query(
        "UPDATE sagabus.consumer_offset SET next_offset = next_offset + 1 \
         WHERE topic = $1 AND partition = $2 AND next_offset = $3",
    )
    .bind(&origin.topic)
    .bind(origin.partition)
    .bind(origin.offset)
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() != 1 {
        return Err(Error::other(format!("the consumer does not stand at {origin}")));
    }
    let letter = DeadLetter::of(raw, &format!("stepped over by an operator: {error}"));
    letter.insert(&mut transaction, origin).await?;
    database::commit(transaction).await?;
    Ok(())
}
