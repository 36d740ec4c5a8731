//! Orders that have waited for too long: found by what is in flight, told by what their nodes have.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use ordersaga_contract::{ClientId, partition_of};
use ordersaga_runtime::clock;
use ordersaga_saga::status::Wait;
use sagabus::backoff::Backoff;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::db::History;
use crate::in_flight::{InFlight, SOON, Verdict, judge};
use crate::lists::Lists;
use crate::page::Filter;
use crate::progress::Progress;

/// How many of the newest orders are read when the process begins, and how many at a time.
const READ: usize = 20_000;
const READ_AT_ONCE: usize = 2_000;
/// How often orders that have waited for long are looked up, and how many at the most: some are
/// settled, and nothing will be heard of them any more.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_AT: usize = 1_000;
/// Looks at the same time, at the most.
const AT_ONCE: usize = 2;

/// Finds them.
pub(crate) struct Stuck {
    lists: Arc<Lists>,
    progress: Arc<Progress>,
    in_flight: Arc<InFlight>,
    patience: Duration,
    turns: Semaphore,
}

/// What was found.
pub(crate) struct Overdue {
    /// Each with what it waits for, since when, and whether it is only late.
    pub(crate) orders: Vec<(History, Wait, DateTime<Utc>, bool)>,
    pub(crate) is_complete: bool,
    /// Nodes that could not be read.
    pub(crate) missing: Vec<&'static str>,
    pub(crate) as_of: Option<DateTime<Utc>>,
}

impl Stuck {
    pub(crate) fn new(
        lists: Arc<Lists>,
        progress: Arc<Progress>,
        in_flight: Arc<InFlight>,
        patience: Duration,
    ) -> Self {
        Self { lists, progress, in_flight, patience, turns: Semaphore::new(AT_ONCE) }
    }

    /// Looks up the orders that have been in flight for longest, of one client or of all, and forgets
    /// those that are settled.
    pub(crate) async fn find(
        &self,
        client: Option<ClientId>,
        limit: usize,
    ) -> anyhow::Result<Overdue> {
        let _turn = self.turns.acquire().await?;
        let (now, as_of) = (clock::now(), self.progress.until());
        let is_here = |order| self.progress.follows(partition_of(order));
        let old = now - SOON.min(self.patience);
        let candidates = self.in_flight.since_before(old, LOOK_AT, is_here);
        let shards = self.lists.shards();
        let read = candidates.iter().map(|order| shards.history(*order));
        let read = candidates.iter().zip(join_all(read).await);
        let (mut orders, mut settled, mut missing) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (order, history) in read {
            let Ok(history) = history else {
                missing.insert(shards.name_of(*order));
                continue;
            };
            let until = self.progress.until_in(partition_of(*order));
            let heard = history.as_ref().map_or(&[][..], |history| &history.heard);
            match (judge(heard, until, now, self.patience), history) {
                (Verdict::Overdue { wait, since, is_late }, Some(history)) => {
                    orders.push((history, wait, since, is_late));
                }
                (Verdict::InTime, _) => {}
                (Verdict::Settled | Verdict::Overdue { .. }, _) => settled.push(*order),
            }
        }
        self.in_flight.settle(settled.into_iter());
        if let Some(client) = client {
            orders.retain(|(history, ..)| history.order.client_id == client);
        }
        let is_complete =
            self.in_flight.is_complete() && orders.len() <= limit && candidates.len() < LOOK_AT;
        orders.truncate(limit);
        Ok(Overdue { orders, is_complete, missing: missing.into_iter().collect(), as_of })
    }

    /// Reads what is in flight already, and then keeps what is in flight true, until stopped.
    pub(crate) async fn keep(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let keep = async {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
            while let Err(error) = self.read().await {
                tracing::debug!(error = format!("{error:#}"), "what is in flight is not read");
                backoff.wait().await;
            }
            self.in_flight.mark_read();
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = self.find(None, LOOK_AT).await {
                    tracing::debug!(error = format!("{error:#}"), "a look at what is in flight");
                }
            }
        };
        stop.run_until_cancelled(Box::pin(keep)).await;
        Ok(())
    }

    /// Reads the newest orders: those that are in flight are among them.
    async fn read(&self) -> anyhow::Result<()> {
        let (mut after, mut looked) = (None, 0);
        loop {
            let listed = self.lists.newest(Filter::default(), after, READ_AT_ONCE).await?;
            anyhow::ensure!(listed.missing.is_empty(), "{} is away", listed.missing.join(", "));
            looked += listed.page.orders.len();
            self.in_flight.add(listed.page.orders.iter());
            after = listed.page.next;
            if after.is_none() || looked >= READ {
                return Ok(());
            }
        }
    }
}
