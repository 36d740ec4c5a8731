//! The arithmetic of a plan. It is linear but for two things: what a batch costs is shared by more
//! orders the more there are, and a cache keeps what is asked for often.

use ordersaga_contract::PARTITIONS;
use serde::Serialize;

use crate::costs::{Costs, PARTS, Part, TOPICS};
use crate::parameters::Parameters;
use crate::relation::{self, Relation, Rows, Shape};
use crate::zipf;

/// Share of a disk or of memory that may be filled.
const FULL: f64 = 0.7;
const SECONDS_PER_DAY: f64 = 86_400.0;
const DAYS_PER_MONTH: f64 = 30.4;
/// Services that read each topic.
const READERS: [f64; 3] = [2.0, 2.0, 3.0];
/// Bodies of a create and its answer, and of a status.
const CREATE_BODIES: f64 = 80.0;
const STATUS_BODY: f64 = 280.0;

/// Requests or events a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flow {
    /// An operation or a topic.
    pub what: &'static str,
    /// Whose.
    pub service: &'static str,
    /// A second.
    pub average: f64,
    /// A second.
    pub peak: f64,
}

/// Bytes a second on a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traffic {
    /// From where to where.
    pub path: &'static str,
    /// Bytes a second.
    pub average: f64,
    /// Bytes a second.
    pub peak: f64,
    /// Share that goes from one data centre to another.
    pub between_data_centres: f64,
}

/// What a table or an index takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stored {
    /// The table or index.
    pub relation: &'static str,
    /// The part whose database it is in.
    pub node: &'static str,
    /// By the layout of a page.
    pub bytes_per_row: f64,
    /// Share of its room that rows fill.
    pub fill: f64,
    /// How many.
    pub rows: f64,
    /// All of it.
    pub bytes: f64,
}

/// What a database writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    /// The part.
    pub node: &'static str,
    /// Write-ahead log of an order, on average.
    pub log_per_order: f64,
    /// Write-ahead log a day.
    pub log_per_day: f64,
    /// Write-ahead log a second at peak.
    pub log_at_peak: f64,
    /// Room for rows that wait for vacuum: what autovacuum lets gather before it runs.
    pub vacuum_headroom: f64,
}

/// The cache of items at some rate of requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cached {
    /// When.
    pub when: &'static str,
    /// Item requests a second.
    pub requests: f64,
    /// Share of them that find their item.
    pub hit_rate: f64,
    /// Requests a second that go to Postgres.
    pub misses: f64,
    /// Items in the cache.
    pub entries: f64,
    /// Bytes of memory of an item.
    pub bytes_per_entry: f64,
    /// All of them.
    pub bytes: f64,
}

/// What a topic takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// Events a second.
    pub average: f64,
    /// Events a second at peak.
    pub peak: f64,
    /// Bytes of an event, compressed, on average.
    pub bytes_per_event: f64,
    /// Bytes kept, all copies together.
    pub bytes: f64,
    /// Partitions.
    pub partitions: u32,
    /// Events a second of a partition at peak.
    pub peak_per_partition: f64,
}

/// The machines of a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tier {
    /// The part.
    pub name: &'static str,
    /// Cores it uses at peak, without headroom.
    pub cores: f64,
    /// Machines needed by CPU, by what is stored, by writes a second.
    pub by_cpu: f64,
    /// Nodes by what they hold.
    pub by_size: f64,
    /// Nodes by writes a second of the disk.
    pub by_iops: f64,
    /// Bytes held, without copies.
    pub bytes: f64,
    /// Writes a second at peak.
    pub writes: f64,
    /// Connections at each of its nodes.
    pub connections: f64,
    /// In each data centre.
    pub per_data_centre: f64,
    /// In all.
    pub machines: f64,
    /// Cores of each.
    pub cores_each: f64,
}

/// What something costs a month.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Money {
    /// What.
    pub what: &'static str,
    /// How much of it.
    pub amount: f64,
    /// Of what.
    pub unit: &'static str,
    /// US dollars a month.
    pub dollars: f64,
}

/// A rate that cannot be exceeded without changing the system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// The part.
    pub what: &'static str,
    /// Orders a second at peak.
    pub orders_per_second: f64,
    /// How that comes.
    pub arithmetic: String,
    /// What to do beyond.
    pub remedy: &'static str,
}

/// What a load needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What it was made for.
    pub parameters: Parameters,
    /// Requests and events.
    pub load: Vec<Flow>,
    /// Bytes on the network.
    pub network: Vec<Traffic>,
    /// Tables and indexes.
    pub storage: Vec<Stored>,
    /// Write-ahead logs.
    pub logs: Vec<Written>,
    /// The cache.
    pub cache: Vec<Cached>,
    /// The topics.
    pub topics: Vec<Topic>,
    /// The machines.
    pub tiers: Vec<Tier>,
    /// What all of it costs.
    pub money: Vec<Money>,
    /// What limits, the lowest first.
    pub limits: Vec<Limit>,
}

impl Plan {
    /// What such a load needs by these costs.
    pub fn of(parameters: &Parameters, costs: &Costs) -> Self {
        let reckoning = Reckoning { p: parameters, costs };
        let load = reckoning.load();
        let storage = reckoning.storage();
        let logs = reckoning.logs(&storage);
        let cache = reckoning.cache();
        let topics = reckoning.topics();
        let network = reckoning.network(&topics, &logs);
        let tiers = reckoning.tiers(&storage, &cache, &topics);
        let money = reckoning.money(&tiers, &storage, &topics, &network);
        let limits = reckoning.limits();
        let parameters = parameters.clone();
        Self { parameters, load, network, storage, logs, cache, topics, tiers, money, limits }
    }

    /// US dollars a month for all of it.
    pub fn dollars(&self) -> f64 {
        self.money.iter().map(|money| money.dollars).sum()
    }
}

struct Reckoning<'a> {
    p: &'a Parameters,
    costs: &'a Costs,
}

impl Reckoning<'_> {
    /// Orders, cancellations, status requests and item requests a second at peak.
    fn peaks(&self) -> [f64; 4] {
        let p = self.p;
        let orders = p.peak();
        let finds = p.average() * p.item_reads_per_order * p.read_peak_factor;
        [orders, orders * p.cancel_share, orders * p.status_reads_per_order, finds]
    }

    /// Events of each topic per order.
    fn events(&self) -> [f64; 3] {
        let (cancelled, refused) = (self.p.cancel_share, self.p.refuse_share);
        [1.0, 1.0 - refused + cancelled, refused + cancelled]
    }

    fn load(&self) -> Vec<Flow> {
        let (average, peaks) = (self.p.average(), self.peaks());
        let per_order =
            [1.0, self.p.cancel_share, self.p.status_reads_per_order, self.p.item_reads_per_order];
        let operations = [
            ("POST /api/v1/orders/create", "create-order"),
            ("POST /api/v1/orders/cancel", "create-order"),
            ("GET /api/v1/status", "monitoring"),
            ("GET /api/v1/items/find", "store"),
        ];
        let requests = operations.into_iter().zip(per_order).zip(peaks);
        let requests = requests.map(|(((what, service), per_order), peak)| Flow {
            what,
            service,
            average: average * per_order,
            peak,
        });
        let events = TOPICS.into_iter().zip(self.events()).flat_map(|(topic, per_order)| {
            let flow = move |service| Flow {
                what: topic,
                service,
                average: average * per_order,
                peak: self.p.peak() * per_order,
            };
            readers(topic).iter().map(move |service| flow(service)).collect::<Vec<_>>()
        });
        requests.chain(events).collect()
    }

    fn storage(&self) -> Vec<Stored> {
        let shape = Shape::of(self.p);
        let rows = Rows {
            orders: self.p.orders_per_day * self.p.retention_days,
            keys: self.p.orders_per_day * self.p.key_hours / 24.0 * self.p.keyed_share,
            items: self.p.catalog_items,
        };
        let stored = |relation: &Relation| {
            let (rows, fill) = (relation.rows(&rows, self.p), self.costs.fill(relation));
            let bytes_per_row = (relation.bytes)(&shape);
            let bytes = self.costs.stored_bytes(relation, rows, &shape);
            Stored {
                relation: relation.name,
                node: relation.node,
                bytes_per_row,
                fill,
                rows,
                bytes,
            }
        };
        relation::ALL.iter().map(stored).collect()
    }

    fn logs(&self, storage: &[Stored]) -> Vec<Written> {
        let databases = self.costs.parts.iter().filter(|part| part.written > 0.0);
        databases
            .map(|part| {
                let log_per_order = part.log.at(self.p.average());
                Written {
                    node: part.name,
                    log_per_order,
                    log_per_day: log_per_order * self.p.orders_per_day,
                    log_at_peak: part.log.at(self.p.peak()) * self.p.peak(),
                    vacuum_headroom: self.vacuum_headroom(storage, part.name),
                }
            })
            .collect()
    }

    /// autovacuum begins when a share of a table's rows is dead, as `sql/` sets it (2 % of orders)
    /// or as is usual (20 %), and there are no more dead rows than updates and deletes.
    fn vacuum_headroom(&self, storage: &[Stored], node: &str) -> f64 {
        let of_node = storage.iter().filter(|stored| stored.node == node);
        let headroom = of_node.map(|stored| match stored.relation {
            "orders" => stored.bytes * 0.02,
            "reservation" => stored.bytes * f64::min(0.2, self.p.cancel_share),
            "idempotency_key" => stored.bytes * 0.2,
            _ => 0.0,
        });
        headroom.sum()
    }

    fn cache(&self) -> Vec<Cached> {
        let p = self.p;
        let average = p.average() * p.item_reads_per_order;
        let bytes_per_entry = self.costs.entry_bytes(&Shape::of(p));
        [("average", average, p.average()), ("peak", average * p.read_peak_factor, p.peak())]
            .map(|(when, requests, orders)| {
                let ttl = p.cache_ttl_seconds;
                let zipf::Cache { hit_rate, entries } =
                    zipf::cache(p.catalog_items, p.zipf_exponent, requests, ttl);
                // Each order invalidates its item, which costs at most one miss; a cancellation
                // another.
                let invalidated = orders * (1.0 + p.cancel_share);
                let misses = (requests * (1.0 - hit_rate) + invalidated).min(requests);
                Cached {
                    when,
                    requests,
                    hit_rate: if requests > 0.0 { 1.0 - misses / requests } else { 0.0 },
                    misses,
                    entries,
                    bytes_per_entry,
                    bytes: entries * bytes_per_entry,
                }
            })
            .to_vec()
    }

    fn topics(&self) -> Vec<Topic> {
        let (average, p) = (self.p.average(), self.p);
        let topics = TOPICS.into_iter().zip(self.events());
        topics
            .map(|(topic, per_order)| {
                let bytes_per_event = self.costs.event_bytes_at(topic, average * per_order);
                let kept = p.orders_per_day * per_order * p.topic_retention_days;
                Topic {
                    name: topic,
                    average: average * per_order,
                    peak: p.peak() * per_order,
                    bytes_per_event,
                    bytes: kept * bytes_per_event * p.replication,
                    partitions: PARTITIONS,
                    peak_per_partition: p.peak() * per_order / f64::from(PARTITIONS),
                }
            })
            .collect()
    }

    fn network(&self, topics: &[Topic], logs: &[Written]) -> Vec<Traffic> {
        let p = self.p;
        let others = (p.data_centres - 1.0) / p.data_centres.max(1.0);
        let [orders, cancels, statuses, finds] = self.peaks();
        let item = Shape::of(p).item_json();
        let http = |orders: f64, cancels: f64, statuses: f64, finds: f64| {
            (orders + cancels + statuses + finds) * p.http_header_bytes
                + orders * CREATE_BODIES
                + statuses * STATUS_BODY
                + finds * item
        };
        let average = p.average();
        let usual_finds = average * p.item_reads_per_order;
        let usual = http(
            average,
            average * p.cancel_share,
            average * p.status_reads_per_order,
            usual_finds,
        );
        let per_topic = |weights: [f64; 3]| {
            let sum = |of: &dyn Fn(&Topic, usize) -> f64| {
                topics
                    .iter()
                    .enumerate()
                    .map(|(at, topic)| weights[at] * of(topic, at))
                    .sum::<f64>()
            };
            let at_peak =
                |topic: &Topic, _| topic.peak * self.costs.event_bytes_at(topic.name, topic.peak);
            (sum(&|topic, _| topic.average * topic.bytes_per_event), sum(&at_peak))
        };
        let copies = p.replication - 1.0;
        let log: f64 = logs.iter().map(|log| log.log_per_day).sum::<f64>() / SECONDS_PER_DAY;
        let log_peak: f64 = logs.iter().map(|log| log.log_at_peak).sum();
        let standbys = p.data_centres - 1.0;
        let path = |path, (average, peak): (f64, f64), between_data_centres| Traffic {
            path,
            average,
            peak,
            between_data_centres,
        };
        vec![
            path("clients and services", (usual, http(orders, cancels, statuses, finds)), 0.0),
            path("services to the broker", per_topic([1.0; 3]), others),
            path("broker to its consumers", per_topic(READERS), others),
            path("copies among brokers", per_topic([copies; 3]), 1.0),
            path("Postgres to its standbys", (log * standbys, log_peak * standbys), 1.0),
            path("store and Redis", (usual_finds * item, finds * item), others),
        ]
    }

    fn tiers(&self, storage: &[Stored], cache: &[Cached], topics: &[Topic]) -> Vec<Tier> {
        let stored = |node: &str| {
            storage
                .iter()
                .filter(|stored| stored.node == node)
                .map(|stored| stored.bytes)
                .sum::<f64>()
                .abs()
        };
        let mut tiers: Vec<Tier> = Vec::new();
        for part in &self.costs.parts {
            let bytes = match part.name {
                "broker" => topics.iter().map(|topic| topic.bytes).sum(),
                "redis" => cache.iter().map(|cached| cached.bytes).fold(0.0, f64::max),
                name => stored(name),
            };
            let clients = tiers.iter().find(|tier| client_of(part.name) == Some(tier.name));
            let connections =
                clients.map_or(0.0, |tier| tier.machines * self.p.connections_per_instance);
            tiers.push(self.tier(part, bytes, connections));
        }
        tiers
    }

    /// Microseconds of CPU a second at peak that orders take, given, and cancellations.
    fn work(&self, part: &Part, orders_us: f64) -> f64 {
        let [_, cancels, ..] = self.peaks();
        let copies = if part.name == "broker" { self.p.replication } else { 1.0 };
        (orders_us + cancels * part.cancel_us) * copies
    }

    /// Microseconds of CPU a second at peak that reads take.
    fn reads(&self, part: &Part) -> f64 {
        let [_, _, statuses, finds] = self.peaks();
        let hit_rate = self.cache().last().map_or(0.0, |at_peak| at_peak.hit_rate);
        let find_us = hit_rate * part.find_us + (1.0 - hit_rate) * part.miss_us;
        statuses * part.status_us + finds * find_us
    }

    /// Cores of a part at peak, without headroom.
    fn cores(&self, part: &Part) -> f64 {
        let orders_us = part.order_us.most(self.p.peak());
        (self.work(part, orders_us) + self.reads(part)) / 1e6
    }

    fn tier(&self, part: &Part, bytes: f64, connections: f64) -> Tier {
        let p = self.p;
        let cores = self.cores(part);
        let survivors = (p.data_centres - 1.0).max(1.0);
        let kind = kind(part.name);
        let (cores_each, room) = match kind {
            Kind::Service => (p.cores_per_instance, f64::INFINITY),
            // One process is one core: more of them are a cluster.
            Kind::Redis => (1.0, p.memory_gb_per_node * 1e9 * FULL),
            Kind::Primary | Kind::Shards | Kind::Broker => {
                (p.cores_per_node, p.disk_gb_per_node * 1e9 * FULL)
            }
        };
        let by_cpu = (cores / p.utilisation / cores_each).ceil();
        let by_size = (bytes / room).ceil();
        let peak_written = part.written * p.peak() / 8192.0;
        let writes = if part.written > 0.0 { peak_written + part.commits } else { 0.0 };
        let by_iops = (writes / (p.iops_per_node * p.utilisation)).ceil();
        let needed = by_cpu.max(by_size).max(by_iops).max(1.0);
        let per_data_centre = match kind {
            // Those left when a data centre is lost carry all; one more for whatever else fails.
            Kind::Service => (needed / survivors).ceil() + 1.0,
            Kind::Broker => {
                (needed / survivors).ceil().max((p.replication / p.data_centres).ceil())
            }
            Kind::Shards => needed.max(2.0),
            Kind::Primary | Kind::Redis => needed,
        };
        let machines = per_data_centre * p.data_centres;
        let name = part.name;
        Tier {
            name,
            cores,
            by_cpu,
            by_size,
            by_iops,
            bytes,
            writes,
            connections,
            per_data_centre,
            machines,
            cores_each,
        }
    }

    fn money(
        &self,
        tiers: &[Tier],
        storage: &[Stored],
        topics: &[Topic],
        network: &[Traffic],
    ) -> Vec<Money> {
        let p = self.p;
        let cores: f64 = tiers.iter().map(|tier| tier.machines * tier.cores_each).sum();
        let tables: f64 = storage.iter().map(|stored| stored.bytes).sum();
        let copies = p.data_centres;
        let kept: f64 = topics.iter().map(|topic| topic.bytes).sum();
        let disk = (tables * copies + kept) / FULL / 1e9;
        let between: f64 =
            network.iter().map(|traffic| traffic.average * traffic.between_data_centres).sum();
        let traffic = between * SECONDS_PER_DAY * DAYS_PER_MONTH / 1e9;
        let money = |what, amount: f64, unit, price: f64| Money {
            what,
            amount,
            unit,
            dollars: amount * price,
        };
        vec![
            money("machines", cores, "cores", p.core_hour_price * 24.0 * DAYS_PER_MONTH),
            money("disks", disk, "GB", p.disk_gb_price),
            money("between data centres", traffic, "GB a month", p.traffic_gb_price),
        ]
    }

    fn limits(&self) -> Vec<Limit> {
        let p = self.p;
        let mut limits: Vec<Limit> =
            self.costs.parts.iter().filter_map(|part| self.limit(part)).collect();
        // Each instance publishes what it commits; create-order's may be as many as one likes.
        limits.push(Limit {
            what: "producers of the store",
            orders_per_second: f64::from(PARTITIONS) * p.utilisation * self.costs.producer,
            arithmetic: format!(
                "{PARTITIONS} instances, one per partition × {:.0} % of {:.0} orders/s whose \
                 records one producer wrote",
                p.utilisation * 100.0,
                self.costs.producer
            ),
            remedy: "more partitions",
        });
        if p.hot_item_share > 0.0 {
            limits.push(Limit {
                what: "the hot item's row",
                orders_per_second: self.costs.hot_item / p.hot_item_share,
                arithmetic: format!(
                    "{:.0} orders/s of one item, measured, ÷ {:.0} %",
                    self.costs.hot_item,
                    p.hot_item_share * 100.0
                ),
                remedy: "its stock as several items, in several stores",
            });
        }
        limits.sort_by(|a, b| a.orders_per_second.total_cmp(&b.orders_per_second));
        limits
    }

    /// Where a part cannot be had more of.
    fn limit(&self, part: &Part) -> Option<Limit> {
        let p = self.p;
        let partitions = f64::from(PARTITIONS);
        let (most, each, of, remedy) = match part.name {
            "store" | "monitoring" => (
                partitions,
                p.cores_per_instance,
                "instances, one per partition",
                "more partitions, which is another hash of every order: plan them at the begin",
            ),
            "postgres create-order" | "postgres store" | "postgres monitoring" => (
                1.0,
                p.cores_per_node,
                "primary",
                "cells: several systems, orders divided among them",
            ),
            "shards" => {
                (partitions, p.cores_per_node, "nodes, one per partition", "more partitions")
            }
            "broker" => (
                partitions / p.replication,
                p.cores_per_node,
                "partitions, each with its copies",
                "more partitions",
            ),
            "redis" => (
                1.0,
                1.0,
                "Redis, which is one core",
                "a cache in the process before it, or several Redis, items divided among them",
            ),
            _ => return None,
        };
        // More instances than partitions still answer requests.
        let reads = if kind(part.name) == Kind::Service { 0.0 } else { self.reads(part) };
        // The broker's copies are counted among its partitions.
        let copies = if part.name == "broker" { p.replication } else { 1.0 };
        let [_, least_us] = part.order_us.ends();
        let per_order =
            (self.work(part, least_us * p.peak()) / copies + reads) / p.peak().max(1e-9);
        let rate = most * each * p.utilisation * 1e6 / per_order;
        let with = if reads > 0.0 { ", reads included" } else { "" };
        (per_order > 0.0).then(|| Limit {
            what: part.name,
            orders_per_second: rate,
            arithmetic: format!(
                "{most:.0} {of} × {each:.0} cores × {:.0} % ÷ {per_order:.1} µs{with}",
                p.utilisation * 100.0
            ),
            remedy,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    Primary,
    Shards,
    Broker,
    Redis,
}

fn kind(part: &str) -> Kind {
    match part {
        "broker" => Kind::Broker,
        "redis" => Kind::Redis,
        "shards" => Kind::Shards,
        part if part.starts_with("postgres") => Kind::Primary,
        _ => Kind::Service,
    }
}

/// Whose instances connect to a database.
fn client_of(part: &str) -> Option<&'static str> {
    let service = if part == "shards" { "monitoring" } else { part.strip_prefix("postgres ")? };
    PARTS.into_iter().find(|part| *part == service)
}

fn readers(topic: &str) -> &'static [&'static str] {
    match topic {
        "incoming" => &["store", "monitoring"],
        "reservation" => &["create-order", "monitoring"],
        _ => &["create-order", "store", "monitoring"],
    }
}
