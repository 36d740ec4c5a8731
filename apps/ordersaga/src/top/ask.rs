//! Asks the services again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ordersaga_devstack::Service;
use serde_json::Value;

use crate::http::{Http, wait};
use crate::metrics::Metrics;
use crate::target::System;

/// Orders that are asked for.
const ORDERS: &str = "/api/v1/orders?limit=100";
const STUCK: &str = "/api/v1/orders/stuck?limit=20";

/// One answer, or a sentence about why there is none.
#[derive(Debug)]
pub(super) enum News {
    /// A service's metrics, and when they came.
    Metrics(Service, Result<(Instant, Metrics), String>),
    /// The list of the newest orders.
    Orders(Result<Value, String>),
    /// The list of those that are stuck.
    Stuck(Result<Value, String>),
}

/// The threads that ask. They end when nobody hears them any more.
pub(super) struct Asker {
    is_paused: Arc<AtomicBool>,
}

impl Asker {
    /// Begins to ask each service for its metrics, and monitoring for the lists.
    pub(super) fn start(system: &Arc<System>, interval: Duration) -> (Self, Receiver<News>) {
        let (sender, news) = channel();
        let is_paused = Arc::new(AtomicBool::new(false));
        let begin = |ask: fn(&Http, &str, Service) -> News, service: Service| {
            let repeat = Repeat { interval, is_paused: is_paused.clone(), sender: sender.clone() };
            let system = system.clone();
            thread::spawn(move || {
                // Monitoring, which knows the addresses, may be away at first.
                repeat.run(|| {
                    let url = system.address_or_usual(service).unwrap_or_default();
                    ask(system.http(), &url, service)
                });
            });
        };
        for service in Service::ALL {
            begin(metrics, service);
        }
        begin(|http, url, _| News::Orders(list(http, url, ORDERS)), Service::Monitoring);
        begin(|http, url, _| News::Stuck(list(http, url, STUCK)), Service::Monitoring);
        (Self { is_paused }, news)
    }

    /// Asks no more, or again.
    pub(super) fn pause(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }
}

struct Repeat {
    interval: Duration,
    is_paused: Arc<AtomicBool>,
    sender: Sender<News>,
}

impl Repeat {
    fn run(&self, ask: impl Fn() -> News) {
        loop {
            if !self.is_paused.load(Ordering::Relaxed) && self.sender.send(ask()).is_err() {
                return;
            }
            wait(self.interval);
        }
    }
}

fn metrics(http: &Http, url: &str, service: Service) -> News {
    let read = || {
        let answer = http.get(&format!("{url}/metrics"))?;
        anyhow::ensure!(answer.status == 200, "{}", answer.problem());
        Ok((Instant::now(), Metrics::parse(&answer.text)?))
    };
    News::Metrics(service, read().map_err(|error| format!("{error:#}")))
}

fn list(http: &Http, url: &str, path: &str) -> Result<Value, String> {
    let answer = http.get(&format!("{url}{path}")).and_then(|answer| answer.accept(200));
    answer.map_err(|error| format!("{error:#}"))
}
