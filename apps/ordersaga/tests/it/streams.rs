//! Streams of events, as a page gets them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use ordersaga_devstack::{Service, free_port};
use reqwest::Response;
use serde_json::{Value, json};

use crate::bed::{Bed, WITHIN, saga};
use crate::client::{STREAM, order_for};

/// A stream that is read.
struct Stream {
    answer: Response,
    unread: String,
}

/// An event.
#[derive(Debug, Default, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Stream {
    async fn open(bed: &Bed, at: &str, query: &str, seen: Option<&str>) -> Result<Self> {
        // It stays open while the test does what it shows.
        let request = bed.http.get(format!("{at}{STREAM}?{query}")).timeout(4 * WITHIN);
        let request =
            seen.into_iter().fold(request, |request, id| request.header("Last-Event-ID", id));
        let answer = request.send().await?.error_for_status()?;
        let kind = answer.headers()["content-type"].to_str()?;
        ensure!(kind.starts_with("text/event-stream"), "{kind}");
        Ok(Self { answer, unread: String::new() })
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some((event, rest)) = self.unread.split_once("\n\n") {
                let (event, rest) = (parse(event)?, rest.to_owned());
                self.unread = rest;
                return Ok(Some(event));
            }
            let more = tokio::time::timeout(WITHIN, self.answer.chunk()).await;
            match more.context("nothing comes")?? {
                Some(more) => self.unread.push_str(std::str::from_utf8(&more)?),
                None => return Ok(None),
            }
        }
    }

    /// The next event of this name for which something is so.
    async fn until(&mut self, name: &str, is_so: impl Fn(&Value) -> bool) -> Result<Event> {
        while let Some(event) = self.next().await? {
            if event.name == name && is_so(&event.data) {
                return Ok(event);
            }
        }
        bail!("the stream ended before {name}")
    }

    /// Until something was so of each of these orders.
    async fn until_all(&mut self, orders: &BTreeSet<i64>, is_so: fn(&Value) -> bool) -> Result<()> {
        let mut open = orders.clone();
        while !open.is_empty() {
            let event = self.until("order", is_so).await?;
            open.remove(&event.data["order_id"].as_i64().context("no order_id")?);
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Event> {
    let mut event = Event::default();
    for line in text.lines() {
        match line.split_once(": ").context("no field")? {
            ("event", name) => name.clone_into(&mut event.name),
            ("id", id) => event.id = Some(id.to_owned()),
            ("data", data) => event.data = serde_json::from_str(data)?,
            _ => {}
        }
    }
    Ok(event)
}

fn is_over(order: &Value) -> bool {
    order["step"] == "CANCELLED" && order["facts"].as_array().is_some_and(|facts| facts.len() == 4)
}

#[test]
fn a_stream_shows_an_order_from_step_to_step_with_the_lists_and_says_when_it_ends() -> Result<()> {
    saga(async |bed| {
        let url = bed.url(Service::Monitoring);
        let order = bed.place(&order_for(1000)).await?;
        let mut stream = Stream::open(bed, &url, &format!("order_id={order}"), None).await?;
        let shipping = stream.until("order", |order| order["step"] == "SHIPPING").await?;
        ensure!(shipping.data == bed.status(order).await?, "another than its status: {shipping:?}");
        bed.cancel(order).await?;
        let over = stream.until("order", is_over).await?;
        ensure!(over.id != shipping.id && over.data == bed.status(order).await?, "{over:?}");

        // Which of the events of two streams, or two lists, comes first is nowhere said.
        let mut lists = Vec::new();
        for list in ["newest", "stats", "stuck"] {
            lists.push(Stream::open(bed, &url, &format!("{list}=true"), None).await?);
        }
        lists[0].until("newest", |page| page["items"][0] == over.data).await?;
        lists[1].until("stats", |stats| stats["minutes"][0]["released"] == 1).await?;
        lists[2].until("stuck", |stuck| stuck["items"] == json!([])).await?;
        for list in &mut lists {
            list.until("as_of", |as_of| as_of["as_of"].is_string()).await?;
        }

        // Whoever comes back has seen it: no event of it comes before the next of others.
        let mut again =
            Stream::open(bed, &url, &format!("order_id={order}"), over.id.as_deref()).await?;
        for _ in 0..3 {
            let event = again.next().await?.context("it ended")?;
            ensure!(["as_of", "cost"].contains(&event.name.as_str()), "{event:?}");
        }
        let mut afresh = Stream::open(bed, &url, &format!("order_id={order}"), None).await?;
        afresh.until("order", is_over).await?;

        bed.services[&Service::Monitoring].terminate().await?;
        for stream in lists.iter_mut().chain([&mut stream, &mut again, &mut afresh]) {
            stream.until("bye", |_| true).await?;
            ensure!(stream.next().await?.is_none());
        }
        Ok(())
    })
}

#[test]
fn a_stream_shows_orders_whose_news_come_to_another_instance() -> Result<()> {
    saga(async |bed| {
        let second = bed.instance(Service::Monitoring, free_port()?, "second");
        second.start()?;
        second.wait_ready(WITHIN).await?;
        // Of several partitions, each of which one of the two follows.
        let mut placed = BTreeSet::new();
        for _ in 0..8 {
            placed.insert(bed.place(&order_for(1000)).await?);
        }
        let query: Vec<_> = placed.iter().map(|order| format!("order_id={order}")).collect();
        let mut streams = Vec::new();
        for url in [bed.url(Service::Monitoring), second.url()] {
            streams.push(Stream::open(bed, &url, &query.join("&"), None).await?);
        }
        for stream in &mut streams {
            stream.until_all(&placed, |order| order["step"] == "SHIPPING").await?;
        }
        for order in &placed {
            bed.cancel(*order).await?;
        }
        for stream in &mut streams {
            stream.until_all(&placed, is_over).await?;
        }
        second.kill9().await
    })
}

#[test]
fn a_page_is_told_what_it_costs() -> Result<()> {
    saga(async |bed| {
        let url = bed.url(Service::Monitoring);
        let _one = Stream::open(bed, &url, "newest=true", None).await?;
        let mut other = Stream::open(bed, &url, "stats=true&stuck=true", None).await?;
        let is_of_both = |cost: &Value| {
            let spent = cost["cpu_ms_per_s"].as_f64();
            cost["streams"] == 2 && spent.is_some_and(|spent| spent > 0.0)
        };
        let cost = other.until("cost", is_of_both).await?;
        ensure!(cost.data["slowdown"].as_i64().is_some_and(|times| times >= 1), "{cost:?}");

        for (service, path) in [
            (Service::Monitoring, "/api/v1/orders"),
            (Service::Store, "/api/v1/items"),
            (Service::CreateOrder, "/api/v1/orders/find?order_id=77"),
        ] {
            let request = || bed.http.get(format!("{}{path}", bed.url(service)));
            let answer = bed.send(request().header("sec-fetch-mode", "cors")).await?;
            let timing = answer.header("server-timing").context("a page is told nothing")?;
            let spent: f64 = timing.strip_prefix("cpu;dur=").context("no cpu")?.parse()?;
            ensure!(spent > 0.0, "{timing}");
            let program = bed.send(request()).await?;
            ensure!(program.header("server-timing").is_none(), "measured for nobody");
        }
        Ok(())
    })
}

#[test]
fn what_a_stream_cannot_show_is_refused() -> Result<()> {
    saga(async |bed| {
        for (query, field) in
            [("order_id=0", "order_id"), ("newest=yes", "newest"), ("oldest=true", "oldest")]
        {
            let answer = bed.get(Service::Monitoring, &format!("{STREAM}?{query}")).await?;
            answer.is_problem(400, "invalid-parameter", Some(field))?;
        }
        Ok(())
    })
}
