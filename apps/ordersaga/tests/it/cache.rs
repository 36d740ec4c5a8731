//! Redis only ever makes find faster: never wrong, and it may go and come as it likes.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_devstack::{Cluster, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::{Bed, saga, until};
use crate::client::{order_for, state_of};
use crate::invariants;

const HITS: &str = r#"cache_requests_total{result="hit"}"#;

#[test]
fn defect_06_with_redis_down_find_tells_the_truth() -> Result<()> {
    saga(async |bed| {
        ensure!(bed.item(1).await?["is_reserved"] == false, "this answer is now cached");
        bed.redis.kill9().await?;
        let item = bed.item(1).await?;
        ensure!(item["item_name"] == "IPHONE 13" && item["price"] == 1000, "{item}");
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let item = bed.item(1).await?;
        ensure!(item["is_reserved"] == true, "the cached answer is stale: {item}");
        let unknown = bed.get(Service::Store, "/api/v1/items/find?item_id=99").await?;
        ensure!(unknown.status == 404, "{unknown:?}");
        let bypassed = r#"cache_requests_total{result="bypass"}"#;
        ensure!(bed.metric(Service::Store, bypassed).await? >= 1, "no metric tells of it");
        let ready = bed.get(Service::Store, "/ready").await?.expect(200)?;
        ensure!(state_of(&ready, "redis")?["ready"] == false, "{ready}");
        invariants::hold(bed).await
    })
}

#[test]
fn defect_06_what_changed_while_redis_was_away_is_not_read_from_it_afterwards() -> Result<()> {
    saga(async |bed| {
        ensure!(bed.item(1).await?["is_reserved"] == false, "this answer is now cached");
        // Frozen, not ended: it comes back with everything it had.
        bed.redis.pause()?;
        let order = bed.place(&order_for(1)).await?;
        bed.reaches(order, "SHIPPING").await?;
        ensure!(bed.item(1).await?["is_reserved"] == true);
        bed.redis.resume()?;
        until("redis is back in use", async || {
            ensure!(bed.item(1).await?["is_reserved"] == true, "a stale item was served");
            Ok(bed.metric(Service::Store, HITS).await? >= 1)
        })
        .await?;
        invariants::hold(bed).await
    })
}

#[test]
fn defect_06_reads_that_race_reservations_leave_no_stale_item() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(1000).await?;
        let orders = async {
            let order = order_for(item);
            for round in 0..12 {
                let placed = try_join_all((0..10).map(|_| bed.place(&order))).await?;
                if round % 3 == 0 {
                    try_join_all(placed.iter().map(|order| bed.cancel(*order))).await?;
                }
            }
            invariants::at_rest(bed).await
        };
        let readers = try_join_all((0..3).map(|_| read_on(bed, item)));
        tokio::select! {
            done = orders => done?,
            failed = readers => drop(failed?),
        }
        let held = "SELECT reserved FROM item WHERE item_id = 4";
        let held = bed.number(Cluster::Store, held).await?;
        let shown = bed.item(item).await?;
        ensure!(shown["reserved"] == held, "the cache is stale: {shown}, the database has {held}");
        invariants::hold(bed).await
    })
}

/// Finds an item of a thousand units again and again; each answer must be of one moment.
async fn read_on(bed: &Bed, item: i64) -> Result<()> {
    loop {
        let item = bed.item(item).await?;
        let sum = item["reserved"].as_i64().zip(item["available"].as_i64());
        ensure!(sum.map(|(held, free)| held + free) == Some(1000), "torn: {item}");
    }
}

#[test]
fn once_a_status_tells_of_a_reservation_find_knows_it_too() -> Result<()> {
    saga(async |bed| {
        for _ in 0..25 {
            let item = bed.add_item(1).await?;
            ensure!(bed.item(item).await?["is_reserved"] == false, "this answer is now cached");
            let order = bed.place(&order_for(item)).await?;
            bed.reaches(order, "SHIPPING").await?;
            // At once: the cache was told before monitoring was.
            let found = bed.item(item).await?;
            ensure!(found["is_reserved"] == true, "stale: {found}");
        }
        // On a busy machine Redis may have been doubted meanwhile.
        until("the cache is used", async || {
            bed.item(4).await?;
            Ok(bed.metric(Service::Store, HITS).await? > 0)
        })
        .await?;
        invariants::hold(bed).await
    })
}

/// Sends Redis a command of plain words and returns its answer as it came.
async fn redis(bed: &Bed, command: &str) -> Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", bed.redis.port())).await?;
    connection.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[test]
fn an_item_loaded_before_a_change_is_not_cached_after_it() -> Result<()> {
    saga(async |bed| {
        // A store that has just started sets aside what it finds, whatever that is.
        until("the cache is used", async || {
            bed.item(1).await?;
            Ok(bed.metric(Service::Store, HITS).await? > 0)
        })
        .await?;
        // What a reservation leaves between a reader's look at the database and its offer to the
        // cache: the mark of a version newer than the reader's.
        let epoch = redis(bed, "GET item:epoch").await?;
        let epoch = epoch.lines().nth(1).filter(|line| !line.starts_with('+')).unwrap_or("0");
        let key = format!("item:{epoch}:1");
        redis(bed, &format!("SET {key} 99|")).await?;
        for _ in 0..3 {
            ensure!(bed.item(1).await?["item_name"] == "IPHONE 13");
            let held = redis(bed, &format!("GET {key}")).await?;
            ensure!(held.contains("\r\n99|\r\n"), "an older version was put over a newer: {held}");
        }
        // With the mark gone it is cached: the key above was the right one.
        redis(bed, &format!("DEL {key}")).await?;
        bed.item(1).await?;
        let held = redis(bed, &format!("GET {key}")).await?;
        ensure!(held.contains("IPHONE"), "{held}");
        Ok(())
    })
}

#[test]
fn killing_redis_amid_orders_leaves_no_stale_item() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(500).await?;
        let order = order_for(item);
        for round in 0..4 {
            let orders = async {
                let placed = try_join_all((0..25).map(|_| bed.place(&order))).await?;
                try_join_all(placed.iter().step_by(3).map(|order| bed.cancel(*order))).await
            };
            let reads = async {
                for _ in 0..30 {
                    bed.item(item).await?;
                }
                anyhow::Ok(())
            };
            let redis = async {
                if round % 2 == 0 {
                    bed.redis.kill9().await?;
                    bed.redis.start().await
                } else {
                    bed.redis.pause()?;
                    bed.item(item).await?;
                    bed.redis.resume()
                }
            };
            tokio::try_join!(orders, reads, redis)?;
        }
        invariants::hold(bed).await
    })
}
