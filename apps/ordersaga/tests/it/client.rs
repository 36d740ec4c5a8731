//! What clients do with a [`Bed`], and what its services promise them.

use std::sync::PoisonError;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail, ensure};
use ordersaga_checker::History;
use ordersaga_devstack::Service;
use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::bed::{Bed, LOOK, WITHIN};

/// The endpoints.
pub(crate) const CREATE: &str = "/api/v1/orders/create";
pub(crate) const CREATE_MANY: &str = "/api/v1/orders/create-many";
pub(crate) const CANCEL: &str = "/api/v1/orders/cancel";
pub(crate) const FIND_ORDER: &str = "/api/v1/orders/find";
pub(crate) const STATUS: &str = "/api/v1/status";
pub(crate) const EVIDENCE: &str = "/api/v1/status/evidence";
pub(crate) const FOLD: &str = "/api/v1/status/fold";
pub(crate) const DEAD_LETTERS: &str = "/api/v1/dead-letters";
pub(crate) const DRY_RUN: &str = "/api/v1/dead-letters/dry-run";
pub(crate) const PARTITIONS: &str = "/api/v1/partitions";
pub(crate) const ORDERS: &str = "/api/v1/orders";
pub(crate) const STUCK: &str = "/api/v1/orders/stuck";
pub(crate) const STATS: &str = "/api/v1/stats";
pub(crate) const STREAM: &str = "/api/v1/stream";
pub(crate) const ITEMS: &str = "/api/v1/items";
pub(crate) const RESERVATIONS: &str = "/api/v1/items/reservations";
pub(crate) const WITNESS: &str = "/api/v1/items/witness";
pub(crate) const FIND_RESERVATION: &str = "/api/v1/reservations/find";
pub(crate) const FIND: &str = "/api/v1/items/find";
pub(crate) const ADD: &str = "/api/v1/items/add";

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

    /// It is a problem document of this kind, and names this field.
    pub(crate) fn is_problem(&self, status: u16, kind: &str, field: Option<&str>) -> Result<()> {
        let problem = self.expect(status)?;
        ensure!(self.header("content-type") == Some("application/problem+json"), "{self:?}");
        ensure!(problem["type"] == format!("urn:ordersaga:problem:{kind}"), "{problem}");
        ensure!(problem["status"] == status, "{problem}");
        ensure!(problem["field"].as_str() == field, "{field:?} is not named: {problem}");
        for name in ["title", "detail", "request_id"] {
            ensure!(
                problem[name].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {problem}"
            );
        }
        Ok(())
    }
}

/// An order for one unit of an item of seller 1.
pub(crate) fn order_for(item: i64) -> Value {
    json!({"item_id": item, "seller_id": 1, "client_id": 1})
}
impl Bed {
    /// What the services have promised so far.
    pub(crate) fn book(&self) -> History {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, write: impl FnOnce(&mut History) -> T) -> T {
        write(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.note(|book| book.acknowledged(None, order));
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
        self.note(|book| book.acknowledged(Some(key), order));
        Ok(order)
    }

    /// Places many orders together, under keys or not: the answer to each.
    pub(crate) async fn place_many(&self, orders: &[Value]) -> Result<Vec<Value>> {
        let body = json!({"orders": orders});
        let url = format!("{}{CREATE_MANY}", self.url(Service::CreateOrder));
        let answer = self.retry(|| Ok(self.http.post(&url).json(&body))).await?;
        let answers = answer.expect(200)?["orders"].as_array().cloned().context("no orders")?;
        ensure!(answers.len() == orders.len(), "{answers:?}");
        for (order, answer) in orders.iter().zip(&answers) {
            if let Some(id) = answer["order_id"].as_i64() {
                self.note(|book| book.acknowledged(order["idempotency_key"].as_str(), id));
            }
        }
        Ok(answers)
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
                Ok(answer) if !matches!(answer.status, 429 | 500..) => return Ok(answer),
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
            let status = answer.json()?;
            let step = status["step"].as_str().context("no step")?;
            self.note(|book| book.saw(order, step)).map_err(Error::msg)?;
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
        let address = self.services[&service].variable("ADMIN_LISTEN").context("no address")?;
        let request = self.http.get(format!("http://{address}/metrics"));
        Ok(sum_of(&self.send(request).await?.text, series))
    }
}

/// The sum of a page's series that begin with this text.
pub(crate) fn sum_of(page: &str, series: &str) -> i64 {
    let lines = page.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<i64>().ok()).sum()
}

/// One dependency in the body of `/ready`.
pub(crate) fn state_of<'a>(ready: &'a Value, name: &str) -> Result<&'a Value> {
    let all = ready["dependencies"].as_array().into_iter().flatten();
    let mut named = all.filter(|dependency| dependency["name"] == name);
    named.next().with_context(|| format!("{name} is not in {ready}"))
}
