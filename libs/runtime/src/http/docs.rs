//! Swagger UI, from the assets that utoipa-swagger-ui carries in the binary.

use std::sync::{Arc, LazyLock};

use poem::{Request, Response, http::header};
use utoipa_swagger_ui::Config;

use super::problem::Failure;

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(
        Config::from("/openapi.json")
            .try_it_out_enabled(true)
            .display_request_duration(true)
            .display_operation_id(true),
    )
});

/// One file of Swagger UI; the empty path is its page.
pub(super) fn page(request: &Request) -> Result<Response, Failure> {
    let path = request.raw_path_param("path").unwrap_or_default();
    let file = utoipa_swagger_ui::serve(path, CONFIG.clone())
        .map_err(|error| Failure::internal(anyhow::anyhow!("{error}")))?
        .ok_or_else(|| Failure::not_found("Swagger UI has no such file"))?;
    Ok(Response::builder()
        .content_type(&file.content_type)
        .header(header::CACHE_CONTROL, "no-cache")
        .body(file.bytes.into_owned()))
}
