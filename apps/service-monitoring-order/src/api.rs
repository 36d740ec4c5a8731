//! The HTTP API: an order's status, the [`evidence`] of it and the [`fold`](mod@fold) that it is,
//! [`lists`] of orders, dead [`letters`] and what a [`dry_run`] of one tells, and how far the [`partitions`] are.

pub(crate) mod dry_run;
pub(crate) mod evidence;
pub(crate) mod fold;
pub(crate) mod latency;
pub(crate) mod letters;
pub(crate) mod lists;
pub(crate) mod partitions;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ordersaga_contract::{Fact, OrderId};
use ordersaga_runtime::clock;
use ordersaga_runtime::http::{
    About, Access, Bounded, CancelInitiator, CancelReason, Failure, Id, JsonBody, LookupFailure,
    Principal, RequestPlace, Scope,
};
use ordersaga_saga::status::{Heard, Step, fold};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Tags};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::History;
use crate::progress::Progress;
use crate::shards::Shards;
use crate::waiters::Waiters;

/// What the API says of itself.
pub(crate) const ABOUT: About = About {
    name: crate::NAME,
    title: "Monitoring",
    version: env!("CARGO_PKG_VERSION"),
    description: "Answers for the status of each order: a fold over every event heard of it, \
                  whatever the order in which they arrived. Shows the records behind it. Lists orders \
                  and dead letters, counts what happened, and says how far it is in each partition.",
    server: "http://127.0.0.1:8001",
    location: "",
    access: &[
        ("get_order_status", Access::Needs(Scope::OrdersRead)),
        ("get_order_evidence", Access::Needs(Scope::OrdersRead)),
        ("fold_facts", Access::Needs(Scope::OrdersRead)),
        ("list_orders", Access::Needs(Scope::OrdersRead)),
        ("list_stuck_orders", Access::Needs(Scope::OrdersRead)),
        ("get_stats", Access::Needs(Scope::OrdersRead)),
        ("list_partitions", Access::Needs(Scope::OrdersRead)),
        ("list_dead_letters", Access::Needs(Scope::Admin)),
        ("dry_run_replay", Access::Needs(Scope::Admin)),
    ],
    links: &[],
    variants: &[
        ("FactKind", &["ORDER_PLACED", "STOCK_RESERVED", "STOCK_RELEASED", "ORDER_CANCELLED"]),
        ("OrderWait", &["FOR_ANSWER", "FOR_RELEASE", "FOR_PLACING"]),
        ("CancelInitiator", &["BY_CLIENT", "BY_STORE", "BY_DEADLINE"]),
        ("MissingRecord", &["RECORD_GONE", "RECORD_NOT_FOUND"]),
    ],
};

/// What is said of an order that nothing was heard of.
const UNKNOWN: &str = "There is no order with this order_id.";
/// The longest `wait_ms`.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(LONGEST_WAIT_MS as u64);
const LONGEST_WAIT_MS: i64 = 30_000;
/// How soon a waiting request looks by itself, and at the most: the news may come to another
/// instance. Ever less often, or many that wait would keep the databases busy.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// The operations and what they need.
pub(crate) struct Api {
    shards: Arc<Shards>,
    waiters: Arc<Waiters>,
    progress: Arc<Progress>,
    grace: Duration,
    stop: CancellationToken,
}

/// An order's status.
#[derive(Object, Serialize)]
#[oai(example)]
pub(crate) struct OrderStatus {
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
    reason: Option<CancelReason>,
    /// Who ended it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<CancelInitiator>,
    /// When it was placed. Left out while an answer of the store's is all that was heard of it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<DateTime<Utc>>,
    /// When the newest of the facts came true.
    update_date: DateTime<Utc>,
    /// The node the order lies on.
    shard: String,
    /// All that was heard of it, oldest first.
    facts: Vec<FactHeard>,
}

impl Example for OrderStatus {
    fn example() -> Self {
        let (placed, reserved) = (FactHeard::example(), example_of(FactName::Reserved, 1));
        Self {
            order_id: 1,
            item_id: 1_000,
            seller_id: 1,
            client_id: 7,
            quantity: 1,
            step: StepName::Shipping,
            is_reserved: true,
            is_cancelled: false,
            reason: None,
            initiator: None,
            created_at: Some(placed.time),
            update_date: reserved.time,
            shard: "shard1".to_owned(),
            facts: vec![placed, reserved],
        }
    }
}

impl Example for FactHeard {
    fn example() -> Self {
        example_of(FactName::Placed, 0)
    }
}

fn example_of(fact: FactName, seconds: i64) -> FactHeard {
    let time = DateTime::from_timestamp(1_798_000_000 + seconds, 0).unwrap_or_default();
    FactHeard { fact, time, reason: None, initiator: None }
}

/// How long to wait, as the document shows it.
fn a_while() -> Option<Bounded<0, LONGEST_WAIT_MS>> {
    Bounded::new(5_000)
}

/// What to wait for, as the document shows it.
#[expect(clippy::unnecessary_wraps, reason = "it has the parameter's type")]
fn a_step() -> Option<StepName> {
    Some(StepName::Shipping)
}

/// An order, as the document shows it.
fn an_order() -> Id {
    Id::new(1).expect("ids are positive")
}

/// Something that came true of an order.
#[derive(Object, Serialize)]
#[oai(rename = "OrderFact", example)]
struct FactHeard {
    /// What.
    fact: FactName,
    /// When.
    time: DateTime<Utc>,
    /// Why, if it ends the order.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<CancelReason>,
    /// Who, if it ends the order.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<CancelInitiator>,
}

/// How far an order is.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "OrderStep", rename_all = "SCREAMING_SNAKE_CASE")]
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
#[derive(Enum, Serialize, Deserialize, Clone, Copy)]
#[oai(rename = "FactKind", rename_all = "SCREAMING_SNAKE_CASE")]
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
        progress: Arc<Progress>,
        grace: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self { shards, waiters, progress, grace, stop }
    }

    /// The status, as soon as nothing more is waited for; `None` for an unknown order. An order that
    /// is not for the principal to see is as unknown as one that is not there, also in time.
    async fn await_status(
        &self,
        order: OrderId,
        principal: &Principal,
        patience: Patience,
        place: &RequestPlace,
    ) -> Result<Option<OrderStatus>, Failure> {
        let start = Instant::now();
        // Listening starts before reading, so that no news falls between.
        let wants_first = patience.time.is_none_or(|time| time < self.grace);
        let waiting = self.waiters.listen(order, patience.wanted(), wants_first);
        // Of an order on its way there is nothing to read yet; when the news of it comes, all that a
        // batch brought news of is read together. Nothing is answered before it was read.
        let (mut is_due, mut was_read) = (!self.progress.expects(order), false);
        let mut pause = FIRST_LOOK;
        loop {
            if mem::take(&mut is_due) {
                match self.read(order).await {
                    Ok(read) => waiting.add(read),
                    // What was read at first, and heard since, is an answer.
                    Err(_) if was_read && waiting.known().is_some() => {}
                    Err(failure) => return Err(failure),
                }
                was_read = true;
            }
            let seen = waiting.known().filter(|it| principal.may_see(it.order.client_id));
            let status = seen.and_then(|history| present(&self.shards, &history));
            let known = status
                .as_ref()
                .map(|status| (status.step.into(), is_older(status.update_date, self.grace)));
            let until = start + patience.limit(known, self.grace);
            let now = Instant::now();
            let is_over = now >= until || self.stop.is_cancelled();
            let refusal = if is_over { None } else { place.wait().err() };
            if is_over || refusal.is_some() {
                if !was_read {
                    is_due = true;
                    continue;
                }
                // What is known is told now. Of an order not heard of there is nothing to tell yet.
                return match (status, refusal) {
                    (None, Some(failure)) => Err(failure),
                    (status, _) => Ok(status),
                };
            }
            tokio::select! {
                () = waiting.news() => {}
                () = tokio::time::sleep_until(until.min(now + pause)) => {
                    pause = LONGEST_LOOK.min(2 * pause);
                    is_due = true;
                }
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn read(&self, order: OrderId) -> Result<Option<History>, Failure> {
        self.shards.history(order).await.map_err(Failure::unavailable)
    }
}

/// What is told of an order: the detail and every list have the same.
pub(crate) fn present(shards: &Shards, history: &History) -> Option<OrderStatus> {
    let folded = fold(history.heard.iter().copied())?;
    let order = &history.order;
    Some(OrderStatus {
        order_id: order.order_id.get(),
        item_id: order.item_id.get(),
        seller_id: order.seller_id.get(),
        client_id: order.client_id.get(),
        quantity: order.quantity.get(),
        step: folded.step.into(),
        is_reserved: folded.is_reserved,
        is_cancelled: folded.is_cancelled,
        reason: folded.cancellation.map(|end| end.reason.into()),
        initiator: folded.cancellation.map(|end| end.initiator.into()),
        created_at: folded.placed,
        update_date: folded.updated,
        shard: shards.name_of(order.order_id).to_owned(),
        facts: folded.facts.into_iter().map(FactHeard::from).collect(),
    })
}

#[derive(Tags)]
enum Tag {
    /// Where orders stand.
    Status,
    /// Orders by what they have in common, and how many there are.
    Orders,
    /// Records that consumers could not read or apply.
    DeadLetters,
    /// How far this service is.
    Progress,
}

#[OpenApi(tag = "Tag::Status")]
impl Api {
    /// An order's status
    ///
    /// The answer waits until the order is SHIPPING or CANCELLED, or at the step that `wait_for`
    /// names, or `wait_ms` are over. A step that is past is not waited for: the steps come in the
    /// order `UNDER_RESERVATION`, `SHIPPING`, `CANCELLED`, and an order may skip some. Without `wait_ms`
    /// only an order that is new or not heard of yet, or a step that `wait_for` names, is waited
    /// for, and only a moment (half a second unless configured otherwise): its events are on their
    /// way. With too many requests waiting, the answer to this one comes at once.
    #[oai(path = "/api/v1/status", method = "get", operation_id = "get_order_status")]
    async fn status(
        &self,
        principal: Principal,
        /// The order asked about.
        #[oai(example = "an_order")]
        order_id: Query<Id>,
        /// Longest time to wait, in milliseconds.
        #[oai(example = "a_while")]
        wait_ms: Query<Option<Bounded<0, LONGEST_WAIT_MS>>>,
        /// The step to wait for; without it SHIPPING or CANCELLED, whichever comes first.
        #[oai(example = "a_step")]
        wait_for: Query<Option<StepName>>,
        place: Data<&RequestPlace>,
    ) -> Result<Found, LookupFailure> {
        let patience = Patience {
            time: wait_ms.0.map(|wait| Duration::from_millis(wait.get().unsigned_abs())),
            step: wait_for.0.map(Step::from),
        };
        self.await_status(order_id.0.into(), &principal, patience, place.0)
            .await?
            .map(|status| Found::Found(JsonBody(status)))
            .ok_or_else(|| LookupFailure::not_found(UNKNOWN))
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    time: Option<Duration>,
    step: Option<Step>,
}

impl Patience {
    fn wanted(self) -> Step {
        self.step.unwrap_or(Step::Shipping)
    }

    /// How long to wait, from the request's start, while this is what there is: a step, and whether
    /// it was reached longer than `grace` ago.
    fn limit(self, known: Option<(Step, bool)>, grace: Duration) -> Duration {
        let wanted = self.wanted();
        match (known, self.time) {
            // What is past does not come again.
            (Some((step, _)), _) if step >= wanted => Duration::ZERO,
            (None, Some(time)) => time.max(grace),
            (Some(_), Some(time)) => time,
            (Some((_, true)), None) if self.step.is_none() => Duration::ZERO,
            // Whoever asks right after the create is told how it went, not that it began; whoever
            // asks for a step right after the cancel, whether it worked.
            (None | Some(_), None) => grace,
        }
    }
}

/// Whether something of that time is older than `age` now; clocks that differ make it look so.
fn is_older(time: DateTime<Utc>, age: Duration) -> bool {
    (clock::now() - time).to_std().is_ok_and(|passed| passed > age)
}

impl From<Step> for StepName {
    fn from(step: Step) -> Self {
        match step {
            Step::UnderReservation => Self::UnderReservation,
            Step::Shipping => Self::Shipping,
            Step::Cancelled => Self::Cancelled,
        }
    }
}

impl From<StepName> for Step {
    fn from(name: StepName) -> Self {
        match name {
            StepName::UnderReservation => Self::UnderReservation,
            StepName::Shipping => Self::Shipping,
            StepName::Cancelled => Self::Cancelled,
        }
    }
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
            reason: heard.reason.map(CancelReason::from),
            initiator: heard.fact.initiator().map(CancelInitiator::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(500);

    fn limit(time: Option<u64>, step: Option<Step>, known: Option<(Step, bool)>) -> u128 {
        let time = time.map(Duration::from_millis);
        Patience { time, step }.limit(known, GRACE).as_millis()
    }

    #[test]
    fn a_step_is_waited_for_until_it_is_reached_or_past() {
        use Step::{Cancelled, Shipping, UnderReservation};
        for (wanted, at, waits) in [
            (None, None, true),
            (None, Some(UnderReservation), true),
            (None, Some(Shipping), false),
            (None, Some(Cancelled), false),
            (Some(UnderReservation), None, true),
            (Some(UnderReservation), Some(UnderReservation), false),
            (Some(Shipping), Some(UnderReservation), true),
            (Some(Shipping), Some(Cancelled), false),
            (Some(Cancelled), Some(UnderReservation), true),
            (Some(Cancelled), Some(Shipping), true),
            (Some(Cancelled), Some(Cancelled), false),
        ] {
            for old in [false, true] {
                let known = at.map(|step| (step, old));
                let expected = if waits { 9_000 } else { 0 };
                assert_eq!(limit(Some(9_000), wanted, known), expected, "{wanted:?} {at:?}");
            }
        }
    }

    #[test]
    fn without_a_time_only_what_is_on_its_way_is_waited_for() {
        let under = |old| Some((Step::UnderReservation, old));
        assert_eq!(limit(None, None, None), 500);
        assert_eq!(limit(Some(0), None, None), 500, "its first event is on its way");
        assert_eq!(limit(None, None, under(false)), 500);
        assert_eq!(limit(None, None, under(true)), 0);
        assert_eq!(limit(None, Some(Step::Cancelled), Some((Step::Shipping, true))), 500);
        assert_eq!(limit(Some(0), Some(Step::Cancelled), Some((Step::Shipping, true))), 0);
    }
}
