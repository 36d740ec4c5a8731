//! What a plan is made for: the load, how it is kept, and the machines. Each parameter says where
//! its usual value comes from.

use ordersaga_figures::Table;
use ordersaga_figures::number::whole;
use serde::Serialize;

const SHARES: &str = "smart-lab, orders of OZON: 2,107.8 million in the 12 months to the third \
                      quarter of 2025, rounded up";
const PEAK: &str = "a student paper citing Ozon Tech: 60,000 orders a minute on a sale day, 15 \
                    times the average";
const READS: &str = "Ozon Tech, 2023: search and catalogue answer 11,000 requests/s on average, \
                     and there were 31 orders/s";
const READ_PEAK: &str = "Ozon Tech, 2023: 50,000 requests/s at peak by 11,000 on average";
const CATALOGUE: &str = "Ozon's reports: 250 to 370 million goods; the upper end";
const ZIPF: &str = "Breslau et al., Web Caching and Zipf-like Distributions, INFOCOM 1999: 0.64 \
                    to 0.83 in six traces";
const ASSUMED: &str = "assumed";
const PRICES: &str = "list prices of AWS, us-east-1, on demand: m7i.large 0.1008 USD/h for 2 vCPU";
const DISK_PRICE: &str = "list price of AWS, us-east-1: EBS gp3 0.08 USD per GB and month";
const TRAFFIC_PRICE: &str =
    "list price of AWS: 0.01 USD per GB between availability zones, each way";

/// Defines the parameters: their help, usual value and where that is from.
macro_rules! parameters {
    ($($(#[doc = $help:literal])+ $name:ident = $value:literal, $origin:expr;)+) => {
        /// What a plan is made for.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct Parameters {
            /// How the scenario is called.
            #[serde(skip)]
            pub name: &'static str,
            $($(#[doc = $help])+ pub $name: f64,)+
        }

        /// Parameters that are not to have their usual value.
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct Overrides {
            $($(#[doc = $help])+
              #[arg(long, value_name = "N", value_parser = number)]
              pub $name: Option<f64>,)+
        }

        impl Default for Parameters {
            fn default() -> Self {
                Self { name: "today", $($name: $value,)+ }
            }
        }

        impl Overrides {
            /// The parameters with these in place of their own.
            pub fn apply(&self, mut to: Parameters) -> Parameters {
                $(if let Some(value) = self.$name { to.$name = value; })+
                to
            }
        }

        impl Parameters {
            /// All parameters: name, value, and where the value is from.
            pub fn table(&self) -> Table {
                let mut table = Table::new(["parameter", "value", "from"]);
                let usual = Self::default();
                $({
                    let name = format!("--{}", stringify!($name).replace('_', "-"));
                    let origin = if (self.$name - usual.$name).abs() < 1e-9 {
                        $origin.to_owned()
                    } else {
                        format!("the scenario {}; else {}", self.name, shown(usual.$name))
                    };
                    table.row([name, shown(self.$name), origin]);
                })+
                table
            }
        }
    };
}

parameters! {
    /// Orders a day, on average
    orders_per_day = 5_800_000.0, SHARES;
    /// Orders a second at peak, as a multiple of the average
    peak_factor = 15.0, PEAK;
    /// Share of the orders that clients cancel
    cancel_share = 0.1, ASSUMED;
    /// Share of the orders that the store refuses
    refuse_share = 0.01, ASSUMED;
    /// Status requests per order
    status_reads_per_order = 10.0, ASSUMED;
    /// Requests for an item per order
    item_reads_per_order = 355.0, READS;
    /// Requests for items at peak, as a multiple of the average
    read_peak_factor = 4.5, READ_PEAK;
    /// Share of the orders that want one and the same item
    hot_item_share = 0.0, "none in ordinary days";
    /// Bytes of the headers of a request and its answer together
    http_header_bytes = 800.0, ASSUMED;
    /// Days that orders, reservations and facts are kept
    retention_days = 365.0, ASSUMED;
    /// Days that topics keep events
    topic_retention_days = 7.0, "redpanda/topics.toml";
    /// Copies of each record in the broker
    replication = 3.0, "a copy in each data centre";
    /// Items of the catalogue
    catalog_items = 370_000_000.0, CATALOGUE;
    /// Exponent of the items' popularity by Zipf's law
    zipf_exponent = 0.8, ZIPF;
    /// Seconds an item stays in the cache
    cache_ttl_seconds = 900.0, "CACHE_TTL_SECONDS";
    /// Letters of an item's name
    item_name_chars = 60.0, ASSUMED;
    /// Reservations shown with a cached item, of at most 20
    cached_reservations = 2.0, ASSUMED;
    /// Share of the creates with an idempotency key
    keyed_share = 1.0, "clients made as the API's description asks";
    /// Hours that an idempotency key is kept
    key_hours = 24.0, "IDEMPOTENCY_TTL_SECONDS";
    /// Share of the orders placed with a trace context
    traced_share = 0.01, ASSUMED;
    /// Data centres; one of them may be lost at peak
    data_centres = 3.0, "Ozon's own number of failure domains is not public: the least that survives one";
    /// Share of a core that may be used, the rest being headroom
    utilisation = 0.5, ASSUMED;
    /// Cores of an instance of a service
    cores_per_instance = 2.0, ASSUMED;
    /// Cores of a node of Postgres, the broker or Redis
    cores_per_node = 8.0, ASSUMED;
    /// Gigabytes of memory of a Redis node
    memory_gb_per_node = 32.0, ASSUMED;
    /// Gigabytes of disk of a node, of which 70 % may be filled
    disk_gb_per_node = 4_000.0, ASSUMED;
    /// Writes a second that a node's disk takes
    iops_per_node = 16_000.0, "the most of AWS's EBS gp3";
    /// Connections an instance has to each database
    connections_per_instance = 8.0, "DATABASE_CONNECTIONS";
    /// Connections a Postgres node takes
    max_connections = 100.0, "Postgres' default of max_connections";
    /// US dollars for a core and hour
    core_hour_price = 0.0504, PRICES;
    /// US dollars for a gigabyte of disk and month
    disk_gb_price = 0.08, DISK_PRICE;
    /// US dollars for a gigabyte between data centres, both ways together
    traffic_gb_price = 0.02, TRAFFIC_PRICE;
}

impl Parameters {
    /// The scenarios that documents show, and those for growth.
    pub const SCENARIOS: [&'static str; 4] = ["today", "tenfold", "hundredfold", "sale"];

    /// A scenario by its name.
    pub fn scenario(name: &str) -> Option<Self> {
        let today = Self::default();
        let times = |name, times| Self {
            name,
            orders_per_day: today.orders_per_day * times,
            ..today.clone()
        };
        Some(match name {
            "today" => today,
            "tenfold" => times("tenfold", 10.0),
            "hundredfold" => times("hundredfold", 100.0),
            // Half of the highest rate ever named all day long, and that rate for a while. What is
            // kept is what the day adds.
            "sale" => Self {
                name: "sale",
                orders_per_day: 43_500_000.0,
                peak_factor: 2.0,
                read_peak_factor: 2.0,
                hot_item_share: 0.2,
                retention_days: 1.0,
                topic_retention_days: 1.0,
                ..today
            },
            _ => return None,
        })
    }

    /// Orders a second on average.
    pub fn average(&self) -> f64 {
        self.orders_per_day / 86_400.0
    }

    /// Orders a second at peak.
    pub fn peak(&self) -> f64 {
        self.average() * self.peak_factor
    }
}

fn number(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.replace('_', "").parse().ok();
    let within = number.filter(|number| number.is_finite() && (0.0..=1e15).contains(number));
    within.ok_or_else(|| "a number that is not negative".to_owned())
}

fn shown(value: f64) -> String {
    if value.fract() == 0.0 { whole(value) } else { value.to_string() }
}
