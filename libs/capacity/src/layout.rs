//! How many bytes a row or an index entry takes, by the page layout of Postgres
//! (<https://www.postgresql.org/docs/current/storage-page-layout.html>).

/// A page.
pub const PAGE: f64 = 8192.0;
/// What a page's header leaves of it; an index page has 16 bytes of its own besides.
const HEAP_ROOM: f64 = PAGE - 24.0;
const INDEX_ROOM: f64 = PAGE - 24.0 - 16.0;
const LINE_POINTER: f64 = 4.0;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Column {
    /// `bigint` or `timestamptz`.
    Eight,
    /// `integer`.
    Four,
    /// `smallint`.
    Two,
    /// `text` or `bytea` of so many bytes, below 127.
    Text(f64),
    /// Absent.
    Null,
}

/// Bytes of a row in its page, line pointer included, when pages are full.
pub fn row(columns: &[Column]) -> f64 {
    let bitmap = if columns.contains(&Column::Null) { columns.len().div_ceil(8) } else { 0 };
    let header = align(23.0 + bitmap as f64, 8.0);
    let data = columns.iter().fold(0.0, |at, column| match column {
        Column::Eight => align(at, 8.0) + 8.0,
        Column::Four => align(at, 4.0) + 4.0,
        Column::Two => align(at, 2.0) + 2.0,
        Column::Text(length) => at + 1.0 + length,
        Column::Null => at,
    });
    (align(header + data, 8.0) + LINE_POINTER) * PAGE / HEAP_ROOM
}

/// Bytes of an entry of a B-tree over columns of so many bytes together.
pub fn entry(bytes: f64) -> f64 {
    (8.0 + align(bytes, 8.0) + LINE_POINTER) * PAGE / INDEX_ROOM
}

fn align(at: f64, to: f64) -> f64 {
    (at / to).ceil() * to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_nulls_take_no_room() {
        // Header 23, one byte of null bitmap; bigint, smallint and six bytes to align the next.
        let fact = [Column::Eight, Column::Two, Column::Eight, Column::Null];
        assert!((row(&fact) - (24.0 + 24.0 + 4.0) * PAGE / HEAP_ROOM).abs() < 1e-9);
        // Nine columns need two bytes of bitmap, so the header grows to 32.
        let wide = [Column::Null; 9];
        assert!((row(&wide) - 36.0 * PAGE / HEAP_ROOM).abs() < 1e-9);
        assert!((entry(10.0) - 28.0 * PAGE / INDEX_ROOM).abs() < 1e-9);
    }
}
