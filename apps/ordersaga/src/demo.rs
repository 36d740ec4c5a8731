//! `demo`: the README's session against a running stack, each answer checked.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{Answer, Http, wait};

/// How long the saga may take for one step.
const WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// service-create-order
    #[arg(long, default_value = "http://localhost:8000")]
    create_order: String,
    /// service-monitoring-order
    #[arg(long, default_value = "http://localhost:8001")]
    monitoring: String,
    /// service-store
    #[arg(long, default_value = "http://localhost:8002")]
    store: String,
    /// As JSON, when it is over
    #[arg(long)]
    json: bool,
}

/// What `demo --json` says.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Whether every answer was what it must be.
    is_good: bool,
    /// Why it ended before its end.
    error: Option<String>,
    steps: Vec<Step>,
}

/// A request and its answer; of one that is repeated, the last.
#[derive(Debug, Serialize)]
struct Step {
    title: String,
    method: String,
    url: String,
    body: Option<Value>,
    status: u16,
    /// Null if it is no JSON.
    answer: Value,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut client = Client::new(!arguments.json);
    let played = play(arguments, &mut client);
    if !arguments.json {
        return played.map(|()| ExitCode::SUCCESS);
    }
    let error = played.err().map(|error| format!("{error:#}"));
    let outcome = Outcome { is_good: error.is_none(), error, steps: client.steps };
    say!("{}", ordersaga_terminal::json(&serde_json::to_string_pretty(&outcome)?));
    Ok(if outcome.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(arguments: &Arguments, client: &mut Client) -> Result<()> {
    let (create, store) = (&arguments.create_order, &arguments.store);

    client.title("1. Create an order");
    let order = json!({"item_id": 1, "seller_id": 1, "client_id": 1});
    let answer =
        client.show("POST", &format!("{create}/api/v1/orders/create"), Some(&order), 201)?;
    let id = answer["order_id"].as_i64().context("the answer has no order_id")?;
    ensure!(id >= 1, "order ids count from 1");

    client.title("2. Its status");
    let status = format!("{}/api/v1/status?order_id={id}", arguments.monitoring);
    client.until(&status, "order_id", &json!(id))?;
    client.title("   … and when the store has reserved the item");
    let answer = client.until(&format!("{status}&wait_ms=5000"), "step", &json!("SHIPPING"))?;
    expect(&answer, "is_reserved", &json!(true))?;
    expect(&answer, "is_cancelled", &json!(false))?;
    for name in ["item_id", "seller_id", "client_id"] {
        expect(&answer, name, &json!(1))?;
    }

    client.title("3. The item's reservations");
    let find = format!("{store}/api/v1/items/find?item_id=1");
    let answer = client.until(&find, "is_reserved", &json!(true))?;
    expect(&answer, "item_name", &json!("IPHONE 13"))?;
    expect(&answer, "price", &json!(1000))?;

    client.title("4. Cancel the order");
    let cancel = format!("{create}/api/v1/orders/cancel?order_id={id}");
    client.show("POST", &cancel, None, 202)?;

    client.title("5. It is cancelled, and the item free again");
    let answer = client.until(&format!("{status}&wait_ms=5000"), "step", &json!("CANCELLED"))?;
    expect(&answer, "is_reserved", &json!(false))?;
    expect(&answer, "is_cancelled", &json!(true))?;
    client.until(&find, "is_reserved", &json!(false))?;
    client.say("\nEvery answer was what it must be.");
    Ok(())
}

fn expect(answer: &Value, name: &str, wanted: &Value) -> Result<()> {
    let found = &answer[name];
    ensure!(found == wanted, "{name} is {found}, not {wanted}");
    Ok(())
}

struct Client {
    http: Http,
    /// Whether each request is shown as it is made.
    is_shown: bool,
    title: String,
    steps: Vec<Step>,
}

impl Client {
    fn new(is_shown: bool) -> Self {
        Self { http: Http::new(None), is_shown, title: String::new(), steps: Vec::new() }
    }

    fn say(&self, text: &str) {
        if self.is_shown {
            say!("{text}");
        }
    }

    fn title(&mut self, text: &str) {
        self.say(&format!("\n{text}"));
        text.trim().clone_into(&mut self.title);
    }

    /// Sends one request, shows it and the answer, and checks the status.
    fn show(
        &mut self,
        method: &str,
        url: &str,
        body: Option<&Value>,
        status: u16,
    ) -> Result<Value> {
        self.say(&curl(method, url, body));
        let answer = self.send(method, url, body)?;
        self.record(method, url, body, &answer);
        accept(answer, status)
    }

    /// Asks again until a field is as wanted, and shows the last answer.
    fn until(&mut self, url: &str, name: &str, wanted: &Value) -> Result<Value> {
        self.say(&curl("GET", url, None));
        let deadline = Instant::now() + WITHIN;
        loop {
            let answer = self.send("GET", url, None)?;
            let as_wanted = answer.body[name] == *wanted;
            // Of an order that monitoring has not heard of yet it says that there is none.
            let may_come = matches!(answer.status, 200 | 404);
            if !as_wanted && may_come && Instant::now() < deadline {
                wait(LOOK);
                continue;
            }
            self.record("GET", url, None, &answer);
            let body = accept(answer, 200)?;
            expect(&body, name, wanted)?;
            return Ok(body);
        }
    }

    fn record(&mut self, method: &str, url: &str, body: Option<&Value>, answer: &Answer) {
        self.say(&format!("{} {}", answer.status, answer.text));
        self.steps.push(Step {
            title: self.title.clone(),
            method: method.to_owned(),
            url: url.to_owned(),
            body: body.cloned(),
            status: answer.status,
            answer: answer.body.clone(),
        });
    }

    fn send(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Answer> {
        if method == "GET" { self.http.get(url) } else { self.http.post(url, body, &[]) }
    }
}

fn accept(answer: Answer, status: u16) -> Result<Value> {
    if answer.status != status {
        bail!("the answer is {}, not {status}", answer.status);
    }
    Ok(answer.body)
}

/// The request as a person would type it.
fn curl(method: &str, url: &str, body: Option<&Value>) -> String {
    let data = body.map_or_else(String::new, |body| {
        format!(" --header 'Content-Type: application/json' --data '{body}'")
    });
    format!("curl --request {method} --url '{url}'{data}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_to_type() {
        let body = json!({"item_id": 1});
        assert_eq!(
            curl("POST", "http://x/create", Some(&body)),
            "curl --request POST --url 'http://x/create' --header 'Content-Type: application/json' --data '{\"item_id\":1}'"
        );
    }

    #[test]
    fn an_unexpected_answer_is_an_error() {
        let answer = json!({"step": "SHIPPING"});
        assert!(expect(&answer, "step", &json!("SHIPPING")).is_ok());
        assert!(expect(&answer, "step", &json!("CANCELLED")).is_err());
        assert!(expect(&answer, "absent", &json!(1)).is_err());
    }
}
