//! The operation that tells what would come of putting a dead letter back.

use std::sync::Arc;

use ordersaga_contract::Event;
use ordersaga_runtime::http::{Bounded, Failure, JsonBody, LookupFailure};
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use sagabus::dead_letters::{Hindrance, Place};
use serde::Serialize;

use super::letters::{TopicText, a_topic};
use super::{FactHeard, FactName, StepName, Tag, example_of};
use crate::db::History;
use crate::dry_run::{Change, foresee, hindrance, read};
use crate::letters::Letters;
use crate::shards::Shards;

/// The operation.
pub(crate) struct DryRunApi {
    letters: Arc<Letters>,
    shards: Arc<Shards>,
}

/// Partitions of any topic: a letter may come from one that has more than the topics of events.
type PartitionNumber = Bounded<0, { i32::MAX as i64 }>;
type Offset = Bounded<0, { i64::MAX }>;

const UNKNOWN: &str = "There is no open dead letter of this record. It may have been dealt with, or is \
                       not among the newest 5,000.";

/// What would come of putting a dead letter back.
#[derive(Object, Serialize)]
#[oai(example)]
struct DryRun {
    /// The topic that the record stands in.
    topic: String,
    /// Its partition there.
    partition: i32,
    /// Its offset there.
    offset: i64,
    /// What would come of it in the order's status.
    outcome: OutcomeName,
    /// Why it still cannot be read.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The order it is about.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<i64>,
    /// What it says of the order.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    fact: Option<FactHeard>,
    /// How far the order is now. Left out if nothing was heard of it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    step_before: Option<StepName>,
    /// How far it would be.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    step_after: Option<StepName>,
    /// What keeps `ordersaga dlq replay` from putting this letter back, if only this one is asked
    /// for. Left out if nothing does.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<Blocked>,
}

impl Example for DryRun {
    fn example() -> Self {
        Self {
            topic: "reservation".to_owned(),
            partition: 8,
            offset: 12,
            outcome: OutcomeName::StepChanges,
            error: None,
            order_id: Some(1),
            fact: Some(example_of(FactName::Reserved, 1)),
            step_before: Some(StepName::UnderReservation),
            step_after: Some(StepName::Shipping),
            blocked_by: None,
        }
    }
}

/// What keeps a letter from being put back.
#[derive(Object, Serialize)]
#[oai(example)]
struct Blocked {
    /// What it is.
    kind: HindranceName,
    /// The same as `ordersaga dlq replay` says it.
    detail: String,
}

impl Example for Blocked {
    fn example() -> Self {
        Blocked::from(Hindrance::Attempts(3))
    }
}

/// What would come of a record in the status of its order.
#[derive(Enum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename = "DryRunOutcome", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OutcomeName {
    /// It still cannot be read, and would become a dead letter again.
    StillUnreadable,
    /// It would be read. The status has what it says already.
    NothingChanges,
    /// It would be read. The status would have a fact more, and be at the same step.
    FactIsAdded,
    /// It would be read. The order would be at another step.
    StepChanges,
}

/// What keeps a letter from being put back.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename = "ReplayHindrance", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum HindranceName {
    /// Something was done about it already.
    AlreadyResolved,
    /// It was put back too often, and came back.
    TooManyAttempts,
    /// It was too long, and a part of it is missing.
    RecordIsCut,
    /// It comes from no topic of events.
    NoTopicOfEvents,
    /// An earlier letter of the same key is open.
    EarlierIsOpen,
}

#[derive(ApiResponse)]
enum DryRunFound {
    /// What would come of it.
    #[oai(status = 200)]
    Found(JsonBody<DryRun>),
}

fn the_topic() -> TopicText {
    a_topic().expect("it is short")
}

fn a_partition() -> PartitionNumber {
    Bounded::new(8).expect("there are 16")
}

fn an_offset() -> Offset {
    Bounded::new(12).expect("it is not negative")
}

impl DryRunApi {
    pub(crate) fn new(letters: Arc<Letters>, shards: Arc<Shards>) -> Self {
        Self { letters, shards }
    }

    async fn look(&self, origin: &Place) -> anyhow::Result<Option<DryRun>> {
        let open = self.letters.open().await?;
        let Some(letter) = open.letters().iter().find(|letter| letter.origin == *origin) else {
            return Ok(None);
        };
        let whole = self.letters.whole(letter).await?;
        let told = match read(&whole) {
            Ok(event) => {
                let history = self.shards.history(event.order.order_id).await?;
                let heard = history.map(|history| history.heard).unwrap_or_default();
                Ok((event, foresee(&heard, &event)))
            }
            Err(error) => Err(error),
        };
        let blocked_by = hindrance(open.letters(), letter).map(Blocked::from);
        Ok(Some(present(origin, told, blocked_by)))
    }
}

#[OpenApi(tag = "Tag::DeadLetters")]
impl DryRunApi {
    /// What putting a dead letter back would do
    ///
    /// The letter's record is read by today's decoder, and the status of its order is told as it is
    /// and as it would be with what the record says. Nothing is written. Whoever refused the record
    /// reads it again when it is put back: whether a database refuses it then is not tried, nor what
    /// else the store or create-order would do. `ordersaga dlq replay` puts it back, unless
    /// `blocked_by` says what keeps it from that.
    #[oai(path = "/api/v1/dead-letters/dry-run", method = "get", operation_id = "dry_run_replay")]
    async fn dry_run(
        &self,
        /// The topic that the record stands in, as the list has it.
        #[oai(example = "the_topic")]
        topic: Query<TopicText>,
        /// Its partition there.
        #[oai(example = "a_partition")]
        partition: Query<PartitionNumber>,
        /// Its offset there.
        #[oai(example = "an_offset")]
        offset: Query<Offset>,
    ) -> Result<DryRunFound, LookupFailure> {
        let origin = Place {
            topic: topic.0.into_string(),
            partition: i32::try_from(partition.0.get()).unwrap_or_default(),
            offset: offset.0.get(),
        };
        let found = self.look(&origin).await.map_err(Failure::unavailable)?;
        let found = found.ok_or_else(|| LookupFailure::not_found(UNKNOWN))?;
        Ok(DryRunFound::Found(JsonBody(found)))
    }
}

fn present(
    origin: &Place,
    told: Result<(Event, Change), String>,
    blocked_by: Option<Blocked>,
) -> DryRun {
    let Place { topic, partition, offset } = origin.clone();
    let outcome = told.as_ref().map_or(OutcomeName::StillUnreadable, |told| outcome(told.1));
    let (error, told) = match told {
        Ok(told) => (None, Some(told)),
        Err(error) => (Some(error), None),
    };
    let heard = told.and_then(|(event, _)| History::of(&event).heard.pop());
    let change = told.map(|(_, change)| change);
    DryRun {
        topic,
        partition,
        offset,
        outcome,
        error,
        order_id: told.map(|(event, _)| event.order.order_id.get()),
        fact: heard.map(FactHeard::from),
        step_before: change.and_then(|change| change.before).map(StepName::from),
        step_after: change.map(|change| change.after).map(StepName::from),
        blocked_by,
    }
}

fn outcome(change: Change) -> OutcomeName {
    if change.is_known {
        OutcomeName::NothingChanges
    } else if change.before == Some(change.after) {
        OutcomeName::FactIsAdded
    } else {
        OutcomeName::StepChanges
    }
}

impl From<Hindrance> for Blocked {
    fn from(hindrance: Hindrance) -> Self {
        let kind = match hindrance {
            Hindrance::Resolved(_) => HindranceName::AlreadyResolved,
            Hindrance::Attempts(_) => HindranceName::TooManyAttempts,
            Hindrance::Cut => HindranceName::RecordIsCut,
            Hindrance::Topic => HindranceName::NoTopicOfEvents,
            Hindrance::Behind(_) => HindranceName::EarlierIsOpen,
        };
        Self { kind, detail: hindrance.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use ordersaga_saga::status::Step;

    use super::*;

    #[test]
    fn only_what_is_new_and_moves_the_order_changes_its_step() {
        let (under, over) = (Some(Step::UnderReservation), Step::Cancelled);
        for (is_known, before, after, name) in [
            (true, under, Step::UnderReservation, OutcomeName::NothingChanges),
            (false, Some(over), over, OutcomeName::FactIsAdded),
            (false, under, over, OutcomeName::StepChanges),
            (false, None, Step::UnderReservation, OutcomeName::StepChanges),
        ] {
            assert_eq!(outcome(Change { is_known, before, after }), name);
        }
    }
}
