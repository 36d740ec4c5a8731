//! `wait`: until something is so, for scripts.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ordersaga_devstack::Service;

use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::target::{System, Target};

/// When the time is over, as `timeout` has it.
const TIME_IS_OVER: u8 = 124;
const LOOK: Duration = Duration::from_millis(200);
/// How long one of several looks may take.
const ONE_LOOK: Duration = Duration::from_secs(5);
/// The longest long poll that monitoring takes.
const LONGEST_POLL: Duration = Duration::from_secs(30);
/// Metrics are up to half a second old, so that all of them must say it twice.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const EXITS: &str = "Exits with 0 when it is so; with 124 when the time is over, after saying what was \
     missing; with 1 if it cannot be so any more.";

/// Arguments of `wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All three services say at /ready that they are
    Ready(Patience),
    /// Nothing is in flight: twice in a row, a second apart, no service has events to publish
    /// (`outbox_pending`) or records to apply (`consumer_lag_records`), no order is stuck, and none
    /// of the newest some thousand is undecided
    Drained(Patience),
    /// An order is at a step, or past it
    Order {
        /// The order and `UNDER_RESERVATION`, `SHIPPING` or `CANCELLED`, as 17=SHIPPING
        #[arg(value_name = "ID=STEP")]
        wanted: Wanted,
        #[command(flatten)]
        patience: Patience,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Patience {
    /// How long to wait, as 500ms, 30s or 5min
    #[arg(long, default_value = "30s")]
    timeout: humantime::Duration,
    #[command(flatten)]
    target: Target,
}

/// An order at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    order: i64,
    step: &'static str,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (order, step) = text.split_once('=').ok_or("it is written as 17=SHIPPING")?;
        let order = order.parse().ok().filter(|id| *id >= 1);
        let steps = ["UNDER_RESERVATION", "SHIPPING", "CANCELLED"];
        let step = steps.into_iter().find(|known| known.eq_ignore_ascii_case(step));
        Ok(Self {
            order: order.ok_or("an order's id is a whole number from 1")?,
            step: step.ok_or_else(|| format!("the steps are {}", steps.join(", ")))?,
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Ready(patience) => {
            let system = patience.target.system();
            patience.until("all services are ready", |left| Ok(not_ready(&system, left)))
        }
        What::Drained(patience) => {
            let system = patience.target.system();
            let mut drained = Drained { system, seen: None };
            patience.until("nothing is in flight", |left| drained.missing(left))
        }
        What::Order { wanted, patience } => {
            let system = patience.target.system();
            let Wanted { order, step } = wanted;
            let what = format!("order {order} is {step}");
            patience.until(&what, |left| wanted.missing(&system, left))
        }
    }
}

impl Patience {
    /// Waits until nothing is missing. `missing` is told how long there is left.
    fn until(
        &self,
        what: &str,
        mut missing: impl FnMut(Duration) -> Result<Option<String>>,
    ) -> Result<ExitCode> {
        let begin = Instant::now();
        say!("Waiting until {what}, for {} at the most", self.timeout);
        loop {
            let left = self.timeout.saturating_sub(begin.elapsed());
            let Some(missing) = missing(left.max(LOOK))? else {
                say!("So it is, after {:.1} s.", begin.elapsed().as_secs_f64());
                return Ok(ExitCode::SUCCESS);
            };
            if begin.elapsed() + LOOK > *self.timeout {
                say_error!("ordersaga: not within {}: {missing}", self.timeout);
                return Ok(ExitCode::from(TIME_IS_OVER));
            }
            http::wait(LOOK);
        }
    }
}

fn ask(system: &System, service: Service, path: &str, left: Duration) -> Result<Answer> {
    let answer = system.http().get_within(&system.url(service, path)?, left.min(ONE_LOOK));
    answer.with_context(|| format!("{service} does not answer"))
}

/// Which service is not ready, and what it lacks.
fn not_ready(system: &System, left: Duration) -> Option<String> {
    // Monitoring knows where the others are.
    let order = [Service::Monitoring, Service::CreateOrder, Service::Store];
    order.into_iter().find_map(|service| match ask(system, service, "/ready", left) {
        Err(error) => Some(format!("{error:#}")),
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("{service} is not ready{}", lacks(&answer))),
    })
}

/// The dependencies that a service waits for.
fn lacks(answer: &Answer) -> String {
    let all = answer.body["dependencies"].as_array().into_iter().flatten();
    let lacking = all.filter(|one| one["required"] == true && one["ready"] == false);
    let names: Vec<_> = lacking.filter_map(|one| one["name"].as_str()).collect();
    if names.is_empty() { String::new() } else { format!(": it waits for {}", names.join(", ")) }
}

struct Drained {
    system: System,
    /// Since when nothing was missing.
    seen: Option<Instant>,
}

impl Drained {
    fn missing(&mut self, left: Duration) -> Result<Option<String>> {
        if let Some(missing) = self.look(left)? {
            self.seen = None;
            return Ok(Some(missing));
        }
        let seen = *self.seen.get_or_insert_with(Instant::now);
        let is_certain = seen.elapsed() >= LOOK_AGAIN;
        Ok((!is_certain).then(|| "nothing was in flight at the last look only".to_owned()))
    }

    fn look(&self, left: Duration) -> Result<Option<String>> {
        for service in [Service::Monitoring, Service::CreateOrder, Service::Store] {
            let answer = match ask(&self.system, service, "/metrics", left) {
                Ok(answer) if answer.status == 200 => answer,
                Ok(answer) if matches!(answer.status, 429 | 503) => {
                    return Ok(Some(answer.problem()));
                }
                Ok(answer) => bail!("{}", answer.problem()),
                Err(error) => return Ok(Some(format!("{error:#}"))),
            };
            for (metric, what) in [
                ("outbox_pending", "events to publish"),
                ("consumer_lag_records", "records to apply"),
            ] {
                let sum = sum(&answer.text, metric);
                let sum = sum.with_context(|| format!("{service} has no metric {metric}"))?;
                if sum > 0.0 {
                    return Ok(Some(format!("{service} has {sum} {what}")));
                }
            }
        }
        let undecided = "/api/v1/orders?step=UNDER_RESERVATION&limit=1";
        if let Some(order) = self.first(undecided, left)?["order_id"].as_i64() {
            return Ok(Some(format!("order {order} is undecided")));
        }
        let stuck = self.first("/api/v1/orders/stuck?limit=1", left)?;
        Ok(stuck["order"]["order_id"].as_i64().map(|order| format!("order {order} is stuck")))
    }

    /// The first thing of a list, or null.
    fn first(&self, path: &str, left: Duration) -> Result<serde_json::Value> {
        let answer = ask(&self.system, Service::Monitoring, path, left)?.accept(200)?;
        Ok(answer["items"][0].clone())
    }
}

/// The sum of a metric over all its labels; `None` if it is not there.
pub(crate) fn sum(page: &str, metric: &str) -> Option<f64> {
    Metrics::parse(page).ok()?.sum(metric)
}

impl Wanted {
    /// What keeps the order from its step; an error if it cannot come to it any more.
    fn missing(&self, system: &System, left: Duration) -> Result<Option<String>> {
        let Self { order, step } = self;
        let ms = left.min(LONGEST_POLL).as_millis();
        let path = format!("/api/v1/status?order_id={order}&wait_for={step}&wait_ms={ms}");
        let url = system.url(Service::Monitoring, &path)?;
        // Its answer comes when the poll has ended.
        let answer = match system.http().get_within(&url, left.min(LONGEST_POLL) + ONE_LOOK) {
            Ok(answer) => answer,
            Err(error) => return Ok(Some(format!("{error:#}"))),
        };
        match answer.status {
            200 => self.judge(answer.body["step"].as_str().unwrap_or_default()),
            404 | 429 | 503 | 504 => Ok(Some(answer.problem())),
            _ => bail!("{}", answer.problem()),
        }
    }

    fn judge(&self, at: &str) -> Result<Option<String>> {
        let Self { order, step } = self;
        match (at, *step) {
            (at, step) if at == step => Ok(None),
            // It was there, however short.
            (_, "UNDER_RESERVATION") => Ok(None),
            ("CANCELLED", _) => bail!("order {order} is CANCELLED, and will not be {step}"),
            (at, _) => Ok(Some(format!("order {order} is {}", ordersaga_terminal::line(at)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_at_a_step_is_read_whatever_the_case() {
        assert_eq!("17=shipping".parse(), Ok(Wanted { order: 17, step: "SHIPPING" }));
        for wrong in ["17", "0=SHIPPING", "x=SHIPPING", "17=SHIPPED", "=CANCELLED"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_step_that_cannot_come_any_more_is_an_error() -> Result<()> {
        let wanted = |step| Wanted { order: 17, step };
        assert!(wanted("SHIPPING").judge("UNDER_RESERVATION")?.is_some());
        assert!(wanted("SHIPPING").judge("SHIPPING")?.is_none());
        assert!(wanted("UNDER_RESERVATION").judge("CANCELLED")?.is_none(), "it is past it");
        assert!(wanted("SHIPPING").judge("CANCELLED").is_err());
        assert!(wanted("CANCELLED").judge("SHIPPING")?.is_some());
        Ok(())
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let page = "# TYPE lag gauge\nlag{partition=\"0\",topic=\"a b\"} 3\nlag{partition=\"1\"} 4\n\
                    lag_other 100\noutbox 0\n";
        assert_eq!(sum(page, "lag"), Some(7.0));
        assert_eq!(sum(page, "outbox"), Some(0.0));
        assert_eq!(sum(page, "out"), None);
    }
}
