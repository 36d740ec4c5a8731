//! A round of probes: what any client can ask for, asked from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use ordersaga_devstack::Service;
use ordersaga_devstack::state::State;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::incident::{Answer, Answers, Plan, Round, Seen};
use crate::stack::Part;

/// The item the probes order: the one the examples use, with more units than anybody orders.
pub(crate) const ITEM: i64 = 1000;
/// The client they order as, by which they are found at the desk.
pub(crate) const CLIENT: i64 = 8003;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the store's decision is waited for.
const WAIT_MS: u32 = 400;

/// Asks the services.
pub(crate) struct Prober {
    http: Client,
}

impl Prober {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { http: Client::builder().no_proxy().timeout(PATIENCE).build()? })
    }

    /// Does what the plan says, all at once.
    pub(crate) async fn round(&self, state: &State, parts: &[Part], plan: &Plan) -> Result<Round> {
        let began = Instant::now();
        let at = Addresses::new(state)?;
        let asked = join_all(plan.ask.iter().map(|order| self.status(&at, *order, 0)));
        let (placed, items, (cancel, is_cancelled), asked, ready) = tokio::join!(
            self.place(&at, plan.place.as_deref()),
            self.items(&at, plan.place.is_some()),
            self.cancel(&at, plan.cancel),
            asked,
            join_all(parts.iter().map(Part::is_ready)),
        );
        let mut seen: Vec<(i64, Seen)> = Vec::new();
        let mut status = Answer::Untried;
        for (order, (answer, found)) in plan.ask.iter().zip(asked) {
            seen.extend(found.map(|found| (*order, found)));
            // One that cannot be told is what is to be shown.
            if !matches!(status, Answer::Fails(_)) {
                status = answer;
            }
        }
        seen.extend(placed.id.zip(placed.seen));
        let answers =
            Answers { create: placed.create, reserve: placed.reserve, status, items, cancel };
        let all_ready = ready.into_iter().all(|is_ready| is_ready);
        let ended = Instant::now();
        Ok(Round { began, ended, placed: placed.id, is_cancelled, seen, answers, all_ready })
    }

    async fn place(&self, at: &Addresses, key: Option<&str>) -> Placed {
        let Some(key) = key else { return Placed::default() };
        let order = json!({"item_id": ITEM, "seller_id": 1, "client_id": CLIENT});
        let url = at.of(Service::CreateOrder, "/api/v1/orders/create");
        let began = Instant::now();
        let answer = send(self.http.post(url).header("Idempotency-Key", key).json(&order)).await;
        let order = match answer {
            Ok(answer) => answer.json::<Value>().await.map_err(|error| plain(&error)),
            Err(why) => Err(why),
        };
        let create = of(&order, began);
        let Some(id) = order.ok().and_then(|order| order["order_id"].as_i64()) else {
            return Placed { create, ..Placed::default() };
        };
        let (_, seen) = self.status(at, id, WAIT_MS).await;
        let reserve = match seen {
            Some(Seen::Shipping | Seen::Cancelled { .. }) => Answer::Works(began.elapsed()),
            Some(Seen::Undecided | Seen::Unknown) => Answer::Waits,
            None => Answer::Untried,
        };
        Placed { create, reserve, id: Some(id), seen }
    }

    async fn status(&self, at: &Addresses, order: i64, wait_ms: u32) -> (Answer, Option<Seen>) {
        let url = at.of(Service::Monitoring, "/api/v1/status");
        let query = [("order_id", order), ("wait_ms", wait_ms.into())];
        let began = Instant::now();
        let answer = match self.http.get(url).query(&query).send().await {
            // It answers, and has not heard of the order.
            Ok(answer) if answer.status() == 404 => {
                return (Answer::Waits, Some(Seen::Unknown));
            }
            Ok(answer) => checked(answer).await,
            Err(error) => Err(plain(&error)),
        };
        let status = match answer {
            Ok(answer) => answer.json::<Value>().await.map_err(|error| plain(&error)),
            Err(why) => Err(why),
        };
        let seen = status.as_ref().ok().map(|status| match status["step"].as_str() {
            Some("SHIPPING") => Seen::Shipping,
            Some("CANCELLED") => Seen::Cancelled { by_client: status["initiator"] == "client" },
            _ => Seen::Undecided,
        });
        (of(&status, began), seen)
    }

    async fn items(&self, at: &Addresses, is_wanted: bool) -> Answer {
        if !is_wanted {
            return Answer::Untried;
        }
        let url = at.of(Service::Store, "/api/v1/items/find");
        let began = Instant::now();
        of(&send(self.http.get(url).query(&[("item_id", ITEM)])).await, began)
    }

    async fn cancel(&self, at: &Addresses, order: Option<i64>) -> (Answer, bool) {
        let Some(order) = order else { return (Answer::Untried, false) };
        let url = at.of(Service::CreateOrder, "/api/v1/orders/cancel");
        let began = Instant::now();
        let answer = send(self.http.post(url).query(&[("order_id", order)])).await;
        (of(&answer, began), answer.is_ok())
    }
}

#[derive(Default)]
struct Placed {
    create: Answer,
    reserve: Answer,
    id: Option<i64>,
    seen: Option<Seen>,
}

/// Where the services are.
struct Addresses(BTreeMap<Service, String>);

impl Addresses {
    fn new(state: &State) -> Result<Self> {
        let url = |service: Service| {
            let found = state.processes.iter().find(|process| process.name == service.name());
            let found = found.with_context(|| format!("the stack has no {service}"))?;
            Ok((service, format!("http://127.0.0.1:{}", found.port)))
        };
        Ok(Self(Service::ALL.into_iter().map(url).collect::<Result<_>>()?))
    }

    fn of(&self, service: Service, path: &str) -> String {
        format!("{}{path}", self.0[&service])
    }
}

fn of<T>(answer: &Result<T, String>, began: Instant) -> Answer {
    match answer {
        Ok(_) => Answer::Works(began.elapsed()),
        Err(why) => Answer::Fails(why.clone()),
    }
}

async fn send(request: RequestBuilder) -> Result<Response, String> {
    match request.send().await {
        Ok(answer) => checked(answer).await,
        Err(error) => Err(plain(&error)),
    }
}

/// An answer that is none is told by its status and what the service says of it.
async fn checked(answer: Response) -> Result<Response, String> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: Value = answer.json().await.unwrap_or_default();
    let title = problem["title"].as_str().unwrap_or("no problem document");
    Err(format!("{}: {title}", status.as_u16()))
}

fn plain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        format!("no answer within {} ms", PATIENCE.as_millis())
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}
