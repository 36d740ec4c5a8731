//! Reserving and releasing: what the store does with the events of a batch, in one transaction.

use ordersaga_runtime::event::{Record, SagaEvent, failure, publish};
use sagabus::{Batch, Failure, Handler};
use sqlx::PgConnection;

use crate::db;

pub(crate) struct Reservations;

impl Handler for Reservations {
    type Message = SagaEvent;
    type Applied = ();

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let orders: Vec<_> = records.iter().map(|record| record.message.0.order).collect();
        let mut ledger = db::load(transaction, &orders).await.map_err(failure)?;
        for record in records {
            let event = &record.message.0;
            if let Some(answer) = ledger.apply(event) {
                publish(batch, event.order, answer, record.traceparent.as_deref());
            }
        }
        for (item, version) in
            db::write(transaction, &ledger, batch.time()).await.map_err(failure)?
        {
            batch.changed(item, version);
        }
        Ok(())
    }
}
