//! A test's own system: databases and topics of its own on the shared parts, a Redis of its own
//! (items of two systems would meet under one key), three services on free ports, a client. All of
//! it goes away with the test, however that ends.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::FutureExt;
use ordersaga_devstack::{
    Cluster, Database, Databases, Part, Parts, Service, ServiceProcess, TemporaryFolder, free_port,
    service_env, shared,
};
use ordersaga_runtime::topics::{self, TopicsFile};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::records::Log;

/// How long anything may take that must happen.
pub(crate) const WITHIN: Duration = Duration::from_secs(40);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Systems that run at once: more would only wait for each other on a small machine.
static PLACES: Semaphore = Semaphore::const_new(3);

/// Runs a test's future on the runtime all tests share.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Runtime::new().unwrap_or_else(|error| panic!("no runtime: {error}")));
    RUNTIME.block_on(future)
}

/// Runs a test on an ordinary system, ready for orders.
pub(crate) fn saga(test: impl AsyncFnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    block_on(Plan::default().run(test))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !is_so().await.with_context(|| what.to_owned())? {
        ensure!(Instant::now() < deadline, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// How a test's system differs from the ordinary.
#[derive(Default)]
pub(crate) struct Plan {
    settings: Vec<(Service, &'static str, String)>,
    databases: Vec<(Cluster, Database)>,
    broker: Option<String>,
    idle: bool,
}

impl Plan {
    /// A setting of one service.
    pub(crate) fn set(mut self, service: Service, name: &'static str, value: &str) -> Self {
        self.settings.push((service, name, value.to_owned()));
        self
    }

    /// Another database in the place of one.
    pub(crate) fn database(mut self, cluster: Cluster, database: Database) -> Self {
        self.databases.push((cluster, database));
        self
    }

    /// Another broker.
    pub(crate) fn broker(mut self, address: String) -> Self {
        self.broker = Some(address);
        self
    }

    /// Nothing is started and no topics are made.
    pub(crate) fn idle(mut self) -> Self {
        self.idle = true;
        self
    }

    /// Makes the system, runs the test on it and clears it away.
    pub(crate) async fn run(self, test: impl AsyncFnOnce(&mut Bed) -> Result<()>) -> Result<()> {
        let _place = PLACES.acquire().await?;
        let idle = self.idle;
        let mut bed = Bed::new(self).await?;
        let outcome = AssertUnwindSafe(async {
            if !idle {
                bed.apply_topics().await?;
                bed.start_all().await?;
            }
            test(&mut bed).await
        })
        .catch_unwind()
        .await;
        if !matches!(outcome, Ok(Ok(()))) {
            bed.show_logs();
        }
        let cleared = bed.clear().await;
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        cleared
    }
}

/// A running system.
pub(crate) struct Bed {
    pub(crate) databases: Databases,
    pub(crate) services: BTreeMap<Service, ServiceProcess>,
    pub(crate) broker: String,
    /// What the topics' names begin with.
    pub(crate) prefix: String,
    pub(crate) http: Client,
    pub(crate) redis: Part,
    parts: &'static Parts,
    settings: Vec<(Service, &'static str, String)>,
    name: String,
    pools: BTreeMap<Cluster, PgPool>,
    folder: TemporaryFolder,
    book: Mutex<Book>,
}

/// What the services have promised so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Book {
    /// Orders whose creation was acknowledged.
    pub(crate) placed: BTreeSet<i64>,
    /// Orders whose cancellation was acknowledged.
    pub(crate) cancelled: BTreeSet<i64>,
    /// The orders each idempotency key was answered with.
    pub(crate) keys: BTreeMap<String, BTreeSet<i64>>,
    /// Orders that were seen as CANCELLED.
    seen_cancelled: BTreeSet<i64>,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("no JSON: {self:?}"))
    }

    /// The body, if the status is as wanted.
    pub(crate) fn expect(&self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, self.text);
        self.json()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An order for one unit of an item of seller 1.
pub(crate) fn order_for(item: i64) -> Value {
    json!({"item_id": item, "seller_id": 1, "client_id": 1})
}

impl Bed {
    async fn new(plan: Plan) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parts = shared().await?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}", std::process::id());
        let mut databases = parts.provision(&name).await?;
        for (cluster, database) in plan.databases {
            databases.set(cluster, database);
        }
        let pools = Cluster::ALL.map(|cluster| {
            let options = PgPoolOptions::new().max_connections(2);
            Ok((cluster, options.connect_lazy(&databases[cluster].superuser_url())?))
        });
        let http = Client::builder().no_proxy().timeout(WITHIN).build()?;
        let mut bed = Self {
            databases,
            services: BTreeMap::new(),
            broker: plan.broker.unwrap_or_else(|| parts.broker_address()),
            prefix: format!("{name}."),
            http,
            parts,
            redis: Part::temporary_redis().await?,
            settings: plan.settings,
            name,
            pools: pools.into_iter().collect::<Result<_>>()?,
            folder: TemporaryFolder::new("bed")?,
            book: Mutex::default(),
        };
        for service in Service::ALL {
            let process = bed.instance(service, free_port()?, service.name());
            bed.services.insert(service, process);
        }
        // The Location of a new order names monitoring's port, chosen only now.
        let status = format!("{}/api/v1/status", bed.url(Service::Monitoring));
        bed.settings.push((Service::CreateOrder, "STATUS_URL", status.clone()));
        if let Some(create) = bed.services.get_mut(&Service::CreateOrder) {
            create.set("STATUS_URL", &status);
        }
        Ok(bed)
    }

    /// A further process of a service on this system; not started.
    pub(crate) fn instance(&self, service: Service, port: u16, name: &str) -> ServiceProcess {
        let redis = self.redis.url();
        let mut environment =
            service_env(service, &self.databases, &self.broker, &redis, &self.prefix, port);
        for (of, name, value) in &self.settings {
            if *of == service {
                environment.insert((*name).to_owned(), value.clone());
            }
        }
        let log = self.folder.path().join(format!("{name}.log"));
        ServiceProcess::new(service, environment, log)
    }

    /// Makes the topics.
    pub(crate) async fn apply_topics(&self) -> Result<()> {
        topics::apply(&self.broker, &self.prefix, &TopicsFile::embedded()?).await.map(drop)
    }

    /// Starts the three services and waits until each is ready.
    pub(crate) async fn start_all(&self) -> Result<()> {
        for process in self.services.values() {
            process.start()?;
        }
        self.wait_ready().await
    }

    /// Waits until each of the three services is ready.
    pub(crate) async fn wait_ready(&self) -> Result<()> {
        for process in self.services.values() {
            process.wait_ready(WITHIN).await?;
        }
        Ok(())
    }

    /// Starts one service and waits until it is ready.
    pub(crate) async fn start(&self, service: Service) -> Result<()> {
        self.services[&service].start()?;
        self.services[&service].wait_ready(WITHIN).await
    }

    async fn clear(&mut self) -> Result<()> {
        for process in self.services.values() {
            process.kill9().await?;
        }
        for pool in self.pools.values() {
            pool.close().await;
        }
        self.parts.drop_databases(&self.name).await?;
        if self.broker == self.parts.broker_address() {
            topics::delete(&self.broker, &self.prefix, &TopicsFile::embedded()?).await?;
        }
        Ok(())
    }

    #[expect(clippy::print_stderr, reason = "shown by the test harness when the test fails")]
    fn show_logs(&self) {
        let entries = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        for entry in entries {
            eprintln!("--- {}\n{}", entry.file_name().display(), end_of(&entry.path()));
        }
    }

    /// A database, as superuser.
    pub(crate) fn sql(&self, cluster: Cluster) -> &PgPool {
        &self.pools[&cluster]
    }

    /// A number that a query of one database gives.
    pub(crate) async fn number(&self, cluster: Cluster, query: &'static str) -> Result<i64> {
        let found = sqlx::query_scalar(query).fetch_one(self.sql(cluster)).await;
        found.with_context(|| format!("{cluster}: {query}"))
    }

    /// The records of this system's topics.
    pub(crate) fn log(&self) -> Log {
        Log { broker: self.broker.clone(), prefix: self.prefix.clone() }
    }

    /// What the services have promised so far.
    pub(crate) fn book(&self) -> Book {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, write: impl FnOnce(&mut Book)) {
        write(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A service's base URL.
    pub(crate) fn url(&self, service: Service) -> String {
        self.services[&service].url()
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    /// GET.
    pub(crate) async fn get(&self, service: Service, path: &str) -> Result<Answer> {
        self.send(self.http.get(format!("{}{path}", self.url(service)))).await
    }

    /// POST of a JSON body, or of none.
    pub(crate) async fn post(
        &self,
        service: Service,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.url(service)));
        self.send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Places an order.
    pub(crate) async fn place(&self, order: &Value) -> Result<i64> {
        let answer = self.post(Service::CreateOrder, "/api/v1/orders/create", Some(order)).await?;
        let order = answer.expect(201)?["order_id"].as_i64().context("no order_id")?;
        self.note(|book| _ = book.placed.insert(order));
        Ok(order)
    }

    /// Places an order as a careful client does: under a key, again and again until there is an
    /// answer.
    pub(crate) async fn insist(&self, key: &str, order: &Value) -> Result<i64> {
        let url = format!("{}/api/v1/orders/create", self.url(Service::CreateOrder));
        let request = || {
            let value = HeaderValue::from_str(key)?;
            anyhow::Ok(self.http.post(&url).json(order).header("Idempotency-Key", value))
        };
        let answer = self.retry(request).await.with_context(|| key.to_owned())?;
        let order = answer.expect(201)?["order_id"].as_i64().context("no order_id")?;
        self.note(|book| {
            book.placed.insert(order);
            book.keys.entry(key.to_owned()).or_default().insert(order);
        });
        Ok(order)
    }

    /// Cancels an order, again and again until there is an answer.
    pub(crate) async fn insist_cancel(&self, order: i64) -> Result<()> {
        let url = format!("{}/api/v1/orders/cancel", self.url(Service::CreateOrder));
        let request = || Ok(self.http.post(&url).query(&[("order_id", order)]));
        self.retry(request).await?.expect(202)?;
        self.note(|book| _ = book.cancelled.insert(order));
        Ok(())
    }

    /// Repeats a request while its outcome is unknown or it is asked to come again.
    async fn retry(&self, request: impl Fn() -> Result<RequestBuilder>) -> Result<Answer> {
        let deadline = Instant::now() + WITHIN;
        loop {
            match self.send(request()?).await {
                Ok(answer) if !matches!(answer.status, 409 | 500..) => return Ok(answer),
                other if Instant::now() >= deadline => bail!("no answer: {other:?}"),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Cancels an order.
    pub(crate) async fn cancel(&self, order: i64) -> Result<()> {
        let path = format!("/api/v1/orders/cancel?order_id={order}");
        self.post(Service::CreateOrder, &path, None).await?.expect(202)?;
        self.note(|book| _ = book.cancelled.insert(order));
        Ok(())
    }

    /// Asks for an order's status, and holds monitoring to it: nothing leaves CANCELLED.
    pub(crate) async fn ask_status(&self, order: i64, wait_ms: u32) -> Result<Answer> {
        let wait = if wait_ms > 0 { format!("&wait_ms={wait_ms}") } else { String::new() };
        let path = format!("/api/v1/status?order_id={order}{wait}");
        let answer = self.get(Service::Monitoring, &path).await?;
        if answer.status == 200 {
            let step = answer.json()?["step"].clone();
            if step == "CANCELLED" {
                self.note(|book| _ = book.seen_cancelled.insert(order));
            } else {
                let was = self.book().seen_cancelled.contains(&order);
                ensure!(!was, "order {order} left CANCELLED: {step}");
            }
        }
        Ok(answer)
    }

    /// An order's status.
    pub(crate) async fn status(&self, order: i64) -> Result<Value> {
        self.ask_status(order, 0).await?.expect(200)
    }

    /// The status of an order once it has reached a step.
    pub(crate) async fn reaches(&self, order: i64, step: &str) -> Result<Value> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let answer = self.ask_status(order, 1000).await?;
            if answer.status == 200 {
                let status = answer.json()?;
                if status["step"] == step {
                    return Ok(status);
                }
            }
            ensure!(
                Instant::now() < deadline,
                "order {order} is not {step} within {WITHIN:?}: {}",
                answer.text
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An item as the store shows it.
    pub(crate) async fn item(&self, item: i64) -> Result<Value> {
        self.get(Service::Store, &format!("/api/v1/items/find?item_id={item}")).await?.expect(200)
    }

    /// Adds an item of seller 1.
    pub(crate) async fn add_item(&self, quantity: u32) -> Result<i64> {
        let item = json!({"seller_id": 1, "price": 100, "name": "thing", "quantity": quantity});
        let answer = self.post(Service::Store, "/api/v1/items/add", Some(&item)).await?;
        answer.expect(201)?["item_id"].as_i64().context("no item_id")
    }

    /// A metric of a service: the sum of all series whose text begins so.
    pub(crate) async fn metric(&self, service: Service, series: &str) -> Result<i64> {
        let page = self.get(service, "/metrics").await?;
        Ok(sum_of(&page.text, series))
    }
}

/// The sum of a page's series that begin with this text.
pub(crate) fn sum_of(page: &str, series: &str) -> i64 {
    let lines = page.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<i64>().ok()).sum()
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
