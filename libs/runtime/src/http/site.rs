//! A service's own page: its files, which are in the program, and what its scripts may do.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use poem::{
    IntoResponse, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use sha2::{Digest, Sha256};

use super::{docs::reachable, origin::reached_at_loopback, problem::Failure};
use crate::config::{HttpConfig, TitledUrl};

/// The file that is the page; it is at `/`.
const PAGE: &str = "index.html";
/// Which services there are, by their documents' titles: made from the configuration.
const SERVICES: &str = "services.json";

/// A page with its files.
pub(super) struct Site {
    files: BTreeMap<&'static str, File>,
    /// To clients that reach the service at localhost.
    local: Services,
    /// To all others.
    remote: Services,
}

struct File {
    kind: &'static str,
    plain: Form,
    /// For clients that take it (`Accept-Encoding`).
    gzip: Form,
}

/// A file's bytes as they are sent, and their hash.
struct Form {
    content: Bytes,
    tag: HeaderValue,
}

/// The services that a client reaches, for the page and for its policy: it runs its own scripts
/// alone, asks these services alone, and makes HTML of text nowhere but in lit-html.
struct Services {
    list: File,
    policy: HeaderValue,
}

impl Site {
    /// With these files, by their paths.
    pub(super) fn new(files: &[(&'static str, &'static [u8])], config: &HttpConfig) -> Self {
        let files = files.iter().map(|(path, content)| {
            (*path, File::new(Bytes::from_static(content), content_type(path)))
        });
        Self {
            files: files.collect(),
            local: Services::new(&reachable(config, true)),
            remote: Services::new(&reachable(config, false)),
        }
    }

    /// One file; the empty path is the page.
    pub(super) fn file(&self, request: &Request) -> Result<Response, Failure> {
        let services = if reached_at_loopback(request) { &self.local } else { &self.remote };
        let file = match request.raw_path_param("path").unwrap_or(PAGE) {
            SERVICES => &services.list,
            path => {
                let file = self.files.get(path);
                file.ok_or_else(|| Failure::not_found("the page has no such file"))?
            }
        };
        let is_gzip = takes_gzip(request);
        let form = if is_gzip { &file.gzip } else { &file.plain };
        let mut response = if request.headers().get(header::IF_NONE_MATCH) == Some(&form.tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Response::builder().content_type(file.kind).body(form.content.clone())
        };
        let headers = response.headers_mut();
        if is_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::ETAG, form.tag.clone());
        // Asked for each time: a new version is seen at once.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, services.policy.clone());
        Ok(response)
    }
}

impl Services {
    fn new(documents: &[&TitledUrl]) -> Self {
        let origins: BTreeMap<_, _> =
            documents.iter().map(|document| (&document.title, &document.origin)).collect();
        // Text always encodes.
        let list = serde_json::to_vec(&origins).unwrap_or_default();
        let origins: Vec<_> = origins.into_values().map(String::as_str).collect();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self' {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types lit-html",
            origins.join(" ")
        );
        let policy = HeaderValue::from_str(&policy).expect("an origin is of visible ASCII");
        Self { list: File::new(list.into(), "application/json"), policy }
    }
}

impl File {
    fn new(content: Bytes, kind: &'static str) -> Self {
        let gzip = Form::new(gzip(&content).into());
        Self { kind, plain: Form::new(content), gzip }
    }
}

/// A file of a page as browsers are sent it.
pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    written.expect("memory can be written")
}

/// Whether the client names gzip, and not with a weight of nothing.
fn takes_gzip(request: &Request) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT_ENCODING).iter();
    accepted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|one| {
        let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        coding.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

impl Form {
    fn new(content: Bytes) -> Self {
        let mut tag = String::from("\"");
        for byte in &Sha256::digest(&content)[..16] {
            let _ = write!(tag, "{byte:02x}");
        }
        let tag = HeaderValue::from_str(&(tag + "\"")).expect("hexadecimal digits are ASCII");
        Self { content, tag }
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
