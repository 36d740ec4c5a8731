//! Operations that show what the store knows for itself: what it decided for an order, and what its
//! cache has of an item beside what its database has.

use chrono::{DateTime, Utc};
use ordersaga_runtime::http::{CancelReason, Failure, Id, JsonBody, LookupFailure, Principal};
use ordersaga_saga::stock::Reservation;
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Serialize;

use super::{Tag, an_item, id, no_item};
use crate::cache::Cached;
use crate::db::StoredReservation;
use crate::view::ItemView;
use crate::witness::{Both, Witness};

/// The operations and what they need.
pub(crate) struct WitnessApi(Witness);

/// What the store has decided for an order.
#[derive(Object, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
struct OrderReservation {
    /// The order.
    order_id: i64,
    /// The item it is about.
    item_id: i64,
    /// The item's seller, as the order names it.
    seller_id: i64,
    /// Who ordered.
    client_id: i64,
    /// Units wanted.
    quantity: i64,
    /// What was decided.
    state: StoreDecision,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<CancelReason>,
    /// When that was decided.
    time: DateTime<Utc>,
    /// Whether the event that says so may still wait to be published. Stays true for up to half a
    /// second after it was published.
    events_wait: bool,
}

impl Example for OrderReservation {
    fn example() -> Self {
        Self {
            order_id: 1,
            item_id: 1_000,
            seller_id: 1,
            client_id: 7,
            quantity: 1,
            state: StoreDecision::Reserved,
            reason: None,
            time: DateTime::from_timestamp(1_798_000_001, 0).unwrap_or_default(),
            events_wait: false,
        }
    }
}

/// What the store can decide for an order.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StoreDecision {
    /// Stock is held.
    Reserved,
    /// Stock was held and is free again.
    Released,
    /// Nothing was held.
    Refused,
    /// The order was over before the store heard of it, and will not be held anything for.
    Tombstone,
}

/// An item as the cache and the database have it. The cache was asked first.
#[derive(Object, Serialize)]
#[oai(example)]
struct ItemWitness {
    /// The item.
    item_id: i64,
    /// What the cache has.
    cache: CachedItem,
    /// What the database has.
    database: StoredItem,
}

impl Example for ItemWitness {
    fn example() -> Self {
        Self { item_id: 1_000, cache: CachedItem::example(), database: StoredItem::example() }
    }
}

/// What the cache has of an item.
#[derive(Object, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
struct CachedItem {
    /// Whether it has anything.
    state: CacheState,
    /// The version that it knows of. Each change of an item has a higher one.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    /// The item as it was at this version, if the cache has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<ItemView>,
    /// How long the cache keeps it, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<i64>,
}

impl Example for CachedItem {
    fn example() -> Self {
        let item = Some(ItemView::example());
        Self { state: CacheState::Hit, version: Some(2), item, expires_in_ms: Some(54_000) }
    }
}

/// What the database has of an item.
#[derive(Object, Serialize)]
#[oai(example)]
struct StoredItem {
    /// Its version. Each change of an item has a higher one.
    version: i64,
    /// The item.
    item: ItemView,
}

impl Example for StoredItem {
    fn example() -> Self {
        Self { version: 2, item: ItemView::example() }
    }
}

/// Whether the cache has anything of an item.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum CacheState {
    /// The item: readers get it.
    Hit,
    /// A mark that the item has changed: readers get it from the database.
    Marked,
    /// Nothing: readers get it from the database.
    Miss,
    /// That there is no such item.
    Absent,
    /// It is away, or not to be trusted: readers get everything from the database.
    Bypassed,
}

#[derive(ApiResponse)]
enum ReservationFound {
    /// What was decided.
    #[oai(status = 200)]
    Found(JsonBody<OrderReservation>),
}

#[derive(ApiResponse)]
enum WitnessFound {
    /// The item as both have it.
    #[oai(status = 200)]
    Found(JsonBody<ItemWitness>),
}

fn an_order() -> Id {
    id(1)
}

impl WitnessApi {
    pub(crate) fn new(witness: Witness) -> Self {
        Self(witness)
    }
}

#[OpenApi(tag = "Tag::Items")]
impl WitnessApi {
    /// Find the reservation of an order
    ///
    /// What the store has decided for it, straight from the database: refusals too, and orders that
    /// were over before the store heard of them. An order that it has not heard of yet is unknown
    /// here (404).
    #[oai(path = "/api/v1/reservations/find", method = "get", operation_id = "find_reservation")]
    async fn reservation(
        &self,
        principal: Principal,
        /// The order.
        #[oai(example = "an_order")]
        order_id: Query<Id>,
    ) -> Result<ReservationFound, LookupFailure> {
        let found = self.0.reservation(order_id.0.into()).await.map_err(Failure::unavailable)?;
        // One that is not for the principal to see is as unknown as one that is not there.
        let seen = found.filter(|stored| principal.may_see(stored.order.client_id));
        let found = seen.ok_or_else(|| {
            LookupFailure::not_found("The store has not decided on an order with this order_id.")
        })?;
        Ok(ReservationFound::Found(JsonBody(found.into())))
    }

    /// An item as the cache and the database have it
    ///
    /// Both, side by side. The cache is asked first, so that its version is never above that of the
    /// database. It may be below for a moment: the cache is told of a change after that is stored,
    /// and before any event tells of it.
    #[oai(path = "/api/v1/items/witness", method = "get", operation_id = "find_item_witness")]
    async fn item(
        &self,
        /// The item.
        #[oai(example = "an_item")]
        item_id: Query<Id>,
    ) -> Result<WitnessFound, LookupFailure> {
        let found = self.0.item(item_id.0.into()).await.map_err(Failure::unavailable)?;
        Ok(WitnessFound::Found(JsonBody(found.ok_or_else(no_item)?.into())))
    }
}

impl From<StoredReservation> for OrderReservation {
    fn from(stored: StoredReservation) -> Self {
        let StoredReservation { order, reservation, time, events_wait } = stored;
        let (state, reason) = match reservation {
            Reservation::Reserved => (StoreDecision::Reserved, None),
            Reservation::Released => (StoreDecision::Released, None),
            Reservation::Refused(reason) => (StoreDecision::Refused, Some(reason.into())),
            Reservation::Cancelled => (StoreDecision::Tombstone, None),
        };
        Self {
            order_id: order.order_id.get(),
            item_id: order.item_id.get(),
            seller_id: order.seller_id.get(),
            client_id: order.client_id.get(),
            quantity: order.quantity.get(),
            state,
            reason,
            time,
            events_wait,
        }
    }
}

impl From<Both> for ItemWitness {
    fn from(Both { cached, view, version }: Both) -> Self {
        let database = StoredItem { version, item: view };
        Self { item_id: database.item.item_id, cache: cached.into(), database }
    }
}

impl From<Cached> for CachedItem {
    fn from(cached: Cached) -> Self {
        let none = |state| Self { state, version: None, item: None, expires_in_ms: None };
        match cached {
            Cached::Item { version, view, expires_in_ms } => Self {
                state: CacheState::Hit,
                version: Some(version),
                item: Some(*view),
                expires_in_ms: Some(expires_in_ms),
            },
            Cached::Mark { version, expires_in_ms } => Self {
                version: Some(version),
                expires_in_ms: Some(expires_in_ms),
                ..none(CacheState::Marked)
            },
            Cached::Absent => none(CacheState::Absent),
            Cached::Nothing => none(CacheState::Miss),
            Cached::Unusable => none(CacheState::Bypassed),
        }
    }
}
