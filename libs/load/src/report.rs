//! What a run found: the JSON form, and as a table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Plan;

/// The version of the JSON form: rises when a field changes its meaning.
pub const FORM: u32 = 1;

/// A run. Unless a field says otherwise, what is counted are the measured orders: those whose
/// create was sent, or in an open loop due, within the measured time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORM`].
    pub form: u32,
    /// Version of ordersaga.
    pub version: String,
    /// What was asked for.
    pub plan: Plan,
    /// Begin of the measured time: microseconds since 1970.
    pub started_us: u64,
    /// When the load ended: microseconds since 1970.
    pub sent_until_us: u64,
    /// When the last measured order ended, or, if ends are not learned, was answered: microseconds
    /// since 1970.
    pub ended_us: u64,
    /// From `started_us` to `sent_until_us`.
    pub sending_seconds: f64,
    /// From `started_us` to `ended_us`.
    pub seconds: f64,
    /// Ended orders by `seconds`; if ends are not learned, acknowledged ones.
    pub orders_per_second: f64,
    /// Acknowledged orders by `sending_seconds`.
    pub acknowledged_per_second: f64,
    /// What became of the orders.
    pub orders: Orders,
    /// Answers other than success to requests of any kind, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Requests of any kind without an answer.
    pub errors: Errors,
    /// Cancellations acknowledged.
    pub cancels: u64,
    /// Statuses or items read.
    pub reads: u64,
    /// From the create's begin to its answer: only orders acknowledged. The begin is when it was
    /// sent; in an open loop, when it was due.
    pub create_ms: Latency,
    /// From the create's begin until the order's end is known here. With `--wait` that is when its
    /// client has the status `SHIPPING` or `CANCELLED`. Otherwise it is when the follower has the
    /// first record that says `ItemReserved` or `OrderReset`, and the follower's own delay is part
    /// of it: see `follow_delay_ms`.
    pub terminal_ms: Option<Latency>,
    /// What waiting for the ends took; None without `--wait`.
    #[serde(default)]
    pub waits: Option<Waits>,
    /// The broker may keep a record from the follower so long, waiting for more.
    pub follow_delay_ms: Option<f64>,
    /// From sending a cancellation to its answer.
    pub cancel_ms: Option<Latency>,
    /// From sending a status or item request to its answer.
    pub read_ms: Option<Latency>,
    /// The measured time and what followed until the last order ended.
    pub timeline: Vec<Second>,
    /// What this program itself took.
    pub own_cpu: OwnCpu,
    /// None if nothing was checked.
    pub checks: Option<Checks>,
    /// Whether it was ended before its time (Ctrl-C).
    pub interrupted: bool,
}

/// What became of the measured orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Creates sent.
    pub sent: u64,
    /// Creates that were due in an open loop and not sent, as no client was free until the end.
    pub unsent: u64,
    /// Creates answered 201.
    pub acknowledged: u64,
    /// Acknowledged ones that were reserved or reset.
    pub terminal: u64,
    /// Acknowledged ones, of the warmup as well, by what was first said of them, on the topics or
    /// to the client that waited: the store has reserved.
    pub reserved: u64,
    /// The same: the store has refused, as when an item is sold out.
    pub refused_by_store: u64,
    /// The same: the client's cancellation came first.
    pub cancelled_first: u64,
    /// The same: the store was silent until the deadline.
    pub expired: u64,
}

/// Requests without an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// The connection could not be made.
    pub connect: u64,
    /// The connection ended first.
    pub lost: u64,
    /// No answer within [`crate::PATIENCE`].
    pub timeout: u64,
    /// The answer was no HTTP, or had not what it must have.
    pub malformed: u64,
}

impl Errors {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.connect + self.lost + self.timeout + self.malformed
    }
}

/// Status requests of clients that wait for the end of their order, from `started_us` on. Those
/// refused or without an answer are counted with all others, in [`Report::refused`] and
/// [`Report::errors`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Requests whose answer told how the order stands.
    pub answers: u64,
    /// Of them: it had not ended, after the longest wait or because too many waited.
    pub open: u64,
    /// Of them: monitoring had not heard of it yet (404).
    pub unheard: u64,
    /// Orders whose client gave up waiting.
    pub given_up: u64,
}

/// A distribution of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// One second of the run: what happened in it, whenever its orders began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Creates sent.
    pub sent: u64,
    /// Creates acknowledged.
    pub acknowledged: u64,
    /// Acknowledged orders that ended.
    pub terminal: u64,
    /// Requests refused, by any status.
    pub refused: u64,
    /// Requests without an answer.
    pub errors: u64,
    /// Median of the creates acknowledged, in milliseconds.
    pub create_p50_ms: Option<f64>,
    /// Their 99th percentile.
    pub create_p99_ms: Option<f64>,
    /// Median from create to end of the orders that ended, in milliseconds.
    pub terminal_p50_ms: Option<f64>,
    /// Their 99th percentile.
    pub terminal_p99_ms: Option<f64>,
}

/// CPU time of this program, user and system, from `started_us` until every order had ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCpu {
    /// Of the whole process.
    pub seconds: f64,
    /// Of the thread that sends requests and reads answers.
    pub http_seconds: f64,
    /// Of all others: librdkafka's and the one that takes its records.
    pub follow_seconds: f64,
    /// Requests answered meanwhile.
    pub requests: u64,
    /// Records followed meanwhile.
    pub records: u64,
    /// `http_seconds` by `requests`, in microseconds.
    pub per_request_us: f64,
    /// `follow_seconds` by `records`, in microseconds.
    pub per_record_us: f64,
    /// CPU time by wall time of the busiest of its threads known: near 1, this program is what is
    /// measured.
    pub http_share: f64,
}

/// What must be so at the end, warmup included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// Orders acknowledged that were neither reserved nor reset, by the topics or by what their
    /// clients were told. None if ends are not learned.
    pub orders_not_ended: Option<u64>,
    /// The lowest ids of them.
    pub examples_not_ended: Vec<i64>,
    /// Acknowledged cancellations that no record tells of, or whose stock was not released. None
    /// if the topics were not followed.
    pub cancels_not_done: Option<u64>,
    /// Items of which more is reserved than there is, by the store's word or by the records.
    pub oversold_items: u64,
    /// The lowest ids of them.
    pub examples_oversold: Vec<i64>,
}

impl Checks {
    /// Whether all is as it must be.
    pub fn hold(&self) -> bool {
        self.orders_not_ended.unwrap_or(0) == 0
            && self.cancels_not_done.unwrap_or(0) == 0
            && self.oversold_items == 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    /// A plan as the command line has it.
    pub(crate) fn plan(words: &str) -> Plan {
        #[derive(Parser)]
        struct Arguments {
            #[command(flatten)]
            plan: Plan,
        }
        Arguments::parse_from(["load"].into_iter().chain(words.split(' '))).plan
    }

    /// A run as it may be.
    pub(crate) fn example() -> Report {
        let latency = Latency {
            count: 8_000,
            mean: 3.5,
            p50: 3.0,
            p90: 5.0,
            p99: 9.0,
            p999: 20.0,
            max: 21.5,
        };
        let second = Second {
            sent: 4_000,
            acknowledged: 3_990,
            terminal: 3_980,
            refused: 7,
            errors: 3,
            create_p50_ms: Some(3.0),
            create_p99_ms: Some(9.0),
            terminal_p50_ms: Some(12.0),
            terminal_p99_ms: Some(800.0),
        };
        Report {
            form: FORM,
            version: "1.2.3".to_owned(),
            plan: plan("--rate 4000 --cancel 0.3 --hot 1"),
            started_us: 1_795_462_071_750_481,
            sent_until_us: 1_795_462_073_750_481,
            ended_us: 1_795_462_073_800_481,
            sending_seconds: 2.0,
            seconds: 2.05,
            orders_per_second: 3_902.4,
            acknowledged_per_second: 4_000.0,
            orders: Orders {
                sent: 8_000,
                acknowledged: 8_000,
                terminal: 8_000,
                reserved: 7_000,
                refused_by_store: 1_000,
                ..Orders::default()
            },
            refused: [(503, 14)].into(),
            errors: Errors { lost: 6, ..Errors::default() },
            cancels: 2_400,
            reads: 0,
            create_ms: latency,
            terminal_ms: Some(latency),
            waits: None,
            follow_delay_ms: Some(5.0),
            cancel_ms: Some(latency),
            read_ms: None,
            timeline: vec![second; 2],
            own_cpu: OwnCpu { seconds: 0.1, requests: 10_400, ..OwnCpu::default() },
            checks: Some(Checks {
                orders_not_ended: Some(0),
                cancels_not_done: Some(0),
                ..Checks::default()
            }),
            interrupted: false,
        }
    }

    #[test]
    fn a_report_comes_back_from_json_as_it_was() {
        let report = example();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        assert!(json.contains("\"refused\":{\"503\":14}"), "{json}");
    }

    #[test]
    fn a_report_of_before_clients_could_wait_can_be_read() {
        let mut json = serde_json::to_value(example()).unwrap();
        json.as_object_mut().unwrap().remove("waits");
        json["plan"].as_object_mut().unwrap().remove("wait");
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), example());
    }

    #[test]
    fn each_check_counts() {
        let hold = |change: fn(&mut Checks)| {
            let mut checks = Checks::default();
            change(&mut checks);
            checks.hold()
        };
        assert!(hold(|_| {}), "nothing was followed, and nothing is wrong");
        assert!(hold(|checks| checks.orders_not_ended = Some(0)));
        assert!(!hold(|checks| checks.orders_not_ended = Some(1)));
        assert!(!hold(|checks| checks.cancels_not_done = Some(1)));
        assert!(!hold(|checks| checks.oversold_items = 1));
    }
}
