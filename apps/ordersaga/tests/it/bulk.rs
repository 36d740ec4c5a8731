//! Many orders in one request: one transaction, an answer for each, and keys as single orders have
//! them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Service};
use serde_json::{Value, json};

use crate::bed::{Bed, WITHIN, saga};
use crate::client::{CREATE, CREATE_MANY, order_for};
use crate::invariants;

const ORDERS: &str = "SELECT count(*) FROM orders";

fn under_key(item: i64, key: &str) -> Value {
    json!({"item_id": item, "seller_id": 1, "client_id": 1, "idempotency_key": key})
}

fn ids(answers: &[Value]) -> Vec<Option<i64>> {
    answers.iter().map(|answer| answer["order_id"].as_i64()).collect()
}

#[test]
fn a_thousand_orders_are_placed_together_and_each_has_its_end() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(700).await?;
        let orders: Vec<_> = (1..=1_000)
            .map(|client| json!({"item_id": item, "seller_id": 1, "client_id": client}))
            .collect();
        let answers = bed.place_many(&orders).await?;
        ensure!(answers.iter().all(|answer| answer["is_replayed"] == false));
        let ids: Vec<_> = ids(&answers).into_iter().collect::<Option<_>>().context("a problem")?;
        let distinct: BTreeSet<_> = ids.iter().collect();
        ensure!(distinct.len() == 1_000, "{} ids", distinct.len());
        let batches = "SELECT count(DISTINCT created_at) FROM orders";
        ensure!(bed.number(Cluster::CreateOrder, batches).await? == 1, "one transaction");
        // The answer of a place is that of its order.
        let mut of_clients: Vec<(i64, i64)> =
            sqlx::query_as("SELECT client_id, order_id FROM orders ORDER BY client_id")
                .fetch_all(bed.sql(Cluster::CreateOrder))
                .await?;
        of_clients.sort_unstable();
        ensure!(of_clients.iter().map(|(_, order)| *order).eq(ids.iter().copied()));
        invariants::hold(bed).await?;
        let held = bed.item(item).await?;
        ensure!(held["reserved"] == 700, "{held}");
        Ok(())
    })
}

#[test]
fn each_of_many_orders_has_its_own_key() -> Result<()> {
    saga(async |bed| {
        let first = bed.place_many(&[under_key(1, "a"), under_key(2, "b"), order_for(3)]).await?;
        let second = [under_key(2, "b"), under_key(9, "a"), under_key(4, "c"), under_key(4, "c")];
        let second = bed.place_many(&second).await?;
        ensure!(second[0]["order_id"] == first[1]["order_id"], "{second:?}");
        ensure!(second[0]["is_replayed"] == true && second[2]["is_replayed"] == false);
        let refused = &second[1];
        ensure!(refused["problem"]["type"] == "urn:ordersaga:problem:idempotency-key-reused");
        ensure!(refused["problem"]["status"] == 422 && refused.get("order_id").is_none());
        ensure!(second[3]["order_id"] == second[2]["order_id"], "a key twice: {second:?}");
        ensure!(second[3]["is_replayed"] == true, "{second:?}");

        // A key is the same to a single order.
        let request = bed.http.post(format!("{}{CREATE}", bed.url(Service::CreateOrder)));
        let single = request.header("Idempotency-Key", "a").json(&order_for(1));
        let single = bed.send(single).await?;
        ensure!(single.expect(201)?["order_id"] == first[0]["order_id"], "{single:?}");
        ensure!(single.header("idempotent-replayed") == Some("true"), "{single:?}");
        ensure!(bed.number(Cluster::CreateOrder, ORDERS).await? == 4);
        invariants::hold(bed).await
    })
}

#[test]
fn one_wrong_order_keeps_all_from_being_placed() -> Result<()> {
    saga(async |bed| {
        let good = order_for(1);
        let mut wrong = good.clone();
        wrong["quantity"] = json!(0);
        wrong["surprise"] = json!(1);
        for (orders, fields) in [
            (json!([good, wrong]), &["orders[1].quantity", "orders[1].surprise"][..]),
            (json!([]), &["orders"]),
            (json!(vec![good.clone(); 1_001]), &["orders"]),
            (json!([good, 7]), &["orders[1]"]),
            (json!([[1, 1, 7]]), &["orders[0]"]),
            (json!([under_key(1, "")]), &["orders[0].idempotency_key"]),
            (json!([under_key(1, &"k".repeat(256))]), &["orders[0].idempotency_key"]),
            (json!({}), &["orders"]),
        ] {
            let body = json!({"orders": orders});
            let answer = bed.post(Service::CreateOrder, CREATE_MANY, Some(&body)).await?;
            answer.is_problem(422, "invalid-field", Some(fields[0]))?;
            let errors = answer.json()?["errors"].as_array().cloned().context("no errors")?;
            let named = errors.iter().filter_map(|error| error["field"].as_str());
            ensure!(named.eq(fields.iter().copied()), "{errors:?}");
        }
        // A client that knows the header of the single create would trust in it.
        let request = bed.http.post(format!("{}{CREATE_MANY}", bed.url(Service::CreateOrder)));
        let request = request.header("Idempotency-Key", "a").json(&json!({"orders": [good]}));
        let answer = bed.send(request).await?;
        answer.is_problem(400, "invalid-parameter", Some("Idempotency-Key"))?;
        ensure!(bed.number(Cluster::CreateOrder, ORDERS).await? == 0);
        Ok(())
    })
}

#[test]
fn the_longest_request_fits_and_no_longer_one() -> Result<()> {
    saga(async |bed| {
        let most = i64::MAX;
        let orders: Vec<_> = (0..1_000)
            .map(|number| {
                let (key, ids) = (format!("{number:0>255}"), most);
                json!({"item_id": ids, "seller_id": ids, "client_id": ids, "quantity": 1000,
                       "idempotency_key": key})
            })
            .collect();
        let answers = bed.place_many(&orders).await?;
        ensure!(ids(&answers).iter().all(Option::is_some));
        let again = bed.place_many(&orders).await?;
        ensure!(ids(&again) == ids(&answers) && again.iter().all(|it| it["is_replayed"] == true));

        let request = bed.http.post(format!("{}{CREATE_MANY}", bed.url(Service::CreateOrder)));
        let request = request.header("Content-Type", "application/json");
        let answer = bed.send(request.body(" ".repeat(512 * 1_024 + 1))).await?;
        answer.is_problem(413, "payload-too-large", None)?;
        invariants::hold(bed).await
    })
}

/// A client that was not answered repeats its request, under the same keys.
#[test]
fn many_orders_survive_a_crash_before_and_after_their_commit() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(50).await?;
        for (round, point) in ["desk.before_commit", "desk.after_commit"].iter().enumerate() {
            let healthy = &bed.services[&Service::CreateOrder];
            healthy.terminate().await?;
            let mut doomed = bed.instance(Service::CreateOrder, healthy.port(), point);
            doomed.set("CRASH_AT", point);
            doomed.start()?;
            doomed.wait_ready(WITHIN).await?;
            let orders: Vec<_> =
                (0..100).map(|number| under_key(item, &format!("{round} {number}"))).collect();
            let crash_and_recover = async {
                doomed.wait_exit(WITHIN).await?;
                bed.start(Service::CreateOrder).await
            };
            let (answers, ()) = tokio::try_join!(bed.place_many(&orders), crash_and_recover)?;
            ensure!(ids(&answers).iter().all(Option::is_some), "{point}: {answers:?}");
            let replayed = answers.iter().filter(|answer| answer["is_replayed"] == true).count();
            ensure!(replayed == 100 * round, "{point}: {replayed} had been placed");
        }
        ensure!(bed.number(Cluster::CreateOrder, ORDERS).await? == 200);
        invariants::hold(bed).await
    })
}

/// Whoever waits for a place is told to come again; nobody is forgotten.
#[test]
fn too_many_such_requests_at_once_are_turned_away() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(1).await?;
        let (bed, orders) = (&*bed, vec![order_for(item); 200]);
        let mut lock = bed.sql(Cluster::CreateOrder).begin().await?;
        sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
        let body = json!({"orders": orders});
        let requests = (0..40).map(|_| bed.post(Service::CreateOrder, CREATE_MANY, Some(&body)));
        let requests = futures_util::future::join_all(requests);
        let release = async {
            until_shed(bed).await?;
            anyhow::Ok(lock.rollback().await?)
        };
        let (answers, released) = tokio::join!(requests, release);
        released?;
        let mut placed = 0;
        for answer in answers {
            let answer = answer?;
            if answer.status == 200 {
                placed += 200;
            } else {
                answer.is_problem(429, "too-many-requests", None)?;
                ensure!(answer.header("retry-after").is_some(), "{answer:?}");
            }
        }
        ensure!(placed == 12 * 200, "of 16 places one client may have 12: {placed} orders");
        ensure!(bed.number(Cluster::CreateOrder, ORDERS).await? == placed);
        Ok(())
    })
}

async fn until_shed(bed: &Bed) -> Result<()> {
    crate::bed::until("the others are turned away", async || {
        let shed = "http_server_requests_shed_total{reason=\"address\"}";
        Ok(bed.metric(Service::CreateOrder, shed).await? == 28)
    })
    .await
}
