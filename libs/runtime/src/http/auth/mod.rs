//! Who may use the service: what clients prove themselves by, and what each operation asks for.
//!
//! A request is admitted before it takes any of the places that clients share: whoever shows nothing,
//! or the wrong thing, costs a refusal and no more.

mod api_keys;
mod bearer;
mod failures;
mod fetched;
mod jwt;
mod principal;
mod ring_verifier;
mod scopes;
mod source;

use std::sync::Arc;

use poem::Request;
use tokio_util::sync::CancellationToken;

pub use ordersaga_api_key::Scope;
pub use principal::Principal;
pub use scopes::Scopes;

use self::api_keys::ApiKeys;
use self::failures::Failures;
use self::fetched::Fetched;
use self::jwt::{Demands, KeySet, Verified};
use self::source::Watched;
use super::metrics::Shed;
use super::rate::{Client, RateLimit};
use super::{Failure, ProblemType};
use crate::clock;
use crate::config::{AuthConfig, AuthMode, HttpConfig, KeySetSource};
use crate::health::Health;

/// What an operation asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: credentials are not looked at.
    Open,
    /// Nothing; credentials that are shown must be good, and may show more.
    Public,
    /// This scope.
    Needs(Scope),
}

/// Why credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Missing,
    Malformed,
    Unknown,
    Expired,
    Invalid,
}

impl Reason {
    const ALL: [Self; 5] =
        [Self::Missing, Self::Malformed, Self::Unknown, Self::Expired, Self::Invalid];

    const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
        }
    }
}

/// Credentials that were refused, and what the client is told. Never the credentials themselves.
#[derive(Debug)]
struct Refused {
    reason: Reason,
    detail: &'static str,
}

impl Refused {
    const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    const fn malformed(detail: &'static str) -> Self {
        Self::new(Reason::Malformed, detail)
    }

    fn into_failure(self) -> Failure {
        // RFC 6750: without credentials a client is not told of an error.
        let error = match self.reason {
            Reason::Missing => None,
            Reason::Malformed => Some("invalid_request"),
            Reason::Unknown | Reason::Expired | Reason::Invalid => Some("invalid_token"),
        };
        let challenge = match error {
            None => format!("Bearer realm=\"{REALM}\""),
            Some(error) => format!("Bearer realm=\"{REALM}\", error=\"{error}\""),
        };
        Failure::new(ProblemType::Unauthenticated, self.detail).with_challenge(challenge)
    }
}

const REALM: &str = "ordersaga";

/// Finds out whose requests come.
pub(super) struct Auth {
    ways: Ways,
    failures: Failures,
    rate: RateLimit,
}

/// What clients prove themselves by.
enum Ways {
    Off,
    ApiKeys(Watched<ApiKeys>),
    Jwt(Demands, KeySets),
}

/// Where the keys that tokens are signed by come from.
enum KeySets {
    File(Watched<KeySet>),
    Url(Fetched),
}

impl KeySets {
    fn get(&self) -> Result<Arc<KeySet>, Failure> {
        match self {
            Self::File(file) => file.get(),
            Self::Url(fetched) => fetched.get(),
        }
    }

    async fn keep(&self) {
        match self {
            Self::File(file) => file.keep().await,
            Self::Url(fetched) => fetched.keep().await,
        }
    }
}

impl Ways {
    fn new(config: &AuthConfig, health: &Health) -> Self {
        match config {
            AuthConfig { mode: AuthMode::ApiKey, api_keys_file: Some(file), .. } => {
                let state = health.awaited("api-keys");
                Self::ApiKeys(Watched::new(file, ApiKeys::parse, state))
            }
            AuthConfig {
                mode: AuthMode::Jwt,
                jwks: Some(source),
                issuer: Some(issuer),
                audience: Some(audience),
                client_claim,
                ..
            } => {
                let demands = Demands {
                    issuer: issuer.clone(),
                    audience: audience.clone(),
                    client_claim: client_claim.clone(),
                };
                let state = health.awaited("jwt-keys");
                let keys = match source {
                    KeySetSource::File(file) => {
                        KeySets::File(Watched::new(file, KeySet::parse, state))
                    }
                    KeySetSource::Url(url) => KeySets::Url(Fetched::new(url, state)),
                };
                Self::Jwt(demands, keys)
            }
            _ => Self::Off,
        }
    }

    async fn keep(&self) {
        match self {
            Self::Off => {}
            Self::ApiKeys(keys) => keys.keep().await,
            Self::Jwt(_, keys) => keys.keep().await,
        }
    }

    /// Whose credentials these are.
    async fn verify(&self, credentials: &str) -> Result<Result<Principal, Refused>, Failure> {
        match self {
            Self::Off => Ok(Ok(Principal::anyone())),
            Self::ApiKeys(keys) => Ok(keys.get()?.find(credentials, clock::now())),
            Self::Jwt(demands, keys) => {
                let verified = match (demands.verify(credentials, &*keys.get()?), keys) {
                    (Verified::UnknownKey, KeySets::Url(fetched)) => {
                        fetched.refresh().await;
                        demands.verify(credentials, &*keys.get()?)
                    }
                    (verified, _) => verified,
                };
                Ok(match verified {
                    Verified::Good(principal) => Ok(principal),
                    Verified::Refused(refused) => Err(refused),
                    Verified::UnknownKey => {
                        Err(Refused::new(Reason::Unknown, "the token is signed by an unknown key"))
                    }
                })
            }
        }
    }
}

impl Auth {
    /// As configured. What cannot be read yet shows in `health`, and no client is let in by it.
    pub(super) fn new(config: &HttpConfig, health: &Health) -> Arc<Self> {
        let ways = Ways::new(&config.auth, health);
        let rate = RateLimit::new(config.auth.requests_per_second);
        Arc::new(Self { ways, failures: Failures::new(config.address_share), rate })
    }

    /// Whether clients are asked who they are.
    fn is_on(&self) -> bool {
        !matches!(self.ways, Ways::Off)
    }

    /// Keeps what it knows as its sources have it, until stopped.
    pub(super) async fn keep(&self, stop: CancellationToken) {
        stop.run_until_cancelled(self.ways.keep()).await;
    }

    /// Whose request it is, if its client may have what it asks for.
    async fn admit(&self, access: Access, request: &Request) -> Result<Principal, Failure> {
        let address = Client::of(request);
        let principal = if self.is_on() {
            self.identify(access, request, &address).await?
        } else {
            Principal::anyone()
        };
        let client = principal.name().map_or(address, |name| Client::Principal(name.into()));
        self.rate.check(&client, Shed::Client)?;
        match access {
            Access::Needs(scope) if !principal.has(scope) => Err(missing_scope(scope)),
            _ => Ok(principal),
        }
    }

    async fn identify(
        &self,
        access: Access,
        request: &Request,
        address: &Client,
    ) -> Result<Principal, Failure> {
        let refused = match bearer::credentials(request.headers()) {
            Ok(None) if access == Access::Public => return Ok(Principal::nobody()),
            Ok(None) => Refused::new(Reason::Missing, "Authorization: Bearer … is missing"),
            Ok(Some(credentials)) => {
                self.failures.check(address)?;
                match self.ways.verify(credentials).await? {
                    Ok(principal) => return Ok(principal),
                    Err(refused) => refused,
                }
            }
            Err(refused) => refused,
        };
        self.failures.count(refused.reason, address);
        Err(refused.into_failure())
    }
}

fn missing_scope(scope: Scope) -> Failure {
    let challenge =
        format!("Bearer realm=\"{REALM}\", error=\"insufficient_scope\", scope=\"{scope}\"");
    let detail = format!("the scope {scope} is missing");
    Failure::new(ProblemType::Forbidden, detail).with_challenge(challenge)
}

/// Reads the files of the settings, as a service does when it starts: what is wrong with them.
pub(crate) fn check_files(config: &HttpConfig) -> Result<(), String> {
    let AuthConfig { api_keys_file, jwks, .. } = &config.auth;
    if let Some(file) = api_keys_file {
        source::read(file, ApiKeys::parse).map_err(|error| format!("API_KEYS_FILE: {error:#}"))?;
    }
    if let Some(KeySetSource::File(file)) = jwks {
        source::read(file, KeySet::parse).map_err(|error| format!("JWT_JWKS: {error:#}"))?;
    }
    Ok(())
}

/// Stands before an endpoint.
#[derive(Clone)]
pub(super) struct Guard {
    auth: Option<Arc<Auth>>,
    access: Access,
}

impl Guard {
    pub(super) fn new(auth: &Arc<Auth>, access: Access) -> Self {
        Self { auth: Some(auth.clone()), access }
    }

    /// Lets everybody pass.
    pub(super) fn open() -> Self {
        Self { auth: None, access: Access::Open }
    }

    /// Whose request it is, or why it is refused.
    pub(super) async fn admit(&self, request: &Request) -> Result<Principal, Failure> {
        match &self.auth {
            Some(auth) if self.access != Access::Open => auth.admit(self.access, request).await,
            _ => Ok(Principal::nobody()),
        }
    }
}
