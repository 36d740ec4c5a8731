//! The races.

use std::time::Duration;

use anyhow::{Context, Result};
use ordersaga_contract::{Fact, Initiator, Reason};
use ordersaga_devstack::Service;
use ordersaga_saga::status::{Status, Step};
use serde_json::Value;

use super::freeze::FrozenStore;
use super::teller::{Request, Teller, explain};
use crate::http::Answer;
use crate::state::Folder;
use crate::wait;

/// An order is stuck after 30 s unless monitoring is set otherwise, and its deadline ends it after 60.
const STUCK: Duration = Duration::from_secs(50);
const WITHIN: Duration = Duration::from_secs(30);

pub(super) fn cancel_race(teller: &mut Teller) -> Result<()> {
    explain("An item with one unit.");
    let item = teller.item(1)?;
    explain(
        "The order, and its cancellation as soon as it has an id. Both run to the store, in two \
         topics: nothing says which comes first.",
    );
    let order = id(&teller.post(Request::create(item, 1), 201)?)?;
    teller.post(Request::cancel(order), 202)?;
    explain("What is heard of it:");
    let status = teller.hear(order, |status| is_over(status) && has(status, Fact::Placed))?;
    let outcome =
        teller.until("the store has read both", WITHIN, || outcome(teller, item, order))?;
    explain(&format!("What the store has made of them: {outcome}."));
    let by = status.cancellation.map(|why| why.initiator);
    teller.check("The order is CANCELLED by its client.", by == Some(Initiator::Client));
    let is_free = teller.stock(item)? == (1, 0);
    teller.check("The item's unit is free.", is_free);
    Ok(())
}

pub(super) fn out_of_stock(teller: &mut Teller) -> Result<()> {
    explain("An item with one unit.");
    let item = teller.item(1)?;
    explain("Two clients order it at the same time. Both are accepted: the store decides.");
    let answers = teller.send(&[Request::create(item, 1), Request::create(item, 2)])?;
    let orders =
        answers.into_iter().map(|one| id(&one.accept(201)?)).collect::<Result<Vec<_>>>()?;
    explain("What is heard of them:");
    let mut ends = Vec::new();
    for order in orders {
        ends.push(
            teller
                .hear(order, |status| has(status, Fact::Placed) && status.waits_for().is_none())?,
        );
    }
    explain("So one has the unit, and the other is told why not.");
    let shipping = ends.iter().filter(|end| end.step == Step::Shipping).count();
    teller.check("Exactly one order is SHIPPING.", shipping == 1);
    let refused = |end: &&Status| {
        end.cancellation.is_some_and(|why| {
            why.initiator == Initiator::Store && why.reason == Reason::OutOfStock
        })
    };
    let refused = ends.iter().filter(refused).count();
    teller.check("The other is CANCELLED by the store: OUT_OF_STOCK.", refused == 1);
    let is_held = teller.stock(item)? == (0, 1);
    teller.check("The item's only unit is held, once.", is_held);
    Ok(())
}

pub(super) fn duplicate(teller: &mut Teller) -> Result<()> {
    explain("An item with five units.");
    let item = teller.item(5)?;
    let key = format!("try-{:016x}", fastrand::u64(..));
    let request = Request { key: Some(key), ..Request::create(item, 1) };
    explain("One order, sent twice at the same time under one Idempotency-Key.");
    let mut answers = teller.send(&[request.clone(), request.clone()])?;
    let order = answers.first().map(|first| id(&first.body)).context("no answer")??;
    teller.hear(order, |status| status.step == Step::Shipping)?;
    explain("And again, when the order has long been decided.");
    answers.extend(teller.send(std::slice::from_ref(&request))?);
    explain("And another order under the same key.");
    let other = Request { key: request.key, ..Request::create(item, 2) };
    let other = teller.send(&[other])?.pop().context("no answer")?;
    explain("However often it was sent, there is one order.");
    let is_one = |answer: &Answer| answer.status == 201 && answer.body["order_id"] == order;
    teller.check("Each answer names the same order.", answers.iter().all(is_one));
    let is_refused = other.body["type"] == "urn:ordersaga:problem:idempotency-key-reused";
    teller.check("Another order under its key is refused.", is_refused);
    let is_held = teller.stock(item)? == (4, 1);
    teller.check("One unit is held, not three.", is_held);
    Ok(())
}

pub(super) fn late_store(teller: &mut Teller, folder: &Folder) -> Result<()> {
    explain("An item with one unit.");
    let item = teller.item(1)?;
    explain("The store's process is stopped (SIGSTOP). Orders are taken all the same.");
    let frozen = FrozenStore::new(folder, &teller.system)?;
    let order = id(&teller.post(Request::create(item, 1), 201)?)?;
    let status = teller.hear(order, |status| has(status, Fact::Placed))?;
    let is_undecided = status.step == Step::UnderReservation;
    explain("Nobody decides. After half its deadline it counts as stuck.");
    let what = format!("order {order} is listed as stuck");
    teller.until(&what, STUCK, || is_stuck(teller, order).map(|is| is.then_some(())))?;
    explain("Its client gives up. The cancellation cannot reach the store either.");
    teller.post(Request::cancel(order), 202)?;
    let ended = teller.hear(order, |status| status.is_cancelled)?;
    explain("The store goes on (SIGCONT), and finds both: the order and its end.");
    drop(frozen);
    let outcome =
        teller.until("the store has read both", WITHIN, || outcome(teller, item, order))?;
    explain(&format!("What the store has made of them: {outcome}."));
    teller.check("The order was taken and stayed undecided without the store.", is_undecided);
    let by = ended.cancellation.map(|why| why.initiator);
    teller.check("It is CANCELLED by its client.", by == Some(Initiator::Client));
    let is_free = teller.stock(item)? == (1, 0);
    teller.check("The item's unit is free.", is_free);
    let status = teller.hear(order, |status| status.waits_for().is_none())?;
    teller.check("Nothing more is to come of it.", status.step == Step::Cancelled);
    Ok(())
}

fn is_stuck(teller: &Teller, order: i64) -> Result<bool> {
    let stuck = teller.read(Service::Monitoring, "/api/v1/orders/stuck?limit=200")?;
    let mut all = stuck["items"].as_array().into_iter().flatten();
    Ok(all.any(|one| one["order"]["order_id"] == order))
}

/// What the store has made of an order and its cancellation, once it has read both.
fn outcome(teller: &Teller, item: i64, order: i64) -> Result<Option<&'static str>> {
    let decided =
        teller.read(Service::Store, &format!("/api/v1/reservations/find?order_id={order}"))?;
    match decided["state"].as_str() {
        Some("TOMBSTONE") => return Ok(Some("a tombstone, so that the order is never held")),
        Some("RELEASED") => return Ok(Some("it held the unit and gave it back")),
        Some(_) => return Ok(None),
        None => {}
    }
    // A store that cannot be asked for it has read all when it has no lag.
    let metrics = teller.system.read(Service::Store, "/metrics", WITHIN)?;
    if metrics.status != 200 || wait::sum(&metrics.text, "consumer_lag_records") != Some(0.0) {
        return Ok(None);
    }
    let before = order.saturating_add(1);
    let path = format!("/api/v1/items/reservations?item_id={item}&after={before}&limit=1");
    let reservation = teller.read(Service::Store, &path)?;
    Ok(match reservation["items"][0]["state"].as_str() {
        Some("RELEASED") => Some("it held the unit and gave it back"),
        Some(_) => None,
        None => Some("no reservation, and a tombstone, so that the order is never held"),
    })
}

fn id(answer: &Value) -> Result<i64> {
    answer["order_id"].as_i64().context("the answer has no order_id")
}

fn has(status: &Status, fact: Fact) -> bool {
    status.facts.iter().any(|heard| heard.fact == fact)
}

/// It has ended, and nothing of it is to be undone.
fn is_over(status: &Status) -> bool {
    status.is_cancelled && status.waits_for().is_none()
}
