//! Swagger UI, from the assets that utoipa-swagger-ui carries in the binary.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use poem::{Request, Response, http::header};
use utoipa_swagger_ui::Config;

use super::{body, connections::Connection, problem::Failure};

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(
        Config::from("/openapi.json")
            .try_it_out_enabled(true)
            .display_request_duration(true)
            .display_operation_id(true),
    )
});

/// What Swagger UI's page may do: run its own scripts, and ask this service. It styles itself as it
/// goes along.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";

/// One file of Swagger UI; the empty path is its page.
pub(super) fn page(request: &Request) -> Result<Response, Failure> {
    let path = request.raw_path_param("path").unwrap_or_default();
    let file = utoipa_swagger_ui::serve(path, CONFIG.clone())
        .map_err(|error| Failure::internal(anyhow::anyhow!("{error}")))?
        .ok_or_else(|| Failure::not_found("Swagger UI has no such file"))?;
    // All clients share the bytes in the program.
    let content = match file.bytes {
        Cow::Borrowed(content) => Bytes::from_static(content),
        Cow::Owned(content) => content.into(),
    };
    let connection = request.data::<Arc<Connection>>().cloned();
    Ok(Response::builder()
        .content_type(&file.content_type)
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::CONTENT_LENGTH, content.len())
        .body(body::in_pieces(content, connection)))
}
