//! The commands of `ordersaga` that follow orders, on a real system, as people type them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::Service;
use serde_json::{Value, json};

use crate::bed::{Bed, Plan, block_on};
use crate::client::{FIND, order_for};

/// Runs a test on a system of which monitoring knows where the other services are.
fn known(test: impl AsyncFnOnce(&Bed) -> Result<()>) -> Result<()> {
    let plan = Plan::default().idle().set(Service::Monitoring, "STUCK_AFTER_MS", "500");
    block_on(plan.run(async |bed| {
        let [create, store] = [Service::CreateOrder, Service::Store].map(|one| bed.url(one));
        let documents = format!("Create order={create}/openapi.json,Store={store}/openapi.json");
        let monitoring = bed.services.get_mut(&Service::Monitoring).context("no such service")?;
        monitoring.set("DOCS_URLS", &documents);
        bed.apply_topics().await?;
        bed.start_all().await?;
        test(bed).await
    }))
}

fn tool(bed: &Bed, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ordersaga"));
    command.args(words.split(' ')).env("ORDERSAGA_URL", bed.url(Service::Monitoring));
    command
}

/// Runs it to its end; its code and what it printed.
async fn run(bed: &Bed, words: &str) -> Result<(i32, String)> {
    let mut command = tool(bed, words);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let code = output.status.code().context("it was killed")?;
    Ok((code, String::from_utf8(said)?))
}

/// It ends with this code and says all of this.
async fn says(bed: &Bed, words: &str, code: i32, texts: &[&str]) -> Result<String> {
    let (ended, said) = run(bed, words).await?;
    ensure!(ended == code, "{words}: {ended} instead of {code}: {said}");
    for text in texts {
        ensure!(said.contains(text), "{words}: no {text:?} in {said}");
    }
    Ok(said)
}

#[test]
fn an_order_is_told_as_each_witness_has_it() -> Result<()> {
    known(async |bed| {
        let order = bed.place(&order_for(1000)).await?;
        let words = format!("wait order {order}=shipping");
        says(bed, &words, 0, &["So it is"]).await?;
        says(bed, "wait drained", 0, &["So it is"]).await?;
        // The cache has it once somebody has asked for it.
        bed.get(Service::Store, &format!("{FIND}?item_id=1000")).await?.expect(200)?;
        let words = format!("order {order}");
        let shown = ["SHIPPING since", "unless its client cancels it", "Nothing disagrees."];
        says(bed, &words, 0, &shown).await?;
        let said = says(bed, &format!("{words} --json"), 0, &[]).await?;
        let story: Value = serde_json::from_str(&said)?;
        ensure!(story["step"] == "SHIPPING" && story["findings"] == json!([]), "{story}");
        ensure!(story["has_contradiction"] == false, "{story}");
        let witnesses: Vec<_> = story["witnesses"].as_array().into_iter().flatten().collect();
        for name in ["monitoring", "topics", "cache", "store"] {
            let account = witnesses.iter().find(|one| one["witness"] == name);
            let account = account.with_context(|| format!("no {name} in {story}"))?;
            ensure!(account["knows"].get("RESERVED").is_some(), "{name}: {story}");
        }
        says(bed, "order 4611686018427387904", 1, &["nobody knows it"]).await?;
        let words = format!("wait order {order}=CANCELLED --timeout 1s");
        says(bed, &words, 124, &["not within 1s", "is SHIPPING"]).await.map(drop)
    })
}

#[test]
fn an_order_is_followed_until_nothing_more_is_to_come() -> Result<()> {
    known(async |bed| {
        let store = &bed.services[&Service::Store];
        store.pause()?;
        let order = bed.place(&order_for(1000)).await?;
        bed.reaches(order, "UNDER_RESERVATION").await?;
        let words = format!("wait order {order}=SHIPPING --timeout 300ms");
        says(bed, &words, 124, &["is UNDER_RESERVATION"]).await?;
        says(bed, "wait drained --timeout 1s", 124, &["not within 1s"]).await?;
        let mut command = tool(bed, &format!("order {order} --follow --json"));
        let mut following = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(following.stdout.take().context("no output")?).lines();
        // The frozen store is asked, in vain.
        let first = lines.next().context("nothing is said")??;
        let first: Value = serde_json::from_str(&first)?;
        ensure!(first["waits_for"]["wait"] == "ANSWER", "{first}");
        ensure!(first["silent"].as_array().is_some_and(|all| !all.is_empty()), "{first}");
        store.resume()?;
        let news = lines.collect::<Result<Vec<_>, _>>()?;
        ensure!(following.wait()?.success());
        ensure!(news.len() == 1 && news[0].contains("RESERVED"), "{news:?}");
        bed.reaches(order, "SHIPPING").await?;
        says(bed, &format!("wait order {order}=SHIPPING"), 0, &[]).await.map(drop)
    })
}

#[test]
fn services_are_waited_for_until_they_are_ready() -> Result<()> {
    known(async |bed| {
        says(bed, "wait ready", 0, &["all services are ready", "So it is"]).await?;
        bed.services[&Service::Store].kill9().await?;
        says(bed, "wait ready --timeout 1s", 124, &["service-store does not answer"]).await?;
        bed.services[&Service::Monitoring].kill9().await?;
        let told = ["is the stack running? `ordersaga up`"];
        says(bed, "order 1", 1, &told).await.map(drop)
    })
}
