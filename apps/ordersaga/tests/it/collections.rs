//! The committed collections of requests, replayed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Service, cache_folder, programs};
use reqwest::Method;
use serde_json::Value;

use crate::bed::{Bed, saga, skipped};
use crate::client::{Answer, order_for};
use crate::invariants;

/// Insomnia puts in a new value for each.
const UNIQUE: &str = "{% uuid 'v4' %}";

/// Sends what the committed collection says, as Insomnia would.
struct Replay<'a> {
    bed: &'a Bed,
    variables: BTreeMap<String, String>,
}

impl Replay<'_> {
    /// The number of requests sent.
    async fn run(&mut self, collection: &Value) -> Result<usize> {
        let mut sent = 0;
        for request in list(&collection["resources"]).filter(|it| it["_type"] == "request") {
            let answer = self.send(request).await?;
            for line in text(&request["afterResponseScript"]).lines() {
                self.follow(line, &answer)
                    .with_context(|| format!("{}: {line}", request["name"]))?;
            }
            sent += 1;
        }
        Ok(sent)
    }

    async fn send(&self, request: &Value) -> Result<Answer> {
        let method = Method::from_bytes(text(&request["method"]).as_bytes())?;
        let mut builder = self.bed.http.request(method, self.rendered(&request["url"]));
        for field in list(&request["parameters"]).filter(|it| it["disabled"] == false) {
            builder = builder.query(&[(text(&field["name"]), self.rendered(&field["value"]))]);
        }
        for field in list(&request["headers"]).filter(|it| it["disabled"] == false) {
            builder = builder.header(text(&field["name"]), self.rendered(&field["value"]));
        }
        if request["body"]["text"].is_string() {
            builder = builder.body(self.rendered(&request["body"]["text"]));
        }
        self.bed.send(builder).await
    }

    fn rendered(&self, template: &Value) -> String {
        let mut template = text(template).to_owned();
        while template.contains(UNIQUE) {
            template = template.replacen(UNIQUE, &format!("{:032x}", fastrand::u128(..)), 1);
        }
        self.variables.iter().fold(template, |template, (name, value)| {
            template.replace(&format!("{{{{ _.{name} }}}}"), value)
        })
    }

    /// A line of a script remembers a field of the answer, or says what one must be.
    fn follow(&mut self, line: &str, answer: &Answer) -> Result<()> {
        if let Some(rest) = line.strip_prefix("insomnia.baseEnvironment.set(\"") {
            let name = rest.split('"').next().unwrap_or_default();
            self.variables.insert(name.to_owned(), answer.json()?[name].to_string());
            return Ok(());
        }
        let (subject, wanted) = line.split_once(").to.eql(").context("an unknown line")?;
        let wanted = wanted.strip_suffix("));").context("an unknown end")?;
        let (_, name) = subject.rsplit_once('.').context("an unknown subject")?;
        let is_status = subject.ends_with("insomnia.response.code");
        let found = if is_status { answer.status.into() } else { answer.json()?[name].clone() };
        ensure!(found == serde_json::from_str::<Value>(wanted)?, "{answer:?}");
        Ok(())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// On a fresh system, and on one in use: what others have there stays as it is.
async fn runs_twice(bed: &Bed, mut run: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    run().await.context("on a fresh system")?;
    let theirs = bed.place(&order_for(1)).await?;
    bed.reaches(theirs, "SHIPPING").await?;
    run().await.context("on a system in use")?;
    let status = bed.status(theirs).await?;
    ensure!(status["step"] == "SHIPPING", "the order of others: {status}");
    ensure!(bed.item(1).await?["reserved"] == 1, "the item of others");
    invariants::hold(bed).await
}

/// The services by the variables that stand for them.
const PLACES: [(&str, Service); 3] = [
    ("create_order", Service::CreateOrder),
    ("monitoring", Service::Monitoring),
    ("store", Service::Store),
];

#[test]
fn insomnias_collection_runs_on_a_fresh_and_on_a_used_system() -> Result<()> {
    let file = folder().join("collections/insomnia.json");
    let collection: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    saga(async |bed| {
        let bed = &*bed;
        let variables = PLACES.map(|(name, service)| (name.to_owned(), bed.url(service)));
        let mut replay = Replay { bed, variables: variables.into() };
        runs_twice(bed, async || {
            let sent = replay.run(&collection).await?;
            ensure!(sent > 10, "{sent} requests");
            Ok(())
        })
        .await
    })
}

/// By the client's own program.
fn runs_in(client: &str) -> Result<()> {
    if programs::find("npm").is_none() {
        skipped("there is no npm to get the client with (apt-get install npm)");
        return Ok(());
    }
    saga(async |bed| {
        let bed = &*bed;
        runs_twice(bed, async || {
            let mut replay = Command::new(folder().join("replay"));
            replay.arg(client).env("TOOLS", cache_folder()?.join("replay"));
            for (name, service) in PLACES {
                replay.env(name.to_uppercase(), bed.url(service));
            }
            ordersaga_devstack::run(&mut replay).map(drop)
        })
        .await
    })
}

#[test]
fn postmans_collection_runs_on_a_fresh_and_on_a_used_system() -> Result<()> {
    runs_in("postman")
}

#[test]
fn brunos_collection_runs_on_a_fresh_and_on_a_used_system() -> Result<()> {
    runs_in("bruno")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi")
}
