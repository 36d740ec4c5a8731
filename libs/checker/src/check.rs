//! The invariants, one function each: what was gathered, compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use ordersaga_devstack::{Cluster, Service};
use serde::Serialize;
use serde_json::Value;

use crate::history::History;
use crate::onlooker::{CONSUMERS, Onlooker, consumed};
use crate::records::Place;
use crate::said::{
    PLACED, RELEASED, RESERVED, RESET_BY_CLIENT, RESET_BY_STORE, RESETS, Said, Told, fact_name,
    reason_name,
};
use crate::snapshot::{ItemRow, Snapshot};

/// How long after rest the cache may still differ: another instance notices trouble within a second.
const CACHE_BOUND: Duration = Duration::from_secs(5);
/// Violations of one invariant that are listed; more would tell nothing new.
const LISTED: usize = 50;

/// A promise that was not kept.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// I1 to I12.
    pub invariant: &'static str,
    /// The order concerned.
    pub order: Option<i64>,
    /// What was found.
    pub what: String,
}

/// Everything a system at rest holds and has said, and what clients know of it.
pub struct Evidence {
    /// What the databases and monitoring have.
    pub snapshot: Snapshot,
    /// What the topics have.
    pub told: Told,
    /// What clients were promised.
    pub history: History,
    /// Each thing said, once.
    pub(crate) facts: BTreeMap<(i64, i16), Said>,
    /// What the store holds: none if orders are on their way, whose units may be held or not.
    pub(crate) stock: Option<Stock>,
}

/// What the store holds.
pub(crate) struct Stock {
    /// Units held by reservations, by item.
    pub(crate) held: BTreeMap<i64, i64>,
    /// The items of which a client's view is compared.
    pub(crate) asked: Vec<i64>,
}

#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn expect(
        &mut self,
        holds: bool,
        invariant: &'static str,
        order: impl Into<Option<i64>>,
        what: impl FnOnce() -> String,
    ) {
        let listed = || self.0.iter().filter(|one| one.invariant == invariant).count();
        if !holds && listed() < LISTED {
            self.0.push(Violation { invariant, order: order.into(), what: what() });
        }
    }
}

impl Evidence {
    /// Reads everything. The system must be at rest.
    pub async fn gather(onlooker: &Onlooker, history: History) -> Result<Self> {
        let (snapshot, told) =
            tokio::try_join!(Snapshot::take(onlooker), Told::read(&onlooker.log))?;
        let mut held: BTreeMap<i64, i64> = BTreeMap::new();
        for row in snapshot.reservations.values().filter(|row| row.state == 1) {
            *held.entry(row.item_id).or_default() += i64::from(row.quantity);
        }
        let asked = snapshot.items.keys().copied().collect();
        Ok(Self::new(snapshot, told, history, Some(Stock { held, asked })))
    }

    pub(crate) fn new(
        snapshot: Snapshot,
        told: Told,
        history: History,
        stock: Option<Stock>,
    ) -> Self {
        let mut facts = BTreeMap::new();
        for (_, said) in &told.records {
            facts.entry((said.order_id, said.fact)).or_insert_with(|| said.clone());
        }
        Self { snapshot, told, history, facts, stock }
    }

    /// Compares everything with everything.
    pub async fn violations(&self, onlooker: &Onlooker) -> Result<Vec<Violation>> {
        let mut found = Findings::default();
        if let Some(stock) = &self.stock {
            self.check_cache(onlooker, stock, &mut found).await?;
            self.check_stock(stock, &mut found);
        }
        self.check_tellings(&mut found);
        self.check_orders(&mut found);
        self.check_resets(&mut found);
        self.check_wishes(&mut found);
        self.check_keys(&mut found);
        self.check_reservations(&mut found);
        self.check_statuses(&mut found);
        self.check_accounting(&mut found);
        self.check_placement(onlooker, &mut found).await?;
        self.check_bounds(onlooker, &mut found).await?;
        Ok(found.0)
    }

    fn has(&self, order: i64, fact: i16) -> bool {
        self.facts.contains_key(&(order, fact))
    }

    /// I4: however often a fact is told, it is told alike.
    fn check_tellings(&self, found: &mut Findings) {
        for (_, said) in &self.told.records {
            let known = &self.facts[&(said.order_id, said.fact)];
            let told = || format!("told differently: {known:?}, {said:?}");
            found.expect(known == said, "I4", said.order_id, told);
        }
    }

    /// I1, I6, I7: every order there is was published and has ended as SHIPPING or CANCELLED; an
    /// acknowledged one is there, an acknowledged cancellation has happened.
    fn check_orders(&self, found: &mut Findings) {
        for order in &self.history.placed {
            let there = self.snapshot.orders.contains_key(order);
            found.expect(there, "I1", *order, || "was acknowledged and is gone".to_owned());
            let placed = self.has(*order, PLACED);
            found.expect(placed, "I6", *order, || "was acknowledged, not in incoming".to_owned());
        }
        for (order, row) in &self.snapshot.orders {
            found.expect(self.has(*order, PLACED), "I6", *order, || "not in incoming".to_owned());
            let reset = RESETS.into_iter().find(|fact| self.has(*order, *fact));
            let expected = if reset.is_some() { 3 } else { 2 };
            found.expect(row.state == expected, "I1", *order, || format!("{row:?}: {reset:?}"));
            let ended = reset.is_some() || self.has(*order, RESERVED);
            found.expect(ended, "I1", *order, || "has not ended".to_owned());
            let said = row.ended_by.is_none_or(|fact| self.has(*order, fact));
            found.expect(said, "I1", *order, || format!("ended by what was never said: {row:?}"));
            let same = self.facts.get(&(*order, PLACED)).is_none_or(|placed| {
                (placed.item_id, placed.seller_id, placed.client_id, placed.quantity)
                    == (row.item_id, row.seller_id, row.client_id, row.quantity)
            });
            found.expect(same, "I4", *order, || format!("published as another order: {row:?}"));
        }
        for order in self.history.cancelled.union(&self.history.seen_cancelled) {
            let step = self.snapshot.statuses.get(order).map(|status| status.step.as_str());
            let cancelled = step == Some("CANCELLED");
            found.expect(cancelled, "I7", *order, || format!("was cancelled and is {step:?}"));
        }
    }

    /// I1: an order ends in the way it should. Nobody's orders are cancelled but by themselves, at
    /// their deadline, or for a reason of the store's that is true.
    fn check_resets(&self, found: &mut Findings) {
        if self.history.wishes.is_empty() {
            return;
        }
        let mut wanted: BTreeMap<i64, i64> = BTreeMap::new();
        for row in self.snapshot.orders.values() {
            *wanted.entry(row.item_id).or_default() += i64::from(row.quantity);
        }
        for ((order, fact), said) in &self.facts {
            let item = self.snapshot.items.get(&said.item_id);
            let right = match *fact {
                RESET_BY_CLIENT => {
                    let wish = self.history.wishes.get(&said.client_id);
                    wish.is_none_or(|wish| wish.cancels > 0)
                }
                RESET_BY_STORE => match said.reason.and_then(reason_name) {
                    // As much was wanted, though perhaps not all of it held at once.
                    Some("OUT_OF_STOCK") => item.is_some_and(|item| {
                        wanted.get(&said.item_id).copied().unwrap_or(i64::MAX) > item.quantity
                    }),
                    Some("ITEM_NOT_FOUND") => item.is_none(),
                    Some("SELLER_MISMATCH") => {
                        item.is_some_and(|item| item.seller_id != said.seller_id)
                    }
                    _ => false,
                },
                fact if RESETS.contains(&fact) => {
                    let placed = self.facts.get(&(*order, PLACED));
                    let age = placed.map(|placed| said.at - placed.at);
                    let limit = self.history.deadline.unwrap_or_default();
                    age.is_none_or(|age| age.to_std().is_ok_and(|age| age >= limit))
                }
                _ => true,
            };
            found.expect(right, "I1", *order, || format!("ended for no reason: {said:?}"));
        }
    }

    /// I5: what was wanted once, under a key, is there once, known to the client or not; without a
    /// key as often as it was acknowledged, and at most as often as it was sent. It is what was
    /// wanted, and nothing is there that nobody wanted.
    fn check_wishes(&self, found: &mut Findings) {
        if self.history.wishes.is_empty() {
            return;
        }
        let mut made: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
        for row in self.snapshot.orders.values() {
            made.entry(row.client_id).or_default().insert(row.order_id);
        }
        for (client, wish) in &self.history.wishes {
            let orders = made.remove(client).unwrap_or_default();
            let most = if wish.key.is_some() { 1 } else { wish.sent as usize };
            let order = orders.first().copied();
            found.expect(orders.len() <= most, "I5", order, || format!("{wish:?} made {orders:?}"));
            let kept = wish.orders.is_subset(&orders);
            found.expect(kept, "I1", order, || format!("{wish:?} made only {orders:?}"));
            let apart = wish.key.is_some() || wish.acknowledged == wish.orders.len();
            found.expect(apart, "I5", order, || format!("two answers, one order: {wish:?}"));
            for row in orders.iter().map(|order| &self.snapshot.orders[order]) {
                let is = (row.item_id, row.seller_id, i64::from(row.quantity));
                found.expect(is == wish.wanted, "I1", order, || format!("{wish:?} made {row:?}"));
            }
        }
        for said in self.facts.values() {
            let there = self.snapshot.orders.contains_key(&said.order_id);
            found.expect(there, "I6", said.order_id, || format!("of no order: {said:?}"));
        }
        for (client, orders) in made {
            let order = orders.first().copied();
            found.expect(false, "I5", order, || format!("nobody is client {client}: {orders:?}"));
        }
    }

    /// I5: a key was answered with one order, however often it was sent.
    fn check_keys(&self, found: &mut Findings) {
        let mut seen = BTreeSet::new();
        for (key, orders) in &self.history.keys {
            let order = orders.first().copied();
            found.expect(orders.len() == 1, "I5", order, || format!("{key} is {orders:?}"));
            for order in orders {
                let new = seen.insert(*order);
                found.expect(new, "I5", *order, || format!("stands for two keys, one is {key}"));
            }
        }
    }

    /// I2: held is what the reservations say, and never more than there is.
    fn check_stock(&self, stock: &Stock, found: &mut Findings) {
        let mut held = stock.held.clone();
        for item in self.snapshot.items.values() {
            let held = held.remove(&item.item_id).unwrap_or(0);
            found.expect(item.reserved == held, "I2", None, || format!("{item:?} but {held} held"));
            let enough = (0..=item.quantity).contains(&held);
            found.expect(enough, "I2", None, || format!("oversold: {item:?}, {held} held"));
        }
        found.expect(held.is_empty(), "I2", None, || format!("held of no item: {held:?}"));
        for (item, units) in &self.history.items {
            let there = self.snapshot.items.get(item).map(|item| item.quantity);
            let lost = || format!("item {item} was added with {units} units, and has {there:?}");
            found.expect(there == Some(*units), "I2", None, lost);
        }
    }

    /// I3: what is cancelled holds nothing. I1, I4: the store decided of each order, and said so.
    fn check_reservations(&self, found: &mut Findings) {
        for (order, status) in &self.snapshot.statuses {
            let Some(row) = self.snapshot.reservations.get(order) else {
                found.expect(false, "I1", *order, || "the store never decided".to_owned());
                continue;
            };
            let live = row.state == 1;
            let cancelled = status.step == "CANCELLED";
            found.expect(cancelled != live, "I3", *order, || format!("{status:?}, yet {row:?}"));
            let said = [RESERVED, RELEASED, RESET_BY_STORE].map(|fact| self.has(*order, fact));
            let done = [row.state <= 2, row.state == 2, row.state == 3];
            found.expect(said == done, "I4", *order, || format!("{row:?}, but it said {said:?}"));
        }
    }

    /// I4: each status is what the topics' events of the order amount to.
    fn check_statuses(&self, found: &mut Findings) {
        let mut of_order: BTreeMap<i64, Vec<&Said>> = BTreeMap::new();
        for said in self.facts.values() {
            of_order.entry(said.order_id).or_default().push(said);
        }
        for order in self.snapshot.statuses.keys() {
            let known = of_order.contains_key(order);
            found.expect(known, "I4", *order, || "has a status, and nothing was said".to_owned());
        }
        for (order, said) in of_order {
            let Some(status) = self.snapshot.statuses.get(&order) else {
                found.expect(false, "I4", order, || "has no status".to_owned());
                continue;
            };
            let has = |fact: i16| said.iter().any(|one| one.fact == fact);
            let end = said.iter().find(|one| RESETS.contains(&one.fact));
            let (step, reason) = match end {
                Some(end) => ("CANCELLED", end.reason.and_then(reason_name)),
                None if has(RESERVED) => ("SHIPPING", None),
                None => ("UNDER_RESERVATION", None),
            };
            let same = status.step == step
                && status.reason.as_deref() == reason
                && status.is_cancelled == end.is_some()
                && status.is_reserved == (step == "SHIPPING" && !has(RELEASED))
                && said.iter().map(|one| one.at).max() == Some(status.update_date)
                && status.facts.len() == said.len();
            found
                .expect(same, "I4", order, || format!("{said:?} amount to {step}, not {status:?}"));
        }
    }

    /// I10: offsets stand at the ends (that is rest); every event is a fact, every other record a
    /// dead letter of each of its consumers, and nothing else is either.
    fn check_accounting(&self, found: &mut Findings) {
        for cluster in CONSUMERS {
            let name = match cluster {
                Cluster::Monitoring => "/service-monitoring-order".to_owned(),
                other => format!("/service-{}", other.name()),
            };
            let of_its_topics = |place: &&Place| consumed(cluster).contains(&place.0.as_str());
            let expected: BTreeSet<_> =
                self.told.poison.iter().filter(of_its_topics).cloned().collect();
            let buried = self.told.buried.get(&name).cloned().unwrap_or_default();
            found.expect(buried == expected, "I10", None, || {
                let missing: Vec<_> = expected.difference(&buried).collect();
                let extra: Vec<_> = buried.difference(&expected).collect();
                format!("{name} did not bury {missing:?}, and buried {extra:?}")
            });
        }
        let said: BTreeSet<&Said> = self.facts.values().collect();
        let facts = self.snapshot.all_facts();
        for missing in said.difference(&facts) {
            found.expect(false, "I10", missing.order_id, || format!("not stored: {missing:?}"));
        }
        for extra in facts.difference(&said) {
            found.expect(false, "I10", extra.order_id, || format!("never said: {extra:?}"));
        }
    }

    /// I12, by Postgres' own function: records on topics, rows on shards.
    async fn check_placement(&self, onlooker: &Onlooker, found: &mut Findings) -> Result<()> {
        let coordinator = onlooker.sql(Cluster::Monitoring);
        let owners: BTreeMap<i32, String> = sqlx::query_as::<_, (i32, String)>(
            "SELECT right(c.relname, 2)::int, s.srvname::text FROM pg_foreign_table f \
             JOIN pg_class c ON c.oid = f.ftrelid JOIN pg_foreign_server s ON s.oid = f.ftserver",
        )
        .fetch_all(coordinator)
        .await?
        .into_iter()
        .collect();
        ensure!(owners.len() == 16, "{owners:?}");
        let mut placed: BTreeSet<(i64, i32)> =
            self.told.records.iter().map(|(place, said)| (said.order_id, place.1)).collect();
        let mut elsewhere = Vec::new();
        for ((shard, table), rows) in &self.snapshot.facts {
            let owns = owners[table] == shard.name();
            for said in rows {
                placed.insert((said.order_id, *table));
                let named = self.snapshot.statuses.get(&said.order_id).map(|s| s.shard.as_str());
                if !owns || named != Some(shard.name()) {
                    let what =
                        format!("lies in {table} on {shard}, and is said to be in {named:?}");
                    elsewhere.push((said.order_id, what));
                }
            }
        }
        let (orders, partitions): (Vec<i64>, Vec<i32>) = placed.into_iter().unzip();
        let astray: Vec<(i64, i32)> = sqlx::query_as(
            "SELECT o, p FROM unnest($1::bigint[], $2::int[]) u (o, p) \
             WHERE NOT satisfies_hash_partition('order_event'::regclass, 16, p, o)",
        )
        .bind(orders)
        .bind(partitions)
        .fetch_all(coordinator)
        .await?;
        for (order, partition) in astray {
            elsewhere.push((order, format!("stands in partition {partition}")));
        }
        for (order, what) in elsewhere {
            found.expect(false, "I12", order, || what);
        }
        Ok(())
    }

    /// I9: what was published is deleted (that is rest), and what is kept against repetition does
    /// not grow with the orders but for the orders' own rows.
    async fn check_bounds(&self, onlooker: &Onlooker, found: &mut Findings) -> Result<()> {
        for cluster in CONSUMERS {
            let rows = onlooker.offsets(cluster).await?.len();
            let most = consumed(cluster).len() * 16;
            found.expect(rows <= most, "I9", None, || format!("{cluster}: {rows} offsets"));
        }
        let overdue = "SELECT count(*) FROM idempotency_key \
                       WHERE expires_at < now() - interval '1 minute'";
        for cluster in [Cluster::CreateOrder, Cluster::Store] {
            let overdue = onlooker.number(cluster, overdue).await?;
            let what = || format!("{cluster}: {overdue} keys outlived their time");
            found.expect(overdue == 0, "I9", None, what);
        }
        Ok(())
    }

    /// I8: what find answers and what Redis holds is what the database has.
    async fn check_cache(
        &self,
        onlooker: &Onlooker,
        stock: &Stock,
        found: &mut Findings,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + CACHE_BOUND;
        loop {
            let stale = onlooker.stale_items(&self.snapshot.items, &stock.asked).await?;
            if stale.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                for what in stale {
                    found.expect(false, "I8", None, || what);
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Everything known of an order, in words.
    pub fn story(&self, order: i64) -> Vec<String> {
        let mut story = Vec::new();
        let row = self.snapshot.orders.get(&order);
        if let Some(wish) = row.and_then(|row| self.history.wishes.get(&row.client_id)) {
            story.push(format!("key {:?}, sent {} times", wish.key, wish.sent));
            story.extend(wish.log.iter().map(|(second, what)| format!("{second:.3} s: {what}")));
        }
        for ((topic, partition, offset), said) in &self.told.records {
            if said.order_id == order {
                let fact = fact_name(said.fact);
                story.push(format!("{topic}/{partition}/{offset}: {fact} at {}", said.at));
            }
        }
        story.push(format!("create-order: {row:?}"));
        story.push(format!("store: {:?}", self.snapshot.reservations.get(&order)));
        for ((shard, table), rows) in &self.snapshot.facts {
            for said in rows.iter().filter(|said| said.order_id == order) {
                story.push(format!("{shard}, partition {table}: {}", fact_name(said.fact)));
            }
        }
        story.push(format!("monitoring: {:?}", self.snapshot.statuses.get(&order)));
        story
    }
}

impl Onlooker {
    /// Items of which a client or Redis has another state than the database.
    async fn stale_items(
        &self,
        items: &BTreeMap<i64, ItemRow>,
        asked: &[i64],
    ) -> Result<Vec<String>> {
        let mut stale = Vec::new();
        for (id, entry) in self.cached().await? {
            let (version, json) = entry.split_once('|').unwrap_or((&entry, ""));
            let version: i64 = version.parse().unwrap_or(-1);
            let row = items.get(&id);
            // An entry without an item is only a mark that there is a version as high as this.
            let good = match (row, json) {
                (Some(row), "") => version <= row.version,
                (Some(row), json) => version == row.version && shows(json, row),
                (None, json) => json == "null",
            };
            if !good {
                stale.push(format!("Redis has {entry} for {row:?}"));
            }
        }
        let Some(store) = self.urls.get(&Service::Store) else { return Ok(stale) };
        for (id, row) in asked.iter().filter_map(|id| items.get_key_value(id)) {
            let request = self.http.get(format!("{store}/api/v1/items/find"));
            let answer = request.query(&[("item_id", id)]).send().await?.text().await?;
            if !shows(&answer, row) {
                stale.push(format!("find answers {answer} for {row:?}"));
            }
        }
        Ok(stale)
    }

    /// The entries of Redis that are in use.
    async fn cached(&self) -> Result<Vec<(i64, String)>> {
        let client = redis::Client::open(self.redis.as_str())?;
        // A Redis that is away holds nothing that anybody could be shown.
        let Ok(mut redis) = client.get_multiplexed_async_connection().await else {
            return Ok(Vec::new());
        };
        let epoch: Option<String> =
            redis::cmd("GET").arg("item:epoch").query_async(&mut redis).await?;
        let start = format!("item:{}:", epoch.as_deref().unwrap_or("0"));
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{start}*")).query_async(&mut redis).await?;
        let mut entries = Vec::new();
        for key in keys {
            let entry: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut redis).await?;
            let id = key.strip_prefix(&start).and_then(|id| id.parse().ok());
            if let (Some(id), Some(entry)) = (id, entry) {
                entries.push((id, entry));
            }
        }
        Ok(entries)
    }
}

fn shows(json: &str, row: &ItemRow) -> bool {
    let item: Value = serde_json::from_str(json).unwrap_or_default();
    item["reserved"] == row.reserved && item["quantity"] == row.quantity
}
