//! The order desk, in a browser, as people use it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use ordersaga_devstack::{Service, TemporaryFolder, programs, run};

use crate::bed::{Bed, Plan, block_on, skipped};
use crate::client::order_for;
use crate::dlq::poison;
use crate::evidence::refused_answer;

/// Whether there is what drives the desk; says so if not.
pub(crate) fn has_browser() -> bool {
    let missing = ["chromium", "npm"].iter().find(|name| programs::find(name).is_none());
    if let Some(missing) = missing {
        skipped(&format!("there is no {missing} (cargo ordersaga test --all installs it)"));
    }
    missing.is_none()
}

/// Runs a test on a system whose services are known to the page at their ports.
fn in_a_browser(test: impl AsyncFnOnce(&Bed, Browser) -> Result<()>) -> Result<()> {
    if !has_browser() {
        return Ok(());
    }
    let plan = Plan::default().idle().set(Service::Monitoring, "STUCK_AFTER_MS", "500");
    block_on(plan.run(async |bed| {
        let [create, monitoring, store] =
            [Service::CreateOrder, Service::Monitoring, Service::Store].map(|one| bed.url(one));
        let documents = format!("Create order={create}/openapi.json,Store={store}/openapi.json");
        for (service, name, value) in [
            (Service::Monitoring, "DOCS_URLS", &documents),
            (Service::CreateOrder, "HTTP_ORIGINS", &monitoring),
            (Service::Store, "HTTP_ORIGINS", &monitoring),
        ] {
            bed.services.get_mut(&service).context("no such service")?.set(name, value);
        }
        bed.apply_topics().await?;
        bed.start_all().await?;
        test(bed, Browser::new(monitoring)?).await
    }))
}

pub(crate) struct Browser {
    url: String,
    shots: TemporaryFolder,
}

impl Browser {
    /// One that looks at the desk of this address.
    pub(crate) fn new(url: String) -> Result<Self> {
        Ok(Self { url, shots: TemporaryFolder::new("desk")? })
    }

    /// What drives it.
    pub(crate) fn command(&self) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/desk");
        let mut command = Command::new(folder.join("run"));
        command.arg(&self.url).arg(self.shots.path());
        command
    }
}

#[test]
fn people_place_follow_find_and_cancel_orders_at_the_desk() -> Result<()> {
    in_a_browser(async |_, browser| run(&mut browser.command()).map(drop))
}

#[test]
fn the_desk_shows_what_is_stuck() -> Result<()> {
    in_a_browser(async |bed, browser| {
        bed.services[&Service::Store].pause()?;
        let order = bed.place(&order_for(1000)).await?;
        let shown = run(browser.command().env("STUCK", order.to_string()));
        bed.services[&Service::Store].resume()?;
        shown?;
        bed.reaches(order, "SHIPPING").await.map(drop)
    })
}

#[test]
fn the_desk_shows_dead_letters_and_what_a_replay_would_do() -> Result<()> {
    in_a_browser(async |bed, browser| {
        let (order, readable) = refused_answer(bed).await?;
        let (record, place) = poison("reset", order + 1, b"no event")?;
        bed.log().write(vec![record]).await?;
        let mut command = browser.command();
        command.env("LETTER", place).env("LETTER_READABLE", readable);
        run(command.env("LETTER_ORDER", order.to_string())).map(drop)
    })
}
