//! The invariants of the saga, checked from outside: topics read from their beginning, all
//! databases by SQL, the answers over HTTP. Nothing here uses the services' code.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use ordersaga_devstack::{Cluster, Service};

use crate::bed::{Bed, until};
use crate::records::{EVENTS, Place};
use crate::snapshot::{PLACED, RELEASED, RESERVED, RESETS, Said, Snapshot, Told, reason_name};

const OWN: [Cluster; 3] = [Cluster::CreateOrder, Cluster::Store, Cluster::Monitoring];

/// What each service consumes.
pub(crate) fn consumed(cluster: Cluster) -> &'static [&'static str] {
    match cluster {
        Cluster::CreateOrder => &["reservation", "reset"],
        Cluster::Store => &["incoming", "reset"],
        _ => &EVENTS,
    }
}

/// Waits until the system is at rest and checks every invariant.
pub(crate) async fn hold(bed: &Bed) -> Result<()> {
    at_rest(bed).await?;
    let snapshot = Snapshot::take(bed).await?;
    let told = Told::read(bed).await?;
    check_accounting(bed, &told).await.context("I10: applied + dead-lettered = consumed")?;
    check_placement(bed, &told, &snapshot).await.context("I12: each row where its hash says")?;
    check_orders(bed, &told, &snapshot)?;
    check_stock(&told, &snapshot).context("I2, I3: stock")?;
    check_statuses(&told, &snapshot).context("I4: the status is the fold of the topics")?;
    check_keys(bed, &snapshot).context("I5: one key, one order")?;
    check_cache(bed, &snapshot).await
}

/// Waits until nothing is on its way any more: outboxes empty, every consumer at the end of its
/// topics, no order undecided. Seen twice with nothing written between, this is rest: what a
/// consumer did after the first look would have moved the topics' ends by the second.
pub(crate) async fn at_rest(bed: &Bed) -> Result<()> {
    let mut last = None;
    until("the system is at rest", async || {
        let state = quiet_ends(bed).await?;
        let same = state.is_some() && state == last;
        last = state;
        Ok(same)
    })
    .await
    .with_context(|| "what was left undone is in the logs above")
}

type Ends = BTreeMap<(String, i32), i64>;

async fn quiet_ends(bed: &Bed) -> Result<Option<Ends>> {
    for cluster in OWN {
        let waiting = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM dead_letter)";
        if bed.number(cluster, waiting).await? > 0 {
            return Ok(None);
        }
    }
    let undecided = "SELECT count(*) FROM orders WHERE state = 1";
    if bed.number(Cluster::CreateOrder, undecided).await? > 0 {
        return Ok(None);
    }
    let ends = bed.log().ends().await?;
    for cluster in OWN {
        let applied = offsets(bed, cluster).await?;
        let behind = ends
            .iter()
            .filter(|((topic, _), _)| consumed(cluster).contains(&topic.as_str()))
            .any(|(place, end)| applied.get(place).copied().unwrap_or(0) != *end);
        if behind {
            return Ok(None);
        }
    }
    Ok(Some(ends))
}

async fn offsets(bed: &Bed, cluster: Cluster) -> Result<Ends> {
    let rows: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT topic, partition, next_offset FROM consumer_offset")
            .fetch_all(bed.sql(cluster))
            .await?;
    Ok(rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect())
}

/// I10: offsets stand at the ends (that is rest); every event is a fact, every other record a dead
/// letter of each of its consumers, and nothing else is either.
async fn check_accounting(bed: &Bed, told: &Told) -> Result<()> {
    for cluster in OWN {
        let name = format!(
            "/service-{}",
            match cluster {
                Cluster::Monitoring => "monitoring-order",
                other => other.name(),
            }
        );
        let of_its_topics = |place: &&Place| consumed(cluster).contains(&place.0.as_str());
        let expected: BTreeSet<_> = told.poison.iter().filter(of_its_topics).cloned().collect();
        let buried = told.buried.get(&name).cloned().unwrap_or_default();
        ensure!(buried == expected, "{name} buried {buried:?}, not {expected:?}");
    }
    let events: BTreeSet<Said> = told.facts()?.into_values().collect();
    let facts = Snapshot::take(bed).await?.all_facts();
    let (missing, extra): (Vec<_>, Vec<_>) =
        (events.difference(&facts).collect(), facts.difference(&events).collect());
    ensure!(missing.is_empty(), "said and not on the shards: {missing:?}");
    ensure!(extra.is_empty(), "on the shards and never said: {extra:?}");
    Ok(())
}

/// I12, by Postgres' own function: records on topics, rows on shards.
async fn check_placement(bed: &Bed, told: &Told, snapshot: &Snapshot) -> Result<()> {
    let coordinator = bed.sql(Cluster::Monitoring);
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
        told.records.iter().map(|(partition, said)| (said.order_id, *partition)).collect();
    for ((shard, table), rows) in &snapshot.facts {
        let owns = owners[table] == shard.name();
        ensure!(owns || rows.is_empty(), "{shard} holds rows of table {table}, not its own");
        placed.extend(rows.iter().map(|said| (said.order_id, *table)));
        for said in rows {
            let named = &snapshot.statuses[&said.order_id]["shard"];
            ensure!(named == shard.name(), "the status says {named}, not {shard}");
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
    ensure!(astray.is_empty(), "order and partition: {astray:?}");
    Ok(())
}

/// I1, I6, I7: every order there is was published and has ended as SHIPPING or CANCELLED; an
/// acknowledged one is there, an acknowledged cancellation has happened.
fn check_orders(bed: &Bed, told: &Told, snapshot: &Snapshot) -> Result<()> {
    let facts = told.facts()?;
    let book = bed.book();
    for order in &book.placed {
        ensure!(snapshot.orders.contains_key(order), "I1: acknowledged order {order} is gone");
    }
    for (order, row) in &snapshot.orders {
        let has = |fact| facts.contains_key(&(*order, fact));
        ensure!(has(PLACED), "I6: order {order} is not in incoming");
        let reset = RESETS.into_iter().find(|fact| has(*fact));
        let expected = if reset.is_some() { 3 } else { 2 };
        ensure!(row.state == expected, "I1: {row:?}; reset by {reset:?}");
        ensure!(reset.is_some() || has(RESERVED), "I1: order {order} has not ended");
        ensure!(row.ended_by.is_none_or(has), "{row:?} was ended by what was never said");
    }
    for order in &book.cancelled {
        let step = &snapshot.statuses[order]["step"];
        ensure!(step == "CANCELLED", "I7: order {order}, cancelled, is {step}");
    }
    Ok(())
}

/// I2: held is what the reservations say, and never more than there is. I3: what is cancelled
/// holds nothing.
fn check_stock(told: &Told, snapshot: &Snapshot) -> Result<()> {
    let mut held: BTreeMap<i64, i64> = BTreeMap::new();
    for row in snapshot.reservations.values().filter(|row| row.state == 1) {
        *held.entry(row.item_id).or_default() += i64::from(row.quantity);
    }
    for (id, item) in &snapshot.items {
        let held = held.get(id).copied().unwrap_or(0);
        ensure!(item.reserved == held, "{item:?}, but reservations hold {held}");
        ensure!((0..=item.quantity).contains(&item.reserved), "oversold: {item:?}");
    }
    let facts = told.facts()?;
    for (order, status) in &snapshot.statuses {
        let row = snapshot.reservations.get(order).with_context(|| format!("order {order}"))?;
        ensure!(
            (status["step"] == "CANCELLED") != (row.state == 1),
            "the status is {}, the reservation {row:?}",
            status["step"]
        );
        let has = |fact| facts.contains_key(&(*order, fact));
        ensure!(has(RESERVED) == (row.state <= 2), "{row:?} differs from what was said");
        ensure!(has(RELEASED) == (row.state == 2), "{row:?} differs from what was said");
        ensure!(has(5) == (row.state == 3), "{row:?} differs from what was said");
    }
    Ok(())
}

/// I4: each status is what the topics' events of the order amount to.
fn check_statuses(told: &Told, snapshot: &Snapshot) -> Result<()> {
    let mut of_order: BTreeMap<i64, Vec<Said>> = BTreeMap::new();
    for said in told.facts()?.into_values() {
        of_order.entry(said.order_id).or_default().push(said);
    }
    ensure!(of_order.len() == snapshot.statuses.len(), "orders without a status");
    for (order, said) in of_order {
        let status = &snapshot.statuses[&order];
        let has = |fact: i16| said.iter().any(|one| one.fact == fact);
        let end = said.iter().find(|one| RESETS.contains(&one.fact));
        let (step, reason) = match end {
            Some(end) => ("CANCELLED", end.reason.and_then(reason_name)),
            None if has(RESERVED) => ("SHIPPING", None),
            None => ("UNDER_RESERVATION", None),
        };
        ensure!(status["step"] == step, "{said:?} amount to {step}, not {status}");
        ensure!(status["reason"].as_str() == reason, "{said:?} amount to {reason:?}, not {status}");
        ensure!(status["is_cancelled"] == end.is_some(), "{status}");
        let is_reserved = step == "SHIPPING" && !has(RELEASED);
        ensure!(status["is_reserved"] == is_reserved, "{said:?} differ from {status}");
        let updated: DateTime<Utc> =
            status["update_date"].as_str().context("update_date")?.parse()?;
        ensure!(said.iter().map(|one| one.at).max() == Some(updated), "{said:?}: {status}");
        let facts = status["facts"].as_array().map_or(0, Vec::len);
        ensure!(facts == said.len(), "{said:?} differ from {status}");
    }
    Ok(())
}

/// I5: a key was answered with one order, however often it was sent.
fn check_keys(bed: &Bed, snapshot: &Snapshot) -> Result<()> {
    let mut orders = BTreeSet::new();
    for (key, answered) in bed.book().keys {
        ensure!(answered.len() == 1, "{key} stands for {answered:?}");
        for order in answered {
            ensure!(orders.insert(order), "order {order} stands for two keys, {key} being one");
            ensure!(snapshot.orders.contains_key(&order), "{key}: order {order} is gone");
        }
    }
    Ok(())
}

/// I8: what find answers, from the cache or not, is what the database has.
async fn check_cache(bed: &Bed, snapshot: &Snapshot) -> Result<()> {
    if !bed.services[&Service::Store].is_running() {
        return Ok(());
    }
    for (id, row) in snapshot.items.iter().take(20) {
        let what = format!("I8: find equals {row:?}");
        until(&what, async || {
            let item = bed.item(*id).await?;
            Ok(item["reserved"] == row.reserved && item["quantity"] == row.quantity)
        })
        .await?;
    }
    Ok(())
}
