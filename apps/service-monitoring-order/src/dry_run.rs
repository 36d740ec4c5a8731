//! What would come of putting a dead letter back: its record, read by today's decoder, and the status
//! of its order with what the record says. Nothing is written.

use ordersaga_contract::{Event, Topic};
use ordersaga_runtime::event::SagaEvent;
use ordersaga_saga::status::{Heard, Step, fold};
use sagabus::dead_letters::{Hindrance, Letter, MAX_ATTEMPTS, Place};
use sagabus::{Message, Received, with_sources};

use crate::db::History;
use crate::letters::OpenLetter;

/// What the record changes in the status of its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// What the record says is known already.
    pub(crate) is_known: bool,
    /// Where the order is now; `None` if nothing was heard of it.
    pub(crate) before: Option<Step>,
    /// Where it would be.
    pub(crate) after: Step,
}

/// What the record says, or why it cannot be read.
pub(crate) fn read(letter: &Letter) -> Result<Event, String> {
    let Place { topic, partition, .. } = &letter.origin;
    let partition = u32::try_from(*partition).map_err(|_| "no partition has this number")?;
    let received = Received {
        topic,
        partition,
        key: letter.key.as_deref().unwrap_or_default(),
        payload: letter.payload.as_deref().unwrap_or_default(),
        created: None,
    };
    SagaEvent::decode(&received).map(|event| event.0).map_err(|poison| with_sources(&poison))
}

/// What an event would change, by all that was heard of its order.
pub(crate) fn foresee(heard: &[Heard], event: &Event) -> Change {
    let new = History::of(event).heard;
    let is_known = heard.iter().any(|known| known.fact == event.kind.fact());
    let before = fold(heard.iter().copied()).map(|status| status.step);
    let after = fold(heard.iter().copied().chain(new)).map(|status| status.step);
    // At least the new fact is heard.
    Change { is_known, before, after: after.unwrap_or(Step::UnderReservation) }
}

/// What keeps `ordersaga dlq replay` from putting one letter back, if only that is asked for: as its
/// plan decides, with the default of --max-attempts.
pub(crate) fn hindrance(open: &[OpenLetter], letter: &OpenLetter) -> Option<Hindrance> {
    let has_events = Topic::EVENTS.iter().any(|topic| topic.name() == letter.origin.topic);
    Hindrance::of(has_events, None, letter.may_be_cut, letter.attempts, MAX_ATTEMPTS)
        .or_else(|| ahead_of(open, letter).map(Hindrance::Behind))
}

/// The first open letter of the same order, of those that come before this one.
fn ahead_of(open: &[OpenLetter], letter: &OpenLetter) -> Option<Place> {
    let has_key = |one: &OpenLetter| one.key.as_ref().is_some_and(|key| !key.is_empty());
    let rank = |one: &OpenLetter| (one.first_offset, one.attempts, one.origin.offset);
    let is_of_its_lane = |other: &&OpenLetter| {
        let (origin, other_origin) = (&letter.origin, &other.origin);
        origin.topic == other_origin.topic
            && origin.partition == other_origin.partition
            && letter.key == other.key
    };
    let lane = open.iter().filter(is_of_its_lane).filter(|other| has_key(other));
    let first = lane.min_by_key(|other| rank(other))?;
    (rank(first) < rank(letter)).then(|| first.origin.clone())
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::{Cancellation, EventKind, Fact, Initiator, Reason, partition_of};
    use proptest::prelude::*;

    use super::*;
    use crate::cursor::Cursor;
    use crate::examples::{at, event};
    use crate::shown::Shown;

    fn reset() -> EventKind {
        EventKind::OrderReset(Cancellation {
            initiator: Initiator::Client,
            reason: Reason::CancelledByClient,
        })
    }

    fn letter(told: &SagaEvent, partition: u32, payload: Vec<u8>) -> Letter {
        let partition = i32::try_from(partition).unwrap();
        Letter {
            origin: Place { topic: told.topic().to_owned(), partition, offset: 7 },
            consumer: "/service-store".to_owned(),
            error: "an older reader's".to_owned(),
            time: at(9),
            key: Some(told.key().into_bytes()),
            payload: Some(payload),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_read_as_a_consumer_reads_it() {
        let told = SagaEvent(event(17, reset(), 5));
        let partition = partition_of(told.0.order.order_id);
        assert_eq!(read(&letter(&told, partition, told.encode())), Ok(told.0));
        let error = read(&letter(&told, partition, b"{".to_vec())).unwrap_err();
        assert!(error.contains("not an event"), "{error}");
        let elsewhere = read(&letter(&told, (partition + 1) % 16, told.encode())).unwrap_err();
        assert!(elsewhere.contains("partition"), "{elsewhere}");
        let nowhere = Place { partition: -1, ..letter(&told, 0, Vec::new()).origin };
        assert!(read(&Letter { origin: nowhere, ..letter(&told, 0, Vec::new()) }).is_err());
    }

    #[test]
    fn what_it_changes_is_the_status_with_and_without_it() {
        let placed = History::of(&event(17, EventKind::OrderPlaced, 0)).heard;
        let change = |is_known, before, after| Change { is_known, before, after };
        let (under, over) = (Some(Step::UnderReservation), Step::Cancelled);
        assert_eq!(foresee(&placed, &event(17, reset(), 5)), change(false, under, over));
        assert_eq!(foresee(&[], &event(17, reset(), 5)), change(false, None, over));
        let again = event(17, EventKind::OrderPlaced, 9);
        let nothing = change(true, under, Step::UnderReservation);
        assert_eq!(foresee(&placed, &again), nothing);
        let ended = [placed, History::of(&event(17, reset(), 5)).heard].concat();
        let late = foresee(&ended, &event(17, EventKind::ItemReserved, 6));
        assert_eq!(late, change(false, Some(over), over), "a fact more, and the same step");
    }

    proptest! {
        #[test]
        fn what_is_known_changes_nothing(facts in prop::collection::vec(0..3_usize, 1..5)) {
            let kinds = [EventKind::OrderPlaced, EventKind::ItemReserved, reset()];
            let events: Vec<_> = facts.iter().map(|kind| event(1, kinds[*kind], 1)).collect();
            let heard: Vec<_> = events.iter().flat_map(|one| History::of(one).heard).collect();
            for one in &events {
                let change = foresee(&heard, one);
                prop_assert!(change.is_known && change.before == Some(change.after));
            }
            prop_assert!(heard.iter().all(|one| Fact::ALL.contains(&one.fact)));
        }
    }

    fn open(offset: i64, key: &str, attempts: u32, first_offset: i64) -> OpenLetter {
        let origin = Place { topic: "reset".to_owned(), partition: 3, offset };
        let position = sagabus::dead_letters::Position { partition: 0, offset };
        OpenLetter {
            cursor: Cursor::of(at(offset), position),
            origin,
            key: Some(Shown::Text(key.to_owned())),
            attempts,
            first_offset,
            may_be_cut: false,
            refusals: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_letter_is_kept_back_for_the_reasons_that_a_replay_has() {
        let all = [
            open(5, "1", 0, 5),
            open(6, "1", 0, 6),
            open(7, "2", 3, 2),
            open(8, "2", 0, 8),
            open(9, "", 0, 9),
        ];
        let why = |index: usize| hindrance(&all, &all[index]);
        assert_eq!(why(0), None);
        assert_eq!(why(1), Some(Hindrance::Behind(all[0].origin.clone())));
        assert_eq!(why(2), Some(Hindrance::Attempts(3)));
        assert_eq!(why(3), Some(Hindrance::Behind(all[2].origin.clone())), "it came first");
        assert_eq!(why(4), None, "without a key there is no order to keep");
        let astray = Place { topic: "dead-letter".to_owned(), ..all[0].origin.clone() };
        let astray = OpenLetter { origin: astray, ..all[0].clone() };
        assert_eq!(hindrance(&all, &astray), Some(Hindrance::Topic));
        let cut = OpenLetter { may_be_cut: true, ..all[0].clone() };
        assert_eq!(hindrance(&all, &cut), Some(Hindrance::Cut));
    }
}
