//! More than the services take: what is too much is refused at once and told when to come again,
//! and nothing that was taken is lost.

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use ordersaga_devstack::{Cluster, Part, Service};

use crate::bed::{Bed, Plan, block_on, until};
use crate::client::{Answer, CANCEL, CREATE, order_for};
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
