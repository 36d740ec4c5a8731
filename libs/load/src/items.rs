//! What is done before and after the load: items are made and looked at, a first order is placed. A
//! few threads with a connection each; nothing here is measured.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::PATIENCE;
use crate::answer::{id, scan};
use crate::clients::waiting::{self, Told};
use crate::plan::{Plan, UNITS};
use crate::request::{Create, Endpoint, Numbered, post};

const THREADS: usize = 16;
/// A request that is refused, or whose connection ends, is tried again for so long.
const PERSEVERANCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The ids of the items to order: made, unless they are there.
pub(crate) fn make(plan: &Plan) -> Result<Vec<i64>> {
    if let Some(first) = plan.first_item {
        return Ok((first..).take(plan.items as usize).collect());
    }
    let store = Endpoint::parse(&plan.target.store)?;
    let body = format!("{{\"seller_id\":1,\"price\":1,\"name\":\"load\",\"quantity\":{UNITS}}}");
    let request = post(&store, "/api/v1/items/add", &body);
    let mut ids = in_parallel(plan.items as usize, &store, |talk, _| {
        let body = talk.ask(&request, 201).context("an item cannot be added")?;
        id(&body, "item_id").context("the answer has no item_id")
    })?;
    ids.sort_unstable();
    Ok(ids)
}

/// Places one order, which shows where ids are.
pub(crate) fn first_order(plan: &Plan, item: i64) -> Result<i64> {
    let create = plan.target.create.first().context("no --create")?;
    let endpoint = Endpoint::parse(create)?;
    let mut request = Vec::new();
    Create::new(&endpoint).write(item, &mut request);
    let body = Talk::new(&endpoint).ask(&request, 201).context("an order cannot be placed")?;
    id(&body, "order_id").context("the answer has no order_id")
}

/// Waits until a client would be told that this order has ended, which shows that orders end and
/// that monitoring hears of it.
pub(crate) fn await_end(plan: &Plan, order: i64, within: Duration) -> Result<()> {
    let monitoring = plan.target.monitoring.first().context("no --monitoring")?;
    let endpoint = Endpoint::parse(monitoring)?;
    let mut request = Vec::new();
    Numbered::get(&endpoint, &waiting::path(plan)).write(order, &mut request);
    let (mut talk, deadline) = (Talk::new(&endpoint), Instant::now() + within);
    loop {
        match talk.try_to_ask(&request) {
            Ok((status, body)) => {
                if let Told::Ended(_) = waiting::told(status, &body) {
                    return Ok(());
                }
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("no answer from {monitoring}")));
            }
            Err(_) => talk.stream = None,
        }
        ensure!(
            Instant::now() < deadline,
            "order {order} was acknowledged, and {} s later {monitoring} does not say that it has \
             ended: does the store run, and is this its monitoring?",
            within.as_secs()
        );
        pause();
    }
}

/// Items of which more is reserved than there is, by what the store says.
pub(crate) fn oversold(plan: &Plan, items: &[i64]) -> Result<Vec<i64>> {
    let store = Endpoint::parse(&plan.target.store)?;
    let find = Numbered::get(&store, "/api/v1/items/find?item_id=");
    let told = in_parallel(items.len(), &store, |talk, number| {
        let mut request = Vec::new();
        find.write(items[number], &mut request);
        let body = talk.ask(&request, 200).context("an item cannot be looked at")?;
        let item: serde_json::Value = serde_json::from_slice(&body)?;
        let (reserved, quantity) = (item["reserved"].as_i64(), item["quantity"].as_i64());
        let (reserved, quantity) = reserved.zip(quantity).context("no stock is told")?;
        Ok((reserved > quantity).then_some(items[number]))
    })?;
    Ok(told.into_iter().flatten().collect())
}

/// Does something so many times, in any order, over a few connections.
fn in_parallel<T: Send>(
    count: usize,
    endpoint: &Endpoint,
    ask: impl Fn(&mut Talk, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut talk = Talk::new(endpoint);
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            match ask(&mut talk, number) {
                Ok(told) => done.push(told),
                Err(error) => {
                    // The others need not go on.
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS.min(count)).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(count);
        for thread in threads {
            all.extend(thread.join().expect("a thread without panics")?);
        }
        Ok(all)
    })
}

/// A connection that waits for its answers.
struct Talk<'a> {
    endpoint: &'a Endpoint,
    stream: Option<TcpStream>,
}

impl<'a> Talk<'a> {
    fn new(endpoint: &'a Endpoint) -> Self {
        Self { endpoint, stream: None }
    }

    /// The body of the answer with this status; any other is an error, but for one that says to
    /// try again.
    fn ask(&mut self, request: &[u8], wanted: u16) -> Result<Vec<u8>> {
        let deadline = Instant::now() + PERSEVERANCE;
        loop {
            let last = match self.try_to_ask(request) {
                Ok((status, body)) if status == wanted => return Ok(body),
                Ok((429 | 503, _)) => None,
                Ok((status, body)) => {
                    let address = self.endpoint.address;
                    bail!("{address} answers {status}: {}", String::from_utf8_lossy(&body));
                }
                Err(error) => {
                    self.stream = None;
                    Some(error)
                }
            };
            if Instant::now() > deadline {
                let error = last.unwrap_or_else(|| anyhow::anyhow!("it is refused all the time"));
                return Err(error.context(format!("no answer from {}", self.endpoint.address)));
            }
            pause();
        }
    }

    fn try_to_ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect_timeout(&self.endpoint.address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                none.insert(stream)
            }
        };
        stream.write_all(request)?;
        let (mut read, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut piece)?;
            ensure!(count > 0, "the connection ended");
            read.extend_from_slice(&piece[..count]);
            if let Some(answer) = scan(&read)? {
                if answer.closes {
                    self.stream = None;
                }
                return Ok((answer.status, read[answer.body].to_vec()));
            }
        }
    }
}

/// Between two attempts.
fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the condition is the loop's")]
    std::thread::sleep(PAUSE);
}
