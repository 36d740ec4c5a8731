//! The attacks.

mod client;
mod floods;
mod memory;
mod origins;
mod places;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ordersaga_devstack::Service;
use parking_lot::Mutex;
use tokio::task::JoinSet;

pub(crate) use client::Target;
use client::{ADDRESSES, Client, label};

/// One kind of attack: many clients, each of which does the same again and again.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What each client does.
    pub(crate) what: &'static str,
    against: &'static [Service],
    /// Clients at the same time, for each of these services.
    clients: usize,
    /// How long a client rests before it begins again.
    rest: Duration,
    /// The statuses that answers may have; without any, all may be.
    statuses: &'static [&'static str],
    life: fn(Client) -> BoxFuture<'static, io::Result<String>>,
}

const EVERY: &[Service] = &Service::ALL;
const REST: Duration = Duration::from_secs(1);

/// All attacks.
pub(crate) static ALL: [Attack; 13] = [
    Attack {
        name: "windows",
        what: "an HTTP/2 connection with window 0, 250 streams that ask for a large page",
        against: EVERY,
        clients: 8 * ADDRESSES,
        rest: REST,
        statuses: &[],
        life: |client| memory::closed_windows(client).boxed(),
    },
    Attack {
        name: "unread",
        what: "asks for a large page again and again, and reads nothing",
        against: EVERY,
        clients: 500,
        rest: REST,
        statuses: &[],
        life: |client| memory::unread(client).boxed(),
    },
    Attack {
        name: "heads",
        what: "sends a head of 380 KiB slowly, and does not end it",
        against: EVERY,
        clients: 2_000,
        rest: REST,
        statuses: &[],
        life: |client| memory::heads(client).boxed(),
    },
    Attack {
        name: "pings",
        what: "an HTTP/2 connection that asks for nothing and sends PING",
        against: EVERY,
        clients: 500,
        rest: REST,
        statuses: &[],
        life: |client| memory::pings(client).boxed(),
    },
    Attack {
        name: "hangups",
        what: "begins a long poll of 30 s and closes, half of them with more sent behind it",
        against: &[Service::Monitoring],
        clients: 500,
        rest: Duration::from_millis(100),
        statuses: &[],
        life: |client| places::hang_up(client).boxed(),
    },
    Attack {
        name: "bodies",
        what: "announces a body and sends one byte",
        against: &[Service::CreateOrder, Service::Store],
        clients: 1_200,
        rest: REST,
        statuses: &[],
        life: |client| places::bodies(client).boxed(),
    },
    Attack {
        name: "polls",
        what: "begins a long poll of 30 s of an order that is not there",
        against: &[Service::Monitoring],
        clients: 2_000,
        rest: REST,
        statuses: &[],
        life: |client| places::polls(client).boxed(),
    },
    Attack {
        name: "cross-site",
        what: "cancels an honest order or adds an item, as the page of another site",
        against: EVERY,
        clients: 16,
        rest: Duration::from_millis(10),
        statuses: &["403"],
        life: |client| origins::cross_site(client).boxed(),
    },
    Attack {
        name: "hosts",
        what: "the same under a foreign Host, as a page does whose name was bound to this address; reads",
        against: EVERY,
        clients: 16,
        rest: Duration::from_millis(10),
        statuses: &["421"],
        life: |client| origins::foreign_host(client).boxed(),
    },
    Attack {
        name: "idle",
        what: "a connection that does nothing",
        against: EVERY,
        // More than a service takes; all together as many as this process may open.
        clients: 8_000,
        rest: Duration::from_secs(10),
        statuses: &[],
        life: |client| floods::idle(client).boxed(),
    },
    Attack {
        name: "resets",
        what: "opens a connection and resets it at once",
        against: EVERY,
        clients: 64,
        rest: Duration::ZERO,
        statuses: &[],
        life: |client| floods::resets(client).boxed(),
    },
    Attack {
        name: "metrics",
        what: "asks for /metrics",
        against: EVERY,
        clients: 500,
        rest: Duration::ZERO,
        statuses: &[],
        life: |client| floods::metrics(client).boxed(),
    },
    Attack {
        name: "items",
        what: "adds items",
        against: &[Service::Store],
        clients: 64,
        rest: Duration::ZERO,
        statuses: &[],
        life: |client| floods::items(client).boxed(),
    },
];

/// What an attack met, and how often.
#[derive(Clone, Default)]
pub(crate) struct Met(Arc<Mutex<BTreeMap<String, u64>>>);

impl Met {
    fn count(&self, what: impl Into<String>) {
        *self.0.lock().entry(what.into()).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}

impl Attack {
    /// How many connections it has at the same time.
    pub(crate) fn connections(&self) -> usize {
        self.clients * self.against.len()
    }

    /// Attacks until this is dropped, with so many of a hundred clients.
    pub(crate) async fn run(&self, target: &Target, percent: usize, met: &Met) {
        let mut clients = JoinSet::new();
        for service in self.against {
            for number in 0..(self.clients * percent / 100).max(1) {
                let client = Client::new(target, *service, number, met);
                clients.spawn(again_and_again(self.life, client, self.rest));
            }
        }
        while clients.join_next().await.is_some() {}
    }

    /// Whether it reached a service: one of the answers it may have came or, where any may, its
    /// first client came to something.
    pub(crate) fn has_begun(&self, met: &Met) -> bool {
        let met = met.all();
        if self.statuses.is_empty() {
            return !met.is_empty();
        }
        met.keys().any(|what| self.statuses.contains(&what.as_str()))
    }

    /// Of what it met the answers that must not be.
    pub(crate) fn forbidden(&self, met: &Met) -> Vec<String> {
        let is_status = |what: &str| what.len() == 3 && what.parse::<u16>().is_ok();
        let is_forbidden = |what: &str| is_status(what) && !self.statuses.contains(&what);
        let met = met.all().into_iter();
        let met = met.filter(|(what, _)| !self.statuses.is_empty() && is_forbidden(what));
        met.map(|(what, count)| format!("{} was answered {what}: {count} times", self.name))
            .collect()
    }
}

async fn again_and_again(
    life: fn(Client) -> BoxFuture<'static, io::Result<String>>,
    client: Client,
    rest: Duration,
) {
    loop {
        let met = life(client.clone()).await;
        client.met.count(met.unwrap_or_else(|error| label(&error)));
        tokio::time::sleep(rest).await;
    }
}
