//! Records that are no messages or can never be applied, kept as they were.

use sqlx::postgres::PgConnection;

use crate::dead_letters::{self, Header, Place, header};
use crate::raw_record::RawRecord;

/// Characters of the reason given with a dead letter.
const LONGEST_ERROR: usize = 500;

/// What a header takes in memory besides its name and value, about; in a record it is 10 at most.
const HEADER_BYTES: usize = 64;

/// A record on its way to the dead-letter topic, as it was.
pub(crate) struct DeadLetter {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) header_names: Vec<String>,
    pub(super) header_values: Vec<Option<Vec<u8>>>,
    pub(super) error: String,
    /// What all that takes, about.
    pub(super) bytes: usize,
}

impl DeadLetter {
    /// The record as it was, as far as it fits into a record of its own with what is added to it:
    /// a key or a payload that is too long is cut, headers for which there is no room are left out.
    pub(super) fn new(
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: Vec<Header>,
        error: &str,
    ) -> Self {
        let mut room = dead_letters::LARGEST;
        let mut keep = |bytes: &[u8]| {
            let kept = bytes.len().min(room);
            room -= kept;
            bytes[..kept].to_vec()
        };
        let (key, payload) = (key.map(&mut keep), payload.map(&mut keep));
        let all = headers.len();
        let fits = |(name, value): &Header| {
            let value = value.as_ref().map_or(0, Vec::len);
            let left = room.checked_sub(HEADER_BYTES + name.len() + value);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let mut kept: Vec<_> = headers.into_iter().take_while(fits).collect();
        if kept.len() < all {
            kept.push((header::CUT.to_owned(), None));
        }
        let (header_names, header_values) = kept.into_iter().unzip();
        // Postgres keeps no NUL in a text, and the parser may quote one.
        let error = error.replace('\0', "\\0").chars().take(LONGEST_ERROR).collect();
        let bytes = dead_letters::LARGEST - room;
        Self { key, payload, header_names, header_values, error, bytes }
    }

    /// The same of a record read by its place.
    pub(crate) fn of(raw: RawRecord, error: &str) -> Self {
        Self::new(raw.key.as_deref(), raw.payload.as_deref(), raw.headers, error)
    }

    /// Writes it down where the relay finds it.
    pub(crate) async fn insert(
        &self,
        transaction: &mut PgConnection,
        origin: &Place,
    ) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO sagabus.dead_letter (topic, partition, \"offset\", key, payload, \
                                              header_names, header_values, error, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())",
        )
        .bind(&origin.topic)
        .bind(origin.partition)
        .bind(origin.offset)
        .bind(&self.key)
        .bind(&self.payload)
        .bind(&self.header_names)
        .bind(&self.header_values)
        .bind(&self.error)
        .execute(transaction)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(letter: &DeadLetter) -> Vec<&str> {
        letter.header_names.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_record_is_kept_as_it_was_and_counted_whole() {
        let headers = vec![("a".to_owned(), Some(vec![1; 30])), ("bc".to_owned(), None)];
        let letter = DeadLetter::new(Some(&[2; 10]), Some(&[3; 500]), headers, "a \0 in it");
        assert_eq!(letter.key, Some(vec![2; 10]));
        assert_eq!(letter.payload, Some(vec![3; 500]));
        assert_eq!(names(&letter), ["a", "bc"]);
        assert_eq!(letter.header_values, [Some(vec![1; 30]), None]);
        assert_eq!(letter.error, "a \\0 in it");
        assert_eq!(letter.bytes, 10 + 500 + 31 + 2 + 2 * HEADER_BYTES);
    }

    #[test]
    fn whatever_is_long_of_a_record_what_is_kept_has_room() {
        let long = || "n".repeat(600_000);
        let many = || (0..300_000).map(|_| ("n".to_owned(), None)).collect();
        for (key, payload, headers) in [
            (0, 2_000_000, Vec::new()),
            (2_000_000, 10, Vec::new()),
            (10, 600_000, vec![("a".to_owned(), None), (long(), None)]),
            (10, 600_000, vec![("a".to_owned(), None), ("b".to_owned(), Some(vec![0; 600_000]))]),
            (10, 10, vec![(long(), None), (long(), None)]),
            (10, 10, many()),
        ] {
            let cut = !headers.is_empty();
            let letter = DeadLetter::new(Some(&vec![0; key]), Some(&vec![0; payload]), headers, "");
            let kept: usize = letter.header_names.iter().map(|name| name.len() + 10).sum();
            let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
            let values: usize = letter.header_values.iter().map(length).sum();
            let bytes = length(&letter.key) + length(&letter.payload) + kept + values;
            assert!(bytes <= dead_letters::LARGEST + 100, "{bytes}");
            assert!(letter.bytes + 100 >= bytes, "{} for {bytes}", letter.bytes);
            assert_eq!(names(&letter).last() == Some(&header::CUT), cut);
        }
    }
}
