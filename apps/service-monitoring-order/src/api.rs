//! The HTTP API: an order's status.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ordersaga_contract::{Fact, Initiator, OrderId, Reason};
use ordersaga_runtime::clock;
use ordersaga_runtime::http::{About, Bounded, Failure, Id, JsonBody, LookupFailure};
use ordersaga_saga::status::{Heard, Step, fold};
use poem_openapi::param::Query;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Tags};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::History;
use crate::shards::Shards;
use crate::waiters::Waiters;

/// What the API says of itself.
pub(crate) const ABOUT: About = About {
    name: crate::NAME,
    title: "Monitoring",
    version: env!("CARGO_PKG_VERSION"),
    description: "Answers for the status of each order: a fold over every event heard of it, \
                  whatever the order in which they arrived.",
    server: "http://localhost:8001",
};

/// The longest `wait_ms`.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(LONGEST_WAIT_MS as u64);
const LONGEST_WAIT_MS: i64 = 30_000;
/// How often a waiting request looks by itself: the news may come to another instance.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The operations and what they need.
pub(crate) struct Api {
    shards: Arc<Shards>,
    waiters: Arc<Waiters>,
    grace: Duration,
    stop: CancellationToken,
}

/// An order's status.
#[derive(Object, Serialize)]
struct OrderStatus {
    /// The order.
    order_id: i64,
    /// What is ordered.
    item_id: i64,
    /// From whom.
    seller_id: i64,
    /// By whom.
    client_id: i64,
    /// How many units.
    quantity: i64,
    /// How far it is.
    step: StepName,
    /// Whether stock is held for it now.
    is_reserved: bool,
    /// Whether it is over.
    is_cancelled: bool,
    /// Why it is over.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ReasonName>,
    /// Who ended it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<InitiatorName>,
    /// When the newest of the facts came true.
    update_date: DateTime<Utc>,
    /// The node the order lies on.
    shard: String,
    /// All that was heard of it, oldest first.
    facts: Vec<FactHeard>,
}

/// Something that came true of an order.
#[derive(Object, Serialize)]
struct FactHeard {
    /// What.
    fact: FactName,
    /// When.
    time: DateTime<Utc>,
    /// Why, if it ends the order.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ReasonName>,
    /// Who, if it ends the order.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<InitiatorName>,
}

/// How far an order is.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "Step", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StepName {
    /// The store has not answered.
    UnderReservation,
    /// Reserved: on its way.
    Shipping,
    /// Over.
    Cancelled,
}

/// What can come true of an order.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "Fact", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum FactName {
    /// The client placed it.
    Placed,
    /// The store holds stock for it.
    Reserved,
    /// The store gave the stock back.
    Released,
    /// It was ended.
    Cancelled,
}

/// Why an order ended.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "Reason", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ReasonName {
    /// Fewer units were free than the order wants.
    OutOfStock,
    /// The store has no such item.
    ItemNotFound,
    /// The item is another seller's.
    SellerMismatch,
    /// The client cancelled it.
    CancelledByClient,
    /// The store did not answer in time.
    DeadlineExceeded,
}

/// Who ended an order.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "Initiator", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
enum InitiatorName {
    /// The client.
    Client,
    /// The store.
    Store,
    /// The deadline.
    Deadline,
}

#[derive(ApiResponse)]
enum Found {
    /// The order's status.
    #[oai(status = 200)]
    Found(JsonBody<OrderStatus>),
}

impl Api {
    pub(crate) fn new(
        shards: Arc<Shards>,
        waiters: Arc<Waiters>,
        grace: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self { shards, waiters, grace, stop }
    }

    /// The status, as soon as it is decided or the time is over; `None` for an unknown order.
    async fn await_status(
        &self,
        order: OrderId,
        wait: Option<Duration>,
    ) -> anyhow::Result<Option<OrderStatus>> {
        let start = Instant::now();
        let waiting = self.waiters.listen(order);
        loop {
            // Listening starts before reading, so that no news falls between.
            let mut news = std::pin::pin!(waiting.news.notified());
            news.as_mut().enable();
            let status = self.shards.history(order).await?.and_then(|h| self.present(&h));
            let until = match (&status, wait) {
                (Some(status), _) if !matches!(status.step, StepName::UnderReservation) => start,
                (None, Some(wait)) => start + wait.max(self.grace),
                (Some(_), Some(wait)) => start + wait,
                // Whoever asks right after the create is told how it went, not that it began.
                (Some(status), None) if !is_older(status.update_date, self.grace) => {
                    start + self.grace
                }
                (Some(_), None) => start,
                (None, None) => start + self.grace,
            };
            let now = Instant::now();
            if now >= until || self.stop.is_cancelled() {
                return Ok(status);
            }
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep_until(until.min(now + LOOK_INTERVAL)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn present(&self, history: &History) -> Option<OrderStatus> {
        let folded = fold(history.heard.iter().copied())?;
        let order = &history.order;
        Some(OrderStatus {
            order_id: order.order_id.get(),
            item_id: order.item_id.get(),
            seller_id: order.seller_id.get(),
            client_id: order.client_id.get(),
            quantity: order.quantity.get(),
            step: match folded.step {
                Step::UnderReservation => StepName::UnderReservation,
                Step::Shipping => StepName::Shipping,
                Step::Cancelled => StepName::Cancelled,
            },
            is_reserved: folded.is_reserved,
            is_cancelled: folded.is_cancelled,
            reason: folded.cancellation.map(|end| end.reason.into()),
            initiator: folded.cancellation.map(|end| end.initiator.into()),
            update_date: folded.updated,
            shard: self.shards.name_of(order.order_id).to_owned(),
            facts: folded.facts.into_iter().map(FactHeard::from).collect(),
        })
    }
}

#[derive(Tags)]
enum Tag {
    /// Where orders stand.
    Status,
}

#[OpenApi(tag = "Tag::Status")]
impl Api {
    /// An order's status
    ///
    /// The answer waits until the order is SHIPPING or CANCELLED or `wait_ms` are over. Without
    /// `wait_ms` only an order that is new or not heard of yet is waited for, and only a moment
    /// (half a second unless configured otherwise): its events are on their way.
    #[oai(path = "/api/v1/status", method = "get", operation_id = "order_status")]
    async fn status(
        &self,
        order_id: Query<Id>,
        /// Longest time to wait for SHIPPING or CANCELLED, in milliseconds.
        wait_ms: Query<Option<Bounded<0, LONGEST_WAIT_MS>>>,
    ) -> Result<Found, LookupFailure> {
        let wait = wait_ms.0.map(|wait| Duration::from_millis(wait.get().unsigned_abs()));
        let status = self.await_status(order_id.0.into(), wait).await;
        status
            .map_err(Failure::unavailable)?
            .map(|status| Found::Found(JsonBody(status)))
            .ok_or_else(|| LookupFailure::not_found("There is no order with this order_id."))
    }
}

/// Whether something of that time is older than `age` now; clocks that differ make it look so.
fn is_older(time: DateTime<Utc>, age: Duration) -> bool {
    (clock::now() - time).to_std().is_ok_and(|passed| passed > age)
}

impl From<Heard> for FactHeard {
    fn from(heard: Heard) -> Self {
        Self {
            fact: match heard.fact {
                Fact::Placed => FactName::Placed,
                Fact::Reserved => FactName::Reserved,
                Fact::Released => FactName::Released,
                Fact::ResetByClient | Fact::ResetByStore | Fact::ResetByDeadline => {
                    FactName::Cancelled
                }
            },
            time: heard.time,
            reason: heard.reason.map(ReasonName::from),
            initiator: heard.fact.initiator().map(InitiatorName::from),
        }
    }
}

impl From<Reason> for ReasonName {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::OutOfStock => Self::OutOfStock,
            Reason::ItemNotFound => Self::ItemNotFound,
            Reason::SellerMismatch => Self::SellerMismatch,
            Reason::CancelledByClient => Self::CancelledByClient,
            Reason::DeadlineExceeded => Self::DeadlineExceeded,
        }
    }
}

impl From<Initiator> for InitiatorName {
    fn from(initiator: Initiator) -> Self {
        match initiator {
            Initiator::Client => Self::Client,
            Initiator::Store => Self::Store,
            Initiator::Deadline => Self::Deadline,
        }
    }
}
