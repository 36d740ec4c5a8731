//! Closing orders by what the store answers.

use ordersaga_contract::{Cancellation, EventKind, Initiator};
use ordersaga_runtime::event::{Record, SagaEvent, failure};
use ordersaga_saga::order::Input;
use sagabus::{Batch, Failure, Handler};
use sqlx::PgConnection;

use crate::db::{self, Advanced, Told};

pub(crate) struct Closing;

impl Handler for Closing {
    type Message = SagaEvent;
    type Applied = Advanced;

    /// Clients hear of it from monitoring.
    fn is_aside(&self) -> bool {
        true
    }

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
        batch: &mut Batch,
    ) -> Result<Advanced, Failure> {
        let inputs: Vec<_> = records
            .iter()
            .filter_map(|Record { message: SagaEvent(event), .. }| {
                let (order, at) = (event.order.order_id, event.time);
                Some(Told { order, of: None, input: input(event.kind)?, at })
            })
            .collect();
        db::advance(transaction, &inputs, batch).await.map_err(failure)
    }

    fn committed(&self, advanced: Advanced, _: &[Record]) {
        advanced.committed();
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
