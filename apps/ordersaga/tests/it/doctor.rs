//! `ordersaga doctor` and `ordersaga top`, on systems that are well and on those that are not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use ordersaga_devstack::{Parts, Service, TemporaryFolder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tar::Archive;
use tokio::process::Command;

use crate::bed::{Bed, Plan, block_on, until};
use crate::client::{DEAD_LETTERS, STUCK, order_for};
use crate::dlq::{Said, poison};
use crate::up::Up;

/// Runs a test on a system whose monitoring knows where the other services are.
fn known(test: impl AsyncFnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    let plan = Plan::default().idle().set(Service::Monitoring, "STUCK_AFTER_MS", "500");
    block_on(plan.run(async |bed| {
        let [create, store] = [Service::CreateOrder, Service::Store].map(|one| bed.url(one));
        let documents = format!("Create order={create}/openapi.json,Store={store}/openapi.json");
        let monitoring = bed.services.get_mut(&Service::Monitoring).context("no monitoring")?;
        monitoring.set("DOCS_URLS", &documents);
        bed.apply_topics().await?;
        bed.start_all().await?;
        test(bed).await
    }))
}

fn tool(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ordersaga"));
    command.args(words).env_remove("KAFKA_BROKERS").env_remove("ORDERSAGA_URL");
    command
}

/// What `doctor` says of a system that `up` does not run.
async fn doctor(bed: &Bed, more: &[&str]) -> Result<Said> {
    let nothing = TemporaryFolder::new("doctor")?;
    let mut command = tool(&["doctor", "--url", &bed.url(Service::Monitoring), "--data"]);
    Said::by({
        command.arg(nothing.path()).args(more);
        command
    })
    .await
}

#[test]
fn a_system_that_is_well_has_no_problem() -> Result<()> {
    known(async |bed| {
        let order = bed.place(&order_for(1000)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let said = doctor(bed, &[]).await?.expect(0, "No problems")?;
        for well in [
            "all three answer",
            "every dependency of those that answer can be used",
            "no order waits for too long",
            "no consumer is behind",
        ] {
            ensure!(said.text.contains(well), "not {well:?}: {}", said.text);
        }
        let said = doctor(bed, &["--json"]).await?.expect(0, "{")?;
        let report: Value = serde_json::from_str(&said.text)?;
        ensure!(report["version"] == 1 && report["healthy"] == true, "{report}");
        ensure!(report["findings"].as_array().is_some_and(|all| all.len() > 20), "{report}");
        Ok(())
    })
}

#[test]
fn a_frozen_store_and_the_order_that_waits_for_it_are_named() -> Result<()> {
    known(async |bed| {
        bed.services[&Service::Store].pause()?;
        let order = bed.place(&order_for(1000)).await?;
        until("it is stuck", async || {
            let list = bed.get(Service::Monitoring, STUCK).await?.expect(200)?;
            // At first only monitoring may be late.
            Ok(list["items"][0]["is_late"] == false)
        })
        .await?;
        let said = doctor(bed, &[]).await;
        let screen = top(bed).await;
        bed.services[&Service::Store].resume()?;
        let said = said?.expect(1, "service-store does not answer")?;
        for named in [
            format!("order {order} is stuck since"),
            "→ see that the store goes on: ordersaga logs service-store".to_owned(),
            "docs/runbook.md#servicedown".to_owned(),
        ] {
            ensure!(said.text.contains(&named), "not {named:?}: {}", said.text);
        }
        let screen = screen?.expect(0, &format!("order {order} waits for the store's answer"))?;
        let mut rows = screen.text.lines().filter(|row| row.starts_with("service-store"));
        ensure!(rows.any(|row| row.ends_with("away")), "{}", screen.text);
        bed.reaches(order, "SHIPPING").await.map(drop)
    })
}

#[test]
fn a_dead_letter_is_named_with_the_commands_for_it() -> Result<()> {
    known(async |bed| {
        let (record, place) = poison("incoming", 1, b"{\"version\":1}")?;
        bed.log().write(vec![record]).await?;
        until("the letter is listed", async || {
            let list = bed.get(Service::Monitoring, DEAD_LETTERS).await?.expect(200)?;
            Ok(list["items"].as_array().is_some_and(|items| !items.is_empty()))
        })
        .await?;
        let said =
            doctor(bed, &[]).await?.expect(0, &format!("dead letter {place}, refused by"))?;
        let mend = format!("→ ordersaga dlq show {place}, then: ordersaga dlq replay or discard");
        ensure!(said.text.contains(&mend), "{}", said.text);
        Ok(())
    })
}

async fn top(bed: &Bed) -> Result<Said> {
    Said::by(tool(&["top", "--once", "--url", &bed.url(Service::Monitoring)])).await
}

#[test]
fn top_shows_a_placed_order_once() -> Result<()> {
    known(async |bed| {
        let order = bed.place(&order_for(1000)).await?;
        bed.reaches(order, "SHIPPING").await?;
        let said = top(bed).await?.expect(0, "newest orders")?;
        let mut rows = said.text.lines().filter(|row| row.starts_with(&format!("{order} ")));
        ensure!(rows.any(|row| row.contains("SHIPPING")), "{}", said.text);
        ensure!(said.text.contains("stuck: none"), "{}", said.text);
        ensure!(said.text.contains("shards: shard1 up, shard2 up"), "{}", said.text);
        Ok(())
    })
}

/// What is in a bundle, by name.
fn unpacked(file: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = Archive::new(GzDecoder::new(File::open(file)?));
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        found.insert(name, String::from_utf8(bytes)?);
    }
    Ok(found)
}

/// Nothing of the stack's secrets is in it, also where a log has one.
fn holds_no_secret(files: &BTreeMap<String, String>, parts: &Parts) -> Result<()> {
    for kept in parts.passwords.values() {
        for secret in [&kept.superuser, &kept.owner, &kept.service, &kept.fdw] {
            let told = files.iter().find(|(_, text)| text.contains(secret.as_str()));
            ensure!(told.is_none(), "a password is in {:?}", told.map(|(name, _)| name));
        }
    }
    Ok(())
}

#[test]
fn a_stack_of_up_is_looked_at_and_bundled_without_passwords() -> Result<()> {
    block_on(async {
        let mut up = Up::start().await?;
        let data = up.data();
        let parts = Parts::load(&data.join("parts.json"))?;
        let log = data.join("logs/service-store.log");
        let secret = &parts.passwords.values().next().context("no passwords")?.service;
        std::fs::write(&log, format!("a log may tell {secret}\n"))?;
        let bundle = data.with_file_name("bundle.tar.gz");
        let mut command = tool(&["doctor", "--data"]);
        command.arg(&data).arg("--bundle").arg(&bundle);
        let said = Said::by(command).await?.expect(0, "No problems")?;
        for well in ["every role is there", "takes connections", "processes run"] {
            ensure!(said.text.contains(well), "not {well:?}: {}", said.text);
        }
        let files = unpacked(&bundle)?;
        for name in [
            "doctor.json",
            "stack.json",
            "logs/service-store.log",
            "logs/broker.log",
            "service-store/metrics.txt",
            "service-create-order/ready.json",
        ] {
            ensure!(
                files.contains_key(&format!("ordersaga/{name}")),
                "no {name}: {:?}",
                files.keys()
            );
        }
        ensure!(files["ordersaga/logs/service-store.log"].contains("a log may tell [removed]"));
        holds_no_secret(&files, &parts)?;

        let pid = up.process("redis")?["pid"].as_i64().context("it does not run")?;
        let number = Pid::from_raw(i32::try_from(pid)?).context("no number of a process")?;
        kill_process(number, Signal::STOP)?;
        let mut command = tool(&["doctor", "--data"]);
        command.arg(&data);
        let said = Said::by(command).await;
        kill_process(number, Signal::CONT)?;
        said?.expect(1, &format!("→ kill -CONT {pid}"))?;
        up.stop().await
    })
}
