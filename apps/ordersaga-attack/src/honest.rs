//! Honest clients, on 127.0.0.1: what they ask for, and whether they get it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ordersaga_devstack::Service;
use ordersaga_runtime::http::IDEMPOTENCY_KEY;
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::system::System;

/// An order is placed once in so much time.
const EVERY: Duration = Duration::from_millis(20);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an order may take to be decided: as long as its deadline, and the news of it.
const DECIDED_WITHIN: Duration = Duration::from_secs(90);
/// How long a client waits until it asks again for what it was told not to wait for.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a service that turns a request away wants it to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A client that wants to be sure asks again after so much time.
const LATER: Duration = Duration::from_secs(1);
/// Connections are kept for so long: less than a service keeps an idle one that is in the way.
const KEPT: Duration = Duration::from_millis(500);

const CUT_OFF: &str = "cut off";

/// Orders placed so far, in all phases: each has a key of its own.
static ORDERS: AtomicU64 = AtomicU64::new(0);

/// What honest clients met.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// How long requests took that were answered as wanted.
    pub(crate) times: Vec<Duration>,
    /// How often they were asked for again.
    pub(crate) again: u64,
    /// What else happened, and how often.
    pub(crate) wrong: BTreeMap<String, u64>,
}

/// All honest clients.
pub(crate) struct Customers {
    /// Keeps its connections, as programs do.
    http: Client,
    /// Opens a connection for each request, as probes do.
    probe: Client,
    urls: BTreeMap<Service, String>,
    items: Vec<i64>,
    newest_order: Arc<AtomicI64>,
    tally: Mutex<Tally>,
}

impl Customers {
    pub(crate) fn new(system: &System, newest_order: Arc<AtomicI64>) -> reqwest::Result<Arc<Self>> {
        let client = || Client::builder().no_proxy().timeout(PATIENCE).pool_idle_timeout(KEPT);
        let services = system.services.iter();
        Ok(Arc::new(Self {
            http: client().build()?,
            probe: client().pool_max_idle_per_host(0).build()?,
            urls: services.map(|(service, process)| (*service, process.url())).collect(),
            items: system.items.clone(),
            newest_order,
            tally: Mutex::default(),
        }))
    }

    /// Places orders until the attack is over, and waits until all customers are served.
    pub(crate) async fn shop(self: &Arc<Self>, mut is_over: oneshot::Receiver<()>) -> Tally {
        let mut clock = tokio::time::interval(EVERY);
        let mut customers = JoinSet::new();
        for item in self.items.iter().cycle() {
            tokio::select! {
                _ = &mut is_over => break,
                _ = clock.tick() => customers.spawn(self.clone().visit(*item)),
            };
        }
        while customers.join_next().await.is_some() {}
        self.tally.lock().clone()
    }

    /// Orders, waits for the outcome, looks at the item, and asks how the services are.
    async fn visit(self: Arc<Self>, item: i64) {
        let Some(order) = self.place(item).await else { return };
        self.await_decision(order).await;
        let find = self.http.get(self.url(Service::Store, "/api/v1/items/find"));
        self.ask("find", &[200], find.query(&[("item_id", item)])).await;
        for service in Service::ALL {
            for page in ["/health", "/ready"] {
                self.ask(page, &[200], self.probe.get(self.url(service, page))).await;
            }
        }
        tokio::time::sleep(LATER).await;
        // Nobody may have cancelled it.
        self.await_decision(order).await;
    }

    async fn place(&self, item: i64) -> Option<i64> {
        let wish = json!({"item_id": item, "seller_id": 1, "client_id": 1, "quantity": 1});
        let create = self.http.post(self.url(Service::CreateOrder, "/api/v1/orders/create"));
        let create = create.header(IDEMPOTENCY_KEY, ORDERS.fetch_add(1, Ordering::Relaxed));
        let order = self.ask("create", &[201], create.json(&wish)).await?["order_id"].as_i64()?;
        self.newest_order.store(order, Ordering::Relaxed);
        Some(order)
    }

    /// Asks by long polls until the order is decided. The service may answer at once that it is
    /// not, or not heard of yet, if too many wait.
    async fn await_decision(&self, order: i64) {
        let deadline = Instant::now() + DECIDED_WITHIN;
        loop {
            let status = self.http.get(self.url(Service::Monitoring, "/api/v1/status"));
            let status = status.query(&[("order_id", order), ("wait_ms", 5_000)]);
            let Some(status) = self.ask("status", &[200, 404], status).await else { return };
            match status["step"].as_str() {
                Some("SHIPPING") => return,
                Some("CANCELLED") => return self.note("an order was cancelled".to_owned()),
                _ if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                _ => return self.note("an order was not decided".to_owned()),
            }
        }
    }

    /// Asks, and notes how long it took or what was wrong; what the answer says, if it is wanted.
    /// What is answered 429 or 503 was not done: it is asked for again, as `Retry-After` says, while
    /// there is time. What is cut off is asked for once more: a connection that is kept may have to
    /// make room in the very moment in which a request is sent over it (RFC 9112, 9.3.1), and all
    /// that is asked for here may be repeated.
    async fn ask(&self, what: &str, wanted: &[u16], request: RequestBuilder) -> Option<Value> {
        let begin = Instant::now();
        let mut was_cut_off = false;
        loop {
            let Some(again) = request.try_clone() else { break };
            match Self::answer(again).await {
                Ok((status, body)) if wanted.contains(&status) => {
                    self.tally.lock().times.push(begin.elapsed());
                    return Some(body);
                }
                Ok((429 | 503, _)) if begin.elapsed() + RETRY_AFTER < PATIENCE => {
                    self.tally.lock().again += 1;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Ok((status, _)) => {
                    self.note(format!("{what} {status}"));
                    break;
                }
                Err(CUT_OFF) if !was_cut_off => {
                    was_cut_off = true;
                    self.tally.lock().again += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(wrong) => {
                    self.note(format!("{what} {wrong}"));
                    break;
                }
            }
        }
        None
    }

    async fn answer(request: RequestBuilder) -> Result<(u16, Value), &'static str> {
        let answer = async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            reqwest::Result::Ok((status, answer.json::<Value>().await?))
        };
        answer.await.map_err(|error| match error {
            error if error.is_timeout() => "not answered in time",
            error if error.is_connect() => "not connected",
            _ => CUT_OFF,
        })
    }

    fn note(&self, wrong: String) {
        *self.tally.lock().wrong.entry(wrong).or_default() += 1;
    }

    fn url(&self, service: Service, path: &str) -> String {
        format!("{}{path}", self.urls[&service])
    }
}
