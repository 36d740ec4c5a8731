//! What streams of events show. A snapshot of an order or a list is read and written once for all
//! streams that show it; a stream that is slow gets the newest, not each.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use ordersaga_contract::{ClientId, Event, OrderId, partition_of};
use ordersaga_runtime::http::{Failure, Principal, event};
use parking_lot::Mutex;
use poem::Request;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::lists::Views;
use crate::api::present;
use crate::budget::{Budget, Cost};
use crate::db::History;
use crate::progress::Progress;
use crate::shards::Shards;

/// Orders of one stream, and orders that are read at a time, at the most.
const ORDERS: usize = 20;
const READ_AT_ONCE: usize = 2_000;
/// What is heard of orders is collected for so long before they are read.
const COLLECT: Duration = Duration::from_millis(50);
/// How often orders are read whose news come to another instance, and all others: their news may
/// have come to one that has left, and an order that is not there may come.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long orders are read. What takes longer is read again.
const LIMIT: Duration = Duration::from_secs(3);
/// How often a list is read, unless streams [cost](crate::budget) too much.
const NEWEST_EVERY: Duration = Duration::from_millis(500);
const STATS_EVERY: Duration = Duration::from_secs(1);
const STUCK_EVERY: Duration = Duration::from_secs(5);
const AS_OF_EVERY: Duration = Duration::from_secs(2);

/// All that streams show.
pub(crate) struct Hub {
    views: Arc<Views>,
    shards: Arc<Shards>,
    progress: Arc<Progress>,
    orders: Mutex<HashMap<OrderId, Watched>>,
    news: Notify,
    newest: Arc<Feed>,
    stats: Arc<Feed>,
    stuck: Arc<Feed>,
    /// What all streams cost: every stream shows it.
    cost: watch::Sender<Snapshot>,
    budget: Arc<Budget>,
    stop: CancellationToken,
}

/// An order that streams show.
struct Watched {
    snapshots: watch::Sender<Snapshot>,
    /// Something was heard of it since it was read.
    is_due: bool,
    read: Option<Instant>,
}

/// Something that streams show, read again and again.
struct Feed {
    name: &'static str,
    snapshots: watch::Sender<Snapshot>,
    /// How far it was when it was last read.
    as_of: Mutex<Option<DateTime<Utc>>>,
}

/// An event with its id; without bytes there is nothing to show yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Snapshot {
    id: Option<String>,
    /// Whose order it shows.
    of: Option<ClientId>,
    bytes: Bytes,
}

/// How far what a stream shows is.
#[derive(Serialize)]
struct AsOf {
    as_of: Option<DateTime<Utc>>,
}

/// What a stream is to show.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    orders: Vec<OrderId>,
    newest: bool,
    stats: bool,
    stuck: bool,
}

impl Wanted {
    /// Reads it from a query, as `order_id=17&order_id=18&newest=true`.
    fn parse(query: &str) -> Result<Self, Failure> {
        let mut wanted = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let flag = match &*name {
                "order_id" => {
                    let order = value.parse().ok().and_then(|id: i64| OrderId::try_from(id).ok());
                    let order = order.ok_or_else(|| {
                        Failure::invalid_parameter(
                            "order_id",
                            "a positive whole number is expected",
                        )
                    })?;
                    wanted.orders.push(order);
                    continue;
                }
                "newest" => &mut wanted.newest,
                "stats" => &mut wanted.stats,
                "stuck" => &mut wanted.stuck,
                _ => return Err(Failure::unknown_parameter(&name)),
            };
            *flag = value.parse().map_err(|_| {
                Failure::invalid_parameter(name.into_owned(), "true or false is expected")
            })?;
        }
        wanted.orders.sort_unstable();
        wanted.orders.dedup();
        if wanted.orders.len() > ORDERS {
            let detail = format!("at most {ORDERS} orders can be followed");
            return Err(Failure::invalid_parameter("order_id", detail));
        }
        Ok(wanted)
    }
}

impl Hub {
    pub(crate) fn new(
        views: Arc<Views>,
        shards: Arc<Shards>,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            views,
            shards,
            progress,
            orders: Mutex::default(),
            news: Notify::new(),
            newest: Arc::new(Feed::new("newest")),
            stats: Arc::new(Feed::new("stats")),
            stuck: Arc::new(Feed::new("stuck")),
            cost: watch::Sender::default(),
            budget: Arc::default(),
            stop,
        }
    }

    /// The events that a request asks for. What its client has seen already, by the id that it says,
    /// is not sent again.
    pub(crate) fn open(&self, request: &Request) -> Result<BoxStream<'static, Bytes>, Failure> {
        let wanted = Wanted::parse(request.uri().query().unwrap_or_default())?;
        let principal = request.data().cloned();
        let principal: Principal = principal.context("a stream without a principal")?;
        if wanted.newest || wanted.stats || wanted.stuck {
            // A list of each client's own would be read for each of them, again and again.
            principal.see_all("newest, stats and stuck are")?;
        }
        let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        Ok(self.show(&wanted, seen.map(str::to_owned), principal))
    }

    fn show(
        &self,
        wanted: &Wanted,
        seen: Option<String>,
        principal: Principal,
    ) -> BoxStream<'static, Bytes> {
        let mut all: Vec<_> = wanted.orders.iter().map(|order| self.watch(*order)).collect();
        let feeds = [
            (&self.newest, wanted.newest),
            (&self.stats, wanted.stats),
            (&self.stuck, wanted.stuck),
        ];
        let feeds: Vec<_> =
            feeds.into_iter().filter(|(_, is)| *is).map(|(f, _)| f.clone()).collect();
        all.extend(feeds.iter().map(|feed| feed.snapshots.subscribe()));
        all.push(self.cost.subscribe());
        let events = all.into_iter().map(changes).chain([self.as_of(feeds)]);
        let events = stream::select_all(events).filter_map(move |Snapshot { id, of, bytes }| {
            let is_new = !bytes.is_empty() && (id.is_none() || id != seen);
            // Another client's order is shown as one that is not there.
            let is_seen = of.is_none_or(|client| principal.may_see(client));
            ready((is_new && is_seen).then_some(bytes))
        });
        let mut events = events.take_until(self.stop.clone().cancelled_owned()).boxed();
        let budget = self.budget.clone();
        stream::poll_fn(move |context| budget.meter.measure(|| events.poll_next_unpin(context)))
            .boxed()
    }

    /// Every moment the time before which nothing is missing in any of these lists, or without one
    /// of what this instance has heard.
    fn as_of(&self, feeds: Vec<Arc<Feed>>) -> BoxStream<'static, Snapshot> {
        let progress = self.progress.clone();
        // Not at once: the lists may have to be read.
        let ticks = tokio::time::interval_at(Instant::now() + LOOK, AS_OF_EVERY);
        stream::unfold((ticks, feeds, progress), async |(mut ticks, feeds, progress)| {
            ticks.tick().await;
            let of_lists = feeds.iter().map(|feed| *feed.as_of.lock()).min();
            let as_of = of_lists.unwrap_or_else(|| progress.until());
            let bytes = event("as_of", None, &AsOf { as_of }).ok()?;
            Some((Snapshot { id: None, of: None, bytes }, (ticks, feeds, progress)))
        })
        .boxed()
    }

    fn watch(&self, order: OrderId) -> watch::Receiver<Snapshot> {
        let mut orders = self.orders.lock();
        let new = || Watched { snapshots: watch::Sender::default(), is_due: true, read: None };
        let watched = orders.entry(order).or_insert_with(new);
        watched.is_due = true;
        let snapshots = watched.snapshots.subscribe();
        drop(orders);
        self.news.notify_one();
        snapshots
    }

    /// These events are committed.
    pub(crate) fn tell<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        let mut orders = self.orders.lock();
        if orders.is_empty() {
            return;
        }
        let mut is_news = false;
        for event in events {
            if let Some(watched) = orders.get_mut(&event.order.order_id) {
                (watched.is_due, is_news) = (true, true);
            }
        }
        drop(orders);
        if is_news {
            self.news.notify_one();
        }
    }

    /// Keeps all that is shown true, until stopped.
    pub(crate) async fn keep(&self) -> anyhow::Result<()> {
        let keep = async {
            tokio::join!(
                self.keep_orders(),
                self.newest.keep(&self.budget, NEWEST_EVERY, || self.views.newest()),
                self.stats.keep(&self.budget, STATS_EVERY, || self.views.last_hour()),
                self.stuck.keep(&self.budget, STUCK_EVERY, || self.views.overdue()),
                self.budget.keep(|| self.cost.receiver_count(), |cost| self.tell_cost(cost)),
            )
        };
        let keep = self.budget.meter.of(Box::pin(keep));
        self.stop.run_until_cancelled(keep).await;
        Ok(())
    }

    fn tell_cost(&self, cost: Cost) {
        if self.cost.receiver_count() == 0 {
            // What is old is not shown to the next.
            self.cost.send_replace(Snapshot::default());
        } else if let Ok(bytes) = event("cost", None, &cost) {
            show(&self.cost, Snapshot { id: None, of: None, bytes });
        }
    }

    async fn keep_orders(&self) {
        loop {
            let _ = tokio::time::timeout(LOOK, self.news.notified()).await;
            let follows = |partition| self.progress.follows(partition);
            let due = due(&mut self.orders.lock(), Instant::now(), follows);
            if due.len() == READ_AT_ONCE {
                self.news.notify_one();
            }
            let reads = due
                .into_iter()
                .map(|order| async move { (order, self.shards.history(order).await) });
            let mut reads: FuturesUnordered<_> = reads.collect();
            // Each as it comes: one node that hangs does not hold up the orders of others.
            let show = async {
                while let Some((order, read)) = reads.next().await {
                    if let Some(watched) = self.orders.lock().get_mut(&order) {
                        watched.add(read, &self.shards);
                    }
                }
            };
            let _ = tokio::time::timeout(LIMIT, show).await;
            tokio::time::sleep(self.budget.slowed(COLLECT)).await;
        }
    }
}

/// The orders to be read now, `follows` says of which partitions the news come here. Those that no
/// stream shows any more are forgotten.
fn due(
    orders: &mut HashMap<OrderId, Watched>,
    now: Instant,
    follows: impl Fn(u32) -> bool,
) -> Vec<OrderId> {
    orders.retain(|_, watched| watched.snapshots.receiver_count() > 0);
    let is_due = |order: OrderId, watched: &Watched| {
        let age = watched.read.map_or(Duration::MAX, |read| now - read);
        let is_elsewhere = || watched.is_shown() && !follows(partition_of(order));
        watched.is_due || age >= LOOK_AGAIN || age >= LOOK && is_elsewhere()
    };
    let due = orders.iter().filter(|(order, watched)| is_due(**order, watched));
    // What is new first, and then what was read longest ago.
    let mut due: Vec<_> = due.map(|(id, order)| (!order.is_due, order.read, *id)).collect();
    due.sort_unstable();
    due.truncate(READ_AT_ONCE);
    for (.., id) in &due {
        if let Some(watched) = orders.get_mut(id) {
            (watched.is_due, watched.read) = (false, Some(now));
        }
    }
    due.into_iter().map(|(.., id)| id).collect()
}

impl Watched {
    /// There is such an order.
    fn is_shown(&self) -> bool {
        !self.snapshots.borrow().bytes.is_empty()
    }

    /// Shows what was read. What could not be read is due again.
    fn add(&mut self, read: anyhow::Result<Option<History>>, shards: &Shards) {
        match read {
            Ok(history) => {
                let event = history.and_then(|history| {
                    let (id, of) = (id_of(&history), Some(history.order.client_id));
                    let bytes = event("order", Some(&id), &present(shards, &history)?).ok()?;
                    Some(Snapshot { id: Some(id), of, bytes })
                });
                if let Some(event) = event {
                    show(&self.snapshots, event);
                }
            }
            Err(_) => self.is_due = true,
        }
    }
}

/// The order and which facts were heard of it, a bit each: what is shown follows from them.
fn id_of(history: &History) -> String {
    let facts = history.heard.iter().fold(0, |facts, heard| facts | 1 << heard.fact.code());
    format!("{}:{facts}", history.order.order_id)
}

impl Feed {
    fn new(name: &'static str) -> Self {
        Self { name, snapshots: watch::Sender::default(), as_of: Mutex::default() }
    }

    /// Reads it again and again, as long as some stream shows it.
    async fn keep<T: Serialize, R: Future<Output = anyhow::Result<(T, Option<DateTime<Utc>>)>>>(
        &self,
        budget: &Budget,
        pause: Duration,
        read: impl Fn() -> R,
    ) {
        loop {
            if self.snapshots.receiver_count() == 0 {
                // What is old is not shown to the next.
                self.snapshots.send_replace(Snapshot::default());
                *self.as_of.lock() = None;
            } else {
                let read = read()
                    .await
                    .and_then(|(list, as_of)| Ok((event(self.name, None, &list)?, as_of)));
                match read {
                    Ok((bytes, as_of)) => {
                        show(&self.snapshots, Snapshot { id: None, of: None, bytes });
                        *self.as_of.lock() = as_of;
                    }
                    // How far it is stays as it was, and is shown.
                    Err(error) => tracing::debug!(
                        feed = self.name,
                        error = format!("{error:#}"),
                        "what streams show"
                    ),
                }
            }
            tokio::time::sleep(budget.slowed(pause)).await;
        }
    }
}

fn show(snapshots: &watch::Sender<Snapshot>, new: Snapshot) {
    snapshots.send_if_modified(|shown| {
        let is_new = *shown != new;
        *shown = new;
        is_new
    });
}

/// What there is to show, and then whatever takes its place.
fn changes(mut snapshots: watch::Receiver<Snapshot>) -> BoxStream<'static, Snapshot> {
    snapshots.mark_changed();
    stream::unfold(snapshots, |mut snapshots| async {
        snapshots.changed().await.ok()?;
        let snapshot = snapshots.borrow_and_update().clone();
        Some((snapshot, snapshots))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::EventKind;

    use super::*;
    use crate::examples::event as example;

    #[test]
    fn a_query_says_what_is_wanted() {
        let parse = |query: &str| Wanted::parse(query).map_err(|failure| failure.to_string());
        let order = |id: i64| OrderId::try_from(id).unwrap();
        let orders = vec![order(5), order(9_223_372_036_854_775_807)];
        assert_eq!(
            parse("order_id=9223372036854775807&newest=true&order_id=5&order_id=5&stats=false"),
            Ok(Wanted { orders, newest: true, ..Wanted::default() })
        );
        assert_eq!(parse(""), Ok(Wanted::default()));
        let many: Vec<_> = (1..=21).map(|order| format!("order_id={order}")).collect();
        for wrong in
            ["order_id=0", "order_id=", "newest=1", "stuck", "oldest=true", &many.join("&")]
        {
            assert!(parse(wrong).unwrap_err().starts_with("invalid-parameter"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_slow_stream_gets_the_newest_and_each_once() {
        let feed = Feed::new("newest");
        let mut slow = changes(feed.snapshots.subscribe());
        let shown = |text: &'static str| Snapshot { id: None, of: None, bytes: text.into() };
        assert_eq!(slow.next().await, Some(Snapshot::default()));
        for text in ["one", "two", "two"] {
            show(&feed.snapshots, shown(text));
        }
        assert_eq!(slow.next().await, Some(shown("two")));
        show(&feed.snapshots, shown("two"));
        let more = tokio::time::timeout(Duration::from_millis(20), slow.next());
        assert!(more.await.is_err(), "nothing has changed");
        drop(feed);
        assert_eq!(slow.next().await, None);
    }

    #[tokio::test]
    async fn what_is_new_is_read_first_and_all_that_is_shown_again_and_again() {
        let order = |id: i64| OrderId::try_from(id).unwrap();
        let start = Instant::now();
        let mut orders = HashMap::new();
        let mut watch = |id: i64, is_due: bool, shown: &'static str| {
            let bytes = shown.into();
            let (snapshots, receiver) = watch::channel(Snapshot { id: None, of: None, bytes });
            orders.insert(order(id), Watched { snapshots, is_due, read: Some(start) });
            receiver
        };
        let (_one, _two, _three) = (watch(1, false, "1"), watch(2, true, "2"), watch(3, false, ""));
        drop(watch(4, true, "4"));
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(due(&mut orders, at(10), |_| true), [order(2)], "4 is shown by nobody");
        assert_eq!(orders.len(), 3);
        assert_eq!(due(&mut orders, at(999), |_| false), []);
        assert_eq!(due(&mut orders, at(1_000), |_| true), [], "their news come here");
        assert_eq!(due(&mut orders, at(1_000), |_| false), [order(1)], "there is no order 3 yet");
        orders.get_mut(&order(3)).unwrap().is_due = true;
        assert_eq!(due(&mut orders, at(6_000), |_| true), [3, 2, 1].map(order));
    }

    #[test]
    fn an_id_tells_which_facts_were_heard() {
        let placed = example(7, EventKind::OrderPlaced, 0);
        let mut history = History::of(&placed);
        let first = id_of(&history);
        history.add(History::of(&placed));
        assert_eq!(id_of(&history), first, "heard twice");
        history.add(History::of(&example(7, EventKind::ItemReserved, 1)));
        assert_ne!(id_of(&history), first);
    }
}
