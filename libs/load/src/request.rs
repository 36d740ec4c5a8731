//! The requests as bytes: made once, but for the numbers in them.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, ensure};
use url::Url;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    host: String,
    path: String,
}

impl Endpoint {
    /// Reads a base URL, as `http://127.0.0.1:8000`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let context = || format!("{text} is no address of a service");
        let url = Url::parse(text).with_context(context)?;
        ensure!(url.scheme() == "http", "{text}: only http is spoken");
        let name = url.host_str().with_context(context)?;
        let port = url.port_or_known_default().with_context(context)?;
        let mut addresses = (name.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .with_context(|| format!("{text}: no address is known of {name}"))?;
        // The services listen on IPv4 only, where localhost may be both.
        let all: Vec<_> = addresses.by_ref().collect();
        let address = all.iter().find(|address| address.is_ipv4()).or(all.first());
        Ok(Self {
            address: *address.with_context(context)?,
            host: format!("{name}:{port}"),
            path: url.path().trim_end_matches('/').to_owned(),
        })
    }

    fn head(&self, method: &str, path: &str) -> String {
        format!("{method} {}{path}", self.path)
    }

    fn host_line(&self) -> String {
        format!(" HTTP/1.1\r\nHost: {}\r\n", self.host)
    }
}

/// A request with a number in its path.
#[derive(Debug)]
pub(crate) struct Numbered {
    before: String,
    after: String,
}

impl Numbered {
    /// GET with the number behind the path.
    pub(crate) fn get(endpoint: &Endpoint, path: &str) -> Self {
        Self { before: endpoint.head("GET", path), after: format!("{}\r\n", endpoint.host_line()) }
    }

    /// POST without a body.
    pub(crate) fn post(endpoint: &Endpoint, path: &str) -> Self {
        let host = endpoint.host_line();
        Self {
            before: endpoint.head("POST", path),
            after: format!("{host}Content-Length: 0\r\n\r\n"),
        }
    }

    /// Writes the whole request over what is in `out`.
    pub(crate) fn write(&self, number: i64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.before.as_bytes());
        out.extend_from_slice(Digits::of(number).as_bytes());
        out.extend_from_slice(self.after.as_bytes());
    }
}

/// POST of an order for one unit of an item.
#[derive(Debug)]
pub(crate) struct Create {
    head: String,
}

impl Create {
    const BEFORE: &[u8] = b"{\"item_id\":";
    const AFTER: &[u8] = b",\"seller_id\":1,\"client_id\":1}";

    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        let begin = endpoint.head("POST", "/api/v1/orders/create");
        let host = endpoint.host_line();
        Self { head: format!("{begin}{host}Content-Type: application/json\r\nContent-Length: ") }
    }

    /// Writes the whole request over what is in `out`.
    pub(crate) fn write(&self, item: i64, out: &mut Vec<u8>) {
        let item = Digits::of(item);
        let length = Self::BEFORE.len() + item.as_bytes().len() + Self::AFTER.len();
        out.clear();
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(Digits::of(i64::try_from(length).unwrap_or(0)).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(Self::BEFORE);
        out.extend_from_slice(item.as_bytes());
        out.extend_from_slice(Self::AFTER);
    }
}

/// POST of a JSON body.
pub(crate) fn post(endpoint: &Endpoint, path: &str, body: &str) -> Vec<u8> {
    let (begin, host) = (endpoint.head("POST", path), endpoint.host_line());
    let length = body.len();
    let head = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    [&begin, &host, &head, body].concat().into_bytes()
}

/// A number that is not negative in decimal, without the machinery of formatting.
struct Digits {
    digits: [u8; 20],
    begin: usize,
}

impl Digits {
    fn of(number: i64) -> Self {
        let mut rest = number.unsigned_abs();
        let mut own = Self { digits: [b'0'; 20], begin: 20 };
        loop {
            own.begin -= 1;
            own.digits[own.begin] += u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            if rest == 0 {
                return own;
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.begin..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_a_server_expects() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8000/behind/").unwrap();
        let mut out = Vec::new();
        Create::new(&endpoint).write(17, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "POST /behind/api/v1/orders/create HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\nContent-Length: 42\r\n\r\n{\"item_id\":17,\"seller_id\":1,\"client_id\":1}"
        );
        Numbered::post(&endpoint, "/cancel?order_id=").write(i64::MAX, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "POST /behind/cancel?order_id=9223372036854775807 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: 0\r\n\r\n"
        );
        Numbered::get(&endpoint, "/find?item_id=").write(0, &mut out);
        assert!(out.starts_with(b"GET /behind/find?item_id=0 HTTP/1.1\r\nHost"));
    }

    #[test]
    fn an_address_is_checked_before_anything_is_sent() {
        for wrong in ["127.0.0.1:8000", "https://127.0.0.1", "http://", "kafka://x:1"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
        let local = Endpoint::parse("http://localhost:8000").unwrap();
        assert!(local.address.ip().is_loopback());
    }
}
