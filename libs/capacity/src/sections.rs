//! A plan as tables, each under the name that documents call it by.

use ordersaga_figures::Table;
use ordersaga_figures::number::{short, whole};

use crate::costs::Costs;
use crate::parameters::Parameters;
use crate::plan::Plan;

/// Names of a plan's sections, in the order they are shown.
const SECTIONS: [&str; 10] = [
    "parameters",
    "load",
    "network",
    "storage",
    "cache",
    "topics",
    "shards",
    "servers",
    "money",
    "limits",
];

impl Plan {
    /// All sections: name and table.
    pub fn sections(&self) -> Vec<(&'static str, Table)> {
        SECTIONS.iter().filter_map(|name| Some((*name, self.section(name, None)?))).collect()
    }

    /// A section; of one service, if one is named.
    fn section(&self, name: &str, service: Option<&str>) -> Option<Table> {
        Some(match name {
            "parameters" => self.parameters.table(),
            "load" => self.load(service),
            "network" => self.network(),
            "storage" => self.storage(service),
            "cache" => self.cache(),
            "topics" => self.topics(),
            "shards" => self.nodes(),
            "servers" => self.servers(service),
            "money" => self.money(),
            "limits" => self.limits(),
            _ => return None,
        })
    }

    fn load(&self, service: Option<&str>) -> Table {
        let mut table = Table::new(["service", "operation or topic", "average /s", "peak /s"]);
        for flow in self.load.iter().filter(|flow| service.is_none_or(|s| s == flow.service)) {
            let what = match flow.what.split_once(' ') {
                Some(_) => flow.what.to_owned(),
                None => format!("reads {}", flow.what),
            };
            table.row([flow.service.to_owned(), what, short(flow.average), short(flow.peak)]);
        }
        table
    }

    fn network(&self) -> Table {
        let mut table = Table::new(["path", "average", "peak", "of it between data centres"]);
        for traffic in &self.network {
            table.row([
                traffic.path.to_owned(),
                per_second(traffic.average),
                per_second(traffic.peak),
                percent(traffic.between_data_centres),
            ]);
        }
        let sum = |of: &dyn Fn(&crate::plan::Traffic) -> f64| -> f64 {
            self.network.iter().map(of).sum()
        };
        table.row([
            "all".to_owned(),
            per_second(sum(&|traffic| traffic.average)),
            per_second(sum(&|traffic| traffic.peak)),
            per_second(sum(&|traffic| traffic.peak * traffic.between_data_centres)),
        ]);
        table
    }

    fn storage(&self, service: Option<&str>) -> Table {
        let mut table = Table::new([
            "table or index",
            "database",
            "bytes of a row",
            "filled",
            "rows, millions",
            "size",
        ]);
        let wanted = |node: &str| service.is_none_or(|service| is_of(node, service));
        for stored in self.storage.iter().filter(|stored| wanted(stored.node)) {
            table.row([
                format!("`{}`", stored.relation),
                stored.node.to_owned(),
                short(stored.bytes_per_row),
                percent(stored.fill),
                short(stored.rows / 1e6),
                amount(stored.bytes),
            ]);
        }
        for log in self.logs.iter().filter(|log| wanted(log.node)) {
            let empty = String::new;
            let per_order = format!("{} per order", whole(log.log_per_order));
            let size = format!(
                "{} a day, {} at peak",
                amount(log.log_per_day),
                per_second(log.log_at_peak)
            );
            table.row([
                "write-ahead log".to_owned(),
                log.node.to_owned(),
                per_order,
                empty(),
                empty(),
                size,
            ]);
            if log.vacuum_headroom > 0.0 {
                table.row([
                    "rows waiting for vacuum, at most".to_owned(),
                    log.node.to_owned(),
                    empty(),
                    empty(),
                    empty(),
                    amount(log.vacuum_headroom),
                ]);
            }
        }
        table
    }

    fn cache(&self) -> Table {
        let mut table = Table::new([
            "load",
            "item requests /s",
            "hit rate",
            "to Postgres /s",
            "items held, millions",
            "bytes of one",
            "memory",
        ]);
        for cached in &self.cache {
            table.row([
                cached.when.to_owned(),
                whole(cached.requests),
                percent(cached.hit_rate),
                whole(cached.misses),
                short(cached.entries / 1e6),
                whole(cached.bytes_per_entry),
                amount(cached.bytes),
            ]);
        }
        table
    }

    fn topics(&self) -> Table {
        let mut table = Table::new([
            "topic",
            "events /s",
            "at peak",
            "bytes of an event",
            "kept, all copies",
            "partitions",
            "events /s of one at peak",
        ]);
        for topic in &self.topics {
            table.row([
                topic.name.to_owned(),
                short(topic.average),
                short(topic.peak),
                whole(topic.bytes_per_event),
                amount(topic.bytes),
                topic.partitions.to_string(),
                short(topic.peak_per_partition),
            ]);
        }
        table
    }

    /// What decides how many nodes hold state.
    fn nodes(&self) -> Table {
        let mut table = Table::new([
            "nodes of",
            "by CPU",
            "by size",
            "by disk writes",
            "size",
            "disk writes /s at peak",
            "connections at each",
        ]);
        for tier in self.tiers.iter().filter(|tier| tier.bytes > 0.0 || tier.writes > 0.0) {
            table.row([
                tier.name.to_owned(),
                whole(tier.by_cpu),
                whole(tier.by_size),
                whole(tier.by_iops),
                amount(tier.bytes),
                whole(tier.writes),
                if tier.connections > 0.0 {
                    let most = whole(self.parameters.max_connections);
                    format!("{} of {most}", whole(tier.connections))
                } else {
                    "–".to_owned()
                },
            ]);
        }
        table
    }

    fn servers(&self, service: Option<&str>) -> Table {
        let mut table = Table::new([
            "part",
            "cores used at peak",
            "machines in each data centre",
            "in all",
            "cores of each",
        ]);
        let wanted = |tier: &str| service.is_none_or(|service| is_of(tier, service));
        for tier in self.tiers.iter().filter(|tier| wanted(tier.name)) {
            table.row([
                tier.name.to_owned(),
                short(tier.cores),
                whole(tier.per_data_centre),
                whole(tier.machines),
                whole(tier.cores_each),
            ]);
        }
        table
    }

    fn money(&self) -> Table {
        let mut table = Table::new(["what", "how much", "US dollars a month"]);
        for money in &self.money {
            let amount = format!("{} {}", whole(money.amount), money.unit);
            table.row([money.what.to_owned(), amount, whole(money.dollars)]);
        }
        let orders = self.parameters.orders_per_day * 30.4 / 1e6;
        table.row([
            "all".to_owned(),
            format!("{} million orders", short(orders)),
            format!(
                "{}, {} per million orders",
                whole(self.dollars()),
                whole(self.dollars() / orders)
            ),
        ]);
        table
    }

    fn limits(&self) -> Table {
        let mut table =
            Table::new(["limit", "orders/s at most", "times this peak", "because", "beyond"]);
        for limit in &self.limits {
            table.row([
                limit.what.to_owned(),
                whole(limit.orders_per_second),
                short(limit.orders_per_second / self.parameters.peak()),
                limit.arithmetic.clone(),
                limit.remedy.to_owned(),
            ]);
        }
        table
    }

    /// A column of a comparison: what is compared, and how much.
    fn digest(&self) -> Vec<(&'static str, String)> {
        let p = &self.parameters;
        let cores = |kind: fn(&str) -> bool| -> f64 {
            let of_kind = self.tiers.iter().filter(|tier| kind(tier.name));
            of_kind.map(|tier| tier.machines * tier.cores_each).sum()
        };
        let tables: f64 = self.storage.iter().map(|stored| stored.bytes).sum();
        let kept: f64 = self.topics.iter().map(|topic| topic.bytes).sum();
        let log: f64 = self.logs.iter().map(|log| log.log_at_peak).sum();
        let machines: f64 = self.tiers.iter().map(|tier| tier.machines).sum();
        let cache = self.cache.last();
        let first = self.limits.first();
        let times = first.map(|limit| limit.orders_per_second / p.peak());
        let shards = self.tiers.iter().find(|tier| tier.name == "shards");
        vec![
            ("orders a day, millions", short(p.orders_per_day / 1e6)),
            ("orders/s, average and peak", format!("{} / {}", whole(p.average()), whole(p.peak()))),
            ("item requests/s at peak", cache.map_or_else(String::new, |c| whole(c.requests))),
            (
                "hit rate of the cache at peak",
                cache.map_or_else(String::new, |c| percent(c.hit_rate)),
            ),
            ("memory of the cache at peak", cache.map_or_else(String::new, |c| amount(c.bytes))),
            ("tables and indexes, one copy", amount(tables)),
            ("write-ahead log at peak", per_second(log)),
            ("topics, all copies", amount(kept)),
            ("status shards", shards.map_or_else(String::new, |tier| whole(tier.per_data_centre))),
            ("machines in all data centres", whole(machines)),
            ("cores: services", whole(cores(|name| !name.contains("postgres") && !is_part(name)))),
            ("cores: Postgres", whole(cores(|name| name.contains("postgres") || name == "shards"))),
            ("cores: broker and Redis", whole(cores(|name| matches!(name, "broker" | "redis")))),
            ("US dollars a month", whole(self.dollars())),
            (
                "breaks first",
                match (first, times) {
                    (Some(limit), Some(times)) => {
                        format!("{}, at {} × this peak", limit.what, short(times))
                    }
                    _ => String::new(),
                },
            ),
        ]
    }
}

fn is_part(name: &str) -> bool {
    matches!(name, "broker" | "redis" | "shards")
}

/// Whether a part is a service's own.
fn is_of(part: &str, service: &str) -> bool {
    part == service
        || part.strip_prefix("postgres ") == Some(service)
        || (part == "shards" && service == "monitoring")
        || (part == "redis" && service == "store")
}

/// Scenarios side by side.
fn compared(names: &[&str], costs: &Costs) -> Table {
    let plans: Vec<_> = names
        .iter()
        .filter_map(|name| Some(Plan::of(&Parameters::scenario(name)?, costs).digest()))
        .collect();
    let mut table = Table::new([""].into_iter().chain(names.iter().copied()));
    for (at, (what, _)) in plans.first().into_iter().flatten().enumerate() {
        let values = plans.iter().filter_map(|plan| plan.get(at)).map(|(_, value)| value.clone());
        table.row([(*what).to_owned()].into_iter().chain(values));
    }
    table
}

/// The three scenarios of the design side by side.
pub fn summary(costs: &Costs) -> Table {
    compared(&["today", "tenfold", "sale"], costs)
}

/// Today's load, ten and a hundred times that.
pub fn growth(costs: &Costs) -> Table {
    compared(&["today", "tenfold", "hundredfold"], costs)
}

/// The content of a block of a document: `constants`, `summary`, `growth`, `SCENARIO:SECTION` or
/// `SCENARIO:SECTION:SERVICE`. None if nothing is called so.
pub fn block(name: &str, costs: &Costs) -> Option<String> {
    let mut parts = name.split(':');
    let table = match (parts.next()?, parts.next()) {
        ("constants", None) => costs.table(),
        ("summary", None) => summary(costs),
        ("growth", None) => growth(costs),
        (scenario, Some(section)) => {
            Plan::of(&Parameters::scenario(scenario)?, costs).section(section, parts.next())?
        }
        _ => return None,
    };
    Some(table.markdown()).filter(|_| parts.next().is_none() && !table.rows.is_empty())
}

fn percent(share: f64) -> String {
    format!("{} %", short(share * 100.0))
}

fn per_second(bytes: f64) -> String {
    format!("{}/s", amount(bytes))
}

fn amount(bytes: f64) -> String {
    let (unit, name) = match bytes {
        b if b >= 1e12 => (1e12, "TB"),
        b if b >= 1e9 => (1e9, "GB"),
        _ => (1e6, "MB"),
    };
    format!("{} {name}", short(bytes / unit))
}
