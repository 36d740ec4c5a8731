//! `topics apply` against a real broker: creates, repeats, alters, refuses; and against a real schema
//! registry, where one is given.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const FILE: &str = "[topics.orders]\nco_partitioned = true\npartitions = 3\n\
                    config = { \"cleanup.policy\" = \"delete\", \"retention.ms\" = 60_000 }\n";

struct Topics {
    broker: String,
    prefix: &'static str,
    folder: tempfile::TempDir,
}

impl Topics {
    fn run(&self, action: &str, file: &str) -> Result<Output> {
        let path = self.folder.path().join("topics.toml");
        std::fs::write(&path, file)?;
        run(action, &self.broker, self.prefix, Some(&path))
    }
}

fn run(action: &str, broker: &str, prefix: &str, file: Option<&Path>) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ordersaga-kafka"));
    command.args(["topics", action, "--brokers", broker, "--prefix", prefix]);
    if let Some(file) = file {
        command.arg("--file").arg(file);
    }
    command.output().context("cannot start ordersaga-kafka")
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

#[tokio::test]
async fn makes_topics_what_the_file_says() -> Result<()> {
    let parts = ordersaga_devstack::shared().await?;
    let topics = Topics {
        broker: parts.broker_address(),
        prefix: "topics-test.",
        folder: tempfile::tempdir()?,
    };

    let missing = topics.run("describe", FILE)?;
    assert!(!missing.status.success());
    let created = topics.run("apply", FILE)?;
    assert_eq!(said(&created), "topics-test.orders: created with 3 partitions");
    let again = topics.run("apply", FILE)?;
    assert_eq!(said(&again), "all topics are as they should be");

    let altered = topics.run("apply", &FILE.replace("60_000", "70_000"))?;
    assert_eq!(said(&altered), "topics-test.orders: retention.ms was 60000, is 70000");
    let state = topics.run("describe", FILE)?;
    assert!(said(&state).contains("3 partitions"), "{}", said(&state));
    assert!(said(&state).contains("retention.ms=70000"), "{}", said(&state));

    let refused = topics.run("apply", &FILE.replace("= 3", "= 4"))?;
    assert!(!refused.status.success());
    assert!(said(&refused).contains("has 3 partitions, not 4; it is co-partitioned"));
    Ok(())
}

#[tokio::test]
async fn makes_the_topics_built_in() -> Result<()> {
    let broker = ordersaga_devstack::shared().await?.broker_address();
    let applied = run("apply", &broker, "built-in.", None)?;
    assert!(applied.status.success(), "{}", said(&applied));
    let state = said(&run("describe", &broker, "built-in.", None)?);
    for topic in ["incoming", "reservation", "reset", "dead-letter"] {
        let line = state.lines().find(|line| line.starts_with(&format!("built-in.{topic} ")));
        assert!(line.is_some_and(|line| line.contains(" 16 partitions")), "{state}");
    }
    Ok(())
}

/// The address of a schema registry for the tests below. It is too heavy a part to be fetched for
/// them: docs/events.md says which one can be had and how.
const REGISTRY: &str = "TEST_SCHEMA_REGISTRY_URL";

struct Subjects {
    registry: String,
    prefix: String,
}

impl Subjects {
    async fn apply(&self) -> Result<Output> {
        let broker = ordersaga_devstack::shared().await?.broker_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ordersaga-kafka"));
        command.args(["topics", "apply", "--brokers", &broker, "--prefix", &self.prefix]);
        command.env("SCHEMA_REGISTRY_URL", &self.registry);
        command.output().context("cannot start ordersaga-kafka")
    }

    fn get(&self, path: &str) -> Result<Option<Value>> {
        let mut answer = agent().get(format!("{}{path}", self.registry)).call()?;
        if answer.status() == 404 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&answer.body_mut().read_to_string()?)?))
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn send(request: ureq::RequestBuilder<ureq::typestate::WithBody>, body: &Value) -> Result<()> {
    let request = request.header("content-type", "application/vnd.schemaregistry.v1+json");
    let answer = request.send(body.to_string())?;
    ensure!(answer.status().is_success(), "{answer:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a schema registry: its address in TEST_SCHEMA_REGISTRY_URL"]
async fn registers_the_events_schemas() -> Result<()> {
    let registry = std::env::var(REGISTRY)?;
    let prefix = format!("t{}-", std::process::id());
    let subjects = Subjects { registry, prefix };
    let events = ordersaga_contract::schema::all();

    let first = subjects.apply().await?;
    ensure!(first.status.success(), "{}", said(&first));
    let second = subjects.apply().await?;
    ensure!(second.status.success(), "{}", said(&second));
    for event in &events {
        let subject = format!("{}{}-{}", subjects.prefix, event.topic, event.name);
        let (new, known) = (said(&first), said(&second));
        ensure!(new.contains(&format!("{subject}: registered as version 1")), "{new}");
        ensure!(known.contains(&format!("{subject}: unchanged, version 1")), "{known}");
        let level = subjects.get(&format!("/config/{subject}"))?.context("it has a rule")?;
        ensure!(level["compatibilityLevel"] == "BACKWARD", "{level}");
        let latest = subjects.get(&format!("/subjects/{subject}/versions/latest"))?;
        let latest = latest.context("it has a version")?;
        let schema: Value = serde_json::from_str(latest["schema"].as_str().unwrap_or_default())?;
        ensure!(schema == event.schema, "{schema}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a schema registry: its address in TEST_SCHEMA_REGISTRY_URL"]
async fn an_incompatible_schema_stops_registration_before_it_begins() -> Result<()> {
    let registry = std::env::var(REGISTRY)?;
    let subjects = Subjects { registry, prefix: format!("u{}-", std::process::id()) };
    let events = ordersaga_contract::schema::all();
    // Somebody else's later version of the last schema: it has a field that ours does not.
    let (last, others) = events.split_last().context("there are events")?;
    let subject = |event: &ordersaga_contract::schema::EventSchema| {
        format!("{}{}-{}", subjects.prefix, event.topic, event.name)
    };
    let mut later = last.schema.clone();
    later["properties"]["gift"] = json!({ "type": "boolean" });
    let post = agent().post(format!("{}/subjects/{}/versions", subjects.registry, subject(last)));
    send(post, &json!({ "schemaType": "JSON", "schema": later.to_string() }))?;
    let put = agent().put(format!("{}/config/{}", subjects.registry, subject(last)));
    send(put, &json!({ "compatibility": "BACKWARD" }))?;

    let refused = subjects.apply().await?;
    ensure!(!refused.status.success(), "{}", said(&refused));
    let error = String::from_utf8_lossy(&refused.stderr).trim().to_owned();
    ensure!(error.lines().count() == 1 && error.contains("is not compatible"), "{error}");
    ensure!(error.contains(&subject(last)), "{error}");
    for event in others {
        let path = format!("/subjects/{}/versions/latest", subject(event));
        ensure!(subjects.get(&path)?.is_none(), "{path} is there");
    }
    Ok(())
}
