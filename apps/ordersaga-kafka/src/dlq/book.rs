//! The letters as the topic `dead-letter` tells of them: a fold in which neither the order of its
//! records nor their repetition matters, since its partitions are read side by side and whoever
//! writes to it may do so twice.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sagabus::dead_letters::{Entry, NoEntry, Place, Position, Resolution};

/// Everything the topic tells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    letters: BTreeMap<Place, Filed>,
    resolutions: BTreeMap<Place, BTreeSet<Resolution>>,
    /// Records that are neither letter nor resolution.
    pub(crate) strange: BTreeSet<Position>,
}

/// What is known of a letter; its payload stays in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filed {
    /// Where it stands in `dead-letter`: once for each consumer that refused it, or more often.
    pub(crate) positions: BTreeSet<Position>,
    /// By the consumer, when and why.
    pub(crate) refusals: BTreeMap<String, Refusal>,
    /// What the first of the positions says of the record.
    pub(crate) record: Record,
}

/// When and why a consumer refused a record, at first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refusal {
    pub(crate) time: DateTime<Utc>,
    pub(crate) error: String,
}

/// The refused record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) attempts: u32,
    pub(crate) first_offset: i64,
    pub(crate) bytes: usize,
    pub(crate) may_be_cut: bool,
}

/// A letter with what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) origin: &'a Place,
    pub(crate) filed: &'a Filed,
    /// None while it is open.
    pub(crate) resolution: Option<&'a Resolution>,
}

/// The order of letters: within a partition that in which they were first refused, so that one
/// which came back stays before those that came after it.
pub(crate) type Rank<'a> = (&'a str, i32, i64, u32, i64);

impl Book {
    /// Takes in a record of the topic.
    pub(crate) fn add(&mut self, position: Position, entry: Result<Entry, NoEntry>) {
        let letter = match entry {
            Ok(Entry::Letter(letter)) => letter,
            Ok(Entry::Resolution(resolution)) => {
                let known = self.resolutions.entry(resolution.origin.clone()).or_default();
                known.insert(resolution);
                return;
            }
            Err(_) => {
                self.strange.insert(position);
                return;
            }
        };
        let record = Record {
            key: letter.key.clone(),
            attempts: letter.attempts(),
            first_offset: letter.first_offset(),
            bytes: letter.bytes(),
            may_be_cut: letter.may_be_cut(),
        };
        let filed = self.letters.entry(letter.origin).or_insert_with(|| Filed {
            positions: BTreeSet::new(),
            refusals: BTreeMap::new(),
            record: record.clone(),
        });
        if filed.positions.first().is_none_or(|first| position <= *first) {
            filed.record = record;
        }
        filed.positions.insert(position);
        let refusal = Refusal { time: letter.time, error: letter.error };
        filed
            .refusals
            .entry(letter.consumer)
            .and_modify(|known| *known = refusal.clone().min(known.clone()))
            .or_insert(refusal);
    }

    /// All letters, by their rank.
    pub(crate) fn letters(&self) -> Vec<View<'_>> {
        let mut letters: Vec<_> = self.letters.keys().filter_map(|at| self.letter(at)).collect();
        letters.sort_by_key(View::rank);
        letters
    }

    /// One letter.
    pub(crate) fn letter(&self, origin: &Place) -> Option<View<'_>> {
        let (origin, filed) = self.letters.get_key_value(origin)?;
        let resolution = self.resolutions.get(origin).and_then(BTreeSet::last);
        Some(View { origin, filed, resolution })
    }
}

impl<'a> View<'a> {
    /// Its place among all letters.
    pub(crate) fn rank(&self) -> Rank<'a> {
        let Record { first_offset, attempts, .. } = self.filed.record;
        let Place { topic, partition, offset } = self.origin;
        (topic, *partition, first_offset, attempts, *offset)
    }

    /// The letters it keeps its order with: those of one order and topic partition. None without a
    /// key.
    pub(crate) fn lane(&self) -> Option<(&'a str, i32, &'a [u8])> {
        let key = self.filed.record.key.as_deref().filter(|key| !key.is_empty())?;
        Some((&self.origin.topic, self.origin.partition, key))
    }

    /// Whether nothing has been done about it.
    pub(crate) fn is_open(&self) -> bool {
        self.resolution.is_none()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use sagabus::dead_letters::{Letter, Verdict, header};

    use super::*;

    /// A letter at an offset of one partition, under a key, with so many attempts behind it.
    pub(crate) fn letter(offset: i64, key: &str, attempts: u32, first: i64) -> Letter {
        let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
        Letter {
            origin: Place { topic: "reset".to_owned(), partition: 3, offset },
            consumer: "/service-store".to_owned(),
            error: "not an event".to_owned(),
            time: DateTime::from_timestamp(offset, 0).unwrap(),
            key: Some(key.as_bytes().to_vec()),
            payload: None,
            headers: vec![
                header(header::ATTEMPT, attempts.to_string()),
                header(header::FIRST_OFFSET, first.to_string()),
            ],
        }
    }

    pub(crate) fn resolved(offset: i64, second: i64, verdict: Verdict) -> Resolution {
        let time = DateTime::from_timestamp(second, 0).unwrap();
        Resolution { time, verdict, origin: letter(offset, "1", 0, 0).origin }
    }

    pub(crate) fn book(entries: impl IntoIterator<Item = Entry>) -> Book {
        let mut book = Book::default();
        for (offset, entry) in (0..).zip(entries) {
            book.add(Position { partition: 0, offset }, Ok(entry));
        }
        book
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let consumer = prop::sample::select(vec!["/service-store", "/service-create-order"]);
        let letters = (0..4_i64, consumer, 0..3_i64, "[ab]", 0..3_u32).prop_map(
            |(offset, consumer, second, error, attempts)| {
                let time = DateTime::from_timestamp(second, 0).unwrap();
                let consumer = consumer.to_owned();
                Entry::Letter(Letter {
                    consumer,
                    time,
                    error,
                    ..letter(offset, "1", attempts, offset)
                })
            },
        );
        let verdict = prop::option::of(0..3_i64).prop_flat_map(|at| {
            prop::sample::select(vec![Verdict::Discarded, Verdict::Replayed(at)])
        });
        let resolutions = (0..4_i64, 0..3_i64, verdict).prop_map(|(offset, second, verdict)| {
            Entry::Resolution(resolved(offset, second, verdict))
        });
        prop_oneof![letters, resolutions]
    }

    /// What an operator sees of a book: all but the positions.
    fn seen(mut book: Book) -> Book {
        book.letters.values_mut().for_each(|filed| filed.positions.clear());
        book
    }

    proptest! {
        #[test]
        fn neither_order_nor_repetition_matters(
            (entries, shuffled) in prop::collection::vec(entry(), 0..12).prop_flat_map(|entries| {
                let placed: Vec<_> = entries.into_iter().enumerate().collect();
                let twice: Vec<_> = placed.iter().chain(&placed).cloned().collect();
                (Just(placed), Just(twice).prop_shuffle())
            })
        ) {
            let fold = |entries: &[(usize, Entry)]| {
                let mut book = Book::default();
                for (at, entry) in entries {
                    let (partition, offset) = (i32::try_from(at % 3).unwrap(), i64::try_from(*at).unwrap());
                    book.add(Position { partition, offset }, Ok(entry.clone()));
                }
                book
            };
            prop_assert_eq!(fold(&entries), fold(&shuffled));
        }

        #[test]
        fn what_was_written_again_further_on_changes_nothing_that_is_seen(
            entries in prop::collection::vec(entry(), 0..12), again in any::<prop::sample::Index>(),
        ) {
            let once = book(entries.clone());
            let from = again.index(entries.len() + 1);
            let twice = book(entries.iter().chain(&entries[from..]).cloned());
            prop_assert_eq!(seen(once), seen(twice));
        }

        #[test]
        fn a_letter_is_open_until_something_is_done_about_it(entries in prop::collection::vec(entry(), 0..12)) {
            let done: BTreeSet<_> = entries.iter().filter_map(|entry| match entry {
                Entry::Resolution(resolution) => Some(&resolution.origin),
                Entry::Letter(_) => None,
            }).collect();
            for view in book(entries.clone()).letters() {
                prop_assert_eq!(view.is_open(), !done.contains(view.origin));
            }
        }
    }

    #[test]
    fn the_latest_resolution_stands() {
        let book = book([
            Entry::Letter(letter(7, "1", 0, 7)),
            Entry::Resolution(resolved(7, 9, Verdict::Replayed(Some(8)))),
            Entry::Resolution(resolved(7, 5, Verdict::Discarded)),
        ]);
        let view = book.letter(&"reset/3/7".parse().unwrap()).unwrap();
        assert_eq!(view.resolution.unwrap().verdict, Verdict::Replayed(Some(8)));
    }

    #[test]
    fn a_letter_that_came_back_stays_before_those_that_came_after_it() {
        // The one of offset 5 was put back as 10; that of offset 6 waits.
        let book =
            book([Entry::Letter(letter(10, "1", 1, 5)), Entry::Letter(letter(6, "1", 0, 6))]);
        let offsets: Vec<_> = book.letters().iter().map(|view| view.origin.offset).collect();
        assert_eq!(offsets, [10, 6]);
    }
}
