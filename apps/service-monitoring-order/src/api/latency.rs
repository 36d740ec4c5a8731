//! How long things took, as answers have it.

use chrono::{DateTime, Utc};
use poem_openapi::Object;
use poem_openapi::types::Example;
use serde::Serialize;

use crate::latency::{Heard, Spread};

/// How long things took that the answering instance heard of in a minute.
#[derive(Object, Serialize)]
#[oai(example)]
pub(super) struct MinuteLatency {
    /// When the minute began.
    pub(super) minute: DateTime<Utc>,
    /// From an order's placing to the store's answer (stock is held, or the order is refused), by the
    /// times of both events.
    answered: LatencySpread,
    /// From when something came true of an order until it was applied here and could be read.
    applied: LatencySpread,
}

impl Example for MinuteLatency {
    fn example() -> Self {
        Self {
            minute: DateTime::from_timestamp(1_797_999_960, 0).unwrap_or_default(),
            answered: LatencySpread::example(),
            applied: LatencySpread::example(),
        }
    }
}

/// How times are spread, to two digits. Without any they are 0.
#[derive(Object, Serialize)]
#[oai(example)]
struct LatencySpread {
    /// How many there were.
    count: u64,
    /// Half of them took at most so many microseconds.
    p50_us: u64,
    /// 99 of 100 took at most so many microseconds.
    p99_us: u64,
}

impl Example for LatencySpread {
    fn example() -> Self {
        Self { count: 120, p50_us: 12_000, p99_us: 41_000 }
    }
}

impl From<Heard> for MinuteLatency {
    fn from(heard: Heard) -> Self {
        let Heard { minute, answered, applied } = heard;
        Self { minute, answered: answered.into(), applied: applied.into() }
    }
}

impl From<Spread> for LatencySpread {
    fn from(Spread { count, p50, p99 }: Spread) -> Self {
        Self { count, p50_us: p50, p99_us: p99 }
    }
}
