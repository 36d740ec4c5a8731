//! Two instances of each service share the work, and either can go.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_checker::consumed;
use ordersaga_devstack::{Cluster, Service, ServiceProcess, free_port};

use crate::bed::{Bed, WITHIN, saga, until};
use crate::client::{order_for, sum_of};
use crate::invariants;

/// A second instance of each service, ready.
async fn second_instances(bed: &Bed) -> Result<Vec<ServiceProcess>> {
    let mut seconds = Vec::new();
    for service in Service::ALL {
        let second = bed.instance(service, free_port()?, &format!("{service}-2"));
        second.start()?;
        seconds.push(second);
    }
    for second in &seconds {
        second.wait_ready(WITHIN).await?;
    }
    Ok(seconds)
}

/// Waits until so many instances of a service have equal parts of its partitions.
async fn shared_by(bed: &Bed, service: Service, instances: usize) -> Result<()> {
    let all = consumed(service.cluster()).len() * 16;
    until(&format!("{instances} instances share the partitions of {service}"), async || {
        let members = bed.log().members(service.group()).await?;
        let whole: BTreeSet<_> = members.iter().flatten().collect();
        let equal = members.iter().all(|member| member.len() == all / instances);
        Ok(members.len() == instances && equal && whole.len() == all)
    })
    .await
}

async fn all_shared_by(bed: &Bed, instances: usize) -> Result<()> {
    try_join_all(Service::ALL.map(|service| shared_by(bed, service, instances))).await.map(drop)
}

/// Places orders by both instances in turn.
async fn place_by_both(bed: &Bed, second: &ServiceProcess, item: i64, count: usize) -> Result<()> {
    let order = order_for(item);
    let placed = (0..count).map(async |number| {
        if number % 2 == 0 {
            return bed.place(&order).await.map(drop);
        }
        let request = bed.http.post(format!("{}/api/v1/orders/create", second.url()));
        bed.send(request.json(&order)).await?.expect(201).map(drop)
    });
    try_join_all(placed).await.map(drop)
}

#[test]
fn two_instances_of_each_service_share_the_partitions() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(200).await?;
        let seconds = second_instances(bed).await?;
        all_shared_by(bed, 2).await?;
        for _ in 0..6 {
            place_by_both(bed, &seconds[0], item, 50).await?;
        }
        invariants::hold(bed).await?;
        ensure!(bed.item(item).await?["reserved"] == 200, "all units are sold");
        for (service, second) in Service::ALL.into_iter().zip(&seconds) {
            let mut applied = Vec::new();
            for url in [bed.url(service), second.url()] {
                let page = bed.send(bed.http.get(format!("{url}/metrics"))).await?.text;
                applied.push(sum_of(&page, "consumer_records_total"));
            }
            ensure!(applied.iter().all(|records| *records > 0), "{service}: one does it all");
            // I10 by the services' own count: each record once, whoever applied it.
            let records = bed.log().read(consumed(service.cluster())).await?.len();
            ensure!(
                applied.iter().sum::<i64>() == i64::try_from(records)?,
                "{service}: {applied:?}"
            );
        }
        // Whichever instance is asked, whichever heard of it.
        let url = format!("{}/api/v1/status?order_id=1", seconds[1].url());
        bed.send(bed.http.get(url)).await?.expect(200)?;
        // An instance that leaves properly is not waited for: well below the session timeout.
        for second in &seconds {
            ensure!(second.terminate().await?.success());
        }
        place_by_both(bed, &bed.services[&Service::CreateOrder], item, 20).await?;
        invariants::hold(bed).await
    })
}

/// The server processes that hold an advisory lock in a database: one, of the instance that relays.
async fn relays(bed: &Bed, cluster: Cluster) -> Result<Vec<i32>> {
    let query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    Ok(sqlx::query_scalar(query).fetch_all(bed.sql(cluster)).await?)
}

#[test]
fn killing_an_instance_hands_over_its_partitions_and_the_relay() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(300).await?;
        let mut leaders = Vec::new();
        for service in Service::ALL {
            leaders.push(relays(bed, service.cluster()).await?);
        }
        ensure!(leaders.iter().all(|leader| leader.len() == 1), "{leaders:?}");
        let seconds = second_instances(bed).await?;
        all_shared_by(bed, 2).await?;
        place_by_both(bed, &seconds[0], item, 60).await?;
        for (service, leader) in Service::ALL.into_iter().zip(&leaders) {
            ensure!(relays(bed, service.cluster()).await? == *leader, "one relays, not two");
            bed.services[&service].kill9().await?;
        }
        for (service, leader) in Service::ALL.into_iter().zip(&leaders) {
            until(&format!("another instance of {service} relays"), async || {
                let now = relays(bed, service.cluster()).await?;
                Ok(now.len() == 1 && now != *leader)
            })
            .await?;
        }
        // The survivors take all, without anybody's help.
        all_shared_by(bed, 1).await?;
        bed.services = Service::ALL.into_iter().zip(seconds).collect();
        let order = order_for(item);
        try_join_all((0..30).map(|_| bed.place(&order))).await?;
        invariants::hold(bed).await?;
        ensure!(bed.item(item).await?["reserved"] == 90);
        Ok(())
    })
}

#[test]
fn an_instance_that_was_frozen_applies_nothing_a_second_time() -> Result<()> {
    const INCOMING: &str = r#"consumer_records_total{result="applied",topic="incoming"}"#;
    saga(async |bed| {
        let item = bed.add_item(200).await?;
        let order = order_for(item);
        let place = async |count| try_join_all((0..count).map(|_| bed.place(&order))).await;
        let all_reserved = async |count| {
            until("all orders are reserved", async || {
                let reserved = "SELECT count(*) FROM reservation WHERE state = 1";
                Ok(bed.number(Cluster::Store, reserved).await? == count)
            })
            .await
        };
        // Frozen with a batch in its hands that it cannot apply yet.
        let store = bed.sql(Cluster::Store);
        sqlx::raw_sql("REVOKE INSERT ON reservation FROM ordersaga_service").execute(store).await?;
        place(30).await?;
        let frozen = &bed.services[&Service::Store];
        until("the store has failed and tries again", async || {
            Ok(std::fs::read_to_string(frozen.log())?.contains("a batch is tried again"))
        })
        .await?;
        frozen.pause()?;
        sqlx::raw_sql("GRANT INSERT ON reservation TO ordersaga_service").execute(store).await?;
        let second = bed.instance(Service::Store, free_port()?, "service-store-2");
        second.start()?;
        all_reserved(30).await?;
        place(30).await?;
        all_reserved(60).await?;
        frozen.resume()?;
        shared_by(bed, Service::Store, 2).await?;
        place(30).await?;
        invariants::hold(bed).await?;
        let page = bed.send(bed.http.get(format!("{}/metrics", second.url()))).await?.text;
        let applied = bed.metric(Service::Store, INCOMING).await? + sum_of(&page, INCOMING);
        ensure!(applied == 90, "90 records were applied {applied} times");
        Ok(())
    })
}
