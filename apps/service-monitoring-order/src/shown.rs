//! Bytes of records as answers have them.

/// Bytes, which are text nearly always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// They are UTF-8.
    Text(String),
    /// They are not: two digits a byte.
    Hex(String),
}

impl Shown {
    pub(crate) fn all_of(bytes: &[u8]) -> Self {
        Self::start_of(bytes, bytes.len())
    }

    /// The first so many characters, or bytes.
    pub(crate) fn start_of(bytes: &[u8], most: usize) -> Self {
        let hex = |byte: &u8| format!("{byte:02x}");
        std::str::from_utf8(bytes).map_or_else(
            |_| Self::Hex(bytes.iter().take(most).map(hex).collect()),
            |text| Self::Text(text.chars().take(most).collect()),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        let (Self::Text(shown) | Self::Hex(shown)) = self;
        shown.is_empty()
    }

    /// The text, and the digits: one of the two.
    pub(crate) fn parts(self) -> (Option<String>, Option<String>) {
        match self {
            Self::Text(text) => (Some(text), None),
            Self::Hex(digits) => (None, Some(digits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_by_its_digits() {
        assert_eq!(Shown::all_of("ä7".as_bytes()), Shown::Text("ä7".to_owned()));
        assert_eq!(Shown::all_of(b""), Shown::Text(String::new()));
        assert_eq!(Shown::all_of(b"\x0a\xff"), Shown::Hex("0aff".to_owned()));
        assert_eq!(Shown::start_of("äöü".as_bytes(), 2), Shown::Text("äö".to_owned()));
        assert_eq!(Shown::start_of(b"\xff\xfe\xfd", 2), Shown::Hex("fffe".to_owned()));
    }
}
