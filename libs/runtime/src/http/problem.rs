//! Errors as clients see them: `application/problem+json` (RFC 9457) with stable types.

use std::{borrow::Cow, fmt};

use poem::{
    IntoResponse, Response,
    error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError},
    http::{StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object,
    error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError},
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{Example, Type},
};
use serde::{Deserialize, Serialize};

use super::{
    document::REQUEST_ID,
    metrics::{self, Shed, log_sparingly},
    problem_type::{ProblemType, statuses},
    request_id::RequestId,
};

pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// The header, as clients know it.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// `Retry-After` where room comes only with time, or by an operator.
const NO_ROOM: u32 = 60;

/// `Retry-After` where a stream must end first.
const STREAM_ENDS: u32 = 10;

/// An error, as RFC 9457 has it.
#[derive(Object, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[oai(skip_serializing_if_is_none)]
pub struct Problem {
    /// What kind of problem it is: the URI of a [`ProblemType`].
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: i32,
    /// What is wrong with this very request.
    pub detail: String,
    /// The parameter or the field of the body that is wrong, as `item_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Each field of the body that is wrong, if some are; of very many the first, of fields that are
    /// repeated one. `field` and `detail` are of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
    /// The `X-Request-Id` of this request, to be quoted to support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What is wrong with one field of a body.
#[derive(Object, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[oai(example)]
pub struct FieldError {
    /// Where it is, as `item_id` or `orders[3].quantity`.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Example for FieldError {
    fn example() -> Self {
        let detail = "invalid value: integer `0`, expected a whole number from 1 to 1000";
        Self { field: "quantity".to_owned(), detail: detail.to_owned() }
    }
}

/// The error of an operation: all that any of them may answer but 404, for which there is
/// [`LookupFailure`]. What the client gets is its kind, detail and field; its cause is only ever
/// logged.
#[derive(Debug)]
pub struct Failure {
    kind: ProblemType,
    detail: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    retry_after: Option<u32>,
    challenge: Option<String>,
    cause: Option<anyhow::Error>,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(kind: ProblemType, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = ProblemType::tells_when_to_retry(kind.status()).then_some(1);
        let detail = detail.into();
        let (field, errors, challenge, cause) = (None, Vec::new(), None, None);
        Self { kind, detail, field, errors, retry_after, challenge, cause }
    }

    /// 404: the thing asked for does not exist.
    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemType::NotFound, detail)
    }

    /// 400: a query or header parameter is wrong.
    pub fn invalid_parameter(
        name: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ProblemType::InvalidParameter, detail).with_field(name)
    }

    /// 400: a query parameter that there is none of. Of a long name the begin is told.
    pub fn unknown_parameter(name: &str) -> Self {
        let name: String = name.chars().take(64).collect();
        Self::invalid_parameter(name, "there is no such parameter")
    }

    /// 422: fields of the body are wrong, at least one.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let first = errors.first().cloned();
        let (field, detail) = first.map(|first| (first.field, first.detail)).unzip();
        let failure = Self::new(ProblemType::InvalidField, detail.unwrap_or_default());
        Self { field: field.map(Cow::from), errors, ..failure }
    }

    /// 422: the idempotency key came with another request before.
    pub fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used before, with another request";
        Self::new(ProblemType::IdempotencyKeyReused, detail).with_field(IDEMPOTENCY_KEY)
    }

    /// 429 or 503: the request is turned away before anything is done for it. Counted, so that
    /// each of these is to be answered.
    pub fn shed(reason: Shed) -> Self {
        metrics::shed(reason);
        match reason {
            Shed::Concurrency | Shed::Queue | Shed::LongPolls | Shed::Pages => Self::new(
                ProblemType::TooManyRequests,
                "too many requests are being handled; nothing was done",
            ),
            Shed::Streams => Self::new(
                ProblemType::TooManyRequests,
                "as many streams of events are open as may be",
            )
            .with_retry_after(STREAM_ENDS),
            Shed::Address => Self::new(
                ProblemType::TooManyRequests,
                "too many requests of this client's address are being handled; nothing was done",
            ),
            Shed::Outbox => Self::new(
                ProblemType::Overloaded,
                "too much waits to be published; nothing was done",
            ),
            Shed::Rate => Self::new(
                ProblemType::TooManyRequests,
                "this client sends too many such requests; nothing was done",
            ),
            Shed::Client => Self::new(
                ProblemType::TooManyRequests,
                "this client sends too many requests; nothing was done",
            ),
            Shed::Refusals => Self::new(
                ProblemType::TooManyRequests,
                "too many credentials from this address were refused; these were not looked at",
            ),
            Shed::Keys => Self::new(
                ProblemType::Overloaded,
                "too many Idempotency-Keys are remembered to take a new one; nothing was done",
            )
            .with_retry_after(NO_ROOM),
            Shed::Rows => {
                Self::new(ProblemType::Overloaded, "as much is stored as may be; nothing was done")
                    .with_retry_after(NO_ROOM)
            }
        }
    }

    /// 503: a dependency is away. The client does not see the cause.
    pub fn unavailable(cause: impl Into<anyhow::Error>) -> Self {
        let detail = "something the service needs cannot be used now; try again";
        Self { cause: Some(cause.into()), ..Self::new(ProblemType::Unavailable, detail) }
    }

    /// 504: a dependency was asked to do it and did not say that it has. The client does not see the
    /// cause.
    pub fn undecided(cause: impl Into<anyhow::Error>) -> Self {
        let detail = "something the service needs did not answer; the request may or may not have \
                      had its effect";
        Self { cause: Some(cause.into()), ..Self::new(ProblemType::Timeout, detail) }
    }

    /// 500: a defect. The client does not see the cause.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        let detail = "the request failed for a reason that is not the client's";
        Self { cause: Some(cause.into()), ..Self::new(ProblemType::Internal, detail) }
    }

    /// Names the input that is wrong.
    #[must_use]
    pub fn with_field(self, field: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Sets `WWW-Authenticate`.
    #[must_use]
    pub(super) fn with_challenge(self, challenge: String) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ProblemType {
        self.kind
    }

    /// Logs the cause and makes the response; the request's id ties the two together.
    pub(super) fn respond(self, id: Option<&RequestId>) -> Response {
        let request_id = id.map(|id| id.as_str().to_owned());
        if let Some(cause) = &self.cause {
            let id = request_id.as_deref().unwrap_or_default();
            if self.kind == ProblemType::Internal {
                log_sparingly(|suppressed| {
                    tracing::error!(request_id = id, suppressed, "request failed: {cause:#}");
                });
            } else {
                tracing::debug!(request_id = id, kind = self.kind.slug(), "{cause:#}");
            }
        }
        let (status, retry_after) = (self.status(), self.retry_after);
        let challenge = self.challenge.as_deref().and_then(|text| text.parse().ok());
        // A struct of strings always encodes.
        let body = serde_json::to_vec(&self.into_problem(request_id)).unwrap_or_default();
        let mut response = Response::builder().status(status).content_type(CONTENT_TYPE).body(body);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// The problem as a client gets it, in an answer of its own or as part of another.
    pub fn into_problem(self, request_id: Option<String>) -> Problem {
        Problem {
            kind: self.kind.uri(),
            title: self.kind.title().to_owned(),
            status: self.kind.status().into(),
            detail: self.detail.into_owned(),
            field: self.field.map(Cow::into_owned),
            errors: (!self.errors.is_empty()).then_some(self.errors),
            request_id,
        }
    }
}

/// A problem of this kind, as the document shows it.
pub(super) fn example(kind: ProblemType) -> Problem {
    let failure = match kind {
        ProblemType::InvalidParameter => Failure::invalid_parameter("order_id", "it is required"),
        ProblemType::InvalidField => {
            let missing = "missing field `client_id`".to_owned();
            let missing = FieldError { field: "client_id".to_owned(), detail: missing };
            Failure::invalid_fields(vec![FieldError::example(), missing])
        }
        ProblemType::IdempotencyKeyReused => Failure::key_reused(),
        ProblemType::NotFound => Failure::not_found("There is no such order."),
        kind => Failure::new(kind, kind.title()),
    };
    failure.into_problem(Some(REQUEST_ID.to_owned()))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.slug(), self.detail)
    }
}

impl std::error::Error for Failure {}

impl ResponseError for Failure {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self::internal(cause)
    }
}

/// What poem and poem-openapi report, in our terms. Their own texts reach the client only where
/// they speak about its request.
impl From<poem::Error> for Failure {
    fn from(error: poem::Error) -> Self {
        let error = match error.downcast::<Failure>() {
            Ok(failure) => return failure,
            Err(error) => error,
        };
        if let Some(ParseParamError { name, reason }) = error.downcast_ref() {
            return Self::invalid_parameter(*name, parameter_detail(reason));
        }
        if let Some(ParsePathError { reason, .. }) = error.downcast_ref() {
            // poem-openapi has no name for it here: the place in the path must do.
            let detail = format!("in the path: {}", parameter_detail(reason));
            return Self::new(ProblemType::InvalidParameter, detail);
        }
        if let Some(error) = error.downcast_ref::<ContentTypeError>() {
            return Self::new(ProblemType::UnsupportedMediaType, error.to_string());
        }
        if let Some(ParseRequestPayloadError { reason }) = error.downcast_ref() {
            return Self::new(ProblemType::BadRequest, reason.clone());
        }
        if error.is::<NotFoundError>() {
            return Self::not_found("no operation has this path");
        }
        if error.is::<MethodNotAllowedError>() {
            return Self::new(ProblemType::MethodNotAllowed, "see the Allow header");
        }
        if let Some(ReadBodyError::Io(_)) = error.downcast_ref() {
            return Self::new(ProblemType::BadRequest, "the body could not be read");
        }
        match error.status().as_u16() {
            404 => Self::not_found("there is no such thing"),
            413 => Self::new(ProblemType::PayloadTooLarge, "the body is too large"),
            415 => Self::new(ProblemType::UnsupportedMediaType, "application/json is expected"),
            400..=499 => Self::new(ProblemType::BadRequest, "the request cannot be read"),
            _ => Self::internal(anyhow::anyhow!("{error}")),
        }
    }
}

/// poem-openapi speaks of its type names (`failed to parse "integer_int64": …`);
/// the client knows only its parameter.
fn parameter_detail(reason: &str) -> String {
    if reason.ends_with("expects an input value.") {
        return "it is required".to_owned();
    }
    let bare = reason.strip_prefix("failed to parse \"").and_then(|rest| rest.split_once("\": "));
    let detail = bare.map_or(reason, |(_, detail)| detail);
    detail.split_once(" (occurred while").map_or(detail, |(detail, _)| detail).to_owned()
}

/// What is documented of a status.
fn response(status: u16) -> MetaResponse {
    let mut headers = Vec::new();
    if ProblemType::tells_when_to_retry(status) {
        headers.push(MetaHeader {
            name: "RETRY-AFTER".to_owned(),
            description: Some("Seconds to wait before trying again.".to_owned()),
            required: true,
            deprecated: false,
            schema: u32::schema_ref(),
        });
    }
    let schema = Problem::schema_ref();
    MetaResponse {
        // The document says what it stands for there.
        description: "",
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType { content_type: CONTENT_TYPE, schema }],
        headers,
    }
}

impl ApiResponse for Failure {
    fn meta() -> MetaResponses {
        let statuses = statuses().filter(|status| *status != 404);
        MetaResponses { responses: statuses.map(response).collect() }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

/// The error of an operation on something that may not be there: a [`Failure`], or 404.
#[derive(Debug)]
pub struct LookupFailure(Failure);

impl LookupFailure {
    /// 404: the thing asked for does not exist.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Failure::not_found(detail))
    }
}

impl From<Failure> for LookupFailure {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<LookupFailure> for poem::Error {
    fn from(failure: LookupFailure) -> Self {
        failure.0.into()
    }
}

impl ApiResponse for LookupFailure {
    fn meta() -> MetaResponses {
        let mut meta = Failure::meta();
        meta.responses.push(response(404));
        meta.responses.sort_by_key(|response| response.status);
        meta
    }

    fn register(registry: &mut Registry) {
        Failure::register(registry);
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.respond(None)
    }
}
