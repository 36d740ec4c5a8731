//! Reserving and releasing: what the store does with the events of a batch, in one transaction.

use ordersaga_runtime::clock;
use ordersaga_runtime::consumer::{ApplyError, Handler, Record};
use ordersaga_runtime::outbox::{Batch, Outbox};
use sqlx::PgConnection;

use crate::db;

pub(crate) struct Reservations {
    outbox: Outbox,
}

impl Reservations {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { outbox }
    }
}

impl Handler for Reservations {
    type Applied = ();

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
    ) -> Result<(), ApplyError> {
        let orders: Vec<_> = records.iter().map(|record| record.event.order).collect();
        let mut ledger = db::load(transaction, &orders).await?;
        let mut batch = Batch::new(clock::now());
        for record in records {
            if let Some(event) = ledger.apply(&record.event) {
                batch.push(record.event.order, event, record.traceparent.as_deref());
            }
        }
        db::write_reservations(transaction, &ledger, batch.time()).await?;
        for (item, version) in db::write_stock(transaction, &ledger, batch.time()).await? {
            batch.changed(item, version);
        }
        self.outbox.append(transaction, &batch).await?;
        Ok(())
    }

    fn committed(&self, (): (), _: &[Record]) {
        self.outbox.committed();
    }
}
