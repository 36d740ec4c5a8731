//! Reserving and releasing: what the store does with the events of a batch, in one transaction.

use ordersaga_runtime::consumer::{ApplyError, Handler, Record};
use ordersaga_runtime::outbox::Batch;
use sqlx::PgConnection;

use crate::db;

pub(crate) struct Reservations;

impl Handler for Reservations {
    type Applied = ();

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
        batch: &mut Batch,
    ) -> Result<(), ApplyError> {
        let orders: Vec<_> = records.iter().map(|record| record.event.order).collect();
        let mut ledger = db::load(transaction, &orders).await?;
        for record in records {
            if let Some(event) = ledger.apply(&record.event) {
                batch.push(record.event.order, event, record.traceparent.as_deref());
            }
        }
        for (item, version) in db::write(transaction, &ledger, batch.time()).await? {
            batch.changed(item, version);
        }
        Ok(())
    }

    fn committed(&self, (): (), _: &[Record]) {}
}
