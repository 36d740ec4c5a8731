//! Swagger UI, from the assets that utoipa-swagger-ui carries in the binary: one page with the
//! documents of all services, as far as the client reaches them.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use poem::{
    Request, Response,
    http::{HeaderValue, header},
};
use utoipa_swagger_ui::{Config, Url};

use super::{
    body,
    connections::Connection,
    origin::{host_of, is_loopback, reached_at_loopback},
    problem::Failure,
};
use crate::config::{HttpConfig, TitledUrl};

/// This service's document.
const OWN: &str = "/openapi.json";
/// What is added to Swagger UI's own style.
const STYLE: &str = "ordersaga.css";
const STYLE_TEXT: &str = include_str!("docs.css");

/// Swagger UI as a service shows it.
pub(super) struct Docs {
    title: &'static str,
    /// To clients that reach the service at localhost.
    local: Page,
    /// To all others.
    remote: Page,
}

/// A list of documents, and what the page that shows them may do: run its own scripts, and ask the
/// services the documents come from. It styles itself as it goes along.
struct Page {
    config: Arc<Config<'static>>,
    policy: HeaderValue,
}

impl Docs {
    /// With the document of the service of this title, and those of others.
    pub(super) fn new(title: &'static str, config: &HttpConfig) -> Self {
        let page = |is_local| Page::new(title, &reachable(config, is_local));
        Self { title, local: page(true), remote: page(false) }
    }

    /// One file of Swagger UI; the empty path is its page.
    pub(super) fn page(&self, request: &Request) -> Result<Response, Failure> {
        let path = request.raw_path_param("path").unwrap_or_default();
        let page = if reached_at_loopback(request) { &self.local } else { &self.remote };
        let (content, kind) = match path {
            STYLE => (Bytes::from_static(STYLE_TEXT.as_bytes()), "text/css".to_owned()),
            _ => self.file(path, page)?,
        };
        let connection = request.data::<Arc<Connection>>().cloned();
        Ok(Response::builder()
            .content_type(&kind)
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::CONTENT_SECURITY_POLICY, &page.policy)
            .header(header::CONTENT_LENGTH, content.len())
            .body(body::in_pieces(content, connection)))
    }

    /// A file of Swagger UI's with its type.
    fn file(&self, path: &str, page: &Page) -> Result<(Bytes, String), Failure> {
        let file = utoipa_swagger_ui::serve(path, page.config.clone())
            .map_err(|error| Failure::internal(anyhow::anyhow!("{error}")))?
            .ok_or_else(|| Failure::not_found("Swagger UI has no such file"))?;
        let content = match file.bytes {
            Cow::Borrowed(text) if matches!(path, "" | "index.html") => self.titled(text).into(),
            // All clients share the bytes in the program.
            Cow::Borrowed(content) => Bytes::from_static(content),
            Cow::Owned(content) => content.into(),
        };
        Ok((content, file.content_type))
    }

    /// Swagger UI's page under the service's name and with our style.
    fn titled(&self, page: &[u8]) -> String {
        let title = format!("<title>{} - ordersaga</title>", self.title);
        let style = format!("<link rel=\"stylesheet\" href=\"./{STYLE}\" />\n  </head>");
        let page = String::from_utf8_lossy(page);
        page.replace("<title>Swagger UI</title>", &title).replace("</head>", &style)
    }
}

impl Page {
    fn new(title: &'static str, documents: &[&TitledUrl]) -> Self {
        let mut urls: Vec<_> = documents.iter().map(|document| listed(title, document)).collect();
        if !documents.iter().any(|document| document.title == title) {
            urls.insert(0, Url::with_primary(title, OWN, true));
        }
        let config = Config::new(urls)
            // Nobody else is to be asked what is thought of a document.
            .validator_url("none")
            .default_models_expand_depth(0)
            .try_it_out_enabled(true)
            .display_request_duration(true)
            .display_operation_id(true)
            // What is typed into Authorize is forgotten with the page.
            .persist_authorization(false);
        let others = documents.iter().filter(|document| document.title != title);
        let others: Vec<_> = others.map(|other| other.origin.as_str()).collect();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src 'self' data:; connect-src 'self' {}; frame-ancestors 'none'; \
             base-uri 'none'; form-action 'none'",
            others.join(" ")
        );
        let policy = HeaderValue::from_str(&policy).expect("an origin is of visible ASCII");
        Self { config: Arc::new(config), policy }
    }
}

/// The documents of services that a client reaches: all, or those that are not at localhost.
pub(super) fn reachable(config: &HttpConfig, is_local: bool) -> Vec<&TitledUrl> {
    let given = config.documents.iter().filter(|document| !document.url.is_empty());
    given.filter(|document| is_local || !is_loopback(host_of(&document.origin))).collect()
}

/// A document as Swagger UI lists it.
fn listed(title: &str, document: &TitledUrl) -> Url<'static> {
    let is_own = document.title == title;
    let url = if is_own { OWN } else { &document.url };
    // As long as the program runs, and there are few.
    let leaked = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    Url::with_primary(leaked(&document.title), leaked(url), is_own)
}
