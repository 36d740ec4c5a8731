//! The wall clock, at the precision of everything that stores or shows a time.

use chrono::{DateTime, Utc};

/// The time now, in whole microseconds: what Postgres keeps and events carry, so that a time
/// compares equal wherever it has been.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
