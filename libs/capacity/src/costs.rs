//! What one order, read or event costs each part, and where each figure is from. Measured costs come
//! from a run of the benchmark.

use ordersaga_figures::number::short;
use ordersaga_figures::{Figures, Log, Run, Series, Spread, Table};
use serde::Serialize;

use crate::relation::{self, Relation, Shape};

/// The series of orders under load, of few orders, of orders with cancellations, and of reads alone.
const LOAD: &str = "saturation-256";
const RATES: [&str; 5] = [LIGHT, "sale", "saturation-16", "saturation-64", LOAD];
const LIGHT: &str = "light";
const CANCELS: &str = "cancels";
const STATUS: &str = "status-only";
const FIND: &str = "find-only";
const MISS: &str = "find-miss";
const HOT: &str = "hot-item";
const KAFKA: &str = "limit-kafka";
/// Share of the orders that the benchmark cancels in [`CANCELS`].
const CANCELLED: f64 = 0.3;

/// The topics of events.
pub(crate) const TOPICS: [&str; 3] = ["incoming", "reservation", "reset"];

/// The parts of the system, as the benchmark names its processes.
pub(crate) const PARTS: [&str; 9] = [
    "create-order",
    "store",
    "monitoring",
    "postgres create-order",
    "postgres store",
    "postgres monitoring",
    "shards",
    "broker",
    "redis",
];

/// A figure and where it is from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Constant {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// A measurement or a source.
    pub origin: String,
}

/// What a part costs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// Microseconds of CPU.
    pub(crate) order_us: Curve,
    pub(crate) cancel_us: f64,
    pub(crate) status_us: f64,
    /// Of an item request that finds the item in the cache, and of one that does not.
    pub(crate) find_us: f64,
    pub(crate) miss_us: f64,
    /// Write-ahead log of an order, bytes: few orders, and under load.
    pub(crate) log: Curve,
    /// Bytes given to the disk for an order under load.
    pub(crate) written: f64,
    /// Transactions that write, a second: the most that was measured.
    pub(crate) commits: f64,
}

/// Something per order that changes with the rate, since batches grow: measured at several rates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// Orders a second and the value, by rate.
    points: Vec<(f64, f64)>,
}

impl Curve {
    fn new(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { points }
    }

    /// At so many orders a second: on a straight line between the two nearest rates where both axes
    /// are logarithms; beyond the rates measured as there.
    pub(crate) fn at(&self, rate: f64) -> f64 {
        let [(first, lowest), .., (_, highest)] = self.points[..] else { return 0.0 };
        let between = self.points.windows(2).find(|pair| rate <= pair[1].0);
        match between {
            None => highest,
            Some(_) if rate <= first => lowest,
            Some(pair) => {
                let ((low, from), (high, to)) = (pair[0], pair[1]);
                from * (to / from).powf((rate / low).ln() / (high / low).ln())
            }
        }
    }

    /// The most a second, in all, at any rate up to this one: where there is little to do, small
    /// batches may cost more than large ones do at a higher rate.
    pub(crate) fn most(&self, rate: f64) -> f64 {
        let below = self.points.iter().filter(|(measured, _)| *measured <= rate);
        below.map(|(rate, value)| rate * value).fold(rate * self.at(rate), f64::max)
    }

    /// At the lowest and the highest rate measured.
    pub(crate) fn ends(&self) -> [f64; 2] {
        [self.points.first(), self.points.last()].map(|point| point.map_or(0.0, |point| point.1))
    }
}

/// Bytes of a topic's events: batches have a head, and their records compress together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EventSize {
    /// Of each record however many there are.
    record: f64,
    /// Of a batch besides.
    batch: f64,
}

impl EventSize {
    /// By the size of an event in batches of `few` records and of `many`.
    fn of((few, of_few): (f64, f64), (many, of_many): (f64, f64)) -> Self {
        let batch = (of_few - of_many) / (1.0 / few - 1.0 / many);
        Self { record: of_few - batch / few, batch }
    }

    fn at(self, records_per_batch: f64) -> f64 {
        self.record + self.batch / records_per_batch.max(1.0)
    }
}

/// The costs of everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    pub(crate) parts: Vec<Part>,
    /// Bytes of an event, by topic: incoming, reservation, reset.
    event: [EventSize; 3],
    /// Events of a batch in the broker, by the rate of events.
    batch: Curve,
    /// By relation, how much of its room its rows fill.
    pub(crate) fill: Vec<(&'static str, f64)>,
    /// Memory of a cached item beside its JSON.
    pub(crate) entry_overhead: f64,
    /// Orders a second that one producer wrote, and of one item.
    pub(crate) producer: f64,
    pub(crate) hot_item: f64,
    constants: Vec<Constant>,
}

struct Reader<'a> {
    figures: &'a Figures,
    constants: Vec<Constant>,
}

impl Reader<'_> {
    fn series(&self, name: &str) -> Result<&Series, String> {
        let found = self.figures.series(name).filter(|series| !series.runs.is_empty());
        found.ok_or_else(|| format!("the figures have no runs of {name}"))
    }

    /// The median over a series' runs.
    fn median(&self, name: &str, of: impl Fn(&Run) -> Option<f64>) -> Result<f64, String> {
        let spread: Option<Spread> = self.series(name)?.spread(of);
        spread.map(|spread| spread.median).ok_or_else(|| format!("{name} lacks a figure"))
    }

    fn note(&mut self, name: String, value: f64, unit: &'static str, origin: &str) -> f64 {
        self.constants.push(Constant { name, value, unit, origin: origin.to_owned() });
        value
    }

    /// CPU microseconds of a part, by what is counted.
    fn cpu(&self, series: &str, part: &str, per: impl Fn(&Run) -> f64) -> Result<f64, String> {
        self.median(series, |run| {
            let of_part = run.processes.iter().filter(|process| is_part(&process.name, part));
            let seconds: f64 = of_part.map(|process| process.cpu_seconds).sum();
            let count = per(run);
            (count > 0.0).then(|| seconds * 1e6 / count)
        })
    }

    fn part(&mut self, name: &'static str) -> Result<Part, String> {
        let orders = |run: &Run| run.orders as f64;
        let reads = |run: &Run| run.reads as f64;
        let order_us = self.cpu_curve(name)?;
        for (value, series) in order_us.ends().into_iter().zip([LIGHT, LOAD]) {
            self.note(format!("{name}: CPU of an order"), value, "µs", series);
        }
        let [_, order] = order_us.ends();
        let more = self.cpu(CANCELS, name, orders)? - order;
        let cancel_us = (more / CANCELLED).max(0.0);
        let cancel_us = self.note(
            format!("{name}: CPU of a cancellation"),
            cancel_us,
            "µs",
            "(cancels − saturation-256) ÷ 30 %",
        );
        let mut of_reads = |series: &'static str, what: &str, parts: &[&str]| {
            if !parts.contains(&name) {
                return Ok(0.0);
            }
            let value = self.cpu(series, name, reads)?;
            Ok::<_, String>(self.note(format!("{name}: CPU of {what}"), value, "µs", series))
        };
        let status_us = of_reads(STATUS, "a status request", &["monitoring", "shards"])?;
        let find_us = of_reads(FIND, "an item request, cached", &["store", "redis"])?;
        let asked = ["store", "redis", "postgres store"];
        let miss_us = of_reads(MISS, "an item request, not cached", &asked)?;
        let is_database = name.starts_with("postgres") || name == "shards";
        let (mut log, mut written, mut commits) = (Curve::new(Vec::new()), 0.0, 0.0);
        if is_database {
            log = self.curve(|run| Some(per_order(run, name, |node| node.wal_bytes)))?;
            for (bytes, series) in log.ends().into_iter().zip([LIGHT, LOAD]) {
                self.note(format!("{name}: log of an order"), bytes, "bytes", series);
            }
            written = self.median(LOAD, |run| {
                let of_part = run.processes.iter().filter(|process| is_part(&process.name, name));
                run.per_order(of_part.map(|process| process.written_bytes).sum())
            })?;
            self.note(format!("{name}: written to disk for an order"), written, "bytes", LOAD);
            for series in [LIGHT, LOAD] {
                let rate = self.median(series, |run| {
                    let of_part = run.databases.iter().filter(|node| is_node(&node.name, name));
                    Some(of_part.map(|node| node.transactions as f64).sum::<f64>() / run.seconds)
                })?;
                commits = f64::max(commits, rate);
            }
            self.note(
                format!("{name}: most transactions"),
                commits,
                "a second",
                "light, saturation-256",
            );
        }
        Ok(Part { name, order_us, cancel_us, status_us, find_us, miss_us, log, written, commits })
    }

    /// CPU microseconds of a part for an order at several rates.
    fn cpu_curve(&self, part: &str) -> Result<Curve, String> {
        let point = |series: &str| {
            let rate = self.median(series, |run| Some(run.orders_per_second))?;
            Ok::<_, String>((rate, self.cpu(series, part, |run| run.orders as f64)?))
        };
        Ok(Curve::new(RATES.into_iter().map(point).collect::<Result<_, _>>()?))
    }

    /// Something per order at several rates.
    fn curve(&self, of: impl Fn(&Run) -> Option<f64>) -> Result<Curve, String> {
        let point = |series: &str| {
            let rate = self.median(series, |run| Some(run.orders_per_second))?;
            Ok::<_, String>((rate, self.median(series, &of)?))
        };
        Ok(Curve::new(RATES.into_iter().map(point).collect::<Result<_, _>>()?))
    }

    /// Records of a batch and bytes of a record.
    fn batches(&self, series: &str, topic: &str) -> Result<(f64, f64), String> {
        let log = |of: fn(&Log) -> f64| {
            self.median(series, |run| {
                run.topics.get(topic).filter(|log| log.records > 0 && log.batches > 0).map(of)
            })
        };
        let records = log(|log| log.records as f64 / log.batches as f64)?;
        Ok((records, log(|log| log.bytes as f64 / log.records as f64)?))
    }

    fn event(&mut self, topic: &str) -> Result<EventSize, String> {
        let size = if topic == "reset" {
            // Resets come in one series only: their records are taken to compress as placements do.
            let record = self.event_size("incoming")?.record;
            let (records, bytes) = self.batches(CANCELS, topic)?;
            EventSize { record, batch: (bytes - record) * records }
        } else {
            self.event_size(topic)?
        };
        let origin = if topic == "reset" { "cancels" } else { "light, saturation-256" };
        self.note(format!("{topic}: an event alone in its batch"), size.at(1.0), "bytes", origin);
        self.note(format!("{topic}: an event among many"), size.record, "bytes", origin);
        Ok(size)
    }

    fn event_size(&self, topic: &str) -> Result<EventSize, String> {
        Ok(EventSize::of(self.batches(LIGHT, topic)?, self.batches(LOAD, topic)?))
    }

    /// How much of its room a relation's rows fill: the layout's bytes by those measured. The most
    /// bytes of all runs count: later runs put rows where vacuum made room.
    fn fill(&mut self, relation: &Relation) -> Result<f64, String> {
        let Some(rows) = relation.measured_rows else {
            return Ok(self.note(
                format!("{}: filled", relation.name),
                relation.fill,
                "of its room",
                relation.fill_origin,
            ));
        };
        let bytes = stored_of_order(self.series(LOAD)?, relation);
        let bytes =
            bytes.ok_or_else(|| format!("{LOAD} does not say how large {} is", relation.name))?;
        let fill = rows * (relation.bytes)(&relation::BENCH) / bytes;
        Ok(self.note(format!("{}: filled", relation.name), fill, "of its room", LOAD))
    }
}

/// Bytes of a relation by order: the most of a series' runs.
fn stored_of_order(series: &Series, relation: &Relation) -> Option<f64> {
    let bytes = series.spread(|run| {
        let node = run.databases.iter().filter(|node| is_node(&node.name, relation.node));
        run.per_order(node.filter_map(|node| node.relations.get(relation.name)).sum())
    });
    bytes.map(|bytes| bytes.max).filter(|bytes| *bytes > 0.0)
}

fn is_part(process: &str, part: &str) -> bool {
    process == part || (part == "shards" && process.starts_with("postgres shard"))
}

fn is_node(node: &str, part: &str) -> bool {
    part.strip_prefix("postgres ") == Some(node) || (part == "shards" && node.starts_with("shard"))
}

fn per_order(run: &Run, part: &str, of: impl Fn(&ordersaga_figures::Database) -> u64) -> f64 {
    let nodes = run.databases.iter().filter(|node| is_node(&node.name, part));
    run.per_order(nodes.map(of).sum()).unwrap_or_default()
}

impl Costs {
    /// What a run of the benchmark says; what it lacks is the error.
    pub fn of(figures: &Figures) -> Result<Self, String> {
        let mut reader = Reader { figures, constants: Vec::new() };
        let parts = PARTS.map(|name| reader.part(name));
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let event = TOPICS.map(|topic| reader.event(topic));
        let [incoming, reservation, reset] = event;
        let batch = reader.curve(|run| {
            let log = run.topics.get("incoming").filter(|log| log.batches > 0)?;
            Some(log.records as f64 / log.batches as f64)
        })?;
        for (records, series) in batch.ends().into_iter().zip([LIGHT, LOAD]) {
            reader.note("broker: events of a batch".to_owned(), records, "events", series);
        }
        let fill = relation::ALL.iter().map(|relation| Ok((relation.name, reader.fill(relation)?)));
        let fill = fill.collect::<Result<Vec<_>, String>>()?;
        let entry = reader.median(MISS, |run| {
            let cache = run.cache.filter(|cache| cache.entries > 0)?;
            Some(cache.bytes as f64 / cache.entries as f64)
        })?;
        let overhead = entry - relation::BENCH.item_json();
        reader.note("cached item: memory beside its JSON".to_owned(), overhead, "bytes", MISS);
        let producer = reader.median(KAFKA, |run| Some(run.orders_per_second))?;
        reader.note("orders of one producer".to_owned(), producer, "a second", KAFKA);
        let hot_item = reader.median(HOT, |run| Some(run.orders_per_second))?;
        reader.note("orders of one item".to_owned(), hot_item, "a second", HOT);
        Ok(Self {
            parts,
            event: [incoming?, reservation?, reset?],
            batch,
            fill,
            entry_overhead: overhead,
            producer,
            hot_item,
            constants: reader.constants,
        })
    }

    /// Every constant with its origin.
    pub fn table(&self) -> Table {
        let mut table =
            Table::new(["constant", "value", "unit", "measured in the series, or source"]);
        for Constant { name, value, unit, origin } in &self.constants {
            table.row([name.clone(), short(*value), (*unit).to_owned(), origin.clone()]);
        }
        table
    }

    /// Every constant.
    pub fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// Bytes that so many rows of a table or entries of an index take.
    pub fn stored_bytes(&self, relation: &Relation, rows: f64, shape: &Shape) -> f64 {
        rows * (relation.bytes)(shape) / self.fill(relation)
    }

    /// Bytes in the broker of an event of a topic, in batches of so many.
    pub fn event_bytes(&self, topic: &str, records_per_batch: f64) -> Option<f64> {
        let at = TOPICS.iter().position(|name| *name == topic)?;
        Some(self.event[at].at(records_per_batch))
    }

    /// The same at so many events of the topic a second.
    pub(crate) fn event_bytes_at(&self, topic: &str, per_second: f64) -> f64 {
        self.event_bytes(topic, self.batch.at(per_second)).unwrap_or_default()
    }

    /// Bytes of memory of a cached item.
    pub fn entry_bytes(&self, shape: &Shape) -> f64 {
        self.entry_overhead + shape.item_json()
    }

    pub(crate) fn fill(&self, relation: &Relation) -> f64 {
        let found = self.fill.iter().find(|(name, _)| *name == relation.name);
        found.map_or(1.0, |(_, fill)| *fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameters;

    #[test]
    fn a_curve_passes_its_points_and_stays_beyond_them() {
        let curve = Curve::new(vec![(10_000.0, 100.0), (100.0, 400.0), (1_000.0, 200.0)]);
        let at = [1.0, 100.0, 1_000.0, 3_162.3, 10_000.0, 1e6];
        let at = at.map(|rate| format!("{:.0}", curve.at(rate)));
        assert_eq!(at, ["400", "400", "200", "141", "100", "100"]);
    }

    /// A constant of the layout that is measured is what was measured.
    #[test]
    fn cancellations_split_the_pages_of_reservations_as_measured() {
        let figures = include_str!("../../../docs/design/capacity.json");
        let figures: Figures = serde_json::from_str(figures).expect("the figures");
        let costs = Costs::of(&figures).expect("all figures");
        let relation = relation::ALL.iter().find(|relation| relation.name == "reservation_pkey");
        let relation = relation.expect("the index");
        let measured = stored_of_order(figures.series(CANCELS).expect("the series"), relation);
        let parameters = Parameters { cancel_share: CANCELLED, ..Parameters::default() };
        let entries = (relation.per_order)(&parameters);
        let planned = costs.stored_bytes(relation, entries, &relation::BENCH);
        let error = planned / measured.expect("its size") - 1.0;
        assert!(error.abs() < 0.05, "{error}");
    }

    #[test]
    fn an_event_takes_less_the_more_share_its_batch() {
        let size = EventSize::of((1.0, 340.0), (50.0, 46.0));
        let at = [0.5, 1.0, 10.0, 50.0].map(|records| format!("{:.0}", size.at(records)));
        assert_eq!(at, ["340", "340", "70", "46"]);
    }
}
