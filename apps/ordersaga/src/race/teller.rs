//! Sends requests and tells what was sent, answered and heard.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ordersaga_contract::Fact;
use ordersaga_devstack::Service;
use ordersaga_saga::status::Status;
use ordersaga_terminal::brief;
use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::order;
use crate::target::System;

pub(super) const CREATE: &str = "/api/v1/orders/create";
/// How long the saga may take for what must happen.
const WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Tells a race.
pub(super) struct Teller {
    pub(super) system: System,
    begin: Instant,
    /// What of an order was told already.
    told: BTreeSet<(i64, Fact)>,
    has_failed: bool,
}

/// A request to be sent.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) service: Service,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) key: Option<String>,
}

/// Explains what comes.
pub(super) fn explain(text: &str) {
    say!("\n{text}");
}

impl Request {
    /// An order of one unit.
    pub(super) fn create(item: i64, client: i64) -> Self {
        let body = json!({"item_id": item, "seller_id": 1, "client_id": client});
        let path = CREATE.to_owned();
        Self { service: Service::CreateOrder, path, body: Some(body), key: None }
    }

    pub(super) fn cancel(order: i64) -> Self {
        let path = format!("/api/v1/orders/cancel?order_id={order}");
        Self { service: Service::CreateOrder, path, body: None, key: None }
    }
}

impl Teller {
    pub(super) fn new(system: System) -> Self {
        let (begin, told) = (Instant::now(), BTreeSet::new());
        Self { system, begin, told, has_failed: false }
    }

    fn tell(&self, text: &str) {
        say!("{:>8.3} s  {text}", self.begin.elapsed().as_secs_f64());
    }

    /// Sends requests, all at the same time, and tells the answers as they were given.
    pub(super) fn send(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        // The addresses are asked for before, so that nothing comes between the requests.
        let urls: Vec<_> = requests
            .iter()
            .map(|one| self.system.url(one.service, &one.path))
            .collect::<Result<_>>()?;
        for Request { path, body, key, .. } in requests {
            let key =
                key.as_ref().map_or_else(String::new, |key| format!("  Idempotency-Key: {key}"));
            let body = body.as_ref().map_or_else(String::new, |body| format!("  {body}"));
            self.tell(&format!("→ POST {path}{body}{key}"));
        }
        let post = |request: &Request, url: &str| {
            let key = request.key.as_deref();
            let headers: Vec<_> = key.into_iter().map(|key| ("idempotency-key", key)).collect();
            let answer = self.system.http().post(url, request.body.as_ref(), &headers)?;
            self.tell(&format!("← {} {}", answer.status, brief(&answer.text, 120)));
            Ok(answer)
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = requests
                .iter()
                .zip(&urls)
                .map(|(request, url)| scope.spawn(move || post(request, url)))
                .collect();
            let ended = all
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.collect()
        })
    }

    /// Sends one request that is to have this status.
    pub(super) fn post(&self, request: Request, status: u16) -> Result<Value> {
        let mut answers = self.send(&[request])?;
        answers.pop().context("no answer")?.accept(status)
    }

    /// An item of its own for the race.
    pub(super) fn item(&self, units: i64) -> Result<i64> {
        let name = format!("Item of a race, {}", order::now().format("%F %T"));
        let body = json!({"seller_id": 1, "price": 100, "name": name, "quantity": units});
        let path = "/api/v1/items/add".to_owned();
        let request = Request { service: Service::Store, path, body: Some(body), key: None };
        self.post(request, 201)?["item_id"].as_i64().context("the answer has no item_id")
    }

    /// Reads something of a service; null where there is none.
    pub(super) fn read(&self, service: Service, path: &str) -> Result<Value> {
        let answer = self.system.read(service, path, WITHIN)?;
        if answer.status == 404 { Ok(Value::Null) } else { answer.accept(200) }
    }

    /// Hears what becomes of an order until something is so, and tells each fact once.
    pub(super) fn hear(&mut self, id: i64, is_so: impl Fn(&Status) -> bool) -> Result<Status> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let path = format!("/api/v1/status?order_id={id}&wait_ms=0");
            let status = order::status(&self.read(Service::Monitoring, &path)?);
            for heard in status.iter().flat_map(|status| &status.facts) {
                if self.told.insert((id, heard.fact)) {
                    let (what, who) = (order::name(heard.fact), heard.fact.writer());
                    self.tell(&format!("  order {id}: {what}, says {who}"));
                }
            }
            if let Some(status) = status.filter(&is_so) {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "order {id} does not get on: `ordersaga order {id}`"
            );
            http::wait(LOOK);
        }
    }

    /// Looks again and again until there is something.
    pub(super) fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.tell(&format!("… until {what}"));
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = look()? {
                self.tell(&format!("  {what}"));
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "not within {} s: {what}", within.as_secs());
            http::wait(LOOK);
        }
    }

    /// Units that are free and held of an item.
    pub(super) fn stock(&self, item: i64) -> Result<(i64, i64)> {
        let item = self.read(Service::Store, &format!("/api/v1/items/find?item_id={item}"))?;
        let units = |name: &str| item[name].as_i64().with_context(|| format!("no {name}"));
        Ok((units("available")?, units("reserved")?))
    }

    /// Says whether something came out as it must.
    pub(super) fn check(&mut self, what: &str, is_so: bool) {
        say!("{} {what}", if is_so { '✓' } else { '✗' });
        self.has_failed |= !is_so;
    }

    /// The end of the race.
    pub(super) fn end(&self) -> ExitCode {
        if self.has_failed {
            say!("\nIt did not come out as it must.");
            return ExitCode::FAILURE;
        }
        say!("\nIt came out as it must.");
        ExitCode::SUCCESS
    }
}
