//! `X-Request-Id`: the client's, if it is sane, else a new one.

use poem::{
    Request,
    http::{HeaderName, HeaderValue},
};

pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one request. Its text is visible ASCII by construction.
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The id the request came with, or a new one.
    pub(super) fn of(request: &Request) -> Self {
        Self::accept(request.headers().get(HEADER))
    }

    /// The given id if it is at most 128 visible ASCII characters, else a new one.
    pub(super) fn accept(sent: Option<&HeaderValue>) -> Self {
        match sent {
            Some(sent) if is_sane(sent.as_bytes()) => Self(sent.clone()),
            _ => Self::generate(),
        }
    }

    fn generate() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let random = fastrand::u128(..).to_be_bytes();
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Self(HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none")))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(sent: &[u8]) -> String {
        let sent = HeaderValue::from_bytes(sent).unwrap();
        RequestId::accept(Some(&sent)).as_str().to_owned()
    }

    #[test]
    fn sane_ids_are_kept_and_others_replaced() {
        assert_eq!(accepted(b"order-7/attempt=2"), "order-7/attempt=2");
        assert_eq!(accepted(&[b'x'; 128]).len(), 128);
        for sent in [&[b'x'; 129][..], b"", b"a b", "\u{e4}".as_bytes()] {
            let id = accepted(sent);
            assert_eq!(id.len(), 32, "{id}");
            assert!(id.bytes().all(|c| c.is_ascii_hexdigit()), "{id}");
        }
    }

    #[test]
    fn new_ids_differ() {
        let ids: std::collections::HashSet<_> =
            (0..1000).map(|_| RequestId::generate().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
