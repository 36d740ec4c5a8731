//! The records of `dead-letter`, read and made.

use std::fmt;
use std::str::FromStr;

use super::{LARGEST, header};
use crate::cloud_event;
use chrono::{DateTime, Utc};

/// A record's header.
pub type Header = (String, Option<Vec<u8>>);

/// The headers of [`added`]; all others are the record's own.
const ADDED: [&str; 6] = [
    header::TOPIC,
    header::PARTITION,
    header::OFFSET,
    header::ERROR,
    header::CONSUMER,
    header::TIME,
];

/// Where a record stands: what a letter is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic, without prefix.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (rest, offset) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
            let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
            let place = Self { topic: topic.to_owned(), partition, offset };
            (!topic.is_empty()).then_some(place)
        };
        read().ok_or_else(|| "TOPIC/PARTITION/OFFSET is expected".to_owned())
    }
}

/// A record that a consumer refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it stood.
    pub origin: Place,
    /// Who refused it.
    pub consumer: String,
    /// Why.
    pub error: String,
    /// When.
    pub time: DateTime<Utc>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload.
    pub payload: Option<Vec<u8>>,
    /// Its own headers, in order.
    pub headers: Vec<Header>,
}

impl Letter {
    /// How often it has been put back already.
    pub fn attempts(&self) -> u32 {
        number(&self.headers, header::ATTEMPT).unwrap_or_default()
    }

    /// The offset at which it was first refused: its place among the letters of its order.
    pub fn first_offset(&self) -> i64 {
        number(&self.headers, header::FIRST_OFFSET)
            .filter(|first| (0..self.origin.offset).contains(first))
            .unwrap_or(self.origin.offset)
    }

    /// Bytes of the record.
    pub fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(_, value)| length(value)).sum();
        length(&self.key) + length(&self.payload) + headers
    }

    /// Whether the record may have been longer than what is left of it.
    pub fn may_be_cut(&self) -> bool {
        self.bytes() >= LARGEST || self.headers.iter().any(|(name, _)| name == header::CUT)
    }

    /// Its own headers as it is put back once more.
    pub fn headers_to_replay(&self) -> Vec<Header> {
        let ours = |name: &str| [header::ATTEMPT, header::FIRST_OFFSET].contains(&name);
        let own = self.headers.iter().filter(|(name, _)| !ours(name)).cloned();
        own.chain([
            text(header::ATTEMPT, (self.attempts().saturating_add(1)).to_string()),
            text(header::FIRST_OFFSET, self.first_offset().to_string()),
        ])
        .collect()
    }
}

/// What was done about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing will be done.
    Discarded,
    /// It was put back, as the record at this offset, where that is known.
    Replayed(Option<i64>),
}

impl Verdict {
    /// Its name in headers and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discarded => "discarded",
            Self::Replayed(_) => "replayed",
        }
    }
}

/// Says that a letter is open no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolution {
    /// When that was done.
    pub time: DateTime<Utc>,
    /// What was done.
    pub verdict: Verdict,
    /// The letter.
    pub origin: Place,
}

impl Resolution {
    /// The headers that say it.
    pub(crate) fn all_headers(&self) -> Vec<Header> {
        let mut headers = vec![text(header::RESOLUTION, self.verdict.name().to_owned())];
        headers.extend(origin_headers(&self.origin));
        headers.push(text(header::TIME, cloud_event::time(self.time)));
        if let Verdict::Replayed(Some(offset)) = self.verdict {
            headers.push(text(header::REPLAYED_OFFSET, offset.to_string()));
        }
        headers
    }
}

/// A record of the topic `dead-letter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A consumer refused a record.
    Letter(Letter),
    /// Something was done about it.
    Resolution(Resolution),
}

/// A record in `dead-letter` that this module does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {0} that is understood")]
pub struct NoEntry(&'static str);

impl Entry {
    /// Reads a record. A header may stand there twice, when the refused record itself had one of
    /// that name: what the relay added stands last.
    pub fn read(
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        mut headers: Vec<Header>,
    ) -> Result<Self, NoEntry> {
        let origin = Place {
            topic: last(&headers, header::TOPIC).ok_or(NoEntry(header::TOPIC))?,
            partition: number(&headers, header::PARTITION).ok_or(NoEntry(header::PARTITION))?,
            offset: number(&headers, header::OFFSET).ok_or(NoEntry(header::OFFSET))?,
        };
        let time = last(&headers, header::TIME).and_then(|time| time.parse().ok());
        let time = time.ok_or(NoEntry(header::TIME))?;
        if let Some(consumer) = last(&headers, header::CONSUMER) {
            let error = last(&headers, header::ERROR).ok_or(NoEntry(header::ERROR))?;
            for added in ADDED {
                let at = headers.iter().rposition(|(name, _)| name == added);
                at.map(|at| headers.remove(at));
            }
            return Ok(Self::Letter(Letter {
                origin,
                consumer,
                error,
                time,
                key,
                payload,
                headers,
            }));
        }
        let verdict = match last(&headers, header::RESOLUTION).as_deref() {
            Some("discarded") => Verdict::Discarded,
            Some("replayed") => Verdict::Replayed(number(&headers, header::REPLAYED_OFFSET)),
            _ => return Err(NoEntry(header::RESOLUTION)),
        };
        Ok(Self::Resolution(Resolution { time, verdict, origin }))
    }
}

fn text(name: &str, value: String) -> Header {
    (name.to_owned(), Some(value.into_bytes()))
}

/// What is added to a refused record when it goes to `dead-letter`.
pub(crate) fn added(
    origin: &Place,
    error: &str,
    consumer: &str,
    time: DateTime<Utc>,
) -> impl Iterator<Item = Header> {
    origin_headers(origin).into_iter().chain([
        text(header::ERROR, error.to_owned()),
        text(header::CONSUMER, consumer.to_owned()),
        text(header::TIME, cloud_event::time(time)),
    ])
}

fn origin_headers(origin: &Place) -> [Header; 3] {
    [
        text(header::TOPIC, origin.topic.clone()),
        text(header::PARTITION, origin.partition.to_string()),
        text(header::OFFSET, origin.offset.to_string()),
    ]
}

/// The text of the last header of this name.
fn last(headers: &[Header], name: &str) -> Option<String> {
    let (_, value) = headers.iter().rfind(|header| header.0 == name)?;
    String::from_utf8(value.clone()?).ok()
}

fn number<T: FromStr>(headers: &[Header], name: &str) -> Option<T> {
    last(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        // Names that collide with those added, too: a letter may itself be refused.
        let names = ADDED.iter().chain(&["ce_id", header::ATTEMPT, header::RESOLUTION]).copied();
        let name = prop::sample::select(names.collect::<Vec<_>>());
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..6));
        (name, value).prop_map(|(name, value)| (name.to_owned(), value))
    }

    fn letter() -> impl Strategy<Value = Letter> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..9));
        let headers = prop::collection::vec(header(), 0..8);
        ("[a-z-]{1,9}", 0..16, 0..99_i64, bytes(), bytes(), headers, ".{0,20}").prop_map(
            |(topic, partition, offset, key, payload, headers, error)| Letter {
                origin: Place { topic, partition, offset },
                consumer: "/service-store".to_owned(),
                error,
                time: DateTime::from_timestamp_micros(offset * 1_000_003).unwrap(),
                key,
                payload,
                headers,
            },
        )
    }

    proptest! {
        #[test]
        fn a_letter_comes_back_as_it_was(letter in letter()) {
            let Letter { origin, error, consumer, .. } = &letter;
            let added = added(origin, error, consumer, letter.time);
            let headers = letter.headers.iter().cloned().chain(added).collect();
            let read = Entry::read(letter.key.clone(), letter.payload.clone(), headers);
            prop_assert_eq!(read, Ok(Entry::Letter(letter)));
        }

        #[test]
        fn a_resolution_comes_back_as_it_was(letter in letter(), at in prop::option::of(0..9_i64)) {
            for verdict in [Verdict::Discarded, Verdict::Replayed(at)] {
                let (time, origin) = (letter.time, letter.origin.clone());
                let resolution = Resolution { time, verdict, origin };
                let read = Entry::read(None, None, resolution.all_headers());
                prop_assert_eq!(read, Ok(Entry::Resolution(resolution)));
            }
        }

        #[test]
        fn each_replay_counts_and_keeps_what_is_the_records_own(mut letter in letter()) {
            let ours = [header::ATTEMPT, header::FIRST_OFFSET];
            letter.headers.retain(|(name, _)| !ours.contains(&name.as_str()));
            let (own, first) = (letter.headers.clone(), letter.origin.offset);
            for attempt in 1..4 {
                letter.headers = letter.headers_to_replay();
                letter.origin.offset += 10;
                prop_assert_eq!(letter.attempts(), attempt);
                prop_assert_eq!(letter.first_offset(), first);
                prop_assert_eq!(&letter.headers[..own.len()], &own[..]);
                prop_assert_eq!(letter.headers.len(), own.len() + 2);
            }
        }
    }

    #[test]
    fn what_is_no_entry_says_what_it_lacks() {
        let error = Entry::read(None, None, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(header::TOPIC), "{error}");
        let mut headers = origin_headers(&"incoming/3/7".parse().unwrap()).to_vec();
        headers.push(text(header::TIME, "2026-01-02T03:04:05Z".to_owned()));
        headers.push(text(header::RESOLUTION, "burnt".to_owned()));
        let error = Entry::read(None, None, headers).unwrap_err().to_string();
        assert!(error.contains(header::RESOLUTION), "{error}");
    }

    #[test]
    fn a_letter_that_lacks_something_is_known_by_its_length_or_says_so() {
        let letter = |bytes, headers| Letter {
            origin: "incoming/3/7".parse().unwrap(),
            consumer: String::new(),
            error: String::new(),
            time: DateTime::UNIX_EPOCH,
            key: None,
            payload: Some(vec![0; bytes]),
            headers,
        };
        assert!(!letter(LARGEST - 1, vec![]).may_be_cut());
        assert!(letter(LARGEST, vec![]).may_be_cut());
        assert!(letter(9, vec![(header::CUT.to_owned(), None)]).may_be_cut());
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = Place { topic: "reset".to_owned(), partition: 8, offset: 12 };
        assert_eq!(place.to_string(), "reset/8/12");
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["", "reset", "reset/8", "/8/12", "reset/-1/2", "reset/8/x", "reset/8/-2"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
