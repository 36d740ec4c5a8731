//! A system whose parts are reached by IPv6 literals.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Service, service_env};
use tokio::net::{TcpListener, TcpStream};

use crate::bed::{Bed, Plan, block_on, skipped};
use crate::client::{order_for, state_of};
use crate::invariants;

/// A way to a part's port on `::1`.
async fn way_to(port: u16) -> Result<u16> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await?;
    let way = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut behind = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut behind).await
            });
        }
    });
    Ok(way)
}

/// Tells the services of every part by an address `[::1]:port`.
async fn lead_over_ipv6(bed: &mut Bed) -> Result<()> {
    const IPV4: &str = "127.0.0.1:";
    let mut ways: BTreeMap<u16, u16> = BTreeMap::new();
    for service in Service::ALL {
        let (broker, redis) = (&bed.broker, bed.redis.url());
        let all = service_env(service, &bed.databases, broker, &redis, &bed.prefix, 1);
        for (name, value) in all {
            if name == "HTTP_LISTEN" || !value.contains(IPV4) {
                continue;
            }
            let mut parts = value.split(IPV4);
            let mut changed = parts.next().unwrap_or_default().to_owned();
            for rest in parts {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let port: u16 = rest[..end].parse()?;
                let way = match ways.get(&port) {
                    Some(way) => *way,
                    None => way_to(port).await?,
                };
                ways.insert(port, way);
                changed = format!("{changed}[::1]:{way}{}", &rest[end..]);
            }
            bed.services.get_mut(&service).context("no such service")?.set(&name, &changed);
        }
    }
    ensure!(ways.len() == 7, "five databases, Redis and the broker: {ways:?}");
    Ok(())
}

#[test]
fn every_part_is_reached_by_an_ipv6_literal() -> Result<()> {
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skipped("this machine has no IPv6");
        return Ok(());
    }
    block_on(Plan::default().idle().run(async |bed| {
        bed.apply_topics().await?;
        lead_over_ipv6(bed).await?;
        bed.start_all().await?;
        let hosts: Vec<String> = sqlx::query_scalar(
            "SELECT o FROM pg_foreign_server, unnest(srvoptions) AS o WHERE o LIKE 'host=%'",
        )
        .fetch_all(bed.sql(Cluster::Monitoring))
        .await?;
        ensure!(hosts == ["host=::1", "host=::1"], "{hosts:?}");
        let item = bed.add_item(10).await?;
        for _ in 0..10 {
            let order = bed.place(&order_for(item)).await?;
            bed.reaches(order, "SHIPPING").await?;
        }
        ensure!(bed.item(item).await?["available"] == 0);
        let ready = bed.get(Service::Store, "/ready").await?;
        ensure!(state_of(&ready.json()?, "redis")?["ready"] == true, "{}", ready.text);
        invariants::hold(bed).await
    }))
}
