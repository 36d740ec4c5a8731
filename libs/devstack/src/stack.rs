//! All parts of one stack, owned.

use std::path::Path;

use anyhow::Result;
use futures_util::future::try_join_all;

use crate::broker::{self, Kit, Listener};
use crate::names::Cluster;
use crate::part::Part;
use crate::parts::Parts;
use crate::private::{private_folder, refuse_link};
use crate::report::Report;
use crate::{TemporaryFolder, folder, postgres};

/// Five Postgres clusters, Redis and the broker, running.
#[derive(Debug)]
pub struct Stack {
    // Dropped before the folder they work in.
    all: Vec<Part>,
    parts: Parts,
    _temporary: Option<TemporaryFolder>,
}

impl Stack {
    /// Starts all parts of `parts` side by side; new ones begin empty, others on their data.
    pub async fn start(parts: Parts, report: &Report) -> Result<Self> {
        Self::start_with(parts, Vec::new(), report).await
    }

    /// The same, with further listeners of the broker.
    pub async fn start_with(
        parts: Parts,
        listeners: Vec<Listener>,
        report: &Report,
    ) -> Result<Self> {
        let logs = parts.folder.join("logs");
        private_folder(&logs)?;
        refuse_links(&parts)?;
        let all = all(&parts, listeners, &logs);
        let (clusters, others) = all.split_at(Cluster::ALL.len());
        let [redis, broker] = others else {
            unreachable!("a stack has five clusters, Redis and the broker");
        };
        tokio::try_join!(
            start_clusters(&parts, clusters, report),
            report.step("Redis", redis.start()),
            start_broker(broker, report),
        )?;
        Ok(Self { all, parts, _temporary: None })
    }

    /// Starts a private stack on free ports in a temporary folder.
    pub async fn temporary() -> Result<Self> {
        Self::temporary_with(&Report::log()).await
    }

    /// The same, with progress.
    pub async fn temporary_with(report: &Report) -> Result<Self> {
        let temporary = TemporaryFolder::new("stack")?;
        let parts = Parts::open(temporary.path(), None)?;
        let stack = Self::start(parts, report).await?;
        Ok(Self { _temporary: Some(temporary), ..stack })
    }

    /// Addresses and passwords.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// One part by name: a cluster's, `redis` or `broker`.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn part(&self, name: &str) -> &Part {
        let part = self.all.iter().find(|part| part.name() == name);
        part.unwrap_or_else(|| panic!("no part is called {name}"))
    }

    /// The same, to be moved.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn part_mut(&mut self, name: &str) -> &mut Part {
        let part = self.all.iter_mut().find(|part| part.name() == name);
        part.unwrap_or_else(|| panic!("no part is called {name}"))
    }

    /// All parts.
    pub fn all(&self) -> &[Part] {
        &self.all
    }

    /// Stops all parts cleanly: the broker, then Redis and the clusters.
    pub async fn stop(&self, report: &Report) -> Result<()> {
        report.step("Broker", self.part("broker").stop()).await?;
        report.step("Redis", self.part("redis").stop()).await?;
        let clusters = try_join_all(Cluster::ALL.map(|cluster| self.part(cluster.name()).stop()));
        report.step("Postgres", clusters).await.map(drop)
    }
}

fn all(parts: &Parts, listeners: Vec<Listener>, logs: &Path) -> Vec<Part> {
    let log = |name: &str| logs.join(format!("{name}.log"));
    let cluster = |cluster: Cluster| {
        let name = cluster.name();
        let folder = cluster_folder(parts, cluster);
        let server = parts.server(cluster);
        Part::postgres(name, folder, server.port, server.passwords, log(name))
    };
    let ways_in = broker::Ports {
        listen: parts.broker,
        controller: parts.controller,
        advertised: parts.broker,
        further: listeners,
        secured: None,
    };
    let mut all: Vec<_> = Cluster::ALL.map(cluster).into();
    all.push(Part::redis(parts.folder.join("redis"), parts.redis, log("redis")));
    all.push(Part::broker(parts.folder.join("broker"), ways_in, log("broker")));
    all
}

/// Clusters lie where they seem to lie, or where this program has put them.
fn refuse_links(parts: &Parts) -> Result<()> {
    let above = parts.folder.join("postgres");
    if !folder::is_elsewhere(&above) {
        refuse_link(&above)?;
    }
    Cluster::ALL.iter().try_for_each(|cluster| refuse_link(&cluster_folder(parts, *cluster)))
}

fn cluster_folder(parts: &Parts, cluster: Cluster) -> std::path::PathBuf {
    parts.folder.join("postgres").join(cluster.name())
}

async fn start_clusters(parts: &Parts, clusters: &[Part], report: &Report) -> Result<()> {
    let folders = Cluster::ALL.map(|cluster| cluster_folder(parts, cluster));
    // Of all of them: they begin as copies of one.
    let password = parts.server(Cluster::Store).passwords.superuser;
    if folders.iter().any(|folder| !folder.exists()) {
        let create = async move {
            tokio::task::spawn_blocking(move || postgres::create(&folders, &password)).await?
        };
        report.step("Postgres: new clusters", create).await?;
    }
    let start = try_join_all(clusters.iter().map(Part::start));
    report.step("Postgres: five clusters", start).await.map(drop)
}

async fn start_broker(broker: &Part, report: &Report) -> Result<()> {
    if !Kit::is_there()? {
        let get = async { tokio::task::spawn_blocking(Kit::get).await?.map(drop) };
        report.step("Broker: fetch and prepare", get).await?;
    }
    report.step("Broker", broker.start()).await
}
