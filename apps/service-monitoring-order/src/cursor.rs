//! Places in the list of dead letters.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use sagabus::dead_letters::Position;

/// A letter's place in lists: when it was first refused, and where that stands in the topic. It is
/// the same in each read, whatever is dealt with meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    micros: i64,
    /// Where in the topic of dead letters.
    pub(crate) position: Position,
}

impl Cursor {
    /// What one looks like.
    pub(crate) const PATTERN: &str = "^[0-9]{1,16}-[0-9]{1,9}-[0-9]{1,18}$";

    pub(crate) fn of(time: DateTime<Utc>, position: Position) -> Self {
        // A record says what it likes.
        Self { micros: time.timestamp_micros().clamp(0, 9_999_999_999_999_999), position }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { partition, offset } = self.position;
        write!(f, "{}-{partition}-{offset}", self.micros)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn number<T: FromStr>(digits: Option<&str>, most: usize) -> Option<T> {
            let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
            digits.filter(is_plain).filter(|text| text.len() <= most)?.parse().ok()
        }
        let mut parts = text.split('-');
        let mut read = || {
            let micros = number(parts.next(), 16)?;
            let (partition, offset) = (number(parts.next(), 9)?, number(parts.next(), 18)?);
            let cursor = Self { micros, position: Position { partition, offset } };
            parts.next().is_none().then_some(cursor)
        };
        read().ok_or("the next of a page is expected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::at;

    #[test]
    fn a_cursor_is_read_as_it_is_written_and_as_nothing_else() {
        let position = Position { partition: 12, offset: 345 };
        for time in [at(1_798_000_000), at(-1), DateTime::<Utc>::MAX_UTC] {
            let cursor = Cursor::of(time, position);
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for wrong in ["", "1", "1-2", "1-2-3-4", "-1-2-3", "+1-2-3", "1- 2-3", "1-2-x", "1-2-"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
        assert!("1-1234567890-3".parse::<Cursor>().is_err());
    }
}
