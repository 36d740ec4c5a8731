//! `order`: one order as each witness has it, what came true of it and what disagrees.

mod accounts;
mod next;
mod show;
mod witness;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use ordersaga_contract::Fact;
use ordersaga_devstack::Service;
use ordersaga_saga::status::Status;
use serde_json::Value;

use crate::http::Answer;
use crate::stream::{self, Event};
use crate::target::{System, Target};

pub(crate) use next::{span, status};
pub(crate) use witness::name;
use witness::{Account, Finding, Witness, compare};

const EXITS: &str = "Exits with 0; with 1 if nobody knows the order, or if two witnesses contradict each \
     other.";

/// How long a witness has to answer: one that stands still does not keep the others from speaking.
const LIMIT: Duration = Duration::from_secs(3);
/// Monitoring waits a moment for an order that is new, and reads the topics.
const WITH_WAITING: Duration = Duration::from_secs(12);

/// Arguments of `order`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct Arguments {
    /// The order's id
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,
    /// Prints each new fact, until nothing more is to come
    #[arg(long)]
    follow: bool,
    /// Prints one JSON document; with --follow then a line for each status
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What everybody says of an order.
struct Story {
    order: i64,
    /// Monitoring's answer and its records, null where there are none.
    told: Value,
    evidence: Value,
    /// The order's, if create-order tells it.
    deadline: Option<DateTime<Utc>>,
    accounts: Vec<Account>,
    /// Who says nothing, and why.
    silent: Vec<(Witness, String)>,
    findings: Vec<Finding>,
    now: DateTime<Utc>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let system = arguments.target.system();
    let story = Story::gather(&system, arguments.id)?;
    if arguments.json {
        show::json(&story, arguments.follow)?;
    } else {
        show::story(&story);
    }
    if !story.is_known() {
        return Ok(ExitCode::FAILURE);
    }
    let is_wrong = story.findings.iter().any(Finding::is_contradiction);
    if arguments.follow && !is_wrong {
        follow(&system, &story, arguments.json)?;
    }
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(crate) fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// Prints each new fact, until nothing is waited for.
fn follow(system: &System, story: &Story, is_json: bool) -> Result<()> {
    let mut known: BTreeSet<Fact> = accounts::facts(&story.told).map(|(fact, _)| fact).collect();
    if story.status().is_some_and(|status| status.waits_for().is_none()) {
        return Ok(());
    }
    let path = format!("/api/v1/stream?order_id={}", story.order);
    let url = system.url(Service::Monitoring, &path)?;
    stream::follow(system.http(), &url, |event: &Event| {
        if event.name != "order" {
            return Ok(false);
        }
        let Some(status) = next::status(&event.data) else { return Ok(false) };
        if status.facts.iter().all(|heard| known.contains(&heard.fact)) {
            return Ok(status.waits_for().is_none());
        }
        if is_json {
            say!("{}", ordersaga_terminal::json(&event.data.to_string()));
        } else {
            show::news(&status, &known);
        }
        known.extend(status.facts.iter().map(|heard| heard.fact));
        let is_over = status.waits_for().is_none();
        if is_over && !is_json {
            say!("order {}: {}", story.order, next::sentence(&status, None, now()));
        }
        Ok(is_over)
    })
}

impl Story {
    /// Asks all witnesses, one after the other: those first who only hear of what others decide.
    fn gather(system: &System, order: i64) -> Result<Self> {
        let mut story = Self {
            order,
            told: Value::Null,
            evidence: Value::Null,
            deadline: None,
            accounts: Vec::new(),
            silent: Vec::new(),
            findings: Vec::new(),
            now: now(),
        };
        let read = |service, path: &str| {
            let waits = service == Service::Monitoring;
            system.read(service, path, if waits { WITH_WAITING } else { LIMIT })
        };
        let status = read(Service::Monitoring, &format!("/api/v1/status?order_id={order}"))?;
        story.hear(Witness::Monitoring, found(status), |story, told| {
            story.told = told;
            accounts::monitoring(&story.told)
        });
        let evidence = format!("/api/v1/status/evidence?order_id={order}");
        let evidence = read(Service::Monitoring, &evidence).and_then(found);
        story.hear(Witness::Topics, evidence, |story, told| {
            story.evidence = told;
            accounts::topics(&story.evidence)
        });
        story.ask_store(&read);
        let path = format!("/api/v1/orders/find?order_id={order}");
        let record = read(Service::CreateOrder, &path).and_then(|answer| {
            ensure!(!is_no_operation(&answer), "it has no operation that reads an order");
            found(answer)
        });
        story.hear(Witness::CreateOrder, record, |story, told| {
            story.deadline = accounts::time(&told["deadline"]);
            accounts::create_order(&told)
        });
        story.now = now();
        story.findings = compare(&story.accounts, story.now);
        Ok(story)
    }

    /// Asks for what the cache has of the order's item, and for what the store has decided.
    fn ask_store(&mut self, read: &impl Fn(Service, &str) -> Result<Answer>) {
        let order = self.order;
        let ask = |path: String| read(Service::Store, &path);
        let item = self.told["item_id"].as_i64();
        let cached = match item {
            None => Err(anyhow::anyhow!("the order's item is not known")),
            Some(item) => ask(format!("/api/v1/items/witness?item_id={item}")).and_then(|answer| {
                if !is_no_operation(&answer) {
                    let both = found(answer)?;
                    let state = accounts::text(&both["cache"]["state"]);
                    return Ok((state, both["cache"]["item"].clone()));
                }
                // Readers may get it from the cache or from the database: it is not told which.
                let item = found(ask(format!("/api/v1/items/find?item_id={item}"))?)?;
                Ok(("as readers get it".to_owned(), item))
            }),
        };
        self.hear(Witness::Cache, cached, |_, (state, item)| accounts::cache(&item, &state, order));
        let decided = ask(format!("/api/v1/reservations/find?order_id={order}"));
        let decided = decided.and_then(|answer| {
            if !is_no_operation(&answer) {
                return Ok(accounts::store(&found(answer)?));
            }
            let Some(item) = item else { anyhow::bail!("the order's item is not known") };
            let before = order.saturating_add(1);
            let path = format!("/api/v1/items/reservations?item_id={item}&after={before}&limit=1");
            Ok(accounts::reservation(&found(ask(path)?)?, order))
        });
        self.hear(Witness::Store, decided, |_, account| account);
    }

    fn hear<T>(
        &mut self,
        witness: Witness,
        said: Result<T>,
        account: impl FnOnce(&mut Self, T) -> Account,
    ) {
        match said {
            Ok(said) => {
                let account = account(self, said);
                self.accounts.push(account);
            }
            Err(error) => self.silent.push((witness, format!("{error:#}"))),
        }
    }

    fn status(&self) -> Option<Status> {
        next::status(&self.told)
    }

    fn is_known(&self) -> bool {
        self.accounts.iter().any(|account| !account.knows.is_empty() || account.is_reset)
    }
}

/// The body, or null where there is no such thing.
fn found(answer: Answer) -> Result<Value> {
    if answer.status == 404 && answer.body["type"].is_string() {
        return Ok(Value::Null);
    }
    answer.accept(200)
}

/// The service is older than the operation.
fn is_no_operation(answer: &Answer) -> bool {
    answer.status == 404 && answer.body["detail"] == "no operation has this path"
}
