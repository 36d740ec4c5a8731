//! The operation that folds facts into statuses, whatever the order in which they are told.

use chrono::{DateTime, Utc};
use ordersaga_contract::{Fact, Initiator, Reason};
use ordersaga_runtime::http::{
    Bounded, CancelInitiator, CancelReason, Failure, FieldError, JsonBody, List, given,
};
use ordersaga_saga::status::{Heard, Status, fold};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Serialize};

use super::{FactHeard, FactName, StepName, Tag};

/// Facts of a request, and facts of one telling of them, at the most.
const FACTS: usize = 20;
/// Tellings of a request, at the most.
const TELLINGS: usize = 100;

/// The operation. It needs nothing: it reads nothing.
pub(crate) struct FoldApi;

/// Facts, and in which orders they are told.
#[derive(Object, Deserialize, Serialize)]
#[oai(example)]
#[serde(deny_unknown_fields)]
struct FactsToFold {
    /// What came true of an order, 1 to 20 facts.
    facts: List<FactTold, 1, FACTS>,
    /// In which orders they are told, 1 to 100 of them.
    tellings: List<Telling, 1, TELLINGS>,
}

impl Example for FactsToFold {
    fn example() -> Self {
        let tellings = vec![Telling::example(), telling(&[1, 0, 1])];
        Self {
            facts: List::new(vec![FactTold::example(), told(FactName::Reserved, 1)])
                .expect("there are few"),
            tellings: List::new(tellings).expect("there are few"),
        }
    }
}

/// Something that came true of an order.
#[derive(Object, Deserialize, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
#[serde(deny_unknown_fields)]
struct FactTold {
    /// What.
    fact: FactName,
    /// When.
    time: DateTime<Utc>,
    /// Why, if it ends the order.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    reason: Option<CancelReason>,
    /// Who, if it ends the order.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    initiator: Option<CancelInitiator>,
}

impl Example for FactTold {
    fn example() -> Self {
        told(FactName::Placed, 0)
    }
}

fn told(fact: FactName, seconds: i64) -> FactTold {
    let time = DateTime::from_timestamp(1_798_000_000 + seconds, 0).unwrap_or_default();
    FactTold { fact, time, reason: None, initiator: None }
}

/// One order in which the facts are told.
#[derive(Object, Deserialize, Serialize)]
#[oai(example)]
#[serde(deny_unknown_fields)]
struct Telling {
    /// Which facts are told, by their places in `facts`, counted from 0. A fact may be told again
    /// or left out. At most 20.
    #[oai(validator(max_items = 20))]
    places: Vec<Bounded<0, 19>>,
}

impl Example for Telling {
    fn example() -> Self {
        telling(&[0, 1])
    }
}

fn telling(places: &[i64]) -> Telling {
    Telling { places: places.iter().filter_map(|place| Bounded::new(*place)).collect() }
}

/// The statuses that the tellings lead to.
#[derive(Object, Serialize)]
#[oai(example)]
struct FoldedStatuses {
    /// Each status once, in the order in which the tellings lead to them.
    statuses: Vec<FoldedStatus>,
    /// For each telling the place of its status in `statuses`, counted from 0.
    reached: Vec<i64>,
}

impl Example for FoldedStatuses {
    fn example() -> Self {
        Self { statuses: vec![FoldedStatus::example()], reached: vec![0, 0] }
    }
}

/// A status. Without a step nothing was told.
#[derive(Object, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
struct FoldedStatus {
    /// How far the order is.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepName>,
    /// Whether stock is held for it now.
    is_reserved: bool,
    /// Whether it is over.
    is_cancelled: bool,
    /// Why it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<CancelReason>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<CancelInitiator>,
    /// When it was placed, if that was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<DateTime<Utc>>,
    /// When the newest of the facts came true.
    #[serde(skip_serializing_if = "Option::is_none")]
    update_date: Option<DateTime<Utc>>,
    /// Each fact once, oldest first.
    facts: Vec<FactHeard>,
}

impl Example for FoldedStatus {
    fn example() -> Self {
        let (placed, reserved) = (FactTold::example(), told(FactName::Reserved, 1));
        let heard = |told: FactTold| told.heard("").ok();
        Self::from(fold([placed, reserved].into_iter().filter_map(heard)))
    }
}

#[derive(ApiResponse)]
enum Folded {
    /// The statuses.
    #[oai(status = 200)]
    Folded(JsonBody<FoldedStatuses>),
}

#[OpenApi(tag = "Tag::Status")]
impl FoldApi {
    /// The status that facts make, in whichever order they are told
    ///
    /// Folds facts as every order's status is folded, and nothing else: no order is read or
    /// changed. The facts are given once, and then any number of orders in which to tell them, each
    /// with repetitions and omissions as you like. As long as no fact is left out, all of them lead
    /// to one status.
    #[oai(path = "/api/v1/status/fold", method = "post", operation_id = "fold_facts")]
    #[expect(clippy::unused_async, reason = "operations are asynchronous")]
    async fn fold(&self, body: JsonBody<FactsToFold>) -> Result<Folded, Failure> {
        let FactsToFold { facts, tellings } = body.0;
        let facts = facts.into_vec().into_iter().enumerate();
        let facts = facts.map(|(place, told)| told.heard(&format!("facts[{place}].")));
        let facts = facts.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let tellings = tellings.into_vec();
        let told = tellings.iter().enumerate().map(|(at, telling)| telling.of(&facts, at));
        let told = told.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let (statuses, reached) = distinct(told.into_iter().map(fold));
        let statuses = statuses.into_iter().map(FoldedStatus::from).collect();
        Ok(Folded::Folded(JsonBody(FoldedStatuses { statuses, reached })))
    }
}

fn wrong(error: FieldError) -> Failure {
    Failure::invalid_fields(vec![error])
}

fn field_error(field: String, detail: &str) -> FieldError {
    FieldError { field, detail: detail.to_owned() }
}

impl FactTold {
    /// The fact as it would be heard. Errors name fields of what stands at `place`.
    fn heard(self, place: &str) -> Result<Heard, FieldError> {
        let fact = match (self.fact, self.initiator.map(Initiator::from)) {
            (FactName::Cancelled, Some(Initiator::Client)) => Fact::ResetByClient,
            (FactName::Cancelled, Some(Initiator::Store)) => Fact::ResetByStore,
            (FactName::Cancelled, Some(Initiator::Deadline)) => Fact::ResetByDeadline,
            (FactName::Cancelled, None) => {
                return Err(field_error(format!("{place}initiator"), "CANCELLED needs it"));
            }
            (FactName::Placed, None) => Fact::Placed,
            (FactName::Reserved, None) => Fact::Reserved,
            (FactName::Released, None) => Fact::Released,
            (_, Some(_)) => {
                return Err(field_error(format!("{place}initiator"), "only CANCELLED has it"));
            }
        };
        let detail = match (fact.initiator(), self.reason) {
            (Some(_), None) => "CANCELLED needs it",
            (None, Some(_)) => "only CANCELLED has it",
            (_, reason) => {
                return Ok(Heard { fact, time: self.time, reason: reason.map(Reason::from) });
            }
        };
        Err(field_error(format!("{place}reason"), detail))
    }
}

impl Telling {
    /// The facts as they are told. `at` is its own place, for errors.
    fn of(&self, facts: &[Heard], at: usize) -> Result<Vec<Heard>, FieldError> {
        if self.places.len() > FACTS {
            let detail = format!("at most {FACTS} facts can be told");
            return Err(field_error(format!("tellings[{at}].places"), &detail));
        }
        let places = self.places.iter().enumerate();
        let told = places.map(|(i, place)| {
            let fact = usize::try_from(place.get()).ok().and_then(|place| facts.get(place));
            fact.copied().ok_or_else(|| {
                let field = format!("tellings[{at}].places[{i}]");
                field_error(field, "there is no such place in facts")
            })
        });
        told.collect()
    }
}

/// Each once, and for all of them where theirs is.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> (Vec<T>, Vec<i64>) {
    let (mut different, mut places) = (Vec::new(), Vec::new());
    for one in all {
        let place = different.iter().position(|known| *known == one).unwrap_or_else(|| {
            different.push(one);
            different.len() - 1
        });
        places.push(i64::try_from(place).unwrap_or(i64::MAX));
    }
    (different, places)
}

impl From<Option<Status>> for FoldedStatus {
    fn from(status: Option<Status>) -> Self {
        let (step, updated) = status.as_ref().map(|status| (status.step, status.updated)).unzip();
        let end = status.as_ref().and_then(|status| status.cancellation);
        Self {
            step: step.map(StepName::from),
            is_reserved: status.as_ref().is_some_and(|status| status.is_reserved),
            is_cancelled: status.as_ref().is_some_and(|status| status.is_cancelled),
            reason: end.map(|end| end.reason.into()),
            initiator: end.map(|end| end.initiator.into()),
            created_at: status.as_ref().and_then(|status| status.placed),
            update_date: updated,
            facts: status
                .map(|status| status.facts)
                .unwrap_or_default()
                .into_iter()
                .map(FactHeard::from)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fact(fact: FactName, end: Option<(CancelInitiator, CancelReason)>) -> FactTold {
        let (initiator, reason) = end.unzip();
        FactTold { reason, initiator, ..told(fact, 0) }
    }

    #[test]
    fn who_and_why_belong_to_a_cancellation_and_to_nothing_else() {
        let end = (CancelInitiator::Client, CancelReason::CancelledByClient);
        let field = |told: FactTold| told.heard("facts[3].").unwrap_err().field;
        assert_eq!(
            fact(FactName::Cancelled, Some(end)).heard("").unwrap().fact,
            Fact::ResetByClient
        );
        assert_eq!(field(fact(FactName::Cancelled, None)), "facts[3].initiator");
        assert_eq!(field(fact(FactName::Reserved, Some(end))), "facts[3].initiator");
        let without = FactTold { reason: None, ..fact(FactName::Cancelled, Some(end)) };
        assert_eq!(field(without), "facts[3].reason");
        let with = FactTold { initiator: None, ..fact(FactName::Placed, Some(end)) };
        assert_eq!(field(with), "facts[3].reason");
    }

    #[test]
    fn what_is_told_has_a_place() {
        let facts = [told(FactName::Placed, 0).heard("").unwrap()];
        assert_eq!(telling(&[0, 0]).of(&facts, 0).unwrap(), [facts[0], facts[0]]);
        assert_eq!(telling(&[]).of(&facts, 0).unwrap(), []);
        assert_eq!(telling(&[0, 1]).of(&facts, 4).unwrap_err().field, "tellings[4].places[1]");
        assert_eq!(telling(&[0; 21]).of(&facts, 4).unwrap_err().field, "tellings[4].places");
    }

    proptest! {
        #[test]
        fn each_is_there_once_and_where_its_place_says(all in prop::collection::vec(0..5_u8, 0..30)) {
            let (different, places) = distinct(all.iter().copied());
            let mut once = different.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), different.len());
            let back: Vec<_> = places.iter().map(|place| different[usize::try_from(*place).unwrap()]).collect();
            prop_assert_eq!(back, all);
        }
    }
}
