//! The operations on the proof: what was found of the invariants, and checking them now.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ordersaga_checker::{Outcome, Unchecked, Verdict, Violation};
use ordersaga_runtime::http::{Failure, JsonBody};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Serialize;

use super::{Tag, ms};
use crate::proof::{Checked, Checker, Proof};

/// The operations.
pub(crate) struct ProofApi(Arc<Checker>);

/// Violations of one invariant that are listed.
const LISTED: usize = 10;
/// Characters of a violation that are told.
const LONGEST: usize = 500;

/// What is known of the invariants.
#[derive(Object, Serialize)]
#[oai(example)]
struct ProofReport {
    /// Whether a check is running.
    is_running: bool,
    /// What the last check has found. Left out before the first.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<ProofResult>,
}

impl Example for ProofReport {
    fn example() -> Self {
        Self { is_running: false, last: Some(ProofResult::example()) }
    }
}

/// What a check has found.
#[derive(Object, Serialize)]
#[oai(example)]
struct ProofResult {
    /// When it began.
    checked_at: DateTime<Utc>,
    /// Milliseconds that it took.
    took_ms: u64,
    /// How many orders it looked at: of those that have ended the newest, 10,000 at the most.
    orders: usize,
    /// The oldest of them. Left out if there is none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    first_order_id: Option<i64>,
    /// The newest of them. Left out if there is none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    last_order_id: Option<i64>,
    /// The twelve invariants. None if the check failed.
    invariants: Vec<InvariantReport>,
    /// Why the check failed. Left out if it did not.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl Example for ProofResult {
    fn example() -> Self {
        Self {
            checked_at: DateTime::from_timestamp(1_798_000_000, 0).unwrap_or_default(),
            took_ms: 840,
            orders: 1_200,
            first_order_id: Some(1),
            last_order_id: Some(1_200),
            invariants: vec![InvariantReport::example()],
            failed: None,
        }
    }
}

/// An invariant and what was found of it.
#[derive(Object, Serialize)]
#[oai(example)]
struct InvariantReport {
    /// I1 to I12.
    name: String,
    /// What it promises.
    promise: String,
    /// What was found.
    verdict: VerdictName,
    /// Why it was not checked. Left out if it was.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<WhyUnchecked>,
    /// What is compared.
    compared: String,
    /// How many were compared: orders, items, keys or records.
    over: usize,
    /// The first violations.
    violations: Vec<ViolationReport>,
}

impl Example for InvariantReport {
    fn example() -> Self {
        Self {
            name: "I3".to_owned(),
            promise: "A cancelled order holds no stock.".to_owned(),
            verdict: VerdictName::Violated,
            why: None,
            compared: "status of each order, its reservation".to_owned(),
            over: 1_200,
            violations: vec![ViolationReport::example()],
        }
    }
}

/// What was found of an invariant.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum VerdictName {
    /// It holds for all that was compared.
    Holds,
    /// It does not hold.
    Violated,
    /// It was not checked.
    NotChecked,
}

/// Why an invariant was not checked.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WhyUnchecked {
    /// Orders are in flight, and it concerns all orders at once.
    OrdersInFlight,
    /// Only clients know their keys, and the playground has placed no order.
    NoKeys,
    /// Of these orders the playground has cancelled none.
    NoCancellations,
    /// It takes reading all topics again, as `ordersaga chaos` does.
    NeedsReplay,
    /// There is no order that has ended.
    NoOrders,
}

impl From<Unchecked> for WhyUnchecked {
    fn from(why: Unchecked) -> Self {
        match why {
            Unchecked::OrdersInFlight => Self::OrdersInFlight,
            Unchecked::NoKeys => Self::NoKeys,
            Unchecked::NoCancellations => Self::NoCancellations,
            Unchecked::NeedsReplay => Self::NeedsReplay,
            Unchecked::NoOrders => Self::NoOrders,
        }
    }
}

/// Where an invariant does not hold.
#[derive(Object, Serialize)]
#[oai(example)]
struct ViolationReport {
    /// The order. Left out if it is about none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<i64>,
    /// What was found; of a long text the first 500 characters.
    what: String,
}

impl Example for ViolationReport {
    fn example() -> Self {
        Self { order_id: Some(17), what: "has not ended".to_owned() }
    }
}

#[derive(ApiResponse)]
enum Known {
    /// What is known.
    #[oai(status = 200)]
    Known(JsonBody<ProofReport>),
}

#[derive(ApiResponse)]
enum Begun {
    /// A check is running.
    #[oai(status = 202)]
    Begun(JsonBody<ProofReport>),
}

impl ProofApi {
    pub(crate) fn new(checker: Arc<Checker>) -> Self {
        Self(checker)
    }
}

#[expect(clippy::unused_async, reason = "poem-openapi awaits its operations")]
#[OpenApi(tag = "Tag::Proof")]
impl ProofApi {
    /// What the last check has found
    #[oai(path = "/api/v1/proof", method = "get", operation_id = "get_proof")]
    async fn proof(&self) -> Result<Known, Failure> {
        Ok(Known::Known(JsonBody(self.0.checked().into())))
    }

    /// Check the invariants now
    ///
    /// In the background, one check at a time, for a minute at the most: if one is running, this is
    /// it. It reads the topics, all databases and the API's answers, without the services' code, for
    /// the newest 10,000 orders that have ended. What concerns all orders at once, as the stock, is
    /// compared only if none is in flight.
    #[oai(path = "/api/v1/proof", method = "post", operation_id = "check_proof")]
    async fn check(&self) -> Result<Begun, Failure> {
        self.0.begin();
        Ok(Begun::Begun(JsonBody(self.0.checked().into())))
    }
}

impl From<Checked> for ProofReport {
    fn from(checked: Checked) -> Self {
        Self { is_running: checked.is_running, last: checked.last.map(ProofResult::from) }
    }
}

impl From<Proof> for ProofResult {
    fn from(proof: Proof) -> Self {
        let (found, failed) = match proof.found {
            Ok(found) => (Some(found), None),
            Err(why) => (None, Some(why)),
        };
        let ids = found.as_ref().and_then(|found| found.ids);
        Self {
            checked_at: proof.at,
            took_ms: ms(proof.took),
            orders: found.as_ref().map_or(0, |found| found.orders),
            first_order_id: ids.map(|(first, _)| first),
            last_order_id: ids.map(|(_, last)| last),
            invariants: found
                .map(|found| found.verdicts.into_iter().map(InvariantReport::from).collect())
                .unwrap_or_default(),
            failed,
        }
    }
}

impl From<Verdict> for InvariantReport {
    fn from(verdict: Verdict) -> Self {
        let (name, why, violations) = match verdict.outcome {
            Outcome::Holds => (VerdictName::Holds, None, Vec::new()),
            Outcome::Violated(violations) => (VerdictName::Violated, None, violations),
            Outcome::NotChecked(why) => (VerdictName::NotChecked, Some(why.into()), Vec::new()),
        };
        Self {
            name: verdict.invariant.name.to_owned(),
            promise: verdict.invariant.promise.to_owned(),
            verdict: name,
            why,
            compared: verdict.invariant.compared.to_owned(),
            over: verdict.over,
            violations: violations.into_iter().take(LISTED).map(ViolationReport::from).collect(),
        }
    }
}

impl From<Violation> for ViolationReport {
    fn from(violation: Violation) -> Self {
        let what = violation.what.chars().take(LONGEST).collect();
        Self { order_id: violation.order, what }
    }
}
