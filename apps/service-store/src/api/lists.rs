//! Operations on many items, and on many reservations of one.

use ordersaga_runtime::http::{Bounded, Failure, Id, JsonBody, LookupFailure, Principal, Text};
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;

use super::{Tag, an_item, id, no_item};
use crate::lists::{Filter, Lists, Page};
use crate::view::{ItemSummary, ReservationDetails};

/// Items or reservations of a page, and how many unless said.
type PageSize = Bounded<1, 200>;
const PAGE: usize = 50;

/// The operations and what they need.
pub(crate) struct ListApi {
    lists: Lists,
}

/// Items.
#[derive(Object, Serialize)]
#[oai(example)]
struct ItemPage {
    /// The items, newest first, or by name.
    items: Vec<ItemSummary>,
    /// What `after` is to be for the items that follow. Left out if there are none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

impl Example for ItemPage {
    fn example() -> Self {
        let item = ItemSummary::example();
        Self { next: Some(item.item_id), items: vec![item] }
    }
}

impl From<Page<ItemSummary>> for ItemPage {
    fn from(Page { rows: items, next }: Page<ItemSummary>) -> Self {
        Self { items, next }
    }
}

/// Reservations of an item, newest order first.
#[derive(Object, Serialize)]
#[oai(example)]
struct ReservationPage {
    /// The reservations, newest order first.
    items: Vec<ReservationDetails>,
    /// What `after` is to be for the reservations that follow. Left out if there are none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

impl Example for ReservationPage {
    fn example() -> Self {
        let reservation = ReservationDetails::example();
        Self { next: Some(reservation.order_id), items: vec![reservation] }
    }
}

impl From<Page<ReservationDetails>> for ReservationPage {
    fn from(Page { rows: items, next }: Page<ReservationDetails>) -> Self {
        Self { items, next }
    }
}

#[derive(ApiResponse)]
enum ItemsFound {
    /// The items.
    #[oai(status = 200)]
    Found(JsonBody<ItemPage>),
}

#[derive(ApiResponse)]
enum ReservationsFound {
    /// The reservations.
    #[oai(status = 200)]
    Found(JsonBody<ReservationPage>),
}

#[expect(clippy::unnecessary_wraps, reason = "it has the parameter's type")]
fn a_seller() -> Option<Id> {
    Some(id(1))
}

fn a_begin() -> Option<Text<1, 200>> {
    Text::new("Example")
}

#[expect(clippy::unnecessary_wraps, reason = "it has the parameter's type")]
fn an_end() -> Option<Id> {
    Some(id(2_000))
}

fn a_page() -> Option<PageSize> {
    Bounded::new(20)
}

impl ListApi {
    pub(crate) fn new(lists: Lists) -> Self {
        Self { lists }
    }
}

#[OpenApi(tag = "Tag::Items")]
impl ListApi {
    /// Items, newest first, or by name
    ///
    /// Those that all of the filters admit. With `name` they are in the order of their names, by
    /// the code points of their letters: upper case comes before lower case. Else the newest are
    /// first. What the store has decided shows at once: a list is never read from the cache.
    #[oai(path = "/api/v1/items", method = "get", operation_id = "list_items")]
    async fn items(
        &self,
        /// Only this seller's.
        #[oai(example = "a_seller")]
        seller_id: Query<Option<Id>>,
        /// Only those whose names begin so, to the letter: no character stands for others.
        #[oai(example = "a_begin")]
        name: Query<Option<Text<1, 200>>>,
        /// Only those behind this item: the `next` of the page before, asked for with the same
        /// filters.
        #[oai(example = "an_end")]
        after: Query<Option<Id>>,
        /// How many at the most; 50 unless said.
        #[oai(example = "a_page")]
        limit: Query<Option<PageSize>>,
    ) -> Result<ItemsFound, Failure> {
        let filter =
            Filter { seller: seller_id.0.map(Into::into), name: name.0.map(Text::into_string) };
        let limit = PageSize::or(limit.0, PAGE);
        let page = self.lists.items(&filter, after.0.map(Into::into), limit).await;
        Ok(ItemsFound::Found(JsonBody(page.map_err(Failure::unavailable)?.into())))
    }

    /// Reservations of an item, newest order first
    ///
    /// All that are held and all that were given back, of the orders that may be seen with these
    /// credentials. Orders that the store refused never had one.
    /// What the store has decided shows at once: a list is never read from the cache.
    #[oai(path = "/api/v1/items/reservations", method = "get", operation_id = "list_reservations")]
    async fn reservations(
        &self,
        principal: Principal,
        /// The item.
        #[oai(example = "an_item")]
        item_id: Query<Id>,
        /// Only those of older orders than this one: the `next` of the page before.
        #[oai(example = "an_end")]
        after: Query<Option<Id>>,
        /// How many at the most; 50 unless said.
        #[oai(example = "a_page")]
        limit: Query<Option<PageSize>>,
    ) -> Result<ReservationsFound, LookupFailure> {
        let limit = PageSize::or(limit.0, PAGE);
        let after = after.0.map(Into::into);
        let (item, client) = (item_id.0.into(), principal.client());
        let page = self.lists.reservations(item, client, after, limit).await;
        let page = page.map_err(Failure::unavailable)?.ok_or_else(no_item)?;
        Ok(ReservationsFound::Found(JsonBody(page.into())))
    }
}
