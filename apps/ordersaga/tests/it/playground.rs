//! The playground of `up --playground`: what it breaks heals, nothing else is touched, and the proof
//! finds what is wrong.

use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Identity, Parts, Service, run, write_private};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::bed::{block_on, until};
use crate::desk::{Browser, has_browser};
use crate::up::Up;

const NAME: &str = "ordersaga-playground";

/// A stack with a playground.
struct Ground {
    up: Up,
    url: String,
}

impl Ground {
    async fn start() -> Result<Self> {
        let up = Up::start_with(&["--playground"]).await?;
        let url = format!("http://127.0.0.1:{}/api/v1", up.process(NAME)?["port"]);
        Ok(Self { up, url })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.up.http.get(format!("{}{path}", self.url)).send().await?.json().await?)
    }

    async fn post(&self, path: &str) -> Result<(u16, Value)> {
        let answer = self.up.http.post(format!("{}{path}", self.url)).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    async fn act(&self, part: &str, action: &str) -> Result<()> {
        let (status, answer) = self.post(&format!("/parts/{part}/{action}")).await?;
        ensure!(status == 200, "{action} {part}: {answer}");
        Ok(())
    }

    async fn state_of(&self, name: &str) -> Result<Value> {
        let list = self.get("/parts").await?;
        let mut parts = list["parts"].as_array().into_iter().flatten();
        let part = parts.find(|part| part["name"] == name);
        Ok(part.with_context(|| format!("{name} is not in {list}"))?["state"].clone())
    }

    /// Waits until all is well again, and sees that nothing is lost.
    async fn heals(&self) -> Result<()> {
        let mut incident = Value::Null;
        until("it heals", async || {
            incident = self.get("/parts").await?["incident"].clone();
            Ok(["HEALED", "NOT_HEALED"].iter().any(|phase| incident["phase"] == *phase))
        })
        .await
        .with_context(|| format!("{:?}", self.up.said()))?;
        ensure!(incident["phase"] == "HEALED" && incident["orders_lost"] == 0, "{incident}");
        ensure!(incident["orders_placed"].as_u64() > Some(0), "{incident}");
        ensure!(incident["healed_after_ms"].is_u64(), "{incident}");
        Ok(())
    }

    /// Checks now, and tells the verdict of each invariant.
    async fn proof(&self) -> Result<Value> {
        let (status, _) = self.post("/proof").await?;
        ensure!(status == 202, "{status}");
        let mut proof = Value::Null;
        until("the check is over", async || {
            proof = self.get("/proof").await?;
            Ok(proof["is_running"] == false)
        })
        .await?;
        Ok(proof["last"].clone())
    }

    /// Lets a process of somebody else stand in `stack.json` in the place of Redis'.
    fn forge(&self, stranger: &Child) -> Result<Vec<u8>> {
        let file = self.up.data().join("stack.json");
        let real = std::fs::read(&file)?;
        let mut state: Value = serde_json::from_slice(&real)?;
        let identity = Identity::of(stranger.id()).context("the stranger has ended")?;
        let mut all = state["processes"].as_array_mut().into_iter().flatten();
        let redis = all.find(|one| one["name"] == "redis").context("no redis")?;
        redis["pid"] = json!(identity.pid);
        redis["started"] = json!(identity.started);
        write_private(&file, &serde_json::to_vec(&state)?)?;
        Ok(real)
    }
}

fn verdict<'a>(proof: &'a Value, name: &str) -> Result<&'a Value> {
    let mut all = proof["invariants"].as_array().into_iter().flatten();
    all.find(|one| one["name"] == name).with_context(|| format!("no {name} in {proof}"))
}

#[test]
fn what_the_playground_breaks_heals_and_nothing_else_is_touched() -> Result<()> {
    block_on(async {
        let mut ground = Ground::start().await?;
        let store = ground.up.process("service-store")?["pid"].as_i64().context("no pid")?;
        ground.act("service-store", "kill").await?;
        ground.heals().await?;
        ground.up.comes_back("service-store", store, 1).await?;

        ground.act("store", "freeze").await?;
        ensure!(ground.state_of("store").await? == "FROZEN");
        until("it shows that nothing is reserved", async || {
            let incident = ground.get("/parts").await?["incident"].clone();
            let mut probes = incident["probes"].as_array().into_iter().flatten();
            let reserve = probes.find(|probe| probe["what"] == "RESERVE");
            Ok(reserve.is_some_and(|probe| probe["state"] == "WAITS"))
        })
        .await?;
        ensure!(ground.get("/parts").await?["incident"]["phase"] == "BROKEN");
        ground.act("store", "thaw").await?;
        ground.heals().await?;

        let mut stranger = Command::new("sleep").arg("1000").spawn()?;
        let real = ground.forge(&stranger)?;
        let (status, problem) = ground.post("/parts/redis/kill").await?;
        let is_alive = stranger.try_wait()?.is_none();
        stranger.kill()?;
        stranger.wait()?;
        write_private(&ground.up.data().join("stack.json"), &real)?;
        let told = problem["detail"].as_str().unwrap_or_default().contains("none of this stack");
        ensure!(is_alive && status == 503 && told, "{status} {problem}");
        ensure!(ground.post("/parts/supervisor/kill").await?.0 == 404);

        // Whatever becomes of the playground: nothing stays frozen, and the stack goes on.
        ground.act("redis", "freeze").await?;
        let old = ground.up.kill(NAME)?;
        ground.up.comes_back(NAME, old, 1).await?;
        // It may not listen yet.
        let is_thawed =
            async || ground.state_of("redis").await.is_ok_and(|state| state == "RUNNING");
        until("it is thawed", async || Ok(is_thawed().await)).await?;
        ground.act("redis", "freeze").await?;
        ground.up.stop().await
    })
}

#[test]
fn the_proof_holds_and_finds_what_was_planted() -> Result<()> {
    block_on(async {
        let mut ground = Ground::start().await?;
        ground.act("redis", "kill").await?;
        ground.heals().await?;
        let mut proof = Value::Null;
        until("all orders are settled", async || {
            proof = ground.proof().await?;
            Ok(verdict(&proof, "I5")?["verdict"] == "HOLDS"
                && verdict(&proof, "I2")?["verdict"] == "HOLDS"
                && proof["orders"].as_u64() > Some(0))
        })
        .await
        .with_context(|| format!("{proof:#}"))?;
        let all = proof["invariants"].as_array().context("no invariants")?;
        let is_good = |one: &&Value| one["verdict"] == "HOLDS" || one["name"] == "I11";
        let is_open = |one: &&Value| one["name"] == "I7" && one["verdict"] == "NOT_CHECKED";
        let bad: Vec<_> = all.iter().filter(|one| !is_good(one) && !is_open(one)).collect();
        ensure!(all.len() == 12 && bad.is_empty(), "{bad:#?}");

        let parts = Parts::load(&ground.up.data().join("parts.json"))?;
        let store = parts.databases()[Cluster::Store].superuser_url();
        let planted: i64 = sqlx::query_scalar(
            "UPDATE reservation SET state = 2 WHERE state = 1 AND order_id = \
             (SELECT max(order_id) FROM reservation WHERE state = 1) RETURNING order_id",
        )
        .fetch_one(&mut PgConnection::connect(&store).await?)
        .await?;
        // An order is looked at when it has not changed for some seconds.
        until("it is found", async || {
            proof = ground.proof().await?;
            let found = ["I2", "I3", "I4"].map(|name| verdict(&proof, name));
            Ok(found.into_iter().all(|one| one.is_ok_and(|one| one["verdict"] == "VIOLATED")))
        })
        .await
        .with_context(|| format!("{proof:#}"))?;
        let found = verdict(&proof, "I3")?;
        ensure!(found["violations"][0]["order_id"] == planted, "{planted}: {found}");
        ground.up.stop().await
    })
}

#[test]
fn people_break_and_prove_at_the_desk() -> Result<()> {
    if !has_browser() {
        return Ok(());
    }
    block_on(async {
        let mut ground = Ground::start().await?;
        let browser = Browser::new(ground.up.url(Service::Monitoring)?)?;
        let mut command = browser.command();
        command.env("PLAYGROUND", "1");
        let ran = tokio::task::spawn_blocking(move || run(&mut command)).await?;
        ran.with_context(|| ground.up.said().unwrap_or_default())?;
        ground.up.stop().await
    })
}
