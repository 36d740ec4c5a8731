//! What an operator does about a record that cannot be read: the consumer goes on behind it, and a
//! dead letter stands for it.

use anyhow::{Context, ensure};
use ordersaga_contract::Topic;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::poison::Poison;
use crate::dead_letters::{Place, header};
use crate::raw_record::RawRecord;

/// Moves a consumer's offset over the record at `origin`, where it stands, and leaves a dead letter
/// for it, as much of it as could be read; both or nothing. The consumer notices within seconds.
/// Fails if it stands elsewhere.
pub async fn step_over(
    database: &mut PgConnection,
    origin: &Place,
    raw: Option<RawRecord>,
    error: &str,
) -> anyhow::Result<()> {
    let topic = Topic::EVENTS.into_iter().find(|topic| topic.name() == origin.topic);
    let topic = topic.with_context(|| format!("{} is no topic of events", origin.topic))?;
    let partition = u32::try_from(origin.partition)?;
    let raw = raw.unwrap_or_else(|| RawRecord {
        offset: origin.offset,
        key: None,
        payload: None,
        headers: vec![(header::CUT.to_owned(), None)],
    });
    let mut transaction = database.begin().await?;
    let moved = sqlx::query(
        "UPDATE consumer_offset SET next_offset = next_offset + 1 \
         WHERE topic = $1 AND partition = $2 AND next_offset = $3",
    )
    .bind(topic.name())
    .bind(origin.partition)
    .bind(origin.offset)
    .execute(&mut *transaction)
    .await
    .context("moving the offset")?;
    ensure!(moved.rows_affected() == 1, "the consumer does not stand at {origin}");
    let poison = Poison::of(raw, &format!("stepped over by an operator: {error}"));
    poison.bury(&mut transaction, (topic, partition), origin.offset).await?;
    transaction.commit().await.context("commit")
}
