//! What a run of `replay` puts back, and what keeps it from the rest.

use std::collections::{BTreeMap, BTreeSet};

use ordersaga_contract::Topic;
use sagabus::dead_letters::{Hindrance, Place};

use super::book::View;

/// Letters put back together at the most: each may be nearly a megabyte.
const WAVE: usize = 100;

/// What a run does.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The letters to put back, in this order.
    pub(crate) replay: Vec<View<'a>>,
    /// Those that stay, and why.
    pub(crate) blocked: Vec<(View<'a>, Hindrance)>,
}

/// What a run is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// A letter that was put back so often stays.
    pub(crate) max_attempts: u32,
    /// Letters that are resolved are put back, too.
    pub(crate) again: bool,
}

/// Decides what becomes of the chosen ones among all letters, which come by their rank.
pub(crate) fn plan<'a>(letters: &[View<'a>], chosen: &BTreeSet<&Place>, terms: Terms) -> Plan<'a> {
    let mut plan = Plan { replay: Vec::new(), blocked: Vec::new() };
    // By key, the first letter that is open and stays.
    let mut stays = BTreeMap::new();
    for view in letters {
        let ahead = view.lane().and_then(|lane| stays.get(&lane).cloned());
        let hindrance = hindrance(view, terms).or_else(|| ahead.map(Hindrance::Behind));
        match hindrance {
            None if chosen.contains(view.origin) => {
                plan.replay.push(*view);
                continue;
            }
            Some(hindrance) if chosen.contains(view.origin) => {
                plan.blocked.push((*view, hindrance));
            }
            _ => {}
        }
        if let (Some(lane), true) = (view.lane(), view.is_open()) {
            stays.entry(lane).or_insert_with(|| view.origin.clone());
        }
    }
    plan
}

/// What keeps a letter by itself from being put back.
fn hindrance(view: &View<'_>, terms: Terms) -> Option<Hindrance> {
    let record = &view.filed.record;
    let has_events = Topic::EVENTS.iter().any(|topic| topic.name() == view.origin.topic);
    let resolution = view.resolution.filter(|_| !terms.again);
    let resolved = resolution.map(|resolution| resolution.verdict.name());
    let (cut, attempts) = (record.may_be_cut, record.attempts);
    Hindrance::of(has_events, resolved, cut, attempts, terms.max_attempts)
}

/// Cuts letters into runs that are put back one after the other: no two of one key in one, so that
/// a later one never gets there without the earlier.
pub(crate) fn waves<'a, 'b>(letters: &'b [View<'a>]) -> Vec<&'b [View<'a>]> {
    let mut waves = Vec::new();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut lanes = BTreeSet::new();
        let firsts = rest.iter().take(WAVE).map(View::lane);
        let count = firsts.take_while(|lane| lane.is_none_or(|lane| lanes.insert(lane))).count();
        let (wave, others) = rest.split_at(count);
        waves.push(wave);
        rest = others;
    }
    waves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sagabus::dead_letters::{Entry, Letter, Verdict};

    use super::super::book::Book;
    use super::super::book::tests::{book, letter, resolved};
    use super::*;

    const TERMS: Terms = Terms { max_attempts: 3, again: false };

    fn place(offset: i64) -> Place {
        letter(offset, "", 0, 0).origin
    }

    /// Offsets that are put back, and those that stay with their reasons.
    fn planned(book: &Book, chosen: &[i64], terms: Terms) -> (Vec<i64>, Vec<(i64, Hindrance)>) {
        let chosen: Vec<_> = chosen.iter().map(|offset| place(*offset)).collect();
        let plan = plan(&book.letters(), &chosen.iter().collect(), terms);
        let blocked = plan.blocked.into_iter().map(|(view, why)| (view.origin.offset, why));
        (plan.replay.iter().map(|view| view.origin.offset).collect(), blocked.collect())
    }

    #[test]
    fn an_earlier_open_letter_of_the_same_key_blocks() {
        let book = book([5, 6, 7].map(|at| Entry::Letter(letter(at, "1", 0, at))));
        let behind = |at| Hindrance::Behind(place(at));
        assert_eq!(planned(&book, &[6], TERMS), (vec![], vec![(6, behind(5))]));
        assert_eq!(planned(&book, &[7, 6, 5], TERMS), (vec![5, 6, 7], vec![]));
        assert_eq!(planned(&book, &[5, 7], TERMS), (vec![5], vec![(7, behind(6))]));
    }

    #[test]
    fn one_that_came_back_blocks_those_that_came_after_it_at_first() {
        let book = book([Entry::Letter(letter(6, "1", 0, 6)), Entry::Letter(letter(9, "1", 3, 5))]);
        let (replay, blocked) = planned(&book, &[6, 9], TERMS);
        assert!(replay.is_empty());
        assert_eq!(blocked, [(9, Hindrance::Attempts(3)), (6, Hindrance::Behind(place(9)))]);
        let told = Terms { max_attempts: 4, ..TERMS };
        assert_eq!(planned(&book, &[6, 9], told), (vec![9, 6], vec![]));
    }

    #[test]
    fn resolved_letters_block_nothing_and_stay_unless_told() {
        let book = book([
            Entry::Letter(letter(5, "1", 0, 5)),
            Entry::Letter(letter(6, "1", 0, 6)),
            Entry::Resolution(resolved(5, 50, Verdict::Discarded)),
        ]);
        assert_eq!(planned(&book, &[6], TERMS), (vec![6], vec![]));
        let (replay, blocked) = planned(&book, &[5, 6], TERMS);
        assert_eq!((replay, blocked), (vec![6], vec![(5, Hindrance::Resolved("discarded"))]));
        assert_eq!(planned(&book, &[5], Terms { again: true, ..TERMS }).0, [5]);
    }

    #[test]
    fn other_keys_and_no_key_block_nothing() {
        let none = |at| Entry::Letter(Letter { key: None, ..letter(at, "", 0, at) });
        let key = |at, key| Entry::Letter(letter(at, key, 0, at));
        let book = book([key(5, "1"), key(6, "2"), none(7), none(8), key(9, ""), key(10, "")]);
        assert_eq!(planned(&book, &[6, 8, 10], TERMS), (vec![6, 8, 10], vec![]));
    }

    #[test]
    fn what_cannot_go_back_whole_to_a_topic_of_events_stays() {
        let long = Letter { payload: Some(vec![0; 900_000]), ..letter(5, "1", 0, 5) };
        let mut astray = letter(6, "2", 0, 6);
        astray.origin.topic = "dead-letter".to_owned();
        let origins = [long.origin.clone(), astray.origin.clone()];
        let book = book([Entry::Letter(long), Entry::Letter(astray)]);
        let plan = plan(&book.letters(), &origins.iter().collect(), TERMS);
        let why: Vec<_> = plan.blocked.into_iter().map(|(_, why)| why).collect();
        assert!(plan.replay.is_empty());
        assert_eq!(why, [Hindrance::Topic, Hindrance::Cut]);
    }

    proptest! {
        /// Of each key a run puts back, or leaves resolved, everything before the last it puts back.
        #[test]
        fn nothing_overtakes_an_earlier_letter_of_its_key(
            letters in prop::collection::vec((0..3_u8, 0..5_u32, any::<bool>(), any::<bool>()), 1..20),
        ) {
            let mut entries = Vec::new();
            let mut chosen = Vec::new();
            for (at, (key, attempts, is_resolved, is_chosen)) in (0..).zip(letters) {
                entries.push(Entry::Letter(letter(at, &key.to_string(), attempts, at)));
                if is_resolved {
                    entries.push(Entry::Resolution(resolved(at, 50, Verdict::Discarded)));
                }
                chosen.extend(is_chosen.then(|| place(at)));
            }
            let book = book(entries);
            let letters = book.letters();
            let plan = plan(&letters, &chosen.iter().collect(), TERMS);
            prop_assert_eq!(plan.replay.len() + plan.blocked.len(), chosen.len());
            for (at, view) in plan.replay.iter().enumerate() {
                let before: BTreeSet<_> = plan.replay[..at].iter().map(|v| v.origin).collect();
                let earlier = letters.iter().filter(|e| e.lane() == view.lane() && e.rank() < view.rank());
                for earlier in earlier {
                    prop_assert!(!earlier.is_open() || before.contains(earlier.origin));
                }
            }
            let waves = waves(&plan.replay);
            let flat: Vec<_> = waves.iter().copied().flatten().map(|view| view.origin).collect();
            prop_assert_eq!(flat, plan.replay.iter().map(|view| view.origin).collect::<Vec<_>>());
            for wave in waves {
                let lanes: BTreeSet<_> = wave.iter().map(View::lane).collect();
                prop_assert_eq!(lanes.len(), wave.len());
            }
        }
    }
}
