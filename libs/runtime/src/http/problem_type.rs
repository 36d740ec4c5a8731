//! The kinds of problems there are: the one table from which clients' types, the documents and the
//! pages about problems are made.

/// Makes the type with its table: for each kind what it means, its status, the end of its URI, its
/// title and what a client can do.
macro_rules! problem_types {
    ($($(#[doc = $meaning:literal])+ $kind:ident: $status:literal, $slug:literal, $title:literal, $remedy:literal;)+) => {
        /// Every kind of problem. Clients match on its URI, `urn:ordersaga:problem:<slug>`, which
        /// never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProblemType {
            $($(#[doc = $meaning])+ $kind,)+
        }

        impl ProblemType {
            /// All kinds, by status.
            pub const ALL: [Self; [$($slug),+].len()] = [$(Self::$kind),+];

            const fn parts(self) -> Parts {
                match self {
                    $(Self::$kind => Parts {
                        status: $status,
                        slug: $slug,
                        title: $title,
                        meaning: concat!($($meaning),+),
                        remedy: $remedy,
                    },)+
                }
            }
        }
    };
}

struct Parts {
    status: u16,
    slug: &'static str,
    title: &'static str,
    /// As the compiler has documentation: with a blank in front.
    meaning: &'static str,
    remedy: &'static str,
}

problem_types! {
    /// The request cannot be read, as with malformed JSON.
    BadRequest: 400, "bad-request", "The request cannot be read",
        "Correct the request; repeating it as it is fails again.";
    /// A query or header parameter is missing, unknown, repeated or wrong.
    InvalidParameter: 400, "invalid-parameter", "A parameter is wrong",
        "`field` names the parameter, `detail` says what is expected.";
    /// The request shows no credentials, or such as the service does not accept.
    Unauthenticated: 401, "unauthenticated", "Credentials are needed",
        "Send the header Authorization: Bearer with a key or token that the service's operator has \
         given you. `detail` says what is wrong with the one that was sent.";
    /// A page of an origin that may not change anything here asked for a change.
    ForeignOrigin: 403, "foreign-origin", "Another origin may not change this",
        "Send the request from the service's own pages or from a program, or let its operator add \
         the page's origin to HTTP_ORIGINS.";
    /// The credentials are good, and do not allow this.
    Forbidden: 403, "forbidden", "The credentials do not allow this",
        "`detail` names the scope that is missing, or says that the credentials are bound to another \
         client. Use others, or let the service's operator extend these.";
    /// There is no such path, or no such thing.
    NotFound: 404, "not-found", "There is no such thing",
        "Check the id and the path. A new order can be asked for as soon as it is created: its \
         status waits for it a moment.";
    /// The path does not know this method; `Allow` names those it does.
    MethodNotAllowed: 405, "method-not-allowed", "The method is not allowed here",
        "Use one of the methods that the header Allow names.";
    /// The body did not arrive in time.
    RequestTimeout: 408, "request-timeout", "The request's body came too slowly",
        "Nothing was done. Send the body at once, over a connection that carries it.";
    /// The body is over the limit.
    PayloadTooLarge: 413, "payload-too-large", "The body is too large",
        "`detail` names the limit. Send less, or in several requests.";
    /// The body is not `application/json`.
    UnsupportedMediaType: 415, "unsupported-media-type", "The body must be application/json",
        "Set the header Content-Type to application/json.";
    /// The service is not reached under this `Host`.
    Misdirected: 421, "misdirected", "The service has another name",
        "Use a name of the service, or let its operator add this one to HTTP_HOSTS.";
    /// A field of the body is missing, unknown, repeated or wrong.
    InvalidField: 422, "invalid-field", "A field of the body is wrong",
        "`errors` names each field that is wrong and says what is expected; `field` and `detail` \
         are the first of them.";
    /// This `Idempotency-Key` was used with another request.
    IdempotencyKeyReused: 422, "idempotency-key-reused", "This key belongs to another request",
        "Use a new key for a new request; repeat a request under its key only as it was.";
    /// As many requests are in hand as the service allows itself, or one client asks too often;
    /// nothing was done.
    TooManyRequests: 429, "too-many-requests", "Too many requests",
        "Repeat the request after the seconds that the header Retry-After names, later each time.";
    /// A defect of the service.
    Internal: 500, "internal", "The service failed",
        "Report it with the `request_id`. A request with an Idempotency-Key can be repeated safely.";
    /// As much waits for something the service needs, or is stored, as it allows itself; nothing
    /// was done.
    Overloaded: 503, "overloaded", "The service is overloaded",
        "Repeat the request after the seconds that the header Retry-After names, later each time.";
    /// Something the service needs is away; nothing was done.
    Unavailable: 503, "unavailable", "The service is unavailable",
        "Repeat the request after the seconds that the header Retry-After names, later each time.";
    /// The request took too long; whether it had an effect is not known.
    Timeout: 504, "timeout", "The request took too long",
        "Repeat it under the same Idempotency-Key: nothing is done twice. Without a key, look first \
         whether it had its effect.";
}

impl ProblemType {
    /// The HTTP status it is sent with.
    pub const fn status(self) -> u16 {
        self.parts().status
    }

    /// The short name that ends its URI.
    pub const fn slug(self) -> &'static str {
        self.parts().slug
    }

    /// One line for people; the same for every occurrence.
    pub const fn title(self) -> &'static str {
        self.parts().title
    }

    /// What has happened, in a sentence.
    pub const fn meaning(self) -> &'static str {
        self.parts().meaning.trim_ascii()
    }

    /// What a client can do, in a sentence or two.
    pub const fn remedy(self) -> &'static str {
        self.parts().remedy
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
