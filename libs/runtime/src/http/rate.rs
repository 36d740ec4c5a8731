//! How often each client may ask for something.

use std::future::ready;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use poem::{FromRequest, Request, RequestBody};

use super::limits::client_address;
use super::metrics::Shed;
use super::problem::Failure;

/// A client that was silent for so many seconds may use them at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// After so many requests the clients that have been silent since are forgotten.
const FORGET_AFTER: u32 = 1_024;

/// Whose request it is: the address at the other end of its connection.
pub struct ClientAddress(Option<IpAddr>);

impl ClientAddress {
    fn of(request: &Request) -> Self {
        Self(request.remote_addr().as_socket_addr().map(|address| client_address(address.ip())))
    }
}

impl<'a> FromRequest<'a> for ClientAddress {
    fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
    ) -> impl Future<Output = poem::Result<Self>> + Send {
        ready(Ok(Self::of(request)))
    }
}

/// A limit of each client's requests a second.
pub struct RateLimit {
    limiter: Option<DefaultKeyedRateLimiter<IpAddr>>,
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

    /// Counts a request; 429 if it is one too many.
    pub fn check(&self, client: &ClientAddress) -> Result<(), Failure> {
        let (Some(limiter), Some(address)) = (&self.limiter, client.0) else {
            return Ok(());
        };
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_AFTER) {
            limiter.retain_recent();
        }
        limiter.check_key(&address).map_err(|refused| {
            let wait = refused.wait_time_from(limiter.clock().now());
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
            Failure::shed(Shed::Rate).with_retry_after(seconds.saturating_add(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ProblemType;

    fn from(address: &str) -> ClientAddress {
        ClientAddress(Some(client_address(address.parse().unwrap())))
    }

    #[test]
    fn each_client_has_ten_seconds_requests_at_once() {
        let limit = RateLimit::new(1);
        for _ in 0..10 {
            limit.check(&from("10.0.0.1")).unwrap();
        }
        let refused = limit.check(&from("10.0.0.1")).unwrap_err();
        assert_eq!(refused.kind(), ProblemType::TooManyRequests);
        limit.check(&from("10.0.0.2")).unwrap();
        limit.check(&ClientAddress(None)).unwrap();
    }

    #[test]
    fn no_limit_is_none() {
        let limit = RateLimit::new(0);
        for _ in 0..1_000 {
            limit.check(&from("10.0.0.1")).unwrap();
        }
    }
}
