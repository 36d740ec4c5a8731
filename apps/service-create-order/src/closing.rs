//! Closing orders by what the store answers.

use std::time::Duration;

use ordersaga_contract::{Cancellation, EventKind, Initiator};
use ordersaga_runtime::consumer::{ApplyError, Handler, Record};
use ordersaga_runtime::outbox::{Batch, Outbox};
use ordersaga_runtime::{clock, pace};
use ordersaga_saga::order::Input;
use sqlx::PgConnection;

use crate::db::{self, Advanced};

pub(crate) struct Closing {
    outbox: Outbox,
}

impl Closing {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { outbox }
    }
}

impl Handler for Closing {
    type Applied = Advanced;

    fn longest_pause(&self) -> Duration {
        pace::LONGEST_ASIDE
    }

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
    ) -> Result<Advanced, ApplyError> {
        let inputs: Vec<_> = records
            .iter()
            .filter_map(|record| Some((record.event.order.order_id, input(record.event.kind)?)))
            .collect();
        let mut batch = Batch::new(clock::now());
        let advanced = db::advance(transaction, &inputs, &mut batch).await?;
        self.outbox.append(transaction, &batch).await?;
        Ok(advanced)
    }

    fn committed(&self, advanced: Advanced, _: &[Record]) {
        advanced.committed();
        self.outbox.committed();
    }
}

/// What an event means to an order here. Resets that began here have been applied already.
fn input(event: EventKind) -> Option<Input> {
    match event {
        EventKind::ItemReserved => Some(Input::StoreReserved),
        EventKind::OrderReset(Cancellation { initiator: Initiator::Store, reason }) => {
            Some(Input::StoreRefused(reason))
        }
        EventKind::OrderPlaced | EventKind::ReservationReleased | EventKind::OrderReset(_) => None,
    }
}
