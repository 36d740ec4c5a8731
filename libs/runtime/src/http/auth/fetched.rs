//! A key set that is fetched from a URL, again and again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::jwt::KeySet;
use super::source::LARGEST;
use crate::health::Dependency;
use crate::http::Failure;

/// How often it is fetched.
const EVERY: Duration = Duration::from_mins(5);
/// … and where it could not be, or a token names a key that it lacks, at the most.
const AT_MOST_EVERY: Duration = Duration::from_secs(30);
/// … and until it could be for the first time.
const AT_FIRST: Duration = Duration::from_secs(3);
/// How long one fetch may take, and how long a request waits for one.
const LIMIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that wait for a fetch at the same time.
const WAITING: usize = 64;

/// The newest set that could be fetched.
pub(super) struct Fetched {
    url: String,
    agent: Agent,
    current: RwLock<Option<Arc<KeySet>>>,
    state: Dependency,
    asked: Notify,
    rounds: watch::Sender<u64>,
    /// When the next fetch may begin; none while one is under way, or may begin now.
    next: Mutex<Option<Instant>>,
    waiting: Semaphore,
}

impl Fetched {
    /// Nothing yet; see [`Fetched::keep`].
    pub(super) fn new(url: &str, state: Dependency) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .max_redirects(0)
            .tls_config(tls)
            .user_agent("ordersaga")
            .build();
        Self {
            url: url.to_owned(),
            agent: config.into(),
            current: RwLock::default(),
            state,
            asked: Notify::new(),
            rounds: watch::Sender::default(),
            next: Mutex::default(),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// The newest set; 503 if there never was one.
    pub(super) fn get(&self) -> Result<Arc<KeySet>, Failure> {
        let current = self.current.read().clone();
        current.ok_or_else(|| Failure::unavailable(anyhow::anyhow!("no key set was fetched yet")))
    }

    /// Has it fetched as soon as may be, and waits for that if it is now.
    pub(super) async fn refresh(&self) {
        let Ok(_waiting) = self.waiting.try_acquire() else { return };
        let mut rounds = self.rounds.subscribe();
        self.asked.notify_one();
        let is_later = self.next.lock().is_some_and(|next| Instant::now() < next);
        if !is_later {
            let _ = tokio::time::timeout(PATIENCE, rounds.changed()).await;
        }
    }

    /// Fetches it, one fetch at a time.
    pub(super) async fn keep(&self) {
        loop {
            *self.next.lock() = None;
            let start = Instant::now();
            let (agent, url) = (self.agent.clone(), self.url.clone());
            let fetched = tokio::task::spawn_blocking(move || fetch(&agent, &url)).await;
            let fetched = fetched.context("fetching failed").flatten();
            let is_fetched = fetched.is_ok();
            match fetched {
                Ok(keys) => {
                    *self.current.write() = Some(Arc::new(keys));
                    self.state.up();
                }
                // What was fetched before stays in force.
                Err(error) => self.state.down(format!("{}: {error:#}", self.url)),
            }
            let (least, pause) = match (is_fetched, self.current.read().is_some()) {
                (true, _) => (AT_MOST_EVERY, EVERY),
                (false, true) => (AT_MOST_EVERY, AT_MOST_EVERY),
                (false, false) => (AT_FIRST, AT_FIRST),
            };
            *self.next.lock() = Some(start + least);
            self.rounds.send_modify(|rounds| *rounds += 1);
            tokio::time::sleep_until(start + least).await;
            let rest = tokio::time::sleep_until(start + pause);
            tokio::select! {
                () = rest => {}
                () = self.asked.notified() => {}
            }
        }
    }
}

fn fetch(agent: &Agent, url: &str) -> anyhow::Result<KeySet> {
    let mut response = agent.get(url).call().context("it cannot be fetched")?;
    let text = response.body_mut().with_config().limit(LARGEST).read_to_string();
    KeySet::parse(&text.context("it cannot be read")?)
}
