//! More than the services take: what is too much is refused at once and told when to come again,
//! and nothing that was taken is lost.

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use ordersaga_devstack::{Cluster, Part, Service};
use serde_json::json;

use crate::bed::{Bed, Plan, block_on, until};
use crate::client::{ADD, Answer, CANCEL, CREATE, order_for};
use crate::invariants;

/// It is refused by this problem and says when to come again.
fn is_shed(answer: &Answer, status: u16, kind: &str) -> Result<()> {
    answer.is_problem(status, kind, None)?;
    ensure!(answer.header("retry-after") == Some("1"), "{answer:?}");
    Ok(())
}

async fn create(bed: &Bed) -> Result<Answer> {
    bed.post(Service::CreateOrder, CREATE, Some(&order_for(1))).await
}

async fn cancel(bed: &Bed, order: i64) -> Result<Answer> {
    bed.post(Service::CreateOrder, &format!("{CANCEL}?order_id={order}"), None).await
}

async fn shed(bed: &Bed, reason: &str) -> Result<i64> {
    let series = format!("http_server_requests_shed_total{{reason=\"{reason}\"}}");
    bed.metric(Service::CreateOrder, &series).await
}

#[test]
fn above_the_concurrency_limit_requests_are_refused_at_once_and_the_others_are_done() -> Result<()>
{
    const LIMIT: i64 = 4;
    block_on(async {
        let postgres = Part::temporary_postgres().await?;
        let database = postgres.server().create_database(Cluster::CreateOrder, "own").await?;
        let plan = Plan::default().database(Cluster::CreateOrder, database).set(
            Service::CreateOrder,
            "HTTP_CONCURRENCY",
            &LIMIT.to_string(),
        );
        plan.run(async |bed| {
            let item = bed.add_item(10).await?;
            postgres.pause()?;
            let order = order_for(item);
            let keys: Vec<_> = (0..LIMIT).map(|number| format!("taken {number}")).collect();
            let taken = join_all(keys.iter().map(|key| bed.insist(key, &order)));
            let refused = async {
                until("as many requests wait as may", async || {
                    // The request for the metrics is one more.
                    let active = bed.metric(Service::CreateOrder, "http_server_active_requests");
                    Ok(active.await? == LIMIT + 1)
                })
                .await?;
                for _ in 0..3 {
                    is_shed(&create(bed).await?, 429, "too-many-requests")?;
                    is_shed(&cancel(bed, 1).await?, 429, "too-many-requests")?;
                }
                bed.get(Service::CreateOrder, "/health").await?.expect(200)?;
                let ready = bed.get(Service::CreateOrder, "/ready").await?;
                ensure!(ready.json()?["dependencies"].is_array(), "{ready:?}");
                ensure!(shed(bed, "concurrency").await? == 6);
                postgres.resume()
            };
            let (taken, refused) = tokio::join!(taken, refused);
            refused?;
            for order in taken {
                bed.reaches(order?, "SHIPPING").await?;
            }
            bed.place(&order).await?;
            invariants::hold(bed).await
        })
        .await
    })
}

#[test]
fn with_the_broker_dead_and_the_outbox_full_orders_are_refused_until_it_is_back() -> Result<()> {
    const LIMIT: i64 = 20;
    block_on(async {
        let broker = Part::temporary_broker(None).await?;
        let plan = Plan::default().broker(broker.url()).set(
            Service::CreateOrder,
            "OUTBOX_LIMIT",
            &LIMIT.to_string(),
        );
        plan.run(async |bed| {
            broker.kill9().await?;
            let counted = async |events: i64| {
                until(&format!("{events} events wait"), async || {
                    Ok(bed.metric(Service::CreateOrder, "outbox_pending").await? == events)
                })
                .await
            };
            let mut orders = Vec::new();
            for _ in 0..=LIMIT {
                orders.push(bed.place(&order_for(1)).await?);
            }
            counted(LIMIT + 1).await?;
            is_shed(&create(bed).await?, 503, "overloaded")?;

            // What was taken can still be cancelled, up to a bound of its own.
            let last = orders.pop().context("no orders")?;
            for order in &orders {
                bed.cancel(*order).await?;
            }
            counted(2 * LIMIT + 1).await?;
            is_shed(&cancel(bed, last).await?, 503, "overloaded")?;
            ensure!(shed(bed, "outbox").await? == 2);

            broker.start().await?;
            let later = bed.insist("later", &order_for(2)).await?;
            bed.insist_cancel(last).await?;
            bed.reaches(last, "CANCELLED").await?;
            bed.reaches(later, "CANCELLED").await?;
            invariants::hold(bed).await
        })
        .await
    })
}

/// The server hears of rows within seconds of their commit.
async fn rows(bed: &Bed, service: Service, table: &str, count: i64) -> Result<()> {
    let series = format!("table_rows{{table=\"{table}\"}}");
    until(&format!("{table} has {count} rows"), async || {
        Ok(bed.metric(service, &series).await? == count)
    })
    .await
}

/// It is refused since there is no room for it.
fn has_no_room(answer: &Answer) -> Result<()> {
    answer.is_problem(503, "overloaded", None)?;
    ensure!(answer.header("retry-after") == Some("60"), "{answer:?}");
    Ok(())
}

async fn under_key(bed: &Bed, service: Service, path: &str, key: &str) -> Result<Answer> {
    let request = bed.http.post(format!("{}{path}", bed.url(service)));
    let request = request.header("Idempotency-Key", key);
    bed.send(match path {
        CREATE => request.json(&order_for(1)),
        ADD => request.json(&json!({"seller_id": 1, "price": 1, "name": key})),
        _ => request,
    })
    .await
}

#[test]
fn with_too_many_keys_only_requests_under_new_ones_are_refused() -> Result<()> {
    let plan = Plan::default().set(Service::CreateOrder, "IDEMPOTENCY_KEYS_LIMIT", "3").set(
        Service::Store,
        "IDEMPOTENCY_KEYS_LIMIT",
        "1",
    );
    block_on(plan.run(async |bed| {
        let ask =
            async |path: &str, key: &str| under_key(bed, Service::CreateOrder, path, key).await;
        let first = ask(CREATE, "a").await?.expect(201)?;
        let order = first["order_id"].as_i64().context("order_id")?;
        for key in ["b", "c"] {
            ask(CREATE, key).await?.expect(201)?;
        }
        let item = under_key(bed, Service::Store, ADD, "a").await?.expect(201)?;
        rows(bed, Service::CreateOrder, "idempotency_key", 3).await?;
        rows(bed, Service::Store, "idempotency_key", 1).await?;

        has_no_room(&ask(CREATE, "d").await?)?;
        has_no_room(&ask(&format!("{CANCEL}?order_id={order}"), "d").await?)?;
        let unknown = ask(&format!("{CANCEL}?order_id={}", order + 1_000), "d").await?;
        unknown.is_problem(404, "not-found", None)?;
        ensure!(shed(bed, "keys").await? == 2);
        ensure!(ask(CREATE, "a").await?.expect(201)? == first, "a repetition is answered");
        bed.place(&order_for(1)).await?;
        ensure!(bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await? == 4);
        has_no_room(&under_key(bed, Service::Store, ADD, "b").await?)?;
        ensure!(under_key(bed, Service::Store, ADD, "a").await?.expect(201)? == item);
        bed.add_item(1).await?;

        // As when their time is over.
        let forget = "DELETE FROM idempotency_key WHERE key <> 'a'";
        sqlx::query(forget).execute(bed.sql(Cluster::CreateOrder)).await?;
        until("new keys are taken again", async || Ok(ask(CREATE, "d").await?.status == 201))
            .await?;
        invariants::hold(bed).await
    }))
}

#[test]
fn with_too_many_items_no_more_are_added() -> Result<()> {
    // Four are there from the beginning.
    let plan = Plan::default().set(Service::Store, "ITEMS_LIMIT", "6");
    block_on(plan.run(async |bed| {
        let item = under_key(bed, Service::Store, ADD, "a").await?.expect(201)?;
        bed.add_item(1).await?;
        rows(bed, Service::Store, "item", 6).await?;
        for key in ["b", "c"] {
            has_no_room(&under_key(bed, Service::Store, ADD, key).await?)?;
        }
        ensure!(under_key(bed, Service::Store, ADD, "a").await?.expect(201)? == item);
        let series = "http_server_requests_shed_total{reason=\"rows\"}";
        ensure!(bed.metric(Service::Store, series).await? == 2);
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        ensure!(bed.number(Cluster::Store, "SELECT count(*) FROM item").await? == 6);
        invariants::hold(bed).await
    }))
}

#[test]
fn a_client_that_adds_items_too_fast_is_told_to_wait() -> Result<()> {
    let plan = Plan::default().set(Service::Store, "ITEMS_PER_SECOND", "1");
    block_on(plan.run(async |bed| {
        let item = json!({"seller_id": 1, "price": 1, "name": "thing"});
        let answers = join_all((0..40).map(|_| bed.post(Service::Store, ADD, Some(&item)))).await;
        let mut refused = 0;
        for answer in answers {
            let answer = answer?;
            if answer.status != 201 {
                answer.is_problem(429, "too-many-requests", None)?;
                ensure!(answer.header("retry-after").is_some(), "{answer:?}");
                refused += 1;
            }
        }
        // Ten seconds' items at once; what came later depends on the machine.
        ensure!((1..=30).contains(&refused), "{refused} of 40 are refused");
        let series = "http_server_requests_shed_total{reason=\"rate\"}";
        ensure!(bed.metric(Service::Store, series).await? == refused);
        bed.item(1).await?;
        until("an item is added again", async || {
            Ok(bed.post(Service::Store, ADD, Some(&item)).await?.status == 201)
        })
        .await
    }))
}
