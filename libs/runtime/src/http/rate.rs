//! How often each client may ask for something.

use std::future::ready;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use poem::{FromRequest, Request, RequestBody};

use super::auth::Principal;
use super::limits::client_address;
use super::metrics::Shed;
use super::problem::Failure;

/// A client that was silent for so many seconds may use them at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// After so many requests the clients that have been silent since are forgotten.
const FORGET_AFTER: u32 = 1_024;

/// Who is limited.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// The address at the other end of a request's connection.
    Address(IpAddr),
    /// The name that a client has proved, from wherever it asks.
    Principal(Arc<str>),
    /// A request without a connection, as tests make them: not limited.
    Unknown,
}

impl Client {
    /// The address that a request comes from.
    pub(super) fn of(request: &Request) -> Self {
        let address = request.remote_addr().as_socket_addr();
        address.map_or(Self::Unknown, |address| Self::Address(client_address(address.ip())))
    }
}

impl<'a> FromRequest<'a> for Client {
    fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
    ) -> impl Future<Output = poem::Result<Self>> + Send {
        let principal = request.data::<Principal>().and_then(Principal::name);
        ready(Ok(principal.map_or_else(|| Self::of(request), |name| Self::Principal(name.into()))))
    }
}

/// A limit of each client's requests a second.
pub struct RateLimit {
    limiter: Option<DefaultKeyedRateLimiter<Client>>,
    checks: AtomicU32,
}

impl RateLimit {
    /// So many requests a second, after up to ten seconds' at once; 0: no limit.
    pub fn new(per_second: u32) -> Self {
        let limiter = NonZeroU32::new(per_second).map(|rate| {
            let burst = rate.saturating_mul(BURST_SECONDS);
            RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))
        });
        Self { limiter, checks: AtomicU32::new(0) }
    }

    /// Counts a request; 429 if it is one too many, for this reason.
    pub fn check(&self, client: &Client, reason: Shed) -> Result<(), Failure> {
        self.count(client).map_err(|wait| {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
            Failure::shed(reason).with_retry_after(seconds.saturating_add(1))
        })
    }

    /// Counts something; false if it is one too many.
    pub(super) fn admits(&self, client: &Client) -> bool {
        self.count(client).is_ok()
    }

    /// Counts one more, or says how long until there may be one.
    fn count(&self, client: &Client) -> Result<(), Duration> {
        let (Some(limiter), Client::Address(_) | Client::Principal(_)) = (&self.limiter, client)
        else {
            return Ok(());
        };
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_AFTER) {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        let counted = limiter.check_key(client);
        counted.map_err(|refused| refused.wait_time_from(limiter.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ProblemType;

    fn from(address: &str) -> Client {
        Client::Address(client_address(address.parse().unwrap()))
    }

    #[test]
    fn each_client_has_ten_seconds_requests_at_once() {
        let limit = RateLimit::new(1);
        let check = |client: &Client| limit.check(client, Shed::Rate);
        for _ in 0..10 {
            check(&from("10.0.0.1")).unwrap();
        }
        let refused = check(&from("10.0.0.1")).unwrap_err();
        assert_eq!(refused.kind(), ProblemType::TooManyRequests);
        check(&from("10.0.0.2")).unwrap();
        check(&Client::Principal("10.0.0.1".into())).unwrap();
        for _ in 0..100 {
            check(&Client::Unknown).unwrap();
        }
    }

    #[test]
    fn no_limit_is_none() {
        let limit = RateLimit::new(0);
        for _ in 0..1_000 {
            limit.check(&from("10.0.0.1"), Shed::Rate).unwrap();
        }
    }
}
