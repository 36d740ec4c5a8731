//! A load generator for a running system: creates, cancellations and status requests over HTTP, in
//! a closed or an open loop; when each order ends, learned from the topics or by clients that wait
//! for it; and what must be so when all is over. It is made to cost little beside what it measures, and tells what it cost.
//!
//! [`run()`] does what a [`Plan`] says and returns a [`Report`].

mod answer;
mod clients;
mod clock;
mod connection;
mod follow;
mod items;
mod live;
mod orders;
mod outcome;
mod plan;
mod plot;
mod report;
mod request;
mod run;
mod said;
mod schedule;
mod sent;
mod source;
mod table;
mod tally;

use std::time::Duration;

pub use plan::{Plan, Target};
pub use plot::plot;
pub use report::{Checks, Errors, FORM, Latency, Orders, OwnCpu, Report, Second, Waits};
pub use run::{Phase, Progress, Watch, run};

/// How long a request may go without an answer: longer than the services let one take.
pub const PATIENCE: Duration = Duration::from_secs(15);
