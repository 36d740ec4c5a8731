//! Credentials that were refused: counted, and limited by address.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, register_int_counter_vec};

use super::Reason;
use crate::http::Failure;
use crate::http::metrics::Shed;
use crate::http::rate::{Client, RateLimit};

/// Refused credentials a second from one address, after ten seconds' at once. Whoever has more waits
/// before any other are verified for it.
const PER_SECOND: u32 = 10;
/// How long it waits.
const PAUSE: Duration = Duration::from_secs(1);
/// Addresses that wait at the same time. Of more, some are not kept waiting.
const MOST: usize = 10_000;

static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let refused = register_int_counter_vec!(
        "http_server_authentications_refused_total",
        "Requests answered 401, by what was wrong with their credentials.",
        &["reason"]
    )
    .expect("registered once");
    // A counter that is first seen at 1 has not risen, to whoever watches it.
    for reason in Reason::ALL {
        refused.with_label_values(&[reason.label()]);
    }
    refused
});

/// Who had credentials refused too often.
pub(super) struct Failures {
    limit: RateLimit,
    waiting: Mutex<HashMap<Client, Instant>>,
}

impl Failures {
    /// Without a limit where one address may have all, as behind a proxy: one client of it would
    /// keep the others out.
    pub(super) fn new(address_share: u8) -> Self {
        LazyLock::force(&REFUSED);
        let per_second = if address_share == 100 { 0 } else { PER_SECOND };
        Self { limit: RateLimit::new(per_second), waiting: Mutex::default() }
    }

    /// 429 while the client has to wait: its credentials are not looked at.
    pub(super) fn check(&self, client: &Client) -> Result<(), Failure> {
        let until = self.waiting.lock().get(client).copied();
        if until.is_some_and(|until| Instant::now() < until) {
            return Err(Failure::shed(Shed::Refusals));
        }
        Ok(())
    }

    /// Counts credentials that were refused. That none were shown costs nothing, and is not limited.
    pub(super) fn count(&self, reason: Reason, client: &Client) {
        REFUSED.with_label_values(&[reason.label()]).inc();
        if reason == Reason::Missing || self.limit.admits(client) {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MOST {
            waiting.retain(|_, until| *until > now);
        }
        if waiting.len() < MOST {
            waiting.insert(client.clone(), now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ProblemType;

    fn client(last: u8) -> Client {
        Client::Address(std::net::Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn an_address_with_many_refusals_waits_and_others_do_not() {
        let failures = Failures::new(75);
        for _ in 0..1_000 {
            failures.count(Reason::Missing, &client(1));
        }
        failures.check(&client(1)).unwrap();
        for _ in 0..101 {
            failures.check(&client(1)).unwrap();
            failures.count(Reason::Unknown, &client(1));
        }
        let refused = failures.check(&client(1)).unwrap_err();
        assert_eq!(refused.kind(), ProblemType::TooManyRequests);
        failures.check(&client(2)).unwrap();
        failures.waiting.lock().values_mut().for_each(|until| *until -= PAUSE);
        failures.check(&client(1)).unwrap();
    }

    #[test]
    fn behind_a_proxy_nobody_waits() {
        let failures = Failures::new(100);
        for _ in 0..1_000 {
            failures.count(Reason::Unknown, &client(1));
        }
        failures.check(&client(1)).unwrap();
    }
}
