//! Records as they were, for the few of them that become dead letters after they were understood.

use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::dead_letters::Header;
use crate::kafka;
use crate::raw_record::RawRecord;

/// A record's key, payload and headers in one piece of memory: every event that waits to be applied
/// carries one.
pub(super) struct Packed(Vec<u8>);

impl Packed {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let mut bytes = Vec::with_capacity(message.payload_len() + 512);
        put(&mut bytes, message.key());
        put(&mut bytes, message.payload());
        let without_headers = bytes.len();
        let read = kafka::reading_headers(|| {
            for header in message.headers().into_iter().flat_map(Headers::iter) {
                put(&mut bytes, Some(header.key.as_bytes()));
                put(&mut bytes, header.value);
            }
        });
        if read.is_none() {
            bytes.truncate(without_headers);
        }
        Self(bytes)
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The record again, which stood at `offset`.
    pub(super) fn unpack(&self, offset: i64) -> RawRecord {
        let mut rest = &self.0[..];
        let (key, payload) = (take(&mut rest), take(&mut rest));
        let mut headers: Vec<Header> = Vec::new();
        while !rest.is_empty() {
            let name = take(&mut rest).unwrap_or_default();
            headers.push((String::from_utf8_lossy(&name).into_owned(), take(&mut rest)));
        }
        RawRecord { offset, key, payload, headers }
    }
}

/// The length that stands for nothing at all.
const ABSENT: u32 = u32::MAX;

fn put(bytes: &mut Vec<u8>, part: Option<&[u8]>) {
    let length = part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT - 1));
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(part.unwrap_or_default());
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, behind) = rest.split_first_chunk()?;
    *rest = behind;
    let length = u32::from_le_bytes(*length);
    if length == ABSENT {
        return None;
    }
    let (part, behind) = behind.split_at(usize::try_from(length).ok()?.min(behind.len()));
    *rest = behind;
    Some(part.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20))
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            key in part(), payload in part(), headers in prop::collection::vec((".{0,5}", part()), 0..5),
        ) {
            let mut bytes = Vec::new();
            put(&mut bytes, key.as_deref());
            put(&mut bytes, payload.as_deref());
            for (name, value) in &headers {
                put(&mut bytes, Some(name.as_bytes()));
                put(&mut bytes, value.as_deref());
            }
            let unpacked = Packed(bytes).unpack(7);
            prop_assert_eq!(unpacked, RawRecord { offset: 7, key, payload, headers });
        }
    }
}
