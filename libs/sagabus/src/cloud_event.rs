//! `CloudEvents` 1.0 over Kafka in binary mode: the metadata stands in headers, the value is the
//! message alone (`CloudEvents` Kafka protocol binding 1.0.2, section 3.2).

use chrono::{DateTime, SecondsFormat, Utc};

/// Header of the `CloudEvents` version, always `"1.0"`.
pub const SPEC_VERSION: &str = "ce_specversion";
/// Header of [`Message::id`](crate::Message::id).
pub const ID: &str = "ce_id";
/// Header of [`Message::kind`](crate::Message::kind).
pub const TYPE: &str = "ce_type";
/// Header of the service that wrote the message.
pub const SOURCE: &str = "ce_source";
/// Header of the time of the message's batch: see [`time`].
pub const TIME: &str = "ce_time";
/// Header of the value's media type.
pub const CONTENT_TYPE: &str = "content-type";
/// Header of the W3C trace context of what caused the message, where there is one.
pub const TRACEPARENT: &str = "traceparent";

/// A time in the one spelling that headers use: RFC 3339, UTC, microseconds.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Whether a text is a trace context that others understand: W3C Trace Context, section 3.2.2,
/// version 00.
pub fn is_traceparent(text: &str) -> bool {
    let fields: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = fields.iter().map(|field| field.len()).collect();
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    lengths == [2, 32, 16, 2]
        && fields.iter().all(|field| field.bytes().all(is_hex))
        && fields[0] == "00"
        && fields[1..3].iter().all(|id| id.bytes().any(|c| c != b'0'))
}

/// The id of the trace that a context belongs to; `None` if it is none.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|_| is_traceparent(traceparent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_taken_only_in_its_standard_form() {
        let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_id(context), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        for other in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_id(other), None, "{other}");
        }
    }
}
