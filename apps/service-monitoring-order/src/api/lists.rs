//! Operations on many orders.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ordersaga_contract::{ClientId, Fact, OrderId};
use ordersaga_runtime::http::{Bounded, Failure, Id, JsonBody, Principal};
use ordersaga_saga::status::{Step, Wait};
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Serialize;

use super::latency::MinuteLatency;
use super::{OrderStatus, StepName, Tag, a_step, present};
use crate::in_flight::InFlight;
use crate::lists::{Counts, Listed, Lists};
use crate::page::Filter;
use crate::stuck::{Overdue, Stuck};

/// Things on a page, and how many unless said.
pub(super) type PageSize = Bounded<1, 200>;
pub(super) const PAGE: usize = 50;
/// Minutes of an answer, and how many unless said.
type Minutes = Bounded<1, 1_440>;
const HOUR: usize = 60;

/// The operations.
pub(crate) struct ListApi(Arc<Views>);

type AsOf = Option<DateTime<Utc>>;

/// What they answer, which streams show as well.
pub(crate) struct Views {
    lists: Arc<Lists>,
    stuck: Arc<Stuck>,
    in_flight: Arc<InFlight>,
}

/// Orders, newest first.
#[derive(Object, Serialize)]
#[oai(example)]
struct OrderPage {
    /// The orders, newest first.
    items: Vec<OrderStatus>,
    /// What `after` is to be for the orders that follow. Left out if there are none. With filters
    /// more may follow though this page is short, or empty: see `scanned`.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
    /// How many orders were looked at to find these.
    scanned: i64,
    /// Shards that could not be read: their orders are missing.
    missing_shards: Vec<String>,
    /// Everything that happened before this time is told, of the partitions that the answering
    /// instance follows; to within a second. Left out if it does not know.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
}

impl Example for OrderPage {
    fn example() -> Self {
        let order = OrderStatus::example();
        let as_of = Some(order.update_date);
        Self { items: vec![order], next: Some(1), scanned: 1, missing_shards: a_shard(), as_of }
    }
}

/// Orders that have waited for too long.
#[derive(Object, Serialize)]
#[oai(example)]
struct StuckOrders {
    /// The orders, those first heard of longest ago first.
    items: Vec<StuckOrder>,
    /// Whether these are all, of the partitions that the answering instance follows. Not while it
    /// still reads what was in flight when it started, nor if they are more than `limit`, or more
    /// are in flight than it remembers.
    is_complete: bool,
    /// Shards that could not be read: their orders are missing.
    missing_shards: Vec<String>,
    /// Everything that happened before this time is taken into account, of the partitions that the
    /// answering instance follows; to within a second. Left out if it does not know.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
}

impl Example for StuckOrders {
    fn example() -> Self {
        let (order, missing_shards) = (StuckOrder::example(), a_shard());
        let as_of = Some(order.since + TimeDelta::seconds(41));
        Self { items: vec![order], is_complete: true, missing_shards, as_of }
    }
}

/// An order that has waited for too long.
#[derive(Object, Serialize)]
#[oai(example)]
struct StuckOrder {
    /// The order.
    order: OrderStatus,
    /// What it waits for.
    waits_for: WaitName,
    /// Since when.
    since: DateTime<Utc>,
    /// Whether it is late and not stuck: what it waits for may have happened, and this service has
    /// yet to hear of it.
    is_late: bool,
}

impl Example for StuckOrder {
    fn example() -> Self {
        let mut order = OrderStatus::example();
        order.facts.truncate(1);
        let since = order.facts[0].time;
        (order.step, order.is_reserved, order.update_date) =
            (StepName::UnderReservation, false, since);
        Self { order, waits_for: WaitName::Answer, since, is_late: false }
    }
}

/// What an order waits for.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "OrderWait", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WaitName {
    /// The store's answer: that stock is held, or why not.
    Answer,
    /// The store's word that the stock of an ended order is given back.
    Release,
    /// The news that it was placed: other facts came first.
    Placing,
}

impl From<Wait> for WaitName {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Answer => Self::Answer,
            Wait::Release => Self::Release,
            Wait::Placing => Self::Placing,
        }
    }
}

/// How many events there were.
#[derive(Object, Serialize)]
#[oai(example)]
struct Stats {
    /// Minutes with events, newest first.
    minutes: Vec<MinuteStats>,
    /// How long things took, newest minute first: of the last hour at the most, since the answering
    /// instance began, and only of what it heard itself.
    latencies: Vec<MinuteLatency>,
    /// Everything that happened before this time is counted, of the partitions that the answering
    /// instance follows; to within a second. Left out if it does not know.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
}

impl Example for Stats {
    fn example() -> Self {
        let minute = MinuteStats::example();
        let (as_of, latencies) = (Some(minute.minute), vec![MinuteLatency::example()]);
        Self { as_of, latencies, minutes: vec![minute] }
    }
}

/// How many events a minute had, by fact. Records are counted, not orders: one that comes a second
/// time counts again.
#[derive(Object, Serialize)]
#[oai(example)]
struct MinuteStats {
    /// When the minute began.
    minute: DateTime<Utc>,
    /// Orders placed.
    placed: i64,
    /// Orders for which stock is held.
    reserved: i64,
    /// Orders whose stock was given back.
    released: i64,
    /// Orders ended by their client.
    cancelled_by_client: i64,
    /// Orders ended by the store.
    cancelled_by_store: i64,
    /// Orders ended by their deadline.
    cancelled_by_deadline: i64,
}

impl Example for MinuteStats {
    fn example() -> Self {
        Self {
            minute: DateTime::from_timestamp(1_797_999_960, 0).unwrap_or_default(),
            placed: 120,
            reserved: 117,
            released: 4,
            cancelled_by_client: 4,
            cancelled_by_store: 3,
            cancelled_by_deadline: 0,
        }
    }
}

#[derive(ApiResponse)]
enum OrdersFound {
    /// The orders.
    #[oai(status = 200)]
    Found(JsonBody<OrderPage>),
}

#[derive(ApiResponse)]
enum StuckFound {
    /// The orders.
    #[oai(status = 200)]
    Found(JsonBody<StuckOrders>),
}

#[derive(ApiResponse)]
enum Counted {
    /// The counts.
    #[oai(status = 200)]
    Counted(JsonBody<Stats>),
}

#[expect(clippy::unnecessary_wraps, reason = "it has the parameter's type")]
fn a_client() -> Option<Id> {
    Some(Id::new(7).expect("ids are positive"))
}

fn a_shard() -> Vec<String> {
    vec!["shard2".to_owned()]
}

fn a_time() -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(1_798_000_000, 0)
}

fn a_later_time() -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(1_798_086_400, 0)
}

fn an_end() -> Option<Id> {
    Id::new(1_000)
}

pub(super) fn a_page() -> Option<PageSize> {
    Bounded::new(20)
}

fn an_hour() -> Option<Minutes> {
    Bounded::new(60)
}

impl Views {
    pub(crate) fn new(lists: Arc<Lists>, stuck: Arc<Stuck>, in_flight: Arc<InFlight>) -> Self {
        Self { lists, stuck, in_flight }
    }

    async fn orders(
        &self,
        filter: Filter,
        after: Option<OrderId>,
        limit: usize,
    ) -> anyhow::Result<OrderPage> {
        let Listed { page, missing, as_of } = self.lists.newest(filter, after, limit).await?;
        let orders = page.orders.iter();
        Ok(OrderPage {
            items: orders.filter_map(|order| present(self.lists.shards(), order)).collect(),
            next: page.next.map(OrderId::get),
            scanned: i64::try_from(page.scanned).unwrap_or(i64::MAX),
            missing_shards: missing.into_iter().map(str::to_owned).collect(),
            as_of,
        })
    }

    async fn stuck(&self, client: Option<ClientId>, limit: usize) -> anyhow::Result<StuckOrders> {
        let Overdue { orders, is_complete, missing, as_of } =
            self.stuck.find(client, limit).await?;
        let items = orders.into_iter().filter_map(|(history, wait, since, is_late)| {
            let order = present(self.lists.shards(), &history)?;
            Some(StuckOrder { order, waits_for: wait.into(), since, is_late })
        });
        Ok(StuckOrders {
            items: items.collect(),
            is_complete,
            missing_shards: missing.into_iter().map(str::to_owned).collect(),
            as_of,
        })
    }

    async fn stats(&self, time: Range<DateTime<Utc>>, limit: usize) -> anyhow::Result<Stats> {
        let counts = self.lists.counts(time.clone(), limit).await?;
        let latencies = self.in_flight.latencies().into_iter().map(MinuteLatency::from);
        let latencies = latencies.filter(|one| time.contains(&one.minute)).take(limit);
        Ok(Stats { latencies: latencies.collect(), ..counts.into() })
    }

    /// The newest orders, for streams: `as_of` apart, since it always changes.
    pub(crate) async fn newest(&self) -> anyhow::Result<(impl Serialize + use<>, AsOf)> {
        let mut page = self.orders(Filter::default(), None, PAGE).await?;
        let as_of = page.as_of.take();
        Ok((page, as_of))
    }

    /// The orders that have waited for too long, likewise.
    pub(crate) async fn overdue(&self) -> anyhow::Result<(impl Serialize + use<>, AsOf)> {
        let mut stuck = self.stuck(None, PAGE).await?;
        let as_of = stuck.as_of.take();
        Ok((stuck, as_of))
    }

    /// The counts of the newest minutes, likewise.
    pub(crate) async fn last_hour(&self) -> anyhow::Result<(impl Serialize + use<>, AsOf)> {
        let mut stats = self.stats(DateTime::UNIX_EPOCH..FAR, HOUR).await?;
        let as_of = stats.as_of.take();
        Ok((stats, as_of))
    }
}

impl ListApi {
    pub(crate) fn new(views: Arc<Views>) -> Self {
        Self(views)
    }
}

#[OpenApi(tag = "Tag::Orders")]
impl ListApi {
    /// Orders, newest first
    ///
    /// Those that all of the filters admit. The newest are read at once; where a filter admits few,
    /// only some thousands are looked at for one answer: `next` leads on, `scanned` says how many
    /// they were. An answer is never complete before `as_of`, and a shard that is away is named in
    /// `missing_shards` while the others' orders are told. With credentials that are bound to a
    /// client, the list is of its orders, and another `client_id` is refused (403).
    #[oai(path = "/api/v1/orders", method = "get", operation_id = "list_orders")]
    #[expect(clippy::too_many_arguments, reason = "they are the operation's parameters")]
    async fn orders(
        &self,
        principal: Principal,
        /// Only this client's.
        #[oai(example = "a_client")]
        client_id: Query<Option<Id>>,
        /// Only those at this step now.
        #[oai(example = "a_step")]
        step: Query<Option<StepName>>,
        /// Only those placed at this time or later.
        #[oai(example = "a_time")]
        from: Query<Option<DateTime<Utc>>>,
        /// Only those placed before this time.
        #[oai(example = "a_later_time")]
        to: Query<Option<DateTime<Utc>>>,
        /// Only those older than this order: the `next` of the page before.
        #[oai(example = "an_end")]
        after: Query<Option<Id>>,
        /// How many at the most; 50 unless said.
        #[oai(example = "a_page")]
        limit: Query<Option<PageSize>>,
    ) -> Result<OrdersFound, Failure> {
        let filter = Filter {
            client: principal.list_for(client_id.0.map(ClientId::from))?,
            step: step.0.map(Step::from),
            from: from.0,
            to: to.0,
        };
        let limit = PageSize::or(limit.0, PAGE);
        let page = self.0.orders(filter, after.0.map(OrderId::from), limit).await;
        Ok(OrdersFound::Found(JsonBody(page.map_err(Failure::unavailable)?)))
    }

    /// Orders that have waited for too long
    ///
    /// An order is one of them if the store has not answered for 30 seconds (unless configured
    /// otherwise), if it has ended and its stock was not given back for ten, or if its placing was
    /// not heard of ten seconds after something else was. Such an order is stuck, or only this
    /// service is behind: then `is_late` is true. An instance tells of the partitions that it
    /// follows.
    #[oai(path = "/api/v1/orders/stuck", method = "get", operation_id = "list_stuck_orders")]
    async fn stuck(
        &self,
        principal: Principal,
        /// How many at the most; 50 unless said.
        #[oai(example = "a_page")]
        limit: Query<Option<PageSize>>,
    ) -> Result<StuckFound, Failure> {
        let found = self.0.stuck(principal.client(), PageSize::or(limit.0, PAGE)).await;
        Ok(StuckFound::Found(JsonBody(found.map_err(Failure::unavailable)?)))
    }

    /// How many events there were
    ///
    /// By minute and fact, newest first, of the last seven days. Records are counted as they are
    /// applied, so what is sent a second time counts again. The counts are of all clients: credentials
    /// that are bound to one are refused (403).
    #[oai(path = "/api/v1/stats", method = "get", operation_id = "get_stats")]
    async fn stats(
        &self,
        principal: Principal,
        /// Only minutes that begin at this time or later.
        #[oai(example = "a_time")]
        from: Query<Option<DateTime<Utc>>>,
        /// Only minutes that begin before this time.
        #[oai(example = "a_later_time")]
        to: Query<Option<DateTime<Utc>>>,
        /// How many minutes at the most; 60 unless said.
        #[oai(example = "an_hour")]
        limit: Query<Option<Minutes>>,
    ) -> Result<Counted, Failure> {
        principal.see_all("the counts are")?;
        let time = from.0.unwrap_or(DateTime::UNIX_EPOCH)..to.0.unwrap_or(FAR);
        let counts = self.0.stats(time, Minutes::or(limit.0, HOUR)).await;
        Ok(Counted::Counted(JsonBody(counts.map_err(Failure::unavailable)?)))
    }
}

/// Later than every minute that is counted.
const FAR: DateTime<Utc> = DateTime::<Utc>::from_timestamp(253_402_300_799, 0).unwrap();

impl From<Counts> for Stats {
    fn from(counts: Counts) -> Self {
        let minutes = counts.minutes.into_iter().map(|(minute, facts)| {
            let of = |fact| facts.get(&fact).copied().unwrap_or_default();
            MinuteStats {
                minute,
                placed: of(Fact::Placed),
                reserved: of(Fact::Reserved),
                released: of(Fact::Released),
                cancelled_by_client: of(Fact::ResetByClient),
                cancelled_by_store: of(Fact::ResetByStore),
                cancelled_by_deadline: of(Fact::ResetByDeadline),
            }
        });
        Self { minutes: minutes.collect(), latencies: Vec::new(), as_of: counts.as_of }
    }
}
