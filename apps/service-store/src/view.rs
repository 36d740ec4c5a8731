//! What is shown of an item: by the API, and as it lies in the cache.

use chrono::{DateTime, Utc};
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

/// An item.
#[derive(Debug, Clone, PartialEq, Eq, Object, Serialize, Deserialize)]
#[oai(rename = "StockItem", example)]
pub(crate) struct ItemView {
    /// The item.
    pub(crate) item_id: i64,
    /// Who sells it.
    pub(crate) seller_id: i64,
    /// Price of a unit in the currency's minor units.
    pub(crate) price: i64,
    /// What it is called.
    pub(crate) item_name: String,
    /// Whether at least one unit is reserved now.
    pub(crate) is_reserved: bool,
    /// When the item last changed.
    pub(crate) date: DateTime<Utc>,
    /// Units there are.
    pub(crate) quantity: i64,
    /// Units free to be reserved.
    pub(crate) available: i64,
    /// Units reserved now.
    pub(crate) reserved: i64,
    /// The newest reservations, newest order first; at most 20.
    pub(crate) reservations: Vec<ReservationView>,
}

impl Example for ItemView {
    /// The example item of a fresh store, when it has been ordered.
    fn example() -> Self {
        let reservation = ReservationView::example();
        Self {
            item_id: 1_000,
            seller_id: 1,
            price: 1_000,
            item_name: "Example item".to_owned(),
            is_reserved: true,
            date: reservation.time,
            quantity: 1_000_000_000,
            available: 999_999_999,
            reserved: 1,
            reservations: vec![reservation],
        }
    }
}

impl Example for ReservationView {
    fn example() -> Self {
        let time = DateTime::from_timestamp(1_798_000_001, 0).unwrap_or_default();
        Self { order_id: 1, state: ReservationState::Reserved, time }
    }
}

/// A reservation of an item.
#[derive(Debug, Clone, PartialEq, Eq, Object, Serialize, Deserialize)]
#[oai(rename = "Reservation", example)]
pub(crate) struct ReservationView {
    /// Whose it is.
    pub(crate) order_id: i64,
    /// Held or given back.
    pub(crate) state: ReservationState,
    /// Since when.
    pub(crate) time: DateTime<Utc>,
}

/// Whether stock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ReservationState {
    /// Held for the order.
    Reserved,
    /// Given back.
    Released,
}

impl TryFrom<i16> for ReservationState {
    type Error = String;

    /// Of the codes in the database, which has more.
    fn try_from(code: i16) -> Result<Self, String> {
        match code {
            1 => Ok(Self::Reserved),
            2 => Ok(Self::Released),
            _ => Err(format!("{code} holds nothing and never did")),
        }
    }
}

/// An item as lists have it.
#[derive(Debug, Object, Serialize, FromRow)]
#[oai(example)]
pub(crate) struct ItemSummary {
    /// The item.
    pub(crate) item_id: i64,
    /// Who sells it.
    pub(crate) seller_id: i64,
    /// What it is called.
    pub(crate) item_name: String,
    /// Price of a unit in the currency's minor units.
    pub(crate) price: i64,
    /// Units there are.
    pub(crate) quantity: i64,
    /// Units free to be reserved.
    pub(crate) available: i64,
    /// Units reserved now.
    pub(crate) reserved: i64,
}

impl Example for ItemSummary {
    fn example() -> Self {
        let ItemView {
            item_id, seller_id, item_name, price, quantity, available, reserved, ..
        } = ItemView::example();
        Self { item_id, seller_id, item_name, price, quantity, available, reserved }
    }
}

/// A reservation of an item, with whose order it is and how much.
#[derive(Debug, Object, Serialize, FromRow)]
#[oai(example)]
pub(crate) struct ReservationDetails {
    /// Whose it is.
    pub(crate) order_id: i64,
    /// Who ordered.
    pub(crate) client_id: i64,
    /// How many units.
    pub(crate) quantity: i64,
    /// Held or given back.
    #[sqlx(try_from = "i16")]
    pub(crate) state: ReservationState,
    /// Since when.
    pub(crate) time: DateTime<Utc>,
}

impl Example for ReservationDetails {
    fn example() -> Self {
        let ReservationView { order_id, state, time } = ReservationView::example();
        Self { order_id, client_id: 7, quantity: 1, state, time }
    }
}
