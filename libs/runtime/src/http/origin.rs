//! Whom a browser may speak for: the names under which the service is reached, the pages of other
//! origins that may read and change something (CORS), and what the answers allow a page to do.

use std::net::IpAddr;

use poem::{
    Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Version, header,
        uri::{Authority, Uri},
    },
};

use super::{problem::Failure, problem_type::ProblemType};
use crate::config::HttpConfig;

/// Answers are data: nothing in them is to be run, shown in a frame, or taken for another type.
const NOTHING: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'");
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// What pages of allowed origins may send and read beside what any page may, and how many seconds a
/// browser may remember that.
const SENT: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, X-Request-Id, traceparent",
);
const READ: HeaderValue = HeaderValue::from_static(
    "Location, X-Request-Id, Retry-After, Idempotent-Replayed, Allow, WWW-Authenticate, \
     Server-Timing",
);
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// Which requests are served at all.
pub(super) struct Origins {
    hosts: Vec<String>,
    allowed: Vec<String>,
}

impl Origins {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let given =
            |names: &[String]| names.iter().filter(|name| !name.is_empty()).cloned().collect();
        Self { hosts: given(&config.hosts), allowed: given(&config.origins) }
    }

    /// Refuses requests under foreign names, and changes that the page of another origin asks for.
    pub(super) fn check(&self, request: &Request) -> Result<(), Failure> {
        let host = match host(request.uri(), request.headers())? {
            Some(host) => host,
            // HTTP/1.0 does not ask for one, as in probes; browsers always send it.
            None if request.version() <= Version::HTTP_10 => Authority::from_static("localhost"),
            None => {
                return Err(Failure::new(ProblemType::BadRequest, "the header Host is missing"));
            }
        };
        if !self.serves(host.host()) {
            let detail = "the service is not reached under this name (HTTP_HOSTS)";
            return Err(Failure::new(ProblemType::Misdirected, detail));
        }
        if request.headers().get_all(header::ORIGIN).iter().nth(1).is_some() {
            return Err(Failure::new(ProblemType::BadRequest, "the header Origin is given twice"));
        }
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if reads || self.may_change(request.headers(), &host) {
            Ok(())
        } else {
            let detail = "a page of another origin may not change anything here (HTTP_ORIGINS)";
            Err(Failure::new(ProblemType::ForeignOrigin, detail))
        }
    }

    /// A name that somebody else's DNS points here must not make his pages ours. An address is
    /// nobody's name.
    fn serves(&self, host: &str) -> bool {
        if is_loopback(host) || without_brackets(host).parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is = |name: &str| match name.strip_prefix('.') {
            Some(domain) => host.strip_suffix(domain).is_some_and(|below| below.ends_with('.')),
            None => host == name,
        };
        self.hosts.iter().any(|name| is(name))
    }

    /// Browsers say where a request comes from, newer ones by `Sec-Fetch-Site`, all of them by
    /// `Origin`. Other clients say nothing, and nobody can make them send a request unknowingly.
    fn may_change(&self, headers: &HeaderMap, host: &Authority) -> bool {
        if self.allowed_origin(headers, host.host()).is_some() {
            return true;
        }
        let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
            Some(site) => matches!(site, b"same-origin" | b"none"),
            None => origin.is_none_or(|origin| is_origin_of(origin, host)),
        }
    }

    /// The request's origin, if its pages may read and change something here. A page of the
    /// client's own machine only where the service is on that machine, too.
    fn allowed_origin<'a>(&self, headers: &'a HeaderMap, host: &str) -> Option<&'a HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let is = |allowed: &String| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
        let allowed = self.allowed.iter().find(|allowed| is(allowed))?;
        (is_loopback(host) || !is_loopback(host_of(allowed))).then_some(origin)
    }

    /// What the answer to this request says to a page of an allowed origin; `None` for all others.
    pub(super) fn share(&self, request: &Request) -> Option<Shared> {
        let headers = request.headers();
        // Few requests come from a page, and none from two.
        let mut origins = headers.get_all(header::ORIGIN).iter();
        origins.next().filter(|_| origins.next().is_none())?;
        let host = host(request.uri(), headers).ok().flatten()?;
        let origin = self.allowed_origin(headers, host.host())?.clone();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        Some(Shared { origin, is_preflight })
    }
}

/// An answer that a page of this origin may read.
pub(super) struct Shared {
    origin: HeaderValue,
    /// The browser asks whether it may send the request that is meant.
    pub(super) is_preflight: bool,
}

impl Shared {
    /// Allows the page to read an answer.
    pub(super) fn allow(self, headers: &mut HeaderMap) {
        if self.is_preflight
            && let Some(methods) = headers.get(header::ALLOW).cloned()
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    }
}

/// Whether a host is the client's own machine.
pub(super) fn is_loopback(host: &str) -> bool {
    if let Ok(address) = without_brackets(host).parse::<IpAddr>() {
        return address.is_loopback();
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// An address of IPv6 has them in URLs.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The host of a URL, which has a scheme.
pub(super) fn host_of(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    let authority = behind.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether the client reaches the service on its own machine.
pub(super) fn reached_at_loopback(request: &Request) -> bool {
    let host = host(request.uri(), request.headers()).ok().flatten();
    host.is_some_and(|host| is_loopback(host.host()))
}

/// The one name under which the request came: HTTP/2's `:authority`, or the header `Host`.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Failure> {
    let refused = |detail: &'static str| Failure::new(ProblemType::BadRequest, detail);
    let mut given = headers.get_all(header::HOST).iter();
    let named = match given.next() {
        Some(host) => {
            let host = Authority::try_from(host.as_bytes());
            Some(host.map_err(|_| refused("the header Host is no host and port"))?)
        }
        None => None,
    };
    if given.next().is_some() {
        return Err(refused("the header Host is given twice"));
    }
    match (uri.authority(), named) {
        (Some(authority), Some(host)) if *authority != host => {
            Err(refused("the header Host names another host than the target"))
        }
        (Some(authority), _) => Ok(Some(authority.clone())),
        (None, host) => Ok(host),
    }
}

fn is_origin_of(origin: &[u8], host: &Authority) -> bool {
    let origin = std::str::from_utf8(origin).unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, named)| named.eq_ignore_ascii_case(host.as_str()))
}

/// Says on every answer what browsers may do with it.
pub(super) fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    // A page has its own.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(NOTHING);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, uri: &str, headers: &[(&str, &str)]) -> Result<(), ProblemType> {
        let config = HttpConfig {
            hosts: vec!["shop.example.org".to_owned(), ".internal".to_owned()],
            origins: ["https://desk.example.org", "http://localhost:8002"]
                .map(str::to_owned)
                .to_vec(),
            ..super::super::tests::config()
        };
        let mut request = Request::builder().method(method.clone()).uri_str(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Origins::new(&config).check(&request.finish()).map_err(|failure| failure.kind())
    }

    #[test]
    fn only_known_names_are_served() {
        let get = |host| check(&Method::GET, "/", &[("host", host)]);
        for host in [
            "localhost",
            "localhost:8000",
            "LocalHost.:8000",
            "a.localhost",
            "127.0.0.1",
            "192.0.2.1:80",
            "[::1]:8000",
            "shop.example.org",
            "pod-7.internal:8000",
        ] {
            assert_eq!(get(host), Ok(()), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "127.0.0.1.nip.io", "internal", "a"] {
            assert_eq!(get(host), Err(ProblemType::Misdirected), "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let get = |uri, headers| check(&Method::GET, uri, headers);
        assert_eq!(get("/", &[]), Err(ProblemType::BadRequest));
        let mut old = Request::builder().uri_str("/").finish();
        old.set_version(Version::HTTP_10);
        assert!(Origins::new(&super::super::tests::config()).check(&old).is_ok());
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(get("/", &twice), Err(ProblemType::BadRequest));
        assert_eq!(get("/", &[("host", "a b")]), Err(ProblemType::BadRequest));
        // As HTTP/2 says it, and proxies do.
        assert_eq!(get("http://localhost/", &[]), Ok(()));
        assert_eq!(get("http://example.org/", &[]), Err(ProblemType::Misdirected));
        assert_eq!(get("http://localhost/", &[("host", "localhost")]), Ok(()));
        let differs = get("http://localhost/", &[("host", "127.0.0.1")]);
        assert_eq!(differs, Err(ProblemType::BadRequest));
    }

    #[test]
    fn only_pages_of_allowed_origins_change_something() {
        let with = |method: &Method, headers: &[(&str, &str)]| {
            let host = [("host", "localhost:8000")];
            check(method, "/", &[&host, headers].concat()).is_ok()
        };
        let desk = ("origin", "https://desk.example.org");
        for (headers, may) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://localhost:8000")], false),
            (&[("sec-fetch-site", "cross-site"), desk], true),
            (&[desk], true),
            (&[("origin", "http://localhost:8000")], true),
            (&[("origin", "http://localhost:8001")], false),
            (&[("origin", "http://localhost:8002")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:8002")], true),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
        ] {
            assert_eq!(with(&Method::POST, headers), may, "{headers:?}");
            assert!(with(&Method::GET, headers), "reading: {headers:?}");
        }
        // A page of the client's machine may not use what the client reaches elsewhere.
        let local = ("origin", "http://localhost:8002");
        for (host, origin, may) in [
            ("127.0.0.1", local, true),
            ("[::1]:8000", local, true),
            ("shop.example.org", local, false),
            ("192.0.2.1:8000", local, false),
            ("shop.example.org", desk, true),
        ] {
            let outcome = check(&Method::POST, "/", &[("host", host), origin]);
            assert_eq!(outcome.is_ok(), may, "{host} {origin:?}");
        }
    }

    #[test]
    fn a_request_has_one_origin() {
        let origins = [("origin", "http://localhost:8002"), ("origin", "http://evil.example")];
        for origins in [origins, [origins[1], origins[0]]] {
            let outcome =
                check(&Method::GET, "/", &[&[("host", "localhost")], &origins[..]].concat());
            assert_eq!(outcome, Err(ProblemType::BadRequest), "{origins:?}");
        }
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("http://localhost:8000", "localhost"),
            ("https://desk.example.org/openapi.json", "desk.example.org"),
            ("http://[::1]:8000/a:1", "[::1]"),
            ("http://[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }
}
