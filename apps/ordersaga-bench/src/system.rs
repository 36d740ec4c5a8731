//! The system that is measured: a stack of its own, and the services as they are built for users.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use ordersaga_checker::{Log, Onlooker, consumed};
use ordersaga_devstack::{
    Cluster, Databases, Parts, Report, Service, ServiceProcess, Stack, TemporaryFolder,
};
use ordersaga_links::{Links, Toxic};
use ordersaga_runtime::topics::{self, Target, TopicsFile};

use crate::sampler::Group;
use crate::scenario;

/// How long a service may take to be ready.
const READY: Duration = Duration::from_mins(1);
/// How long everything may take to come to rest.
const REST: Duration = Duration::from_mins(5);
/// How often it is looked whether everything is at rest: rarely, since the looks themselves cost
/// CPU that is measured.
const LOOK: Duration = Duration::from_millis(200);
/// The databases that consume topics and publish.
const CONSUMERS: [Cluster; 3] = [Cluster::CreateOrder, Cluster::Store, Cluster::Monitoring];
/// Units of each item: more than any run orders.
const UNITS: i64 = 1_000_000_000_000;

/// The end of each partition, by topic and partition.
type Ends = BTreeMap<(String, i32), i64>;

/// A running system. Dropping it kills all of it and removes its folder.
pub(crate) struct System {
    services: Vec<ServiceProcess>,
    binaries: PathBuf,
    pub(crate) databases: Databases,
    pub(crate) onlooker: Onlooker,
    /// The first of the items that are ordered; the others follow it.
    pub(crate) first_item: i64,
    /// Between services and parts, if they are to be far from each other.
    links: Option<Links>,
    pub(crate) stack: Stack,
    _folder: TemporaryFolder,
}

impl System {
    /// Starts everything; the services come from the folder `binaries`. With a delay, everything that
    /// services and parts say to each other is so late in each direction.
    pub(crate) async fn start(
        binaries: &Path,
        delay: Option<Duration>,
        report: &Report,
    ) -> Result<Self> {
        let folder = TemporaryFolder::new("bench")?;
        let parts = Parts::open(folder.path(), None)?;
        let (links, listeners) = match delay {
            Some(_) => Links::start(&parts).await.map(|(links, all)| (Some(links), all))?,
            None => (None, Vec::new()),
        };
        let stack = Stack::start_with(parts, listeners, report).await?;
        let parts = stack.parts();
        let databases = report.step("Databases", parts.provision("")).await?;
        let broker = parts.broker_address();
        let topics = async {
            topics::apply(&Target::open(&broker, ""), &TopicsFile::embedded()?).await.map(drop)
        };
        report.step("Topics", topics).await?;
        let log = Log { broker, prefix: String::new() };
        let onlooker = Onlooker::new(&databases, log, parts.redis_url())?;
        let (binaries, services) = (binaries.to_owned(), Vec::new());
        let mut system = Self {
            services,
            binaries,
            databases,
            onlooker,
            first_item: 1,
            links,
            stack,
            _folder: folder,
        };
        if let (Some(links), Some(delay)) = (&system.links, delay) {
            links.set_all(Some(&Toxic::Latency { delay, jitter: Duration::ZERO }));
        }
        report.step("Services", system.add_instances()).await?;
        system.first_item = system.make_items().await?;
        Ok(system)
    }

    /// Starts one further instance of each service, and waits until they are ready.
    pub(crate) async fn add_instances(&mut self) -> Result<()> {
        let parts = self.stack.parts();
        let number = self.services.len() / Service::ALL.len() + 1;
        let logs = parts.folder.join(format!("logs/instance-{number}"));
        std::fs::create_dir_all(&logs)?;
        let broker = parts.broker_address();
        let (databases, redis) = match &self.links {
            Some(links) => (links.databases(&self.databases), links.redis_url()),
            None => (self.databases.clone(), parts.redis_url()),
        };
        let trio = ServiceProcess::trio(&databases, &broker, &redis, "", &logs)?;
        for (service, mut process) in trio {
            if let Some(links) = &self.links {
                process.set("KAFKA_BROKERS", &links.broker(service));
            }
            process.take_binary_from(&self.binaries);
            process.migrate(READY).await?;
            process.start()?;
            self.services.push(process);
        }
        self.all_at_work().await
    }

    /// Stops all but the first instance of each service.
    pub(crate) async fn remove_instances(&mut self) -> Result<()> {
        let further = self.services.split_off(Service::ALL.len());
        try_join_all(further.iter().map(ServiceProcess::terminate)).await?;
        self.all_at_work().await
    }

    /// Waits until all instances are ready and have partitions: what a rebalance costs is not
    /// to be measured.
    async fn all_at_work(&self) -> Result<()> {
        try_join_all(self.services.iter().map(|service| service.wait_ready(READY))).await?;
        let deadline = Instant::now() + READY;
        for service in Service::ALL {
            let wanted = self.instances(service).count();
            loop {
                let members = self.onlooker.log.members(service.group()).await?;
                if members.len() == wanted && members.iter().all(|member| !member.is_empty()) {
                    break;
                }
                ensure!(Instant::now() < deadline, "{service}: {wanted} instances do not share");
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Puts items into the store's table: the API takes no more than 1,000 units of each.
    async fn make_items(&self) -> Result<i64> {
        // Behind the example item, whose id is fixed: the load's are to follow on from each other.
        let skip = "SELECT setval('item_item_id_seq', max(item_id)) FROM item";
        let skip = sqlx::raw_sql(skip).execute(self.onlooker.sql(Cluster::Store));
        skip.await.context("skipping the ids of other items")?;
        let made: Vec<i64> = sqlx::query_scalar(
            "INSERT INTO item (seller_id, name, price, quantity) \
             SELECT 1, 'item ' || n, 1000, $1 FROM generate_series(1, $2) n RETURNING item_id",
        )
        .bind(UNITS)
        .bind(i64::from(scenario::most_items()))
        .fetch_all(self.onlooker.sql(Cluster::Store))
        .await
        .context("making items")?;
        made.into_iter().min().context("no items were made")
    }

    /// The instances of a service.
    pub(crate) fn instances(&self, service: Service) -> impl Iterator<Item = &ServiceProcess> {
        self.services.iter().filter(move |process| process.name() == service.name())
    }

    /// Base URLs of a service's instances.
    pub(crate) fn urls(&self, service: Service) -> Vec<String> {
        self.instances(service).map(ServiceProcess::url).collect()
    }

    /// What is counted as one, in the order it is shown.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let service = |service: Service| {
            Group::new(short(service), self.instances(service).filter_map(ServiceProcess::pid))
        };
        let part = |name: String, part: &str| Group::new(name, self.stack.part(part).pid());
        let services = [Service::CreateOrder, Service::Store, Service::Monitoring].map(service);
        let nodes = Cluster::ALL.map(|cluster| part(node(cluster), cluster.name()));
        let others = ["broker", "redis"].map(|name| part(name.to_owned(), name));
        services.into_iter().chain(nodes).chain(others).collect()
    }

    /// Waits until nothing is on its way any more: outboxes empty, every consumer at the end of
    /// its topics, seen twice with nothing written between.
    pub(crate) async fn at_rest(&self) -> Result<Ends> {
        let deadline = Instant::now() + REST;
        let mut last = None;
        loop {
            let ends = self.caught_up().await?;
            if ends.is_some() && ends == last {
                return ends.context("at rest");
            }
            ensure!(Instant::now() < deadline, "the system does not come to rest within {REST:?}");
            last = ends;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The ends of all topics, if everything up to them is applied.
    async fn caught_up(&self) -> Result<Option<Ends>> {
        for cluster in CONSUMERS {
            let waiting = "SELECT EXISTS (SELECT FROM sagabus.outbox)";
            if sqlx::query_scalar(waiting).fetch_one(self.onlooker.sql(cluster)).await? {
                return Ok(None);
            }
        }
        let ends = self.onlooker.log.ends().await?;
        for cluster in CONSUMERS {
            let applied: Vec<(String, i32, i64)> =
                sqlx::query_as("SELECT topic, partition, next_offset FROM sagabus.consumer_offset")
                    .fetch_all(self.onlooker.sql(cluster))
                    .await?;
            let applied: BTreeMap<_, _> = applied
                .into_iter()
                .map(|(topic, partition, next)| ((topic, partition), next))
                .collect();
            let mut consumed =
                ends.iter().filter(|((topic, _), _)| consumed(cluster).contains(&topic.as_str()));
            if consumed.any(|(place, end)| applied.get(place).unwrap_or(&0) != end) {
                return Ok(None);
            }
        }
        Ok(Some(ends))
    }

    /// Stops everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.onlooker.close().await;
        try_join_all(self.services.iter().map(ServiceProcess::terminate)).await?;
        self.stack.stop(&Report::log()).await
    }
}

/// Records ever written to a topic, by the ends of its partitions.
pub(crate) fn written(ends: &Ends, topic: &str) -> i64 {
    ends.iter().filter(|((name, _), _)| name == topic).map(|(_, end)| end).sum()
}

/// How a service is shown.
fn short(service: Service) -> &'static str {
    match service {
        Service::CreateOrder => "create-order",
        Service::Store => "store",
        Service::Monitoring => "monitoring",
    }
}

/// How a Postgres node is shown.
pub(crate) fn node(cluster: Cluster) -> String {
    format!("postgres {cluster}")
}
