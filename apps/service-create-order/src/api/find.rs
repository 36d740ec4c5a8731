//! The operation that finds an order.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_contract::OrderId;
use ordersaga_runtime::http::{
    CancelInitiator, CancelReason, Failure, Id, JsonBody, LookupFailure, Principal,
};
use ordersaga_runtime::postgres;
use ordersaga_saga::order::OrderState;
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use sagabus::within;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::{Tag, UNKNOWN, an_order};
use crate::db::{self, StoredOrder};

/// Orders that are read at the same time: the pool's other connections are left to new ones.
const AT_ONCE: usize = 2;
/// How long reading one may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The operation and what it needs.
pub(crate) struct FindApi {
    pool: PgPool,
    turns: Semaphore,
    deadline: TimeDelta,
}

/// An order as this service has stored it.
#[derive(Object, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
struct OrderRecord {
    /// The order.
    order_id: i64,
    /// The item wanted.
    item_id: i64,
    /// The item's seller.
    seller_id: i64,
    /// Who orders.
    client_id: i64,
    /// Units wanted.
    quantity: i64,
    /// What this service knows of it.
    state: OrderStateName,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<CancelInitiator>,
    /// Why it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<CancelReason>,
    /// When it was placed.
    created_at: DateTime<Utc>,
    /// When its state last changed.
    updated_at: DateTime<Utc>,
    /// When it is cancelled if the store has not answered by then.
    deadline: DateTime<Utc>,
    /// Whether events of it may still wait to be published: those of its last change, or of its
    /// placement. Stays true for up to half a second after they were published.
    events_wait: bool,
}

impl Example for OrderRecord {
    fn example() -> Self {
        let time = |seconds: i64| DateTime::from_timestamp(1_798_000_000 + seconds, 0);
        Self {
            order_id: 1,
            item_id: 1_000,
            seller_id: 1,
            client_id: 7,
            quantity: 1,
            state: OrderStateName::Reserved,
            initiator: None,
            reason: None,
            created_at: time(0).unwrap_or_default(),
            updated_at: time(1).unwrap_or_default(),
            deadline: time(60).unwrap_or_default(),
            events_wait: false,
        }
    }
}

/// What is known of an order.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "OrderState", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OrderStateName {
    /// Stored. The store has not answered, or its answer was not read yet.
    Placed,
    /// The store holds stock for it.
    Reserved,
    /// Over.
    Cancelled,
}

impl From<OrderState> for OrderStateName {
    fn from(state: OrderState) -> Self {
        match state {
            OrderState::Placed => Self::Placed,
            OrderState::Reserved => Self::Reserved,
            OrderState::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(ApiResponse)]
enum OrderFound {
    /// The order.
    #[oai(status = 200)]
    Found(JsonBody<OrderRecord>),
}

impl FindApi {
    /// Finds orders in this database. They have so long to be answered by the store.
    pub(crate) fn new(pool: PgPool, deadline: Duration) -> anyhow::Result<Self> {
        let deadline = TimeDelta::from_std(deadline)?;
        Ok(Self { pool, turns: Semaphore::new(AT_ONCE), deadline })
    }

    async fn read(&self, order: OrderId) -> anyhow::Result<Option<StoredOrder>> {
        let _turn = self.turns.acquire().await?;
        within(LIMIT, postgres::repeat(&self.pool, || db::find_order(&self.pool, order))).await
    }
}

#[OpenApi(tag = "Tag::Orders")]
impl FindApi {
    /// Find an order
    ///
    /// What this service has stored of it: not its status, which service-monitoring-order tells, but
    /// what one of the services that the status is made of knows for itself. It hears of a
    /// reservation and of a refusal a moment after the store has decided; it never hears that stock
    /// was given back.
    #[oai(path = "/api/v1/orders/find", method = "get", operation_id = "find_order")]
    async fn find(
        &self,
        principal: Principal,
        /// The order to find.
        #[oai(example = "an_order")]
        order_id: Query<Id>,
    ) -> Result<OrderFound, LookupFailure> {
        let found = self.read(order_id.0.into()).await.map_err(Failure::unavailable)?;
        // One that is not for the principal to see is as unknown as one that is not there.
        let seen = found.filter(|stored| principal.may_see(stored.order.client_id));
        let stored = seen.ok_or_else(|| LookupFailure::not_found(UNKNOWN))?;
        Ok(OrderFound::Found(JsonBody(self.record(&stored))))
    }
}

impl FindApi {
    fn record(&self, stored: &StoredOrder) -> OrderRecord {
        let StoredOrder { order, state, cancellation, .. } = *stored;
        OrderRecord {
            order_id: order.order_id.get(),
            item_id: order.item_id.get(),
            seller_id: order.seller_id.get(),
            client_id: order.client_id.get(),
            quantity: order.quantity.get(),
            state: state.into(),
            initiator: cancellation.map(|end| end.initiator.into()),
            reason: cancellation.map(|end| end.reason.into()),
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            deadline: stored.created_at + self.deadline,
            events_wait: stored.events_wait,
        }
    }
}
