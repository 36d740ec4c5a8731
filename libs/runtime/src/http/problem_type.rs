//! The kinds of problems there are.

/// Every kind of problem. Clients match on its URI, `urn:ordersaga:problem:<slug>`, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// The request cannot be read, as with malformed JSON.
    BadRequest,
    /// A query or header parameter is missing, unknown, repeated or wrong.
    InvalidParameter,
    /// A page of an origin that may not change anything here asked for a change.
    ForeignOrigin,
    /// There is no such path, or no such thing.
    NotFound,
    /// The path does not know this method; `Allow` names those it does.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is over the limit.
    PayloadTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// The service is not reached under this `Host`.
    Misdirected,
    /// A field of the body is missing, unknown, repeated or wrong.
    InvalidField,
    /// This `Idempotency-Key` was used with another request.
    IdempotencyKeyReused,
    /// As many requests are in hand as the service allows itself, or one client asks too often.
    TooManyRequests,
    /// A defect of the service.
    Internal,
    /// As much waits for something the service needs, or is stored, as it allows itself.
    Overloaded,
    /// Something the service needs is away.
    Unavailable,
    /// The request took too long; whether it had an effect is not known.
    Timeout,
}

impl ProblemType {
    /// All kinds, by status.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::InvalidParameter,
        Self::ForeignOrigin,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Misdirected,
        Self::InvalidField,
        Self::IdempotencyKeyReused,
        Self::TooManyRequests,
        Self::Internal,
        Self::Overloaded,
        Self::Unavailable,
        Self::Timeout,
    ];

    const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request", "The request cannot be read"),
            Self::InvalidParameter => (400, "invalid-parameter", "A parameter is wrong"),
            Self::ForeignOrigin => (403, "foreign-origin", "Another origin may not change this"),
            Self::NotFound => (404, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "The method is not allowed here"),
            Self::RequestTimeout => (408, "request-timeout", "The request's body came too slowly"),
            Self::PayloadTooLarge => (413, "payload-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (415, "unsupported-media-type", "The body must be application/json")
            }
            Self::Misdirected => (421, "misdirected", "The service has another name"),
            Self::InvalidField => (422, "invalid-field", "A field of the body is wrong"),
            Self::IdempotencyKeyReused => {
                (422, "idempotency-key-reused", "This key belongs to another request")
            }
            Self::TooManyRequests => (429, "too-many-requests", "Too many requests"),
            Self::Internal => (500, "internal", "The service failed"),
            Self::Overloaded => (503, "overloaded", "The service is overloaded"),
            Self::Unavailable => (503, "unavailable", "The service is unavailable"),
            Self::Timeout => (504, "timeout", "The request took too long"),
        }
    }

    /// The HTTP status it is sent with.
    pub const fn status(self) -> u16 {
        self.parts().0
    }

    /// The short name that ends its URI.
    pub const fn slug(self) -> &'static str {
        self.parts().1
    }

    /// One line for people; the same for every occurrence.
    pub const fn title(self) -> &'static str {
        self.parts().2
    }

    /// The URI clients match on.
    pub fn uri(self) -> String {
        format!("urn:ordersaga:problem:{}", self.slug())
    }

    pub(super) const fn tells_when_to_retry(status: u16) -> bool {
        matches!(status, 429 | 503)
    }
}

/// The statuses an operation can fail with; 405 belongs to no operation, 421 to no document: who
/// has it has reached the service by its name.
pub(super) fn statuses() -> impl Iterator<Item = u16> {
    let mut previous = 0;
    ProblemType::ALL.into_iter().map(ProblemType::status).filter(move |&status| {
        let new = status != previous && !matches!(status, 405 | 421);
        previous = status;
        new
    })
}

/// What an operation's documentation says of a status.
pub(super) const fn description(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read: bad-request, invalid-parameter",
        403 => "A page of another origin may not change anything: foreign-origin",
        404 => "There is no such thing: not-found",
        408 => "The body did not arrive in time: request-timeout",
        413 => "The body is over the limit: payload-too-large",
        415 => "The body is not application/json: unsupported-media-type",
        422 => "The request was read and is wrong: invalid-field, idempotency-key-reused",
        429 => "Nothing was done, too many requests came or are in hand: too-many-requests",
        503 => "Nothing was done, try again: overloaded, unavailable",
        504 => "It took too long and may or may not have had an effect: timeout",
        _ => "A defect of the service: internal",
    }
}
