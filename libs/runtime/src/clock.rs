//! The wall clock, at the precision of everything that stores or shows a time. In debug builds a
//! test can set it wrong: `CLOCK_OFFSET_MS` is the number of milliseconds it is fast, or slow if
//! negative. A release build carries none of it.

use chrono::{DateTime, Utc};

/// The time now, in whole microseconds: what Postgres keeps and events carry, so that a time
/// compares equal wherever it has been.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> DateTime<Utc> {
    let now = Utc::now();
    #[cfg(debug_assertions)]
    let now = now + offset::get();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

#[cfg(debug_assertions)]
mod offset {
    use std::sync::LazyLock;

    use chrono::TimeDelta;

    pub(super) fn get() -> TimeDelta {
        static OFFSET: LazyLock<TimeDelta> = LazyLock::new(|| {
            let set = std::env::var("CLOCK_OFFSET_MS").ok();
            set.map_or(TimeDelta::zero(), |text| {
                parse(&text).expect("CLOCK_OFFSET_MS is a whole number of milliseconds")
            })
        });
        *OFFSET
    }

    pub(super) fn parse(text: &str) -> Option<TimeDelta> {
        TimeDelta::try_milliseconds(text.parse().ok()?)
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use chrono::TimeDelta;

    use super::offset::parse;

    #[test]
    fn an_offset_has_a_sign_and_nothing_else() {
        assert_eq!(parse("90000"), Some(TimeDelta::seconds(90)));
        assert_eq!(parse("-1500"), Some(TimeDelta::milliseconds(-1500)));
        for wrong in ["", "1.5", "90s", " 1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
