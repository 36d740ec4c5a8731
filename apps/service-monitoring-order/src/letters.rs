//! Dead letters that nobody has dealt with, as their topic tells of them. It is read as a whole, and
//! only what a list shows is kept of it, and only of the newest: whatever stands there, that is not
//! much.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use ordersaga_runtime::clock;
use parking_lot::Mutex;
use sagabus::dead_letters::{DeadLetters, Entry, Letter, NoEntry, Place, Position};
use tokio::sync::OwnedMutexGuard;

use crate::cursor::Cursor;
use crate::shown::Shown;

/// Letters that are known, and letters that are known to be dealt with, at the most.
const MOST: usize = 5_000;
const MOST_SETTLED: usize = 50_000;
/// Consumers of one letter, of which there are three, and characters of what is told of it.
const CONSUMERS: usize = 8;
const LONGEST: usize = 500;
/// No topic has a longer name.
const LONGEST_TOPIC: usize = 249;
/// How long what was read is told: pages and clients share it.
const FRESH: Duration = Duration::from_secs(3);
/// How long a request waits. What is read goes on to its end, for the next.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads them, one at a time.
pub(crate) struct Letters {
    topic: DeadLetters,
    /// Taken by whoever reads.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// What was read last.
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Clone)]
struct Known {
    open: Arc<Open>,
    read: Instant,
}

/// The letters that were open when the topic was read.
#[derive(Debug)]
pub(crate) struct Open {
    /// Newest first.
    letters: Vec<OpenLetter>,
    /// Whether these are all.
    pub(crate) is_complete: bool,
    pub(crate) as_of: DateTime<Utc>,
}

/// A letter that nobody has dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenLetter {
    pub(crate) cursor: Cursor,
    /// Where the record stands that was refused.
    pub(crate) origin: Place,
    pub(crate) key: Option<Shown>,
    /// How often it has been put back already.
    pub(crate) attempts: u32,
    /// The offset at which it was first refused.
    pub(crate) first_offset: i64,
    /// What there is of it may not be all.
    pub(crate) may_be_cut: bool,
    /// When, and why, by the consumer.
    pub(crate) refusals: BTreeMap<String, (DateTime<Utc>, String)>,
}

impl Letters {
    pub(crate) fn new(topic: DeadLetters) -> Self {
        Self { topic, turn: Arc::default(), known: Arc::default() }
    }

    /// The letters that are open, as they were not long ago or, while reading takes long, when they
    /// were read before.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<Open>> {
        let read = async {
            let turn = self.turn.clone().lock_owned().await;
            if let Some(known) = self.known().filter(|known| known.read.elapsed() < FRESH) {
                return Ok(known.open);
            }
            // Apart: it holds the place of those that come next for as long as it takes.
            tokio::spawn(read(self.topic.clone(), turn, self.known.clone())).await?
        };
        if let Ok(read) = tokio::time::timeout(LIMIT, read).await {
            return read;
        }
        let known = self.known().context("dead letters are not read in time")?;
        Ok(known.open)
    }

    /// A letter as a whole.
    pub(crate) async fn whole(&self, letter: &OpenLetter) -> anyhow::Result<Letter> {
        let position = letter.cursor.position;
        let positions = [position];
        let read = self.topic.fetch(&positions);
        let mut found = tokio::time::timeout(LIMIT, read).await.context("reading takes long")??;
        found.remove(&position).context("the letter is gone")
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().clone()
    }
}

async fn read(
    topic: DeadLetters,
    _turn: OwnedMutexGuard<()>,
    known: Arc<Mutex<Option<Known>>>,
) -> anyhow::Result<Arc<Open>> {
    let as_of = clock::now();
    let open = Arc::new(topic.fold(Book::default(), Book::add).await?.open(as_of));
    *known.lock() = Some(Known { open: open.clone(), read: Instant::now() });
    Ok(open)
}

impl Open {
    /// The letters behind a place in the list that a filter admits, and the place of the last, if
    /// more follow.
    pub(crate) fn page(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> (Vec<&OpenLetter>, Option<Cursor>) {
        let is_before = |letter: &OpenLetter| after.is_some_and(|after| letter.cursor >= after);
        let rest = &self.letters[self.letters.partition_point(is_before)..];
        let mut admitted = rest.iter().filter(|letter| filter.admits(letter));
        let page: Vec<_> = admitted.by_ref().take(limit).collect();
        let next = page.last().map(|last| last.cursor).filter(|_| admitted.next().is_some());
        (page, next)
    }

    /// All that are known, newest first.
    pub(crate) fn letters(&self) -> &[OpenLetter] {
        &self.letters
    }
}

/// Which letters are asked for: those that all of it admits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// The topic that the record stands in.
    pub(crate) topic: Option<String>,
    /// A service that refused it, with or without the slash before its name.
    pub(crate) consumer: Option<String>,
    /// Its key: the order's id.
    pub(crate) key: Option<String>,
}

impl Filter {
    fn admits(&self, letter: &OpenLetter) -> bool {
        let is_any = |wanted: &Option<String>, is_it: &dyn Fn(&str) -> bool| {
            wanted.as_deref().is_none_or(is_it)
        };
        let consumers = || letter.refusals.keys().map(|name| name.trim_start_matches('/'));
        is_any(&self.topic, &|topic| letter.origin.topic == topic)
            && is_any(&self.consumer, &|name| {
                consumers().any(|known| known == name.trim_start_matches('/'))
            })
            && is_any(
                &self.key,
                &|key| matches!(&letter.key, Some(Shown::Text(known)) if known == key),
            )
    }
}

/// What the topic tells. In which order its records come does not matter, nor how often.
#[derive(Debug, Default)]
struct Book {
    open: HashMap<Place, OpenLetter>,
    /// Those that were dealt with, and when: a copy of one may come later.
    settled: HashMap<Place, DateTime<Utc>>,
    is_cut: bool,
}

impl Book {
    fn add(&mut self, position: Position, entry: Result<Entry, NoEntry>) {
        match entry {
            Ok(Entry::Letter(letter)) if letter.origin.topic.len() <= LONGEST_TOPIC => {
                self.add_letter(position, letter);
            }
            Ok(Entry::Resolution(resolution)) if resolution.origin.topic.len() <= LONGEST_TOPIC => {
                self.open.remove(&resolution.origin);
                self.settled.insert(resolution.origin, resolution.time);
                keep_newest(&mut self.settled, MOST_SETTLED, |time| *time);
            }
            // What is neither. `dlq list` counts it.
            _ => {}
        }
    }

    fn add_letter(&mut self, position: Position, letter: Letter) {
        if self.settled.contains_key(&letter.origin) {
            return;
        }
        let cursor = Cursor::of(letter.time, position);
        let (attempts, may_be_cut) = (letter.attempts(), letter.may_be_cut());
        let first_offset = letter.first_offset();
        let Letter { origin, key, .. } = letter;
        let known = self.open.entry(origin).or_insert_with_key(|origin| OpenLetter {
            cursor,
            origin: origin.clone(),
            key: key.map(|key| Shown::start_of(&key, LONGEST)),
            attempts,
            first_offset,
            may_be_cut,
            refusals: BTreeMap::new(),
        });
        known.cursor = known.cursor.min(cursor);
        let (consumer, refusal) =
            (start_of(&letter.consumer), (letter.time, start_of(&letter.error)));
        if let Some(earlier) = known.refusals.get_mut(&consumer) {
            *earlier = refusal.min(earlier.clone());
        } else if known.refusals.len() < CONSUMERS {
            known.refusals.insert(consumer, refusal);
        }
        self.is_cut |= keep_newest(&mut self.open, MOST, |letter| letter.cursor);
    }

    fn open(self, as_of: DateTime<Utc>) -> Open {
        let mut letters: Vec<_> = self.open.into_values().collect();
        letters.sort_unstable_by_key(|letter| std::cmp::Reverse(letter.cursor));
        let is_complete = !self.is_cut && letters.len() <= MOST;
        letters.truncate(MOST);
        Open { letters, is_complete, as_of }
    }
}

/// Leaves the newest `most` once there are twice as many, and says whether it did. Not each time one
/// is too many: all are looked at.
fn keep_newest<T, K: Ord>(
    all: &mut HashMap<Place, T>,
    most: usize,
    time: impl Fn(&T) -> K,
) -> bool {
    if all.len() < 2 * most {
        return false;
    }
    let mut kept: Vec<_> = all.drain().collect();
    kept.select_nth_unstable_by(most, |one, other| time(&other.1).cmp(&time(&one.1)));
    kept.truncate(most);
    all.extend(kept);
    true
}

fn start_of(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sagabus::dead_letters::{Resolution, Verdict};

    use super::*;
    use crate::examples::at;

    fn origin(offset: i64) -> Place {
        Place { topic: "reset".to_owned(), partition: 3, offset }
    }

    fn letter(offset: i64, consumer: &str, seconds: i64) -> Entry {
        Entry::Letter(Letter {
            origin: origin(offset),
            consumer: consumer.to_owned(),
            error: "not an event".to_owned(),
            time: at(seconds),
            key: Some(b"17".to_vec()),
            payload: Some(b"{".to_vec()),
            headers: Vec::new(),
        })
    }

    fn resolution(offset: i64) -> Entry {
        let (time, verdict) = (at(9), Verdict::Discarded);
        Entry::Resolution(Resolution { time, verdict, origin: origin(offset) })
    }

    fn open(entries: impl IntoIterator<Item = (Position, Entry)>) -> Open {
        let mut book = Book::default();
        for (position, entry) in entries {
            book.add(position, Ok(entry));
        }
        book.open(at(100))
    }

    fn in_order(entries: Vec<Entry>) -> Vec<(Position, Entry)> {
        (0..)
            .zip(entries)
            .map(|(offset, entry)| (Position { partition: 0, offset }, entry))
            .collect()
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let consumer = prop::sample::select(vec!["/service-store", "/service-create-order"]);
        prop_oneof![
            (0..6_i64, consumer, 0..5_i64).prop_map(|(offset, by, at)| letter(offset, by, at)),
            (0..6_i64).prop_map(resolution),
        ]
    }

    proptest! {
        #[test]
        fn neither_order_nor_repetition_matters(
            (entries, shuffled) in prop::collection::vec(entry(), 0..12).prop_flat_map(|entries| {
                let placed = in_order(entries);
                let twice: Vec<_> = placed.iter().chain(&placed).cloned().collect();
                (Just(placed), Just(twice).prop_shuffle())
            })
        ) {
            prop_assert_eq!(open(entries).letters, open(shuffled).letters);
        }

        /// However long they are, the pages one after the other are the list, and what is dealt
        /// with meanwhile takes no other letter with it.
        #[test]
        fn pages_one_after_the_other_are_the_whole_list(
            entries in prop::collection::vec(entry(), 0..20), limit in 1_usize..5, settled in 0..6_i64,
        ) {
            let first = open(in_order(entries.clone()));
            let later = open(in_order(entries.into_iter().chain([resolution(settled)]).collect()));
            let all = Filter::default();
            let (page, mut next) = first.page(&all, None, limit);
            let mut listed: Vec<_> = page.into_iter().cloned().collect();
            while let Some(after) = next {
                let after = after.to_string().parse().unwrap();
                let (page, following) = later.page(&all, Some(after), limit);
                listed.extend(page.into_iter().cloned());
                next = following;
            }
            let is_kept = |letter: &&OpenLetter| letter.origin != origin(settled);
            let kept = |letters: &[OpenLetter]| -> Vec<_> {
                letters.iter().filter(is_kept).cloned().collect()
            };
            prop_assert_eq!(kept(&listed), kept(&first.letters));
        }
    }

    #[test]
    fn a_letter_has_all_its_refusals_and_the_newest_comes_first() {
        let entries = vec![
            letter(1, "/service-store", 5),
            letter(2, "/service-store", 3),
            letter(1, "/service-monitoring-order", 2),
            letter(1, "/service-store", 4),
            letter(3, "/service-store", 3),
            letter(4, "/service-store", 9),
            resolution(4),
        ];
        let open = open(in_order(entries));
        let offsets: Vec<_> = open.letters.iter().map(|letter| letter.origin.offset).collect();
        assert_eq!(offsets, [3, 2, 1]);
        let times: Vec<_> = open.letters[2].refusals.values().map(|refusal| refusal.0).collect();
        assert_eq!(times, [at(2), at(4)], "each consumer's first");
        assert_eq!(open.letters[2].key, Some(Shown::Text("17".to_owned())));
        assert!(open.is_complete);
    }

    #[test]
    fn a_filter_admits_what_has_all_of_it() {
        let entries = vec![
            letter(1, "/service-store", 1),
            letter(2, "/service-store", 2),
            letter(1, "/service-create-order", 3),
        ];
        let open = open(in_order(entries));
        let found = |topic: Option<&str>, consumer: Option<&str>, key: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let filter = Filter { topic: own(topic), consumer: own(consumer), key: own(key) };
            let (first, next) = open.page(&filter, None, 1);
            let (rest, _) = open.page(&filter, next, if next.is_some() { 9 } else { 0 });
            first.iter().chain(&rest).map(|letter| letter.origin.offset).collect::<Vec<_>>()
        };
        assert_eq!(found(None, None, None), [2, 1]);
        assert_eq!(found(Some("reset"), Some("service-create-order"), Some("17")), [1]);
        assert_eq!(found(None, Some("/service-store"), None), [2, 1]);
        assert!(found(Some("incoming"), None, None).is_empty());
        assert!(found(None, None, Some("1")).is_empty());
    }

    #[test]
    fn of_very_many_the_newest_are_kept() {
        let most = i64::try_from(MOST).unwrap();
        let entries = (0..3 * most).map(|offset| letter(offset, "/service-store", offset));
        let open = open(in_order(entries.collect()));
        assert!(!open.is_complete);
        assert_eq!(open.letters.len(), MOST);
        assert_eq!(open.letters[0].origin.offset, 3 * most - 1);
        assert_eq!(open.letters[MOST - 1].origin.offset, 2 * most);
    }
}
