//! Rows of `public.outbox`, where the release before wrote its events: while it runs beside this one
//! or has left some behind, they are published as this release's own. To go with the next release.

use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use ordersaga_contract::{Event, Fact, OrderId, partition_of};
use sagabus::{Batch, Checkout, Outbox, within};
use sqlx::postgres::PgPool;
use sqlx::{Connection, FromRow};
use tokio_util::sync::CancellationToken;

use crate::event::SagaEvent;

/// How often it is looked for rows, and how long that may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(8);

#[derive(FromRow)]
struct Row {
    id: i64,
    at: DateTime<Utc>,
    facts: Vec<i16>,
    order_ids: Vec<i64>,
    payloads: Vec<Vec<u8>>,
    traceparents: Vec<Option<String>>,
    cache_ids: Vec<i64>,
    cache_versions: Vec<i64>,
}

/// Moves rows over until stopped.
pub(crate) async fn empty(
    pool: PgPool,
    outbox: Outbox,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let mut after = 0;
        while !stop.is_cancelled() {
            let before = after;
            match within(LIMIT, move_one(&pool, &outbox, &mut after)).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if after == before => {
                    tracing::debug!(error = format!("{error:#}"), "the database is away");
                    break;
                }
                // The next row may go all the same; this one is tried again with the next look.
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(row = after, error, "events of the release before wait");
                }
            }
        }
    }
    Ok(())
}

/// Moves the next row that its writer has had time to publish, if there is one.
async fn move_one(pool: &PgPool, outbox: &Outbox, after: &mut i64) -> anyhow::Result<bool> {
    let mut connection = Checkout::take(pool).await?;
    let mut transaction = connection.begin().await?;
    let row: Option<Row> = sqlx::query_as(
        "DELETE FROM public.outbox WHERE id = ( \
             SELECT id FROM public.outbox WHERE at < now() - interval '2 seconds' AND id > $1 \
             ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
         RETURNING id, at, facts, order_ids, payloads, traceparents, cache_ids, cache_versions",
    )
    .bind(*after)
    .fetch_optional(&mut *transaction)
    .await?;
    *after = row.as_ref().map_or(*after, |row| row.id);
    let is_found = row.is_some();
    match row {
        Some(row) => outbox.commit(transaction, row.batch()?).await?,
        None => transaction.rollback().await?,
    }
    connection.keep();
    Ok(is_found)
}

impl Row {
    fn batch(&self) -> anyhow::Result<Batch> {
        let mut batch = Batch::new(self.at);
        let events = self.facts.iter().zip(&self.order_ids).zip(&self.payloads);
        for (((fact, order), payload), traceparent) in events.zip(&self.traceparents) {
            let fact = Fact::from_code(*fact).context("an unknown fact")?;
            let (order, key) = (OrderId::try_from(*order)?, order.to_string());
            let partition = partition_of(order);
            let event = Event::decode(fact.topic(), partition, key.as_bytes(), payload)?;
            batch.publish(&SagaEvent(event), traceparent.as_deref());
        }
        for (id, version) in self.cache_ids.iter().zip(&self.cache_versions) {
            batch.changed(*id, *version);
        }
        Ok(batch)
    }
}
