//! Clients: each wants one order, asks for it as a real client does, again and again where that is
//! safe, and remembers what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordersaga_checker::{History, Violation, Wish};
use ordersaga_devstack::ServiceProcess;
use parking_lot::{Mutex, RwLock};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Wishes at work at once; more wait for their turn, as behind a load balancer's limit.
const AT_ONCE: usize = 256;
/// Violations of one invariant that are noted.
const LISTED: usize = 50;
/// People who look at one item after the other.
const BROWSERS: u64 = 6;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it goes on asking before it counts as abandoned: longer than any fault lasts.
const PERSEVERANCE: Duration = Duration::from_mins(3);

/// Clients from this number on are probes.
pub(crate) const FIRST_PROBE: i64 = 1 << 32;

/// What an item can have of units.
const MOST_UNITS: i64 = 1_000;

/// Where the services are.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Instances of create-order; the first is always there.
    pub(crate) create: RwLock<Vec<String>>,
    pub(crate) status: String,
    pub(crate) store: String,
}

/// All clients and what they know.
pub(crate) struct Clients {
    seed: u64,
    http: Client,
    addresses: Addresses,
    begin: Instant,
    places: Semaphore,
    tasks: TaskTracker,
    /// The next probe's client: numbers that no other client has.
    probes: AtomicI64,
    known: Mutex<Known>,
}

/// What all clients know together.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) history: History,
    pub(crate) reads: usize,
    pub(crate) refused: BTreeMap<u16, usize>,
    /// What clients saw that must not be.
    pub(crate) seen: Vec<Violation>,
    /// Acknowledged creates and refused requests: when, and how long they took.
    pub(crate) created: Vec<(Duration, Duration)>,
    pub(crate) errors: Vec<Duration>,
    /// What can be ordered.
    items: Vec<i64>,
}

impl Known {
    /// Notes what must not be; of each invariant only so often.
    fn saw_broken(&mut self, violation: Violation) {
        let alike = self.seen.iter().filter(|other| other.invariant == violation.invariant);
        if alike.count() < LISTED {
            self.seen.push(violation);
        }
    }

    /// Half of all times one of the newest; the others rarely change.
    fn some_item(&self, rng: &mut fastrand::Rng) -> i64 {
        let among = if rng.bool() { self.items.len().min(30) } else { self.items.len() };
        let place = (self.items.len() - among) + rng.usize(..among.max(1));
        self.items.get(place).copied().unwrap_or(1)
    }
}

/// One client's wish, and its chances.
struct Errand {
    clients: Arc<Clients>,
    client: i64,
    rng: fastrand::Rng,
    /// Item, seller, units.
    wanted: (i64, i64, i64),
    key: Option<String>,
}

/// An answer, if there was one.
struct Answer {
    /// 0: none.
    status: u16,
    body: Value,
}

impl Clients {
    pub(crate) fn new(seed: u64, addresses: Addresses, begin: Instant) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            seed,
            http: Client::builder().no_proxy().timeout(PATIENCE).build()?,
            addresses,
            begin,
            places: Semaphore::new(AT_ONCE),
            tasks: TaskTracker::new(),
            probes: AtomicI64::new(FIRST_PROBE),
            known: Mutex::default(),
        }))
    }

    /// Stocks the shelves: a few scarce items, the rest plentiful.
    pub(crate) async fn stock(self: &Arc<Self>, items: u32) -> Result<()> {
        for number in 0..items {
            let units = if number % 4 == 0 { 5 } else { MOST_UNITS };
            self.add_item(units).await.context("no item could be added")?;
        }
        Ok(())
    }

    async fn add_item(&self, units: i64) -> Option<i64> {
        let item = json!({"seller_id": 1, "price": 100, "name": "thing", "quantity": units});
        let url = format!("{}/api/v1/items/add", self.addresses.store);
        let answer = self.send(self.http.post(url).json(&item)).await;
        let item = answer.body["item_id"].as_i64().filter(|_| answer.status == 201)?;
        let mut known = self.known.lock();
        known.history.items.insert(item, units);
        known.items.push(item);
        Some(item)
    }

    /// A further instance of create-order takes requests, until [`Clients::leave`].
    pub(crate) fn join(&self, url: String) {
        self.addresses.create.write().push(url);
    }

    /// An instance does not take requests any more.
    pub(crate) fn leave(&self, url: &str) {
        self.addresses.create.write().retain(|other| other != url);
    }

    /// Lets the clients with these numbers have their wishes, evenly over a time; returns when the
    /// last one has begun.
    pub(crate) async fn wish(self: &Arc<Self>, clients: std::ops::Range<i64>, over: Duration) {
        let begin = tokio::time::Instant::now();
        let count = clients.end - clients.start;
        for client in clients.clone() {
            let share = (client - clients.start) as f64 / count.max(1) as f64;
            tokio::time::sleep_until(begin + over.mul_f64(share)).await;
            let own = self.clone();
            self.tasks.spawn(async move {
                let _place = own.places.acquire().await;
                Errand::new(own.clone(), client).run().await;
            });
            // However slow the services are, not all wishes of the run wait at once.
            while self.tasks.len() > 2 * AT_ONCE {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// People look at items all the time, until what this returns is dropped.
    pub(crate) fn browse(self: &Arc<Self>) -> Vec<AbortOnDropHandle<()>> {
        let one = |number| {
            let own = self.clone();
            let mut rng = fastrand::Rng::with_seed(self.seed ^ number);
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let item = own.known.lock().some_item(&mut rng);
                    own.find(item).await;
                    tokio::time::sleep(Duration::from_millis(rng.u64(2..20))).await;
                }
            }))
        };
        (0..BROWSERS).map(one).collect()
    }

    /// Waits until every client has what it wanted or has given up.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What all clients know.
    pub(crate) fn known(&self) -> parking_lot::MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// Orders one unit, under keys, again and again until an order is SHIPPING.
    pub(crate) async fn probe(self: &Arc<Self>, item: i64) {
        loop {
            let client = self.probes.fetch_add(1, Ordering::Relaxed);
            let mut errand = Errand::new(self.clone(), client);
            errand.key = Some(format!("probe-{client}"));
            errand.wants(item, 1, 1);
            if let Some(order) = errand.place().await
                && errand.await_end(order).await
            {
                return;
            }
        }
    }

    /// A plentiful item that nobody else orders.
    pub(crate) async fn probe_item(&self) -> i64 {
        loop {
            if let Some(item) = self.add_item(MOST_UNITS).await {
                self.known.lock().items.retain(|other| *other != item);
                return item;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn broken(
        &self,
        invariant: &'static str,
        order: impl Into<Option<i64>>,
        what: String,
    ) {
        self.known.lock().saw_broken(Violation { invariant, order: order.into(), what });
    }

    async fn find(&self, item: i64) {
        let url = format!("{}/api/v1/items/find", self.addresses.store);
        let answer = self.send(self.http.get(url).query(&[("item_id", item)])).await;
        self.known.lock().reads += 1;
        let (reserved, quantity) = (&answer.body["reserved"], &answer.body["quantity"]);
        if answer.status == 200 && reserved.as_i64() > quantity.as_i64() {
            self.broken("I2", None, format!("item {item} is oversold: {}", answer.body));
        }
    }

    /// Whether an instance publishes, and finds nothing in its service's outbox that was left there
    /// `since` so long.
    pub(crate) async fn publishes_all(&self, instance: &ServiceProcess, since: Duration) -> bool {
        let url = format!("{}/metrics", instance.url());
        let page = async { self.http.get(url).send().await?.text().await };
        let Ok(page) = page.await else { return false };
        let value = |name: &str| {
            let mut lines = page.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(series, _)| *series == name).and_then(|(_, value)| value.parse().ok())
        };
        let oldest = value("outbox_oldest_seconds").unwrap_or(f64::INFINITY);
        value("outbox_lease") == Some(1.0) && oldest < since.as_secs_f64()
    }

    async fn send(&self, request: RequestBuilder) -> Answer {
        let answer = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let body = response.json().await?;
            reqwest::Result::Ok(Answer { status, body })
        };
        let answer = answer.await.unwrap_or(Answer { status: 0, body: Value::Null });
        if !(200..300).contains(&answer.status) {
            let at = self.begin.elapsed();
            let mut known = self.known.lock();
            *known.refused.entry(answer.status).or_default() += 1;
            known.errors.push(at);
        }
        answer
    }
}

impl Errand {
    fn new(clients: Arc<Clients>, client: i64) -> Self {
        let mut rng = fastrand::Rng::with_seed(clients.seed ^ client.unsigned_abs() << 20);
        let item = clients.known.lock().some_item(&mut rng);
        let (item, seller) = match rng.u32(..100) {
            0 => (999_999, 1),
            1 => (item, 2),
            _ => (item, 1),
        };
        let wanted = (item, seller, rng.i64(1..=3));
        let key = (rng.u32(..10) < 7).then(|| format!("wish-{client}"));
        Self { clients, client, rng, wanted, key }
    }

    fn wants(&mut self, item: i64, seller: i64, units: i64) {
        self.wanted = (item, seller, units);
    }

    /// The body of the request.
    fn order(&self) -> Value {
        let (item, seller, quantity) = self.wanted;
        json!({
            "item_id": item, "seller_id": seller, "client_id": self.client, "quantity": quantity,
        })
    }

    async fn run(mut self) {
        if self.rng.u32(..100) < 2 {
            let units = self.rng.i64(1..400);
            self.clients.add_item(units).await;
        }
        let Some(order) = self.place().await else { return };
        if self.rng.u32(..10) < 3 {
            self.read(order).await;
        }
        if self.rng.u32(..4) == 0 {
            let pauses = [0, 0, 20, 200, 3_000];
            let pause = pauses[self.rng.usize(..pauses.len())];
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // Somebody looks at the item just when it changes.
            let (clients, item) = (self.clients.clone(), self.wanted.0);
            tokio::join!(self.cancel(order), clients.find(item));
            for _ in 0..3 {
                self.read(order).await;
            }
        }
        if self.key.is_some() && self.rng.u32(..10) == 0 {
            self.place_again(order).await;
        }
        if self.rng.u32(..10) < 4 {
            self.read(order).await;
        }
    }

    /// Notes what happened to this wish.
    fn note(&self, what: String) {
        let second = self.clients.begin.elapsed().as_secs_f64();
        self.change(|wish| wish.log.push((second, what)));
    }

    fn change(&self, change: impl FnOnce(&mut Wish)) {
        let mut known = self.clients.known.lock();
        let wish = known.history.wishes.entry(self.client).or_default();
        wish.key.clone_from(&self.key);
        wish.wanted = self.wanted;
        change(wish);
    }

    /// An instance of create-order: now this one, now that.
    fn desk(&self) -> String {
        let all = self.clients.addresses.create.read();
        all[fastrand::usize(..all.len())].clone()
    }

    async fn post_order(&self, body: &Value) -> Answer {
        let url = format!("{}/api/v1/orders/create", self.desk());
        let mut request = self.clients.http.post(url).json(body);
        if let Some(key) = &self.key {
            request = request.header("Idempotency-Key", key);
        }
        self.change(|wish| wish.sent += 1);
        let sent = Instant::now();
        let answer = self.clients.send(request).await;
        let latency = sent.elapsed();
        self.note(format!("create: {} after {} ms", answer.status, latency.as_millis()));
        if let (201, Some(order)) = (answer.status, answer.body["order_id"].as_i64()) {
            self.change(|wish| {
                wish.acknowledged += 1;
                wish.orders.insert(order);
            });
            let at = self.clients.begin.elapsed();
            let mut known = self.clients.known.lock();
            known.history.acknowledged(self.key.as_deref(), order);
            known.created.push((at, latency));
        }
        answer
    }

    /// Asks until there is an order. Without a key an unanswered request is sometimes let be, and
    /// sometimes repeated, which may make two orders.
    async fn place(&mut self) -> Option<i64> {
        let give_up = Instant::now() + PERSEVERANCE;
        let body = self.order();
        while Instant::now() < give_up {
            let answer = if self.key.is_some() && self.rng.u32(..20) == 0 {
                // An impatient client: the same request twice at once.
                tokio::join!(self.post_order(&body), self.post_order(&body)).0
            } else {
                self.post_order(&body).await
            };
            match answer.status {
                201 => return answer.body["order_id"].as_i64(),
                0 | 504 if self.key.is_none() && self.rng.bool() => return None,
                0 | 429 | 503 | 504 => self.pause().await,
                status => {
                    self.clients.broken(
                        "HTTP",
                        None,
                        format!("create answered {status}: {}", answer.body),
                    );
                    return None;
                }
            }
        }
        self.clients.broken("I1", None, format!("client {} was never answered", self.client));
        None
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(50..500))).await;
    }

    /// Repeats a request that was answered: the same order, and an error for another body.
    async fn place_again(&mut self, order: i64) {
        let mut body = self.order();
        let answer = self.post_order(&body).await;
        let again = answer.body["order_id"].as_i64();
        let good = again == Some(order) || matches!(answer.status, 0 | 429 | 503 | 504);
        if !good {
            let what = format!("the same key again: {} {}", answer.status, answer.body);
            self.clients.broken("I5", order, what);
        }
        body["quantity"] = json!(9);
        let answer = self.post_order(&body).await;
        if !matches!(answer.status, 0 | 422 | 429 | 503 | 504) {
            let what = format!("the key with another body: {} {}", answer.status, answer.body);
            self.clients.broken("I5", order, what);
        }
    }

    async fn cancel(&mut self, order: i64) {
        let key = self.rng.bool().then(|| format!("cancel-{}", self.client));
        let give_up = Instant::now() + PERSEVERANCE;
        while Instant::now() < give_up {
            let url = format!("{}/api/v1/orders/cancel", self.desk());
            let mut request = self.clients.http.post(url).query(&[("order_id", order)]);
            self.change(|wish| wish.cancels += 1);
            if let Some(key) = &key {
                request = request.header("Idempotency-Key", key);
            }
            let answer = self.clients.send(request).await;
            self.note(format!("cancel: {}", answer.status));
            match answer.status {
                202 => {
                    self.clients.known.lock().history.cancelled.insert(order);
                    return;
                }
                0 | 429 | 503 | 504 => self.pause().await,
                status => {
                    self.clients.broken("HTTP", order, format!("cancel: {status} {}", answer.body));
                    return;
                }
            }
        }
        self.clients.broken("I1", order, "its cancel was never answered".to_owned());
    }

    /// Asks for the status once; what is not known or not answered yet is no error.
    async fn read(&mut self, order: i64) -> Option<String> {
        let url = format!("{}/api/v1/status", self.clients.addresses.status);
        let wait = [0, 200, 1_000][self.rng.usize(..3)];
        let request = self.clients.http.get(url).query(&[("order_id", order), ("wait_ms", wait)]);
        let answer = self.clients.send(request).await;
        let step = answer.body["step"].as_str().unwrap_or_default().to_owned();
        self.note(format!("status: {} {step}", answer.status));
        let mut known = self.clients.known.lock();
        known.reads += 1;
        match answer.status {
            200 => {
                if let Err(what) = known.history.saw(order, &step) {
                    known.saw_broken(Violation { invariant: "I7", order: Some(order), what });
                }
                Some(step)
            }
            404 => {
                if let Err(what) = known.history.missed(order) {
                    known.saw_broken(Violation { invariant: "I4", order: Some(order), what });
                }
                None
            }
            0 | 429 | 503 | 504 => None,
            status => {
                let what = format!("status answered {status}: {}", answer.body);
                known.saw_broken(Violation { invariant: "HTTP", order: Some(order), what });
                None
            }
        }
    }

    /// Waits for the order's end; whether it is SHIPPING.
    async fn await_end(&mut self, order: i64) -> bool {
        loop {
            match self.read(order).await.as_deref() {
                Some("SHIPPING") => return true,
                Some("CANCELLED") => return false,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
