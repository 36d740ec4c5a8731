//! What larger loads need, from what one order was measured to cost. The arithmetic is linear: it
//! says what parts must be able to do together, and which of them cannot be had twice.

use crate::number::{short, whole};
use crate::{Figures, Series, Table};

/// The series whose costs are taken, and others that tell of single parts.
const TYPICAL: &str = "saturation-256";
const HOT_ITEM: &str = "hot-item";
const SQL: &str = "limit-sql";
const KAFKA: &str = "limit-kafka";
/// Partitions of each topic and of the status table: no consumer group has more members, and no
/// more nodes hold status.
const PARTITIONS: f64 = 16.0;
/// How often each record is read: by two services.
const READERS: f64 = 2.0;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// What is assumed of the machines and of operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumptions {
    /// Share of a core that is used, the rest being headroom; above 0 and at most 1.
    pub utilisation: f64,
    /// Cores of each machine, as fast as those that were measured on.
    pub cores: f64,
    /// Copies of each record in the broker.
    pub replicas: f64,
    /// Days that records, orders and facts are kept.
    pub days: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self { utilisation: 0.5, cores: 8.0, replicas: 3.0, days: 7.0 }
    }
}

/// What an order costs a part of the system.
#[derive(Debug, Clone, PartialEq)]
struct Cost {
    name: String,
    sort: Sort,
    cpu_us: f64,
    log_bytes: f64,
    written_bytes: f64,
    stored_bytes: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// As many instances as there are partitions.
    Service,
    /// One primary: it cannot be had twice without splitting what it holds.
    Primary,
    /// As many nodes as there are partitions.
    Shard,
    Broker,
    Redis,
}

/// The costs of all parts, from the figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    parts: Vec<Cost>,
    /// Microseconds of a Postgres node for an order, if one connection does all there is to do.
    serial: Vec<(String, f64)>,
    /// Orders a second that were measured, of all items and of one.
    measured: f64,
    hot_item: Option<f64>,
    /// Orders a second whose records one producer wrote.
    producer: Option<f64>,
    cores: usize,
}

/// A rate that a part cannot exceed, and what helps.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceiling {
    /// The part.
    pub what: String,
    /// Orders a second.
    pub orders_per_second: f64,
    /// How that comes.
    pub arithmetic: String,
    /// What to add beyond.
    pub remedy: &'static str,
}

impl Costs {
    /// What the figures say; what they lack is the error.
    pub fn of(figures: &Figures) -> Result<Self, String> {
        let of = |name| figures.series(name).filter(|series: &&Series| !series.runs.is_empty());
        let typical =
            of(TYPICAL).ok_or_else(|| format!("the figures have no runs of {TYPICAL}"))?;
        let names = typical.runs[0].processes.iter().map(|process| process.name.as_str());
        let parts = names.filter_map(|name| Some(Cost::of(typical, name, sort_of(name)?)));
        let serial = of(SQL).map(|sql| {
            let names = sql.runs.first().into_iter().flat_map(|run| &run.processes);
            let node = |name: &str| Some((name.to_owned(), micros(sql, name)?));
            let nodes = names.filter(|process| process.name.starts_with("postgres "));
            nodes.filter_map(|process| node(&process.name)).collect()
        });
        let rate = |series: &Series| series.rate().map(|rate| rate.median);
        Ok(Self {
            parts: parts.collect(),
            serial: serial.unwrap_or_default(),
            measured: rate(typical).unwrap_or_default(),
            hot_item: of(HOT_ITEM).and_then(rate),
            producer: of(KAFKA).and_then(rate),
            cores: figures.machine.cores,
        })
    }

    /// What so many orders a second need, a row for each part.
    pub fn needs(&self, rate: f64, assumed: &Assumptions) -> Table {
        let mut table = Table::new(["part", "needs", "because"]);
        for part in &self.parts {
            table.row(part.needs(rate, assumed));
        }
        let all = |value: &dyn Fn(&Cost) -> f64| self.parts.iter().map(value).sum::<f64>();
        let disk = all(&|part| rate * part.written_bytes * part.copies(assumed));
        let day = all(&|part| rate * part.stored_bytes * part.copies(assumed) * SECONDS_PER_DAY);
        table.row([
            "all".to_owned(),
            format!(
                "{} cores; {} to disk, {} in {} days",
                short(all(&|part| part.cores(rate, assumed))),
                per_second(disk),
                amount(day * assumed.days),
                whole(assumed.days),
            ),
            "the sum".to_owned(),
        ]);
        table
    }

    /// What limits, the lowest first.
    pub fn ceilings(&self, assumed: &Assumptions) -> Vec<Ceiling> {
        let mut ceilings: Vec<_> = self.parts.iter().map(|part| part.ceiling(assumed)).collect();
        ceilings.extend(self.serial.iter().map(|(name, micros)| Ceiling {
            what: format!("{name}, one connection"),
            orders_per_second: assumed.utilisation * 1e6 / micros,
            arithmetic: format!(
                "{} ÷ {} µs: SQL alone through one connection",
                percent(assumed.utilisation),
                short(*micros)
            ),
            remedy: serial_remedy(name),
        }));
        if let Some(rate) = self.hot_item {
            let most = self.serial.iter().find(|(name, _)| name == "postgres store");
            ceilings.extend(most.map(|(_, micros)| Ceiling {
                what: "one item's row lock".to_owned(),
                orders_per_second: 1e6 / micros,
                arithmetic: format!(
                    "held while a batch commits: at most one connection's 1 ÷ {} µs; {}/s were \
                     measured with everything on {} cores",
                    short(*micros),
                    whole(rate),
                    self.cores,
                ),
                remedy: "spread the item's stock over several items",
            }));
        }
        ceilings.extend(self.producer.map(|rate| Ceiling {
            what: "the relay of a database, one producer".to_owned(),
            orders_per_second: assumed.utilisation * rate,
            arithmetic: format!(
                "{} of the {}/s that the broker took from one producer on {} cores",
                percent(assumed.utilisation),
                whole(rate),
                self.cores,
            ),
            remedy: "several systems: a database has one relay",
        }));
        ceilings.sort_by(|a, b| a.orders_per_second.total_cmp(&b.orders_per_second));
        ceilings
    }

    /// The ceilings as a table.
    pub fn limits(&self, assumed: &Assumptions) -> Table {
        let mut table = Table::new(["part", "orders/s at most", "because", "beyond"]);
        for Ceiling { what, orders_per_second, arithmetic, remedy } in self.ceilings(assumed) {
            table.row([what, whole(orders_per_second), arithmetic, remedy.to_owned()]);
        }
        table
    }

    /// What is beyond its ceiling at this rate.
    pub fn exceeded(&self, rate: f64, assumed: &Assumptions) -> Vec<Ceiling> {
        let ceilings = self.ceilings(assumed).into_iter();
        ceilings.filter(|ceiling| ceiling.orders_per_second < rate).collect()
    }

    /// What was measured, in a sentence.
    pub fn basis(&self) -> String {
        format!(
            "Measured: {} orders/s with everything on {} cores ({TYPICAL}).",
            whole(self.measured),
            self.cores
        )
    }
}

fn sort_of(name: &str) -> Option<Sort> {
    Some(match name {
        "create-order" | "store" | "monitoring" => Sort::Service,
        "postgres create-order" | "postgres store" | "postgres monitoring" => Sort::Primary,
        "postgres shard1" | "postgres shard2" => Sort::Shard,
        "broker" => Sort::Broker,
        "redis" => Sort::Redis,
        _ => return None,
    })
}

fn micros(series: &Series, name: &str) -> Option<f64> {
    let spread = series.cpu_per_thousand(|other| other == name)?;
    // Seconds per 1,000 orders are milliseconds per order.
    Some(spread.median * 1000.0).filter(|micros| *micros > 0.0)
}

impl Cost {
    fn of(series: &Series, name: &str, sort: Sort) -> Self {
        let median = |value: &dyn Fn(&crate::Run) -> Option<f64>| {
            series.spread(value).map_or(0.0, |spread| spread.median)
        };
        let node = name.strip_prefix("postgres ").unwrap_or_default();
        let of_node = |value: fn(&crate::Database) -> u64| {
            median(&|run| run.per_order(value(run.database(node)?)))
        };
        let kafka = median(&|run| run.per_order(run.kafka_bytes));
        let (log_bytes, stored_bytes) = match sort {
            Sort::Primary | Sort::Shard => {
                (of_node(|node| node.wal_bytes), of_node(|node| node.stored_bytes))
            }
            Sort::Broker => (kafka, kafka),
            Sort::Service | Sort::Redis => (0.0, 0.0),
        };
        Self {
            name: name.to_owned(),
            sort,
            cpu_us: micros(series, name).unwrap_or_default(),
            log_bytes,
            written_bytes: median(&|run| run.per_order(run.process(name)?.written_bytes)),
            stored_bytes,
        }
    }

    /// How often what it stores is there.
    fn copies(&self, assumed: &Assumptions) -> f64 {
        if self.sort == Sort::Broker { assumed.replicas } else { 1.0 }
    }

    fn cores(&self, rate: f64, assumed: &Assumptions) -> f64 {
        rate * self.cpu_us * self.copies(assumed) / 1e6 / assumed.utilisation
    }

    /// Name, what is needed, and the arithmetic of that.
    fn needs(&self, rate: f64, assumed: &Assumptions) -> [String; 3] {
        let all =
            [Some(self.cpu(rate, assumed)), self.disk(rate, assumed), self.net(rate, assumed)];
        let (needs, because): (Vec<_>, Vec<_>) = all.into_iter().flatten().unzip();
        [self.name.clone(), needs.join("; "), because.join("; ")]
    }

    fn cpu(&self, rate: f64, assumed: &Assumptions) -> (String, String) {
        let cores = self.cores(rate, assumed);
        let machines = (cores / assumed.cores).ceil().max(1.0);
        let count = match self.sort {
            Sort::Service => format!("{} instances", whole(machines.max(2.0))),
            Sort::Primary if machines > 1.0 => format!("{} systems of their own", whole(machines)),
            Sort::Primary => "one primary".to_owned(),
            Sort::Shard if machines > 1.0 => {
                format!("{} nodes for half of the facts", whole(machines))
            }
            Sort::Shard => "one node for half of the facts".to_owned(),
            Sort::Broker => format!("{} brokers", whole(machines.max(assumed.replicas))),
            Sort::Redis => "one instance".to_owned(),
        };
        let copies = match self.sort {
            Sort::Broker => format!(" × {} copies", whole(assumed.replicas)),
            _ => String::new(),
        };
        let (rate, micros) = (whole(rate), short(self.cpu_us));
        let because = format!("{rate} × {micros} µs{copies} ÷ {}", percent(assumed.utilisation));
        (format!("{} cores, {count}", short(cores)), because)
    }

    fn disk(&self, rate: f64, assumed: &Assumptions) -> Option<(String, String)> {
        let copies = rate * self.copies(assumed);
        let day = copies * self.stored_bytes * SECONDS_PER_DAY;
        let needs = format!(
            "{} to disk, {} a day, {} in {} days",
            per_second(copies * self.written_bytes),
            amount(day),
            amount(day * assumed.days),
            whole(assumed.days),
        );
        let (written, stored) = (whole(self.written_bytes), whole(self.stored_bytes));
        let because = format!("{written} bytes to disk, {stored} stored per order");
        (self.written_bytes + self.stored_bytes > 0.0).then_some((needs, because))
    }

    fn net(&self, rate: f64, assumed: &Assumptions) -> Option<(String, String)> {
        let bytes = rate * self.log_bytes;
        let out = bytes * (READERS + assumed.replicas - 1.0);
        let needs = format!("{} in, {} out", per_second(bytes), per_second(out));
        let copied = whole(assumed.replicas - 1.0);
        let because = format!("each record read by {READERS} services and copied {copied} times");
        (self.sort == Sort::Broker).then_some((needs, because))
    }

    /// What the part can do at the most on the machines assumed.
    fn ceiling(&self, assumed: &Assumptions) -> Ceiling {
        let machine = format!(
            "{} cores × {} ÷ {} µs",
            whole(assumed.cores),
            percent(assumed.utilisation),
            short(self.cpu_us)
        );
        let one = assumed.cores * assumed.utilisation * 1e6 / self.cpu_us;
        let (times, arithmetic, remedy) = match self.sort {
            Sort::Service => (
                PARTITIONS,
                format!("{PARTITIONS} instances, one per partition, of {machine}"),
                "more partitions, which is another hash of every order: plan them at the begin",
            ),
            Sort::Primary => (1.0, machine, primary_remedy(&self.name)),
            Sort::Shard => (
                PARTITIONS / 2.0,
                format!("{} nodes for this half of the facts, of {machine}", PARTITIONS / 2.0),
                "more partitions",
            ),
            Sort::Broker => (
                PARTITIONS / assumed.replicas,
                format!(
                    "{PARTITIONS} brokers for {} copies, of {machine}",
                    whole(assumed.replicas)
                ),
                "more partitions",
            ),
            Sort::Redis => (
                1.0 / assumed.cores,
                format!("one core × {} ÷ {} µs", percent(assumed.utilisation), short(self.cpu_us)),
                "a cluster of Redis: items are independent keys",
            ),
        };
        Ceiling { what: self.name.clone(), orders_per_second: one * times, arithmetic, remedy }
    }
}

fn primary_remedy(name: &str) -> &'static str {
    match name {
        "postgres create-order" => {
            "several create-order systems, clients divided among them, ids from ranges of their own"
        }
        "postgres store" => "several stores, items divided among them",
        _ => {
            "several monitoring systems, partitions divided among them: coordinators share nothing"
        }
    }
}

fn serial_remedy(name: &str) -> &'static str {
    match name {
        "postgres create-order" => "instances: each has its own batches; the relay stays one",
        "postgres store" => "instances: each has its own partitions",
        "postgres monitoring" => "instances: each has its own partitions and nodes their own lanes",
        _ => "more nodes: partitions move to them",
    }
}

fn percent(share: f64) -> String {
    format!("{} %", whole(share * 100.0))
}

fn per_second(bytes: f64) -> String {
    format!("{} MB/s", short(bytes / 1e6))
}

fn amount(bytes: f64) -> String {
    if bytes >= 1e12 {
        format!("{} TB", short(bytes / 1e12))
    } else {
        format!("{} GB", short(bytes / 1e9))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Database, Kind, Machine, Process, Run, VERSION};

    fn process(name: &str, cpu_seconds: f64, written_bytes: u64) -> Process {
        Process { name: name.to_owned(), cpu_seconds, written_bytes, ..Process::default() }
    }

    fn series(name: &str, orders_per_second: f64, processes: Vec<Process>) -> Series {
        let database = Database {
            name: "create-order".to_owned(),
            wal_bytes: 300_000,
            transactions: 2,
            stored_bytes: 200_000,
        };
        let run = Run {
            orders: 1_000,
            all_orders: 1_000,
            orders_per_second,
            processes,
            databases: vec![database],
            kafka_bytes: 100_000,
            ..Run::default()
        };
        let (name, title) = (name.to_owned(), String::new());
        Series { name, title, kind: Kind::Scenario, runs: vec![run] }
    }

    /// An order costs create-order 20 µs and its database 40 µs, 1,000 bytes to disk.
    fn figures() -> Figures {
        let processes = vec![
            process("create-order", 0.02, 0),
            process("postgres create-order", 0.04, 1_000_000),
            process("broker", 0.01, 200_000),
            process("redis", 0.001, 0),
            process("load", 9.0, 0),
        ];
        let sql = vec![process("postgres create-order", 0.01, 0), process("bench", 9.0, 0)];
        Figures {
            version: VERSION,
            command: String::new(),
            started_at: String::new(),
            seconds: 1.0,
            machine: Machine {
                cores: 2,
                cpu: String::new(),
                memory_bytes: 0,
                kernel: String::new(),
            },
            versions: BTreeMap::new(),
            settings: BTreeMap::new(),
            series: vec![series(TYPICAL, 15_000.0, processes), series(SQL, 50_000.0, sql)],
        }
    }

    fn row(table: &Table, part: &str) -> Vec<String> {
        table.rows.iter().find(|row| row[0] == part).cloned().unwrap_or_default()
    }

    #[test]
    fn needs_grow_with_the_rate() {
        let costs = Costs::of(&figures()).unwrap();
        let table = costs.needs(10_000.0, &Assumptions::default());
        let [_, needs, because] = row(&table, "postgres create-order").try_into().unwrap();
        // 10,000 × 40 µs = 0.4 cores, of which half are used; 2 MB a second are 172.8 GB a day.
        assert!(needs.starts_with("0.80 cores, one primary; 10.0 MB/s to disk"), "{needs}");
        assert!(needs.contains("173 GB a day, 1.21 TB in 7 days"), "{needs}");
        assert!(because.starts_with("10,000 × 40.0 µs ÷ 50 %"), "{because}");
        let more = costs.needs(200_000.0, &Assumptions::default());
        assert!(row(&more, "postgres create-order")[1].starts_with("16.0 cores, 2 systems"));
        assert!(row(&more, "create-order")[1].starts_with("8.00 cores, 2 instances"));
    }

    #[test]
    fn the_broker_counts_its_copies() {
        let costs = Costs::of(&figures()).unwrap();
        let needs = row(&costs.needs(10_000.0, &Assumptions::default()), "broker").swap_remove(1);
        assert!(needs.starts_with("0.60 cores, 3 brokers; 6.00 MB/s to disk"), "{needs}");
        assert!(needs.ends_with("1.00 MB/s in, 4.00 MB/s out"), "{needs}");
    }

    #[test]
    fn the_load_generator_is_no_part_of_the_system() {
        let costs = Costs::of(&figures()).unwrap();
        let table = costs.needs(1_000.0, &Assumptions::default());
        assert!(row(&table, "load").is_empty());
        // 1,000 × (20 + 40 + 3 × 10 + 1) µs ÷ 50 %.
        assert!(row(&table, "all")[1].starts_with("0.18 cores; 1.60 MB/s"), "{table:?}");
    }

    #[test]
    fn the_lowest_ceiling_comes_first_and_falls_with_headroom() {
        let costs = Costs::of(&figures()).unwrap();
        let ceilings = costs.ceilings(&Assumptions::default());
        assert!(ceilings.is_sorted_by(|a, b| a.orders_per_second <= b.orders_per_second));
        // 50 % of a second ÷ 10 µs; 8 cores × 50 % ÷ 40 µs.
        assert_eq!(ceilings[0].what, "postgres create-order, one connection");
        assert_eq!(whole(ceilings[0].orders_per_second), "50,000");
        let primary = ceilings.iter().find(|c| c.what == "postgres create-order").unwrap();
        assert_eq!(whole(primary.orders_per_second), "100,000");
        let full = Assumptions { utilisation: 1.0, ..Assumptions::default() };
        assert_eq!(whole(costs.ceilings(&full)[0].orders_per_second), "100,000");
        assert_eq!(costs.exceeded(60_000.0, &Assumptions::default()).len(), 1);
        assert!(costs.exceeded(1_000.0, &Assumptions::default()).is_empty());
    }

    #[test]
    fn figures_without_the_typical_scenario_are_an_error() {
        let mut figures = figures();
        figures.series.remove(0);
        assert!(Costs::of(&figures).unwrap_err().contains(TYPICAL));
    }
}
