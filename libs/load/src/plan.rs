//! What a run is to do.

use clap::Args;
use ordersaga_runtime::config::KafkaSecurity;
use serde::{Deserialize, Serialize};

/// Most units an item can be made with.
pub(crate) const UNITS: u32 = 1_000_000_000;

/// The load, and on what.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Plan {
    /// Where and how the system is reached.
    #[command(flatten)]
    pub target: Target,
    /// Clients: each has one request at a time, and in a closed loop sends the next when it is
    /// answered
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Open loop: so many creates a second, whatever the answers. Latency then counts from the
    /// moment a create was due, also while it waited for a free client (no coordinated omission)
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Each client waits for the end of its order, by long poll of its status, before it goes on:
    /// an order takes as long as its client sees, and orders a second are those that ended. The
    /// topics are not followed, and no broker is needed
    #[arg(long, conflicts_with_all = ["find", "no_follow"])]
    #[serde(default)]
    pub wait: bool,
    /// Seconds of load that are measured
    #[arg(long, default_value_t = 10.0, value_parser = seconds, conflicts_with = "orders")]
    pub seconds: f64,
    /// Measure so many orders instead of a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub orders: Option<u64>,
    /// Seconds of load before, which are not measured
    #[arg(long = "warmup", value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub warmup_seconds: f64,
    /// Items that are ordered, made for the run, with a billion units each
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub items: u32,
    /// Make no items: order those from this id on, which must be seller 1's
    #[arg(long, value_name = "ITEM_ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub first_item: Option<i64>,
    /// Share of the orders that want the first item, from 0 to 1; the others are spread evenly
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub hot: f64,
    /// Share of the acknowledged orders that are cancelled, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub cancel: f64,
    /// How long after its acknowledgement an order is cancelled
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub cancel_after_ms: u32,
    /// Status requests per acknowledged order, each for one of the last 65536 orders
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = reads)]
    pub read: f64,
    /// Requests for an item per acknowledged order, instead of status requests: each for any of
    /// the items
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = reads, conflicts_with = "read")]
    pub find: f64,
    /// At the end, give up on orders that have not ended when for so many seconds none has. With
    /// --wait a client gives up on its order after so many
    #[arg(long = "settle", value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub settle_seconds: f64,
    /// Do not follow the topics: no latency from create to the end, no check that orders end
    #[arg(long)]
    pub no_follow: bool,
    /// Do not check at the end
    #[arg(long)]
    pub no_check: bool,
}

impl Plan {
    /// Whether the topics are followed.
    pub(crate) fn follows(&self) -> bool {
        !self.no_follow && !self.wait
    }

    /// Whether it is learned when orders end, from the topics or by waiting clients.
    pub(crate) fn learns_ends(&self) -> bool {
        self.wait || self.follows()
    }
}

/// Where and how the system is reached.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Target {
    /// service-create-order; given again, clients are shared out among its instances
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8000",
        env = "CREATE_ORDER_URL"
    )]
    pub create: Vec<String>,
    /// service-store
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8002", env = "STORE_URL")]
    pub store: String,
    /// service-monitoring-order; may be given again as well
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8001",
        env = "MONITORING_URL"
    )]
    pub monitoring: Vec<String>,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092", env = "KAFKA_BROKERS")]
    pub brokers: String,
    /// What the topics' names begin with
    #[arg(long, value_name = "PREFIX", default_value = "", env = "KAFKA_TOPIC_PREFIX")]
    pub topic_prefix: String,
    /// How one gets into the broker; not in reports.
    #[command(flatten)]
    #[serde(skip)]
    pub security: KafkaSecurity,
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let within = number.filter(|number| (least..=most).contains(number));
    within.ok_or_else(|| format!("a number from {least} to {most}"))
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.01, 1e6)
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1_800.0)
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0)
}

fn reads(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1_000.0)
}

#[cfg(test)]
mod tests {
    use crate::report::tests::plan;

    #[test]
    fn ends_are_learned_from_the_topics_or_by_clients_that_wait() {
        for (words, follows, learns) in [
            ("--seconds 1", true, true),
            ("--wait --rate 100", false, true),
            ("--no-follow", false, false),
        ] {
            let plan = plan(words);
            assert_eq!((plan.follows(), plan.learns_ends()), (follows, learns), "{words}");
        }
    }
}
