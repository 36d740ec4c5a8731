//! The records behind an order's facts, as they stand in the topics. Where they stand is not stored:
//! a fact's topic and partition follow from it, and its record is looked for from its time on.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use ordersaga_contract::{Fact, OrderId, partition_of};
use ordersaga_runtime::event::SagaEvent;
use ordersaga_runtime::http::Principal;
use ordersaga_saga::status::{Heard, fold};
use sagabus::{Bus, Message, Received, Search, Searched};
use tokio::sync::Semaphore;

use crate::shards::Shards;

/// Orders that are looked for at the same time: each has a client of the broker and a thread.
const AT_ONCE: usize = 2;
/// How long a request waits for its turn, and how long the search for one order's records may take.
const TURN: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_millis(2_500);
/// By so much the clock that gave the record its time may be behind the one that gave the fact its.
const MARGIN: TimeDelta = TimeDelta::seconds(1);
/// Records that are looked at for one fact. At the peak a partition gets some 1,700 a second: a
/// record is found that was written ten seconds late.
const RECORDS: usize = 20_000;

/// Finds them.
pub(crate) struct Evidence {
    shards: Arc<Shards>,
    bus: Bus,
    group: String,
    turns: Arc<Semaphore>,
}

impl Evidence {
    pub(crate) fn new(shards: Arc<Shards>, bus: Bus, group: String) -> Self {
        Self { shards, bus, group, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Each fact of an order, oldest first, with its record; `None` for an unknown order, and one that
    /// is not for the principal to see.
    pub(crate) async fn of(
        &self,
        order: OrderId,
        principal: &Principal,
    ) -> anyhow::Result<Option<Vec<(Heard, Searched)>>> {
        let history = self.shards.history(order).await?;
        let history = history.filter(|history| principal.may_see(history.order.client_id));
        let Some(status) = history.and_then(|history| fold(history.heard)) else {
            return Ok(None);
        };
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned()).await??;
        let (bus, group) = (self.bus.clone(), self.group.clone());
        let look = move || {
            // Until it ends, whoever waits for it.
            let _turn = turn;
            bus.search(&group, LIMIT, |search| {
                let found = status.facts.into_iter().map(|heard| {
                    let record = find(search, order, heard)?;
                    Ok((heard, record))
                });
                found.collect::<Result<Vec<_>, _>>()
            })
        };
        Ok(Some(tokio::task::spawn_blocking(look).await??))
    }
}

fn find(search: &Search<'_>, order: OrderId, heard: Heard) -> Result<Searched, sagabus::Error> {
    let (key, fact) = (order.to_string(), heard.fact);
    let (topic, from) = (fact.topic().name(), heard.time - MARGIN);
    let is_it = |received: &Received<'_>| tells(received, &key, fact);
    search.find(topic, partition_of(order), from, RECORDS, is_it)
}

/// Whether a record says this of the order whose key this is. Most are other orders', and need not
/// be read to know it.
fn tells(received: &Received<'_>, key: &str, fact: Fact) -> bool {
    received.key == key.as_bytes()
        && SagaEvent::decode(received).is_ok_and(|event| event.0.kind.fact() == fact)
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::{Cancellation, EventKind, Initiator, Reason};

    use super::*;
    use crate::examples::event;

    #[test]
    fn a_record_is_the_facts_if_it_says_it_of_the_order() {
        let reset = |initiator| {
            EventKind::OrderReset(Cancellation { initiator, reason: Reason::CancelledByClient })
        };
        let told = SagaEvent(event(7, reset(Initiator::Client), 0));
        let (key, payload) = (told.key(), told.encode());
        let received = Received {
            topic: told.topic(),
            partition: partition_of(told.0.order.order_id),
            key: key.as_bytes(),
            payload: &payload,
            created: None,
        };
        assert!(tells(&received, "7", Fact::ResetByClient));
        assert!(!tells(&received, "7", Fact::ResetByDeadline), "somebody else's word");
        assert!(!tells(&received, "70", Fact::ResetByClient), "another order's");
        let poison = Received { payload: b"{}", ..received };
        assert!(!tells(&poison, "7", Fact::ResetByClient), "no event");
    }
}
