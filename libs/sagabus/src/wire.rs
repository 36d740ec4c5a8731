//! Messages as a row of the outbox holds them: one after the other, each in parts of a length that
//! goes before them. A process publishes what another has written, also one of another version: the
//! first byte says which form it is.

use crate::Error;

/// The form this code writes.
const FORM: u8 = 1;
/// Stands for a partition that the producer chooses.
const ANY: u32 = u32::MAX;

/// A message as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
    pub(crate) key: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) id: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) traceparent: Option<&'a str>,
}

/// Adds a message to what a row holds.
pub(crate) fn write(row: &mut Vec<u8>, message: &Stored<'_>) {
    if row.is_empty() {
        row.push(FORM);
    }
    let Stored { topic, partition, key, kind, id, payload, traceparent } = message;
    row.extend_from_slice(&partition.unwrap_or(ANY).to_le_bytes());
    let traceparent = traceparent.unwrap_or_default();
    for part in [topic, key, kind, id, traceparent].map(str::as_bytes) {
        put(row, part);
    }
    put(row, payload);
}

/// The messages of a row.
pub(crate) fn read(row: &[u8]) -> Result<Vec<Stored<'_>>, Error> {
    let Some((form, mut rest)) = row.split_first() else { return Ok(Vec::new()) };
    if *form != FORM {
        return Err(Error::other(format!("a row of the outbox has the unknown form {form}")));
    }
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = next(&mut rest);
        messages.push(message.ok_or_else(|| Error::other("a row of the outbox is cut off"))?);
    }
    Ok(messages)
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Stored<'a>> {
    Some(Stored {
        partition: Some(number(rest)?).filter(|partition| *partition != ANY),
        topic: text(rest)?,
        key: text(rest)?,
        kind: text(rest)?,
        id: text(rest)?,
        traceparent: Some(text(rest)?).filter(|text| !text.is_empty()),
        payload: take(rest)?,
    })
}

fn put(row: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).expect("below 4 GiB");
    row.extend_from_slice(&length.to_le_bytes());
    row.extend_from_slice(part);
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_le_bytes(*number))
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take(rest)?).ok()
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (part, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = (Vec<String>, Option<u32>, Vec<u8>, Option<String>);

    fn parts() -> impl Strategy<Value = Parts> {
        let texts = prop::collection::vec(".{0,9}", 4);
        let payload = prop::collection::vec(any::<u8>(), 0..20);
        (texts, prop::option::of(0..u32::MAX), payload, prop::option::of(".{1,9}"))
    }

    fn stored((texts, partition, payload, traceparent): &Parts) -> Stored<'_> {
        let [topic, key, kind, id] = [0, 1, 2, 3].map(|n: usize| texts[n].as_str());
        let traceparent = traceparent.as_deref();
        Stored { topic, partition: *partition, key, kind, id, payload, traceparent }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_what_is_cut_off_is_not(
            parts in prop::collection::vec(parts(), 1..5), cut in 1..30_usize,
        ) {
            let messages: Vec<_> = parts.iter().map(stored).collect();
            let mut row = Vec::new();
            for message in &messages {
                write(&mut row, message);
            }
            prop_assert_eq!(&read(&row).unwrap(), &messages);
            let left = &row[..row.len() - cut.min(row.len() - 1)];
            prop_assert!(read(left).map_or(true, |read| read.len() < messages.len()));
        }
    }

    #[test]
    fn the_form_of_a_later_version_is_refused() {
        assert!(read(&[2, 0]).unwrap_err().to_string().contains("form 2"));
        assert!(read(&[]).unwrap().is_empty());
    }
}
