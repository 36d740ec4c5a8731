//! An example API, driven over a real socket and through its endpoint.
#![expect(clippy::unused_async, reason = "poem-openapi wants operations to be async")]

mod auth;
mod input;
mod limits;
mod pages;
mod socket;

use std::{sync::Arc, time::Duration};

use poem::{Body, Endpoint, Request, Response, http::Method, web::Data};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Query},
    types::Example,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::{AuthConfig, HttpConfig},
    health::Health,
};

#[derive(Object, Serialize, Deserialize, Clone)]
#[oai(example)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    /// The item.
    item_id: Id,
    #[serde(default = "one")]
    #[oai(default = "one")]
    quantity: Bounded<1, 1000>,
}

impl Example for NewOrder {
    fn example() -> Self {
        Self { item_id: Id::new(1).unwrap(), quantity: one() }
    }
}

fn one() -> Bounded<1, 1000> {
    Bounded::new(1).unwrap()
}

#[derive(Object, Serialize)]
struct OrderCreated {
    order_id: i64,
}

#[derive(ApiResponse)]
enum Created {
    /// The order was taken.
    #[oai(status = 201)]
    Created(
        JsonBody<OrderCreated>,
        /// Where its status is.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(Clone, Default)]
struct Api {
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

#[OpenApi]
impl Api {
    /// Create an order.
    #[oai(path = "/api/orders", method = "post", operation_id = "create_order")]
    async fn create(
        &self,
        body: JsonBody<NewOrder>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<AsciiText<1, 10>>>,
    ) -> Result<Created, Failure> {
        if key.0.is_some_and(|key| key.as_str() == "used") {
            return Err(Failure::key_reused());
        }
        let order_id = body.0.item_id.get() * 10 + body.0.quantity.get();
        Ok(Created::Created(JsonBody(OrderCreated { order_id }), format!("/s?id={order_id}")))
    }

    /// Find an order.
    #[oai(path = "/api/orders", method = "get", operation_id = "find_order")]
    async fn find(
        &self,
        order_id: Query<Id>,
        wait_ms: Query<Option<Bounded<0, 1000>>>,
    ) -> Result<JsonBody<OrderCreated>, LookupFailure> {
        let _ = wait_ms;
        match order_id.get() {
            404 => Err(LookupFailure::not_found("order 404 is not known")),
            429 => Err(Failure::shed(Shed::Queue).with_retry_after(7).into()),
            500 => Err(Failure::internal(anyhow::anyhow!("password=geheim: no relation")).into()),
            503 => Err(Failure::unavailable(anyhow::anyhow!("password=geheim")).into()),
            666 => panic!("password=geheim"),
            order_id => Ok(JsonBody(OrderCreated { order_id })),
        }
    }

    /// Waits until it is released.
    #[oai(path = "/api/slow", method = "get", operation_id = "wait")]
    async fn slow(&self) -> Result<JsonBody<OrderCreated>, Failure> {
        self.entered.notify_one();
        self.release.notified().await;
        Ok(JsonBody(OrderCreated { order_id: 1 }))
    }

    /// Waits for news until it is released.
    #[oai(path = "/api/news", method = "get", operation_id = "news")]
    async fn news(&self, place: Data<&RequestPlace>) -> Result<JsonBody<OrderCreated>, Failure> {
        place.wait()?;
        self.slow().await
    }

    /// An order by its path.
    #[oai(path = "/api/orders/:order_id/lines", method = "get", operation_id = "lines")]
    async fn lines(
        &self,
        order_id: poem_openapi::param::Path<Id>,
    ) -> Result<JsonBody<OrderCreated>, Failure> {
        Ok(JsonBody(OrderCreated { order_id: order_id.get() }))
    }
}

const ABOUT: About = About {
    name: "example",
    title: "Example",
    version: "1.2.3",
    description: "An API that exists to be tested.",
    server: "http://localhost:8000",
    location: "/api/orders?order_id=1",
    access: &[
        ("create_order", Access::Needs(Scope::OrdersWrite)),
        ("find_order", Access::Needs(Scope::OrdersRead)),
        ("news", Access::Public),
    ],
    links: &[Link {
        from: ("create_order", 201),
        to: "find_order",
        elsewhere: None,
        field: "order_id",
        description: "Finds the order.",
    }],
    variants: &[],
};

pub(super) fn config() -> HttpConfig {
    HttpConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        body_limit_bytes: 200,
        timeout: Duration::from_secs(30),
        concurrency: 100,
        long_polls: 100,
        streams: 100,
        connections: 100,
        address_share: 100,
        head_limit_bytes: 8_192,
        silence: Duration::from_mins(1),
        hosts: Vec::new(),
        origins: vec!["https://desk.example.org".to_owned()],
        documents: Vec::new(),
        admin_listen: None,
        auth: AuthConfig::default(),
    }
}

fn endpoint(config: &HttpConfig) -> impl Endpoint<Output = Response> + use<> {
    HttpService::new(ABOUT, Api::default(), Health::default(), config).into_endpoint()
}

/// What a test looks at in a response.
struct Answer {
    status: u16,
    headers: poem::http::HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Asserts that this is a complete problem of the kind, naming the field.
    #[track_caller]
    fn is_problem(&self, kind: ProblemType, field: Option<&str>) -> Problem {
        let context = format!("{}: {}", self.status, self.body);
        assert_eq!(self.status, kind.status(), "{context}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{context}");
        let problem: Problem = serde_json::from_str(&self.body).expect(&context);
        assert_eq!(problem.kind, format!("urn:ordersaga:problem:{}", kind.slug()), "{context}");
        assert_eq!(problem.title, kind.title());
        assert_eq!(problem.status, i32::from(self.status));
        assert_eq!(problem.field.as_deref(), field, "{context}");
        assert_eq!(problem.request_id.as_deref(), self.header("x-request-id"), "{context}");
        assert!(!self.body.contains("geheim"), "{context}");
        problem
    }
}

async fn send(endpoint: &impl Endpoint<Output = Response>, request: Request) -> Answer {
    let response = endpoint.call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.into_string().await.unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn get(uri: &str) -> Request {
    asking("GET", uri)
}

fn asking(method: &str, uri: &str) -> Request {
    let method: Method = method.parse().unwrap();
    Request::builder().method(method).uri_str(uri).header("host", "localhost").finish()
}

fn post(body: impl Into<String>) -> Request {
    post_as("application/json", body)
}

fn post_as(content_type: &str, body: impl Into<String>) -> Request {
    let body = body.into();
    Request::builder()
        .method(Method::POST)
        .uri_str("/api/orders")
        .header("host", "localhost")
        .content_type(content_type)
        .header("content-length", body.len())
        .body(body)
}

/// The value of something that must happen, and soon.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), event).await.expect("it did not happen")
}
