//! What a service depends on, and whether each of it can be used now: the source of `/ready`.

use std::{
    fmt::Display,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// How often whoever waits for a dependency looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

static UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    prometheus::register_int_gauge_vec!(
        "dependency_up",
        "Whether a dependency, as /ready names it, can be used now: 1 or 0.",
        &["dependency"]
    )
    .expect("registered once")
});

/// The dependencies of one service.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Dependency>>>);

/// One dependency; its owner says when it comes and goes.
#[derive(Clone)]
pub struct Dependency(Arc<State>);

struct State {
    name: &'static str,
    required: AtomicBool,
    /// Required only until it has been up once.
    awaited: bool,
    up: AtomicBool,
    readable: AtomicBool,
    gauge: IntGauge,
    since: Mutex<Since>,
}

struct Since {
    time: DateTime<Utc>,
    detail: Option<String>,
}

/// The body of `/ready`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every required dependency is up.
    pub ready: bool,
    /// All dependencies, in the order in which they were declared.
    pub dependencies: Vec<DependencyReport>,
}

/// One dependency in a [`Report`].
#[derive(Clone, Debug, Serialize)]
pub struct DependencyReport {
    /// Its name, as "postgres".
    pub name: &'static str,
    /// It can be used.
    pub ready: bool,
    /// The service is not ready without it.
    pub required: bool,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it last came or went.
    pub since: String,
}

impl Health {
    /// Declares a dependency without which the service is not ready. It starts as down.
    pub fn required(&self, name: &'static str) -> Dependency {
        self.declare(name, true, false)
    }

    /// Declares a dependency without which the service does not become ready, but which it can do
    /// without from then on. It starts as down.
    pub fn awaited(&self, name: &'static str) -> Dependency {
        self.declare(name, true, true)
    }

    /// Declares a dependency the service can do without. It starts as down.
    pub fn optional(&self, name: &'static str) -> Dependency {
        self.declare(name, false, false)
    }

    fn declare(&self, name: &'static str, required: bool, awaited: bool) -> Dependency {
        let since = Since { time: clock::now(), detail: Some("starting".to_owned()) };
        let gauge = UP.with_label_values(&[name]);
        gauge.set(0);
        let dependency = Dependency(Arc::new(State {
            name,
            required: AtomicBool::new(required),
            awaited,
            up: AtomicBool::new(false),
            readable: AtomicBool::new(false),
            gauge,
            since: Mutex::new(since),
        }));
        self.0.lock().push(dependency.clone());
        dependency
    }

    /// The state of everything now.
    pub fn report(&self) -> Report {
        let dependencies: Vec<_> = self.0.lock().iter().map(Dependency::report).collect();
        Report { ready: dependencies.iter().all(|d| d.ready || !d.required), dependencies }
    }
}

impl Dependency {
    /// It can be used. Logs only when that is news.
    pub fn up(&self) {
        if self.is_up() {
            return;
        }
        let mut since = self.0.since.lock();
        if !self.0.up.swap(true, Ordering::Release) {
            if self.0.awaited {
                self.0.required.store(false, Ordering::Release);
            }
            self.0.gauge.set(1);
            *since = Since { time: clock::now(), detail: None };
            tracing::info!(dependency = self.0.name, "dependency is up");
        }
    }

    /// It cannot be used, and why. Logs only when that is news; the newest reason is kept.
    pub fn down(&self, why: impl Display) {
        self.lost(why, false);
    }

    /// It cannot be used but for reading, and why: down, to all but [`Dependency::is_readable`].
    pub fn readable(&self, why: impl Display) {
        self.lost(why, true);
    }

    fn lost(&self, why: impl Display, readable: bool) {
        let why = why.to_string();
        let mut since = self.0.since.lock();
        self.0.readable.store(readable, Ordering::Release);
        if self.0.up.swap(false, Ordering::Release) {
            self.0.gauge.set(0);
            since.time = clock::now();
            tracing::warn!(dependency = self.0.name, why, "dependency is down");
        } else if since.detail.as_deref() == Some("starting") {
            tracing::info!(dependency = self.0.name, why, "waiting for dependency");
        }
        since.detail = Some(why);
    }

    /// Whether it can be used now.
    pub fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Acquire)
    }

    /// Whether it can be used now, or at least be read.
    pub fn is_readable(&self) -> bool {
        self.is_up() || self.0.readable.load(Ordering::Acquire)
    }

    /// Waits until it can be used; false if `stop` comes first.
    pub async fn wait(&self, stop: &CancellationToken) -> bool {
        let up = async {
            while !self.is_up() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(up).await.is_some()
    }

    fn report(&self) -> DependencyReport {
        let since = self.0.since.lock();
        DependencyReport {
            name: self.0.name,
            ready: self.is_up(),
            required: self.0.required.load(Ordering::Acquire),
            detail: since.detail.clone(),
            since: since.time.to_rfc3339_opts(SecondsFormat::Millis, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_required_dependency_and_no_optional_one() {
        let health = Health::default();
        assert!(health.report().ready, "nothing to wait for");
        let (postgres, kafka) = (health.required("postgres"), health.required("kafka"));
        let redis = health.optional("redis");
        assert!(!health.report().ready);
        postgres.up();
        assert!(!health.report().ready);
        kafka.up();
        assert!(health.report().ready && !redis.is_up());
        postgres.down("connection refused");
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.dependencies[0].detail.as_deref(), Some("connection refused"));
    }

    #[test]
    fn an_awaited_dependency_is_required_until_it_has_been_up_once() {
        let health = Health::default();
        let shard = health.awaited("shard1");
        assert!(!health.report().ready);
        shard.up();
        shard.down("gone");
        assert!(health.report().ready);
    }

    #[test]
    fn a_dependency_starts_down_and_keeps_its_newest_reason() {
        let health = Health::default();
        let redis = health.optional("redis");
        let of_redis = || health.report().dependencies.remove(0);
        assert_eq!(of_redis().detail.as_deref(), Some("starting"));
        redis.down("refused");
        redis.down("timed out");
        assert_eq!(of_redis().detail.as_deref(), Some("timed out"));
        redis.up();
        assert!(redis.clone().is_up());
        assert_eq!(of_redis().detail, None);
    }

    #[test]
    fn what_can_only_be_read_is_not_ready() {
        let health = Health::default();
        let postgres = health.required("postgres");
        assert!(!postgres.is_readable());
        postgres.up();
        postgres.readable("read-only");
        assert!(postgres.is_readable() && !postgres.is_up() && !health.report().ready);
        postgres.down("gone");
        assert!(!postgres.is_readable());
    }

    #[test]
    fn since_tells_the_last_change_and_not_the_last_report() {
        let health = Health::default();
        let kafka = health.required("kafka");
        let long_ago = DateTime::UNIX_EPOCH;
        for change in [Dependency::up, |kafka: &Dependency| kafka.down("gone")] {
            kafka.0.since.lock().time = long_ago;
            change(&kafka);
            assert_ne!(kafka.0.since.lock().time, long_ago, "it changed");
            kafka.0.since.lock().time = long_ago;
            change(&kafka);
            assert_eq!(kafka.0.since.lock().time, long_ago, "it did not change");
        }
    }

    #[test]
    fn the_report_is_the_documented_json() {
        let health = Health::default();
        health.required("postgres").up();
        health.optional("redis").down("refused");
        let json = serde_json::to_value(health.report()).unwrap();
        assert_eq!(json["ready"], true);
        assert_eq!(json["dependencies"][0]["name"], "postgres");
        assert_eq!(json["dependencies"][0].get("detail"), None);
        assert_eq!(json["dependencies"][1]["required"], false);
        assert_eq!(json["dependencies"][1]["detail"], "refused");
        assert!(json["dependencies"][1]["since"].as_str().unwrap().ends_with('Z'));
    }
}
