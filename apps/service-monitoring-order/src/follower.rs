//! Following the topics: every event becomes a fact, on the node that owns its order.

use std::sync::Arc;

use ordersaga_runtime::event::{Record, SagaEvent, failure};
use sagabus::{Batch, Failure, Handler};
use sqlx::PgConnection;

use crate::db;
use crate::shards::Shards;
use crate::waiters::Waiters;

pub(crate) struct Follower {
    shards: Arc<Shards>,
    waiters: Arc<Waiters>,
}

impl Follower {
    pub(crate) fn new(shards: Arc<Shards>, waiters: Arc<Waiters>) -> Self {
        Self { shards, waiters }
    }
}

impl Handler for Follower {
    type Message = SagaEvent;
    type Applied = ();

    /// One lane per node: a transaction touches one node, and a node that is away holds up its own
    /// partitions only.
    fn lane_of(&self, partition: u32) -> usize {
        self.shards.owner_of(partition)
    }

    fn lanes(&self) -> usize {
        self.shards.count()
    }

    /// What nobody waits for may be known a moment later, with more of its kind.
    fn is_urgent(&self, record: &Record) -> bool {
        self.waiters.wait_for(&record.message.0)
    }

    async fn apply(
        &self,
        transaction: &mut PgConnection,
        records: &[Record],
        _: &mut Batch,
    ) -> Result<(), Failure> {
        let events: Vec<_> = records.iter().map(|record| &record.message.0).collect();
        db::insert_facts(transaction, &events).await.map_err(failure)
    }

    fn committed(&self, (): (), records: &[Record]) {
        self.waiters.tell(records.iter().map(|record| &record.message.0));
    }
}
