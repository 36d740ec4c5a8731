//! Two instances of each service share the work, and either can go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_checker::consumed;
use ordersaga_devstack::{Cluster, Service, ServiceProcess, free_port};

use crate::bed::{Bed, Plan, WITHIN, block_on, saga, until};
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

/// How many processes may publish what they commit to a database.
async fn leases(bed: &Bed, cluster: Cluster) -> Result<i64> {
    bed.number(cluster, "SELECT count(*) FROM sagabus.outbox_lease WHERE ends_at > now()").await
}

async fn leased_by(bed: &Bed, service: Service, instances: i64) -> Result<()> {
    until(&format!("{instances} instances of {service} publish"), async || {
        Ok(leases(bed, service.cluster()).await? == instances)
    })
    .await
}

async fn all_published(bed: &Bed, service: Service) -> Result<()> {
    until(&format!("nothing waits in the outbox of {service}"), async || {
        Ok(bed.number(service.cluster(), "SELECT count(*) FROM sagabus.outbox").await? == 0)
    })
    .await
}

#[test]
fn killing_an_instance_hands_over_its_partitions_and_what_it_has_not_published() -> Result<()> {
    saga(async |bed| {
        let item = bed.add_item(300).await?;
        let seconds = second_instances(bed).await?;
        all_shared_by(bed, 2).await?;
        for service in Service::ALL {
            leased_by(bed, service, 2).await?;
        }
        place_by_both(bed, &seconds[0], item, 60).await?;
        for service in Service::ALL {
            bed.services[&service].kill9().await?;
        }
        // The survivors take all, without anybody's help.
        for service in Service::ALL {
            leased_by(bed, service, 1).await?;
            all_published(bed, service).await?;
        }
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
fn what_a_process_leaves_in_its_outbox_another_publishes_within_seconds() -> Result<()> {
    const SOON: Duration = Duration::from_secs(5);
    saga(async |bed| {
        let item = bed.add_item(20).await?;
        let seconds = second_instances(bed).await?;
        bed.services[&Service::CreateOrder].terminate().await?;
        let mut doomed = bed.instance(Service::CreateOrder, free_port()?, "doomed");
        doomed.set("CRASH_AT", "relay.before_publish");
        doomed.start()?;
        doomed.wait_ready(WITHIN).await?;
        let request = bed.http.post(format!("{}/api/v1/orders/create", doomed.url()));
        // It commits the order and dies before it has published or answered anything.
        let answer = request.json(&order_for(item)).send().await;
        ensure!(answer.is_err() && !doomed.wait_exit(WITHIN).await?.success());
        let since = Instant::now();
        until("the store reserves what it ordered", async || {
            Ok(bed.item(item).await?["reserved"] == 1)
        })
        .await?;
        ensure!(since.elapsed() < SOON, "after {:?}", since.elapsed());
        let metrics = bed.http.get(format!("{}/metrics", seconds[0].url()));
        let page = bed.send(metrics).await?.text;
        ensure!(sum_of(&page, "outbox_adopted_rows_total") == 1, "{page}");
        let mut seconds = seconds.into_iter();
        bed.services.insert(Service::CreateOrder, seconds.next().expect("the first service's"));
        invariants::hold(bed).await
    })
}

/// Places orders by one instance.
async fn place_by(bed: &Bed, instance: &ServiceProcess, item: i64, count: usize) -> Result<()> {
    let order = order_for(item);
    let placed = (0..count).map(async |_| {
        let request = bed.http.post(format!("{}/api/v1/orders/create", instance.url()));
        bed.send(request.json(&order)).await?.expect(201).map(drop)
    });
    try_join_all(placed).await.map(drop)
}

#[test]
fn a_frozen_instance_holds_up_no_order_and_harms_nothing_when_it_goes_on() -> Result<()> {
    block_on(Plan::default().alone().run(async |bed| {
        let item = bed.add_item(200).await?;
        let seconds = second_instances(bed).await?;
        all_shared_by(bed, 2).await?;
        for service in Service::ALL {
            let frozen = &bed.services[&service];
            let begin = bed.number(Cluster::CreateOrder, "SELECT count(*) FROM orders").await?;
            let frozen_amid_orders = async {
                until("some orders are placed", async || {
                    let orders = "SELECT count(*) FROM orders";
                    Ok(bed.number(Cluster::CreateOrder, orders).await? > begin)
                })
                .await?;
                frozen.pause()
            };
            tokio::try_join!(place_by(bed, &seconds[0], item, 30), frozen_amid_orders)?;
            leased_by(bed, service, 1).await?;
            place_by(bed, &seconds[0], item, 10).await?;
            all_published(bed, service).await?;
            frozen.resume()?;
            leased_by(bed, service, 2).await?;
        }
        place_by_both(bed, &seconds[0], item, 40).await?;
        invariants::hold(bed).await?;
        ensure!(bed.item(item).await?["reserved"] == 160);
        Ok(())
    }))
}

#[test]
fn rows_that_a_frozen_sweeper_has_locked_are_swept_by_another_within_seconds() -> Result<()> {
    const SOON: Duration = Duration::from_secs(8);
    let plan = Plan::default().alone().set(Service::CreateOrder, "ORDER_DEADLINE_SECONDS", "3");
    block_on(plan.run(async |bed| {
        bed.services[&Service::Store].terminate().await?;
        let order = order_for(1);
        let placed = try_join_all((0..10).map(|_| bed.place(&order))).await?;
        let mut lock = bed.sql(Cluster::CreateOrder).begin().await?;
        sqlx::raw_sql("LOCK TABLE sagabus.outbox IN SHARE MODE").execute(&mut *lock).await?;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO sagabus.outbox%'";
        until("the sweeper waits amid its transaction", async || {
            Ok(bed.number(Cluster::CreateOrder, waits).await? == 1)
        })
        .await?;
        let frozen = &bed.services[&Service::CreateOrder];
        frozen.pause()?;
        let since = Instant::now();
        lock.rollback().await?;
        let second = bed.instance(Service::CreateOrder, free_port()?, "service-create-order-2");
        second.start()?;
        until("another instance resets the orders", async || {
            let reset = "SELECT count(*) FROM orders WHERE state = 3";
            Ok(bed.number(Cluster::CreateOrder, reset).await? == 10)
        })
        .await?;
        ensure!(since.elapsed() < SOON, "after {:?}", since.elapsed());
        frozen.resume()?;
        bed.start(Service::Store).await?;
        for order in placed {
            bed.reaches(order, "CANCELLED").await?;
        }
        invariants::hold(bed).await
    }))
}

#[test]
fn a_migration_that_is_frozen_holds_up_no_other() -> Result<()> {
    block_on(Plan::default().idle().run(async |bed| {
        bed.apply_topics().await?;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND application_name = 'migrations' AND wait_event_type = 'Lock'";
        // Its first statement under the lock of all migrations waits for this table.
        let mut transaction = bed.sql(Cluster::CreateOrder).begin().await?;
        sqlx::raw_sql("CREATE TABLE _sqlx_migrations ()").execute(&mut *transaction).await?;
        let service = &bed.services[&Service::CreateOrder];
        let frozen = service.migration();
        frozen.start()?;
        until("the migration waits", async || {
            Ok(bed.number(Cluster::CreateOrder, waits).await? == 1)
        })
        .await?;
        frozen.pause()?;
        transaction.rollback().await?;
        service.migrate(WITHIN).await?;
        bed.start(Service::CreateOrder).await?;
        frozen.resume()?;
        ensure!(frozen.wait_exit(WITHIN).await?.success(), "it goes on");
        Ok(())
    }))
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
