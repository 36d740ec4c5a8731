//! Times as the events carry them: RFC 3339, in the years 0001 to 9999.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// The years RFC 3339 can write, without the year 0, which no calendar knows.
const YEARS: RangeInclusive<i32> = 1..=9_999;

/// `time`, or a time in the nearest year that the events may carry: what an older version stored is
/// shown so.
pub fn within_years(time: DateTime<Utc>) -> DateTime<Utc> {
    let (first, last) = (*YEARS.start(), *YEARS.end());
    if YEARS.contains(&time.year()) {
        time
    } else if time.year() < first {
        start_of(first)
    } else {
        start_of(last)
    }
}

fn start_of(year: i32) -> DateTime<Utc> {
    let date = NaiveDate::from_ymd_opt(year, 1, 1).expect("every year has a first day");
    date.and_time(NaiveTime::MIN).and_utc()
}

/// Reads a time strictly: chrono's own reading takes years that no other reader of these events
/// understands, and that Postgres may refuse.
pub(crate) fn deserialize<'de, D>(deserializer: D) -> Result<DateTime<Utc>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = Cow::<str>::deserialize(deserializer)?;
    let time = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc());
    time.filter(|time| YEARS.contains(&time.year())).ok_or_else(|| {
        D::Error::invalid_value(
            Unexpected::Str(&text),
            &"a time as in RFC 3339, in the years 0001 to 9999",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_time_is_shown_in_a_year_that_can_be_written() {
        let usual = DateTime::from_timestamp_micros(1_795_000_000_123_456).unwrap();
        assert_eq!(within_years(usual), usual);
        for (stored, shown) in [
            (DateTime::<Utc>::MIN_UTC, "0001-01-01T00:00:00Z"),
            (DateTime::<Utc>::MAX_UTC, "9999-01-01T00:00:00Z"),
        ] {
            let shown: DateTime<Utc> = shown.parse().unwrap();
            assert_eq!(within_years(stored), shown);
        }
    }
}
