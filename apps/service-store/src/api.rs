//! The HTTP API: find and add items, [`lists`] of them, and what the store knows for itself
//! ([`witness`]).

pub(crate) mod lists;
pub(crate) mod witness;

use ordersaga_runtime::http::{
    About, Access, AsciiText, Bounded, Client, Failure, Id, JsonBody, Link, LookupFailure,
    Principal, RateLimit, Scope, Shed, Text,
};
use ordersaga_runtime::postgres;
use poem_openapi::param::{Header, Query};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi, Tags};
use sagabus::NoAnswer;
use serde::{Deserialize, Serialize};

use crate::db::{self, NewItem};
use crate::items::Items;
use crate::view::ItemView;

/// What the API says of itself.
pub(crate) const ABOUT: About = About {
    name: crate::NAME,
    title: "Store",
    version: env!("CARGO_PKG_VERSION"),
    description: "Keeps items and what is reserved of them, finds and lists both. Reserving itself \
                  is asynchronous: orders arrive by the topic `incoming`, answers leave by \
                  `reservation` and `reset`.",
    server: "http://127.0.0.1:8002",
    location: "/api/v1/items/find?item_id=4",
    access: &[
        // The catalogue.
        ("find_item", Access::Public),
        ("list_items", Access::Public),
        ("find_item_witness", Access::Public),
        ("list_reservations", Access::Needs(Scope::OrdersRead)),
        ("find_reservation", Access::Needs(Scope::OrdersRead)),
        ("add_item", Access::Needs(Scope::ItemsWrite)),
    ],
    links: &[Link {
        from: ("add_item", 201),
        to: "find_item",
        elsewhere: None,
        field: "item_id",
        description: "Finds the item.",
    }],
    variants: &[(
        "StoreDecision",
        &["DECIDED_RESERVED", "DECIDED_RELEASED", "DECIDED_REFUSED", "DECIDED_TOMBSTONE"],
    )],
};

/// The operations and what they need.
pub(crate) struct Api {
    items: Items,
    additions: RateLimit,
}

/// An item to sell.
#[derive(Object, Deserialize, Serialize)]
#[oai(rename = "NewItem", example)]
#[serde(deny_unknown_fields)]
struct AddItem {
    /// Who sells it.
    seller_id: Id,
    /// Price of a unit in the currency's minor units.
    price: Bounded<0, { i64::MAX }>,
    /// What it is called. At least one character is visible: a letter, digit, sign or symbol. There
    /// are no control and format characters, such as turn the direction of the text or are
    /// invisible, no line separators, and none that Unicode has for private use or has not
    /// assigned; U+200C and U+200D stand only between two other characters that are not blanks.
    name: Text<1, 200>,
    /// Units there are.
    #[serde(default = "one")]
    #[oai(default = "one")]
    quantity: Units,
}

impl Example for AddItem {
    fn example() -> Self {
        Self {
            seller_id: id(1),
            price: Bounded::new(129_900).expect("it is not negative"),
            name: Text::new("Kettle, 1.7 l").expect("it is legible"),
            quantity: Bounded::new(1_000).expect("it is few"),
        }
    }
}

/// The item that a fresh store has for examples.
fn an_item() -> Id {
    id(1_000)
}

fn id(number: i64) -> Id {
    Id::new(number).expect("ids are positive")
}

fn no_item() -> LookupFailure {
    LookupFailure::not_found("There is no item with this item_id.")
}

/// Units of an item.
type Units = Bounded<1, 1_000_000_000>;

fn one() -> Units {
    const ONE: Units = Bounded::new(1).unwrap();
    ONE
}

/// The item's id.
#[derive(Object, Serialize)]
#[oai(example)]
struct ItemAdded {
    /// Counted from 1.
    item_id: i64,
}

impl Example for ItemAdded {
    fn example() -> Self {
        Self { item_id: 4 }
    }
}

#[derive(ApiResponse)]
enum Added {
    /// The item can be ordered.
    #[oai(status = 201)]
    Added(
        JsonBody<ItemAdded>,
        /// Where the item is.
        #[oai(header = "Location")]
        String,
        /// That the item was added by an earlier request under this key, and not by this one.
        #[oai(header = "Idempotent-Replayed")]
        Option<bool>,
    ),
}

#[derive(ApiResponse)]
enum Found {
    /// The item and its newest reservations.
    #[oai(status = 200)]
    Found(JsonBody<ItemView>),
}

impl Api {
    pub(crate) fn new(items: Items, additions: RateLimit) -> Self {
        Self { items, additions }
    }
}

#[derive(Tags)]
enum Tag {
    /// Items and their stock.
    Items,
}

#[OpenApi(tag = "Tag::Items")]
impl Api {
    /// Find an item
    ///
    /// With how much of it is free and its newest reservations. Answers from the cache where it
    /// can; by the time an order's status says SHIPPING, or shows the fact RELEASED, its item here
    /// says so too. Reservations are shown to those who may see the orders of all clients; to others
    /// the list is empty.
    #[oai(path = "/api/v1/items/find", method = "get", operation_id = "find_item")]
    async fn find(
        &self,
        principal: Principal,
        /// The item to find.
        #[oai(example = "an_item")]
        item_id: Query<Id>,
    ) -> Result<Found, LookupFailure> {
        let found = self.items.find(item_id.0.into()).await.map_err(Failure::unavailable)?;
        let mut item = found.ok_or_else(no_item)?;
        if !principal.sees_all_orders() {
            item.reservations.clear();
        }
        Ok(Found::Found(JsonBody(item)))
    }

    /// Add an item
    ///
    /// With an `Idempotency-Key` a request may be repeated safely: the same key and body give the
    /// same item, the same key with another request is an error. A request that comes while another
    /// with its key is being handled waits for the same answer.
    ///
    /// Refused are more items a second than one client may add (429); and, with 503, any item while
    /// there are as many as may be, and one under a new key while too many keys are remembered. No
    /// key is forgotten before its time.
    #[oai(path = "/api/v1/items/add", method = "post", operation_id = "add_item")]
    async fn add(
        &self,
        client: Client,
        principal: Principal,
        body: JsonBody<AddItem>,
        /// A value of the client's, unique to this item, of 1 to 255 characters.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<AsciiText<1, 255>>>,
    ) -> Result<Added, Failure> {
        self.additions.check(&client, Shed::Rate)?;
        let AddItem { seller_id, price, name, quantity } = body.0;
        let new = NewItem {
            seller_id: seller_id.into(),
            price: price.get(),
            name: name.into_string(),
            quantity: quantity.get(),
            key: idempotency_key.0.map(|key| principal.own_key(key.as_str())),
        };
        let added = self.items.add(&new).await.map_err(|error| {
            if postgres::is_unconfirmed(&error) || error.is::<NoAnswer>() {
                Failure::undecided(error)
            } else {
                Failure::unavailable(error)
            }
        })?;
        let (item_id, is_replayed) = match added {
            db::Added::Item { item, is_replayed } => (item, is_replayed),
            db::Added::KeyReused => return Err(Failure::key_reused()),
            db::Added::KeysFull => return Err(Failure::shed(Shed::Keys)),
            db::Added::ItemsFull => return Err(Failure::shed(Shed::Rows)),
        };
        Ok(Added::Added(
            JsonBody(ItemAdded { item_id: item_id.get() }),
            format!("/api/v1/items/find?item_id={item_id}"),
            is_replayed.then_some(true),
        ))
    }
}
