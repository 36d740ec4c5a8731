//! A stack as `cargo ordersaga up` runs it: what ends by itself comes back.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ordersaga_checker::{Evidence, History, Log, Onlooker};
use ordersaga_devstack::{Parts, Service, TemporaryFolder};
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::SemaphorePermit;

use crate::bed::{LOOK, WITHIN, alone, block_on, until};
use crate::client::{ADD, CREATE, STATUS, order_for};

/// What Java's locale, its files of properties and Kafka's lists each have their own trouble with.
const DATA: &str = "мои данные, \\ и 🦀";

/// A stack that the tool runs in a process of its own.
pub(crate) struct Up {
    supervisor: Child,
    pub(crate) http: Client,
    history: History,
    // Dropped after the process that works in it.
    folder: TemporaryFolder,
    _places: SemaphorePermit<'static>,
}

impl Up {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further arguments of the tool.
    pub(crate) async fn start_with(further: &[&str]) -> Result<Self> {
        let places = alone().await?;
        let folder = TemporaryFolder::new("up")?;
        let log = std::fs::File::create(folder.path().join("said"))?;
        // It ends when the tests do, however they end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", env!("CARGO_BIN_EXE_ordersaga"), "supervise"]);
        command.args(["--free-ports", "--data"]).arg(folder.path().join(DATA)).args(further);
        command.env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let http = Client::builder().no_proxy().timeout(WITHIN).build()?;
        let supervisor = command.spawn().context("cannot start the tool")?;
        let mut up =
            Self { supervisor, http, history: History::default(), folder, _places: places };
        up.wait_ready().await.with_context(|| up.said().unwrap_or_default())?;
        Ok(up)
    }

    /// On a busy machine five clusters, the broker and the services take their time.
    async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + 4 * WITHIN;
        loop {
            ensure!(self.supervisor.try_wait()?.is_none(), "the tool ended");
            if self.state().is_ok_and(|state| state["phase"] == "ready") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not everything is ready");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    /// What it has printed.
    pub(crate) fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("said"))?)
    }

    pub(crate) fn state(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.data().join("stack.json"))?)?)
    }

    /// What stands about a process in `stack.json`, from which `status` shows it.
    pub(crate) fn process(&self, name: &str) -> Result<Value> {
        let state = self.state()?;
        let mut all = state["processes"].as_array().into_iter().flatten();
        let found = all.find(|process| process["name"] == name);
        found.cloned().with_context(|| format!("{name} is not in {state}"))
    }

    pub(crate) fn url(&self, service: Service) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.process(service.name())?["port"]))
    }

    /// Kills a process by its number, as the kernel does when memory is short: its children live on.
    pub(crate) fn kill(&self, name: &str) -> Result<i64> {
        let pid = self.process(name)?["pid"].as_i64().context("it does not run")?;
        let number = Pid::from_raw(i32::try_from(pid)?).context("no number of a process")?;
        kill_process(number, Signal::KILL)?;
        Ok(pid)
    }

    pub(crate) async fn comes_back(&self, name: &str, old: i64, restarts: u64) -> Result<()> {
        let again = format!("{name} is started again");
        let back = async || {
            let process = self.process(name)?;
            let new = process["pid"].as_i64().is_some_and(|pid| pid != old);
            anyhow::Ok(new && process["restarts"] == restarts)
        };
        until(&again, back).await.with_context(|| self.said().unwrap_or_default())
    }

    /// Nobody else may read what lies there: events, logs, passwords.
    fn is_closed_to_others(&self) -> Result<()> {
        let mode = |path: &Path| anyhow::Ok(std::fs::metadata(path)?.permissions().mode() & 0o777);
        let (data, logs) = (self.data(), self.data().join("logs"));
        // Postgres, which is another user when root runs it, may go through.
        ensure!(mode(&data)? & 0o066 == 0, "{:o}", mode(&data)?);
        for entry in std::fs::read_dir(&data)?.chain(std::fs::read_dir(&logs)?) {
            let path = entry?.path();
            ensure!(mode(&path)? | 0o700 == 0o700, "{}: {:o}", path.display(), mode(&path)?);
        }
        Ok(())
    }

    /// Lets a log become longer than it may, and sees it shortened.
    async fn flood(&self, log: &Path) -> Result<()> {
        let before = log.with_extension("1.log");
        ensure!(!before.exists());
        let line = "too long\n";
        let lines = line.repeat(17 * 1024 * 1024 / line.len());
        OpenOptions::new().append(true).open(log)?.write_all(lines.as_bytes())?;
        until("the log is short", async || Ok(std::fs::metadata(log)?.len() < 1024 * 1024)).await?;
        ensure!(std::fs::read_to_string(&before)?.contains("Ready to accept connections"));
        Ok(())
    }

    /// Places an order as a careful client does, and sees it shipped.
    pub(crate) async fn order(&mut self, key: &str) -> Result<()> {
        let (create, status) = (self.url(Service::CreateOrder)?, self.url(Service::Monitoring)?);
        let mut placed = None;
        until("an order is taken", async || {
            let request = self.http.post(format!("{create}{CREATE}")).json(&order_for(4));
            let Ok(answer) = request.header("Idempotency-Key", key).send().await else {
                return Ok(false);
            };
            if answer.status() == 201 {
                placed = answer.json::<Value>().await?["order_id"].as_i64();
            }
            Ok(placed.is_some())
        })
        .await?;
        let order = placed.context("no order_id")?;
        self.history.acknowledged(Some(key), order);
        until("it is shipped", async || {
            let url = format!("{status}{STATUS}?order_id={order}&wait_ms=1000");
            let Ok(answer) = self.http.get(url).send().await else { return Ok(false) };
            Ok(answer.status() == 200 && answer.json::<Value>().await?["step"] == "SHIPPING")
        })
        .await
    }

    /// What the onlooker of any system sees.
    pub(crate) async fn holds(&self) -> Result<()> {
        let parts = Parts::load(&self.data().join("parts.json"))?;
        let log = Log { broker: parts.broker_address(), prefix: String::new() };
        let mut onlooker = Onlooker::new(&parts.provision("").await?, log, parts.redis_url())?;
        for service in Service::ALL {
            onlooker.urls.insert(service, self.url(service)?);
        }
        onlooker.at_rest(WITHIN).await?;
        let evidence = Evidence::gather(&onlooker, self.history.clone()).await?;
        let violations = evidence.violations(&onlooker).await?;
        onlooker.close().await;
        ensure!(violations.is_empty(), "{violations:#?}");
        Ok(())
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.supervisor), Signal::TERM)?;
        self.ends().await
    }

    /// It was asked to stop, and does.
    pub(crate) async fn ends(&mut self) -> Result<()> {
        let mut ended = None;
        until("it stops", async || {
            ended = self.supervisor.try_wait()?;
            Ok(ended.is_some())
        })
        .await?;
        ensure!(ended.is_some_and(|status| status.success()), "{ended:?}: {}", self.said()?);
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // All that it started ends with it.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

#[test]
fn whatever_dies_is_started_again_and_nothing_is_lost() -> Result<()> {
    block_on(async {
        let mut up = Up::start().await?;
        let item = json!(
            {"seller_id": 1, "price": 1, "name": "thing", "quantity": 1000}
        );
        let add = format!("{}{ADD}", up.url(Service::Store)?);
        ensure!(up.http.post(add).json(&item).send().await?.status() == 201);
        up.order("before").await?;
        let names =
            ["broker", "create-order", "store", "monitoring", "shard1", "redis", "service-store"];
        for name in names {
            let old = up.kill(name)?;
            up.order(&format!("{name} is down")).await.with_context(|| name.to_owned())?;
            up.comes_back(name, old, 1).await?;
        }
        // All at once, by their numbers of now.
        let old: Vec<_> =
            names.iter().map(|name| Ok((name, up.kill(name)?))).collect::<Result<_>>()?;
        for (name, pid) in old {
            up.comes_back(name, pid, 2).await?;
        }
        up.order("after").await?;
        up.holds().await?;
        up.stop().await
    })
}

#[test]
fn one_that_cannot_be_started_again_says_why_and_the_others_go_on() -> Result<()> {
    block_on(async {
        let mut up = Up::start().await?;
        up.is_closed_to_others()?;
        // Without its data a cluster would begin with none, and orders would be gone in silence.
        let data = up.data().join("postgres/shard1");
        let aside = up.folder.path().join("aside");
        let real = data.canonicalize()?;
        std::fs::rename(&real, &aside)?;
        let old = up.kill("shard1")?;
        until("it says why", async || {
            let said = up.said()?;
            Ok(said.contains("shard1 could not be started: its data are gone")
                && said.contains("3 times in a row; its log ends:"))
        })
        .await
        .with_context(|| up.said().unwrap_or_default())?;
        let redis = up.kill("redis")?;
        up.comes_back("redis", redis, 1).await?;
        ensure!(up.process("shard1")?["restarts"] == 0);

        std::fs::rename(&aside, &real)?;
        up.comes_back("shard1", old, 1).await?;
        let log = up.data().join("logs/redis.log");
        up.flood(&log).await?;
        up.stop().await?;
        // It went on in its log.
        let end = std::fs::read_to_string(&log)?;
        ensure!(end.contains("User requested shutdown"), "{} bytes", end.len());
        Ok(())
    })
}
