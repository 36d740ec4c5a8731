//! A proxy on every link of a system: what its processes say to each other goes through it, and can
//! be late, slow or cut. For tests and benchmarks on one machine.

mod proxy;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use ordersaga_devstack::{Cluster, Databases, Listener, Parts, Service, free_port};
use serde::Serialize;

pub use proxy::{Proxy, Toxic};

/// A way over which processes speak to each other, with a proxy on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Link {
    /// The service and its database.
    CreateOrderPostgres,
    /// The service and the broker.
    CreateOrderBroker,
    /// The service and its database.
    StorePostgres,
    /// The service and its cache.
    StoreRedis,
    /// The service and the broker.
    StoreBroker,
    /// The service and its coordinator.
    MonitoringCoordinator,
    /// Both the service's reads and the coordinator's writes go over it.
    MonitoringShard1,
    /// The same, for the other node.
    MonitoringShard2,
    /// The service and the broker.
    MonitoringBroker,
}

impl Link {
    /// All links.
    pub const ALL: [Self; 9] = [
        Self::CreateOrderPostgres,
        Self::CreateOrderBroker,
        Self::StorePostgres,
        Self::StoreRedis,
        Self::StoreBroker,
        Self::MonitoringCoordinator,
        Self::MonitoringShard1,
        Self::MonitoringShard2,
        Self::MonitoringBroker,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateOrderPostgres => "create-order → postgres",
            Self::CreateOrderBroker => "create-order → broker",
            Self::StorePostgres => "store → postgres",
            Self::StoreRedis => "store → redis",
            Self::StoreBroker => "store → broker",
            Self::MonitoringCoordinator => "monitoring → coordinator",
            Self::MonitoringShard1 => "monitoring → shard1",
            Self::MonitoringShard2 => "monitoring → shard2",
            Self::MonitoringBroker => "monitoring → broker",
        }
    }

    const fn to_broker(service: Service) -> Self {
        match service {
            Service::CreateOrder => Self::CreateOrderBroker,
            Service::Store => Self::StoreBroker,
            Service::Monitoring => Self::MonitoringBroker,
        }
    }

    const fn to_cluster(cluster: Cluster) -> Self {
        match cluster {
            Cluster::CreateOrder => Self::CreateOrderPostgres,
            Cluster::Store => Self::StorePostgres,
            Cluster::Monitoring => Self::MonitoringCoordinator,
            Cluster::Shard1 => Self::MonitoringShard1,
            Cluster::Shard2 => Self::MonitoringShard2,
        }
    }
}

/// The proxies of a system, one on each link. Links end when it is dropped.
#[derive(Debug)]
pub struct Links {
    proxies: BTreeMap<Link, Proxy>,
}

impl Links {
    /// Starts them, before the parts that they lead to; with the listeners that the broker needs, one
    /// for each service, since a broker tells its clients under which address to come back.
    pub async fn start(parts: &Parts) -> Result<(Self, Vec<Listener>)> {
        let mut proxies = BTreeMap::new();
        let mut listeners = Vec::new();
        for cluster in Cluster::ALL {
            let proxy = start_proxy(parts.server(cluster).port).await?;
            proxies.insert(Link::to_cluster(cluster), proxy);
        }
        proxies.insert(Link::StoreRedis, start_proxy(parts.redis).await?);
        for service in Service::ALL {
            let listen = free_port()?;
            let proxy = start_proxy(listen).await?;
            listeners.push(Listener { listen, advertised: proxy.port() });
            proxies.insert(Link::to_broker(service), proxy);
        }
        Ok((Self { proxies }, listeners))
    }

    /// The proxy on a link.
    pub fn proxy(&self, link: Link) -> &Proxy {
        &self.proxies[&link]
    }

    /// Makes all links bad from now on; `None` heals them.
    pub fn set_all(&self, toxic: Option<&Toxic>) {
        for proxy in self.proxies.values() {
            proxy.set(toxic.cloned());
        }
    }

    /// The databases as the services see them, and the coordinator its nodes.
    #[must_use]
    pub fn databases(&self, databases: &Databases) -> Databases {
        let mut seen = databases.clone();
        for cluster in Cluster::ALL {
            let port = self.proxies[&Link::to_cluster(cluster)].port();
            seen.set(cluster, databases[cluster].through(port));
        }
        seen
    }

    /// URL of Redis as the store sees it.
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.proxies[&Link::StoreRedis].port())
    }

    /// The broker's address as a service sees it.
    pub fn broker(&self, service: Service) -> String {
        format!("127.0.0.1:{}", self.proxies[&Link::to_broker(service)].port())
    }
}

async fn start_proxy(port: u16) -> Result<Proxy> {
    Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}
