//! Makes a fault happen and puts it right again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ordersaga_checker::{EVENTS, Log, Record};
use ordersaga_contract::{OrderId, partition_of};
use ordersaga_devstack::{Database, Service, ServiceProcess};
use ordersaga_links::{Link, Toxic};
use parking_lot::Mutex;

use crate::schedule::{Fault, Kind, Target, Trouble};
use crate::system::{REFUSED_CLIENT, System};
use crate::workload::Clients;

/// How often a trouble that is a moment's is repeated while it lasts.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a further instance may take to be ready.
const READY: Duration = Duration::from_mins(1);
/// When another instance must have taken over what a frozen one left behind.
const TAKEOVER: Duration = Duration::from_secs(2);
/// How soon that must show. Other faults may last meanwhile.
const TAKEOVER_BOUND: Duration = Duration::from_mins(1);
/// How long it stays when the first one goes on.
const TOGETHER: Duration = Duration::from_secs(1);
/// What a slow connection adds to each way, at least.
const DELAY: Duration = Duration::from_millis(20);
/// Records written again, and records of poison, in one go.
const REPEATED: usize = 150;
const POISONED: usize = 40;
/// Every codec a broker may use but that of the services, lz4.
const CODECS: [&str; 4] = ["none", "gzip", "snappy", "zstd"];

/// What a fault needs to know of the run.
pub(crate) struct Injector<'a> {
    pub(crate) system: &'a System,
    pub(crate) clients: &'a Clients,
    pub(crate) log: Log,
    /// Some of the records seen so far.
    pub(crate) sample: Arc<Mutex<Vec<Record>>>,
}

impl Injector<'_> {
    /// Does it, waits as long as it lasts, and puts it right. What it takes a process to start
    /// again is not waited for, but for parts, which are ready when this returns.
    pub(crate) async fn inject(&self, fault: &Fault, rng: &mut fastrand::Rng) -> Result<()> {
        let length = fault.length;
        match fault.kind {
            Kind::Kill(target) => self.kill(target, length).await,
            Kind::Freeze(target) => self.freeze(target, length).await,
            Kind::Network(link, trouble) => {
                self.disturb(link, trouble, length).await;
                Ok(())
            }
            Kind::Repeat => {
                let mut again = self.sample.lock().clone();
                rng.shuffle(&mut again);
                again.truncate(REPEATED);
                self.write(again, length).await
            }
            Kind::Compressed => {
                let sample = self.sample.lock().clone();
                for codec in CODECS {
                    let again = rng.choose_multiple(sample.iter(), REPEATED / CODECS.len());
                    self.log.write_compressed(again.into_iter().cloned().collect(), codec).await?;
                }
                tokio::time::sleep(length).await;
                Ok(())
            }
            Kind::Refused => self.write(refused(rng)?, length).await,
            Kind::Poison => {
                let records = poison(&self.sample.lock(), rng);
                self.write(records, length).await
            }
            Kind::Rebalance(service) => self.rebalance(service, length, rng).await,
            Kind::Takeover(service) => self.take_over(service, length).await,
            Kind::Clock(seconds) => self.clock(seconds, length).await,
            Kind::FullDisk => self.fill_disk(length).await,
            Kind::ReadOnly(cluster) => {
                self.make_read_only(&self.system.databases()[cluster], length).await
            }
            Kind::EndSessions(cluster) => {
                self.end_sessions(&self.system.databases()[cluster], length).await
            }
        }
        .with_context(|| format!("{} {}", fault.kind.name(), fault.kind.target()))
    }

    async fn kill(&self, target: Target, length: Duration) -> Result<()> {
        // Whatever became of the kill, it is to run afterwards.
        match target {
            Target::Service(service) => {
                let killed = self.system.kill_service(service).await;
                tokio::time::sleep(length).await;
                self.system.start_service(service).await?;
                killed
            }
            part => {
                let killed = self.system.kill_part(part.part()).await;
                tokio::time::sleep(length).await;
                self.system.start_part(part.part()).await?;
                killed
            }
        }
    }

    /// Fills it again and again: what is set free meanwhile must not help.
    async fn fill_disk(&self, length: Duration) -> Result<()> {
        let disk = self.system.disk().context("this run has no small disk: that takes root")?;
        let end = tokio::time::Instant::now() + length;
        let mut filled = Ok(());
        while tokio::time::Instant::now() < end && filled.is_ok() {
            filled = disk.fill();
            tokio::time::sleep(AGAIN).await;
        }
        disk.free()?;
        filled
    }

    async fn make_read_only(&self, database: &Database, length: Duration) -> Result<()> {
        database.set_read_only(true).await?;
        let ended = database.end_sessions().await;
        tokio::time::sleep(length).await;
        database.set_read_only(false).await?;
        ended
    }

    async fn end_sessions(&self, database: &Database, length: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + length;
        while tokio::time::Instant::now() < end {
            database.end_sessions().await?;
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn freeze(&self, target: Target, length: Duration) -> Result<()> {
        match target {
            Target::Service(service) => {
                self.system.service(service).pause()?;
                tokio::time::sleep(length).await;
                self.system.service(service).resume()
            }
            part => {
                self.system.part(part.part()).pause()?;
                tokio::time::sleep(length).await;
                self.system.part(part.part()).resume()
            }
        }
    }

    async fn disturb(&self, link: Link, trouble: Trouble, length: Duration) {
        let proxy = self.system.links.proxy(link);
        let toxic = match trouble {
            Trouble::Reset => {
                let end = tokio::time::Instant::now() + length;
                while tokio::time::Instant::now() < end {
                    proxy.reset();
                    tokio::time::sleep(AGAIN).await;
                }
                return;
            }
            Trouble::Refuse => Toxic::Refuse,
            Trouble::Delay => Toxic::Latency { delay: DELAY, jitter: 5 * DELAY },
            Trouble::Throttle => Toxic::Throttle { bytes_per_second: 20_000 },
            Trouble::CutUp => Toxic::CutUp,
            Trouble::CutDown => Toxic::CutDown,
            Trouble::Cut => Toxic::Cut,
        };
        proxy.set(Some(toxic));
        tokio::time::sleep(length).await;
        proxy.set(None);
    }

    async fn write(&self, records: Vec<Record>, length: Duration) -> Result<()> {
        ensure!(!records.is_empty(), "there is nothing to write yet");
        // It fails if another fault has taken the broker away.
        self.log.write(records).await?;
        tokio::time::sleep(length).await;
        Ok(())
    }

    /// Instances come and go, some properly and some not, so that partitions move all the time.
    async fn rebalance(
        &self,
        service: Service,
        length: Duration,
        rng: &mut fastrand::Rng,
    ) -> Result<()> {
        let mut others = Vec::new();
        let outcome = self.come_and_go(service, length, rng, &mut others).await;
        // Whatever became of it: clients must not go on asking those that are left.
        for other in others {
            self.end(&other, rng.bool()).await;
        }
        outcome
    }

    async fn come_and_go(
        &self,
        service: Service,
        length: Duration,
        rng: &mut fastrand::Rng,
        others: &mut Vec<ServiceProcess>,
    ) -> Result<()> {
        let end = tokio::time::Instant::now() + length;
        let mut joined = 0;
        while tokio::time::Instant::now() < end || joined == 0 {
            if others.len() < 2 && rng.bool() {
                others.push(self.start(service, &[])?);
                // Some leave before they have any partitions, as after a wrong setting.
                if rng.u32(..3) > 0 {
                    others[others.len() - 1].wait_ready(READY).await?;
                    joined += 1;
                }
            } else if !others.is_empty() {
                let leaves = others.swap_remove(rng.usize(..others.len()));
                self.end(&leaves, rng.bool()).await;
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(200..1_500))).await;
        }
        Ok(())
    }

    /// A second instance takes over what the first one had, which is frozen and then goes on
    /// as if nothing had happened.
    async fn take_over(&self, service: Service, length: Duration) -> Result<()> {
        let other = self.start(service, &[])?;
        let mut outcome = other.wait_ready(READY).await;
        if outcome.is_ok() {
            outcome = self.replace(self.system.service(service), &other, length).await;
            tokio::time::sleep(TOGETHER).await;
        }
        self.end(&other, true).await;
        outcome
    }

    /// Freezes one of two instances. That the other does not publish what the first has left behind is
    /// a violation: it stays unpublished for as long as the first is frozen.
    async fn replace(
        &self,
        first: &ServiceProcess,
        other: &ServiceProcess,
        length: Duration,
    ) -> Result<()> {
        first.pause()?;
        let since = tokio::time::Instant::now();
        tokio::time::sleep(TAKEOVER).await;
        let published = async {
            while !self.clients.publishes_all(other, since.elapsed()).await {
                tokio::time::sleep(AGAIN).await;
            }
        };
        if tokio::time::timeout(TAKEOVER_BOUND, published).await.is_err() {
            let what = format!("events wait while an instance of {} is frozen", first.name());
            self.clients.broken("I6", None, what);
        }
        tokio::time::sleep_until(since + length).await;
        first.resume()
    }

    /// An instance whose clock is off works beside the others for a while.
    async fn clock(&self, seconds: i64, length: Duration) -> Result<()> {
        let offset = (seconds * 1_000).to_string();
        let other = self.start(Service::CreateOrder, &[("CLOCK_OFFSET_MS", &offset)])?;
        let ready = other.wait_ready(READY).await;
        if ready.is_ok() {
            tokio::time::sleep(length).await;
        }
        self.end(&other, true).await;
        ready
    }

    /// Starts a further instance; clients may ask it at once.
    fn start(&self, service: Service, extra: &[(&str, &str)]) -> Result<ServiceProcess> {
        let other = self.system.instance(service, extra)?;
        other.start()?;
        if service == Service::CreateOrder {
            self.clients.join(other.url());
        }
        Ok(other)
    }

    /// Ends a further instance: properly, or by SIGKILL. One that cannot stop in time, since what
    /// it waits for is away, is killed as a process manager would.
    async fn end(&self, process: &ServiceProcess, properly: bool) {
        self.clients.leave(&process.url());
        if !properly || process.terminate().await.is_err() {
            // It may have ended by itself.
            let _ = process.kill9().await;
        }
    }
}

/// Records that no consumer can understand, of several kinds, in all topics; among them good events
/// in a wrong partition and under a wrong key.
fn poison(sample: &[Record], rng: &mut fastrand::Rng) -> Vec<Record> {
    let payloads = [
        String::new(),
        "not json".to_owned(),
        "{\"version\":1,\"type\":\"OrderPlaced\",\"order_id\":1}".to_owned(),
        "{\"version\":9,\"type\":\"OrderPlaced\",\"order_id\":1}".to_owned(),
        "[1,2,3]\0".to_owned(),
        "{\"version\":1,\"type\":\"OrderLost\",\"order_id\":1,\"item_id\":1,\"seller_id\":1,\
         \"client_id\":1,\"quantity\":1,\"time\":\"2026-01-02T03:04:05.000006Z\"}"
            .to_owned(),
        "x".repeat(50_000),
    ];
    let mut one = |_| {
        let topic = EVENTS[rng.usize(..EVENTS.len())];
        let key = rng.i64(1..1_000).to_string();
        let payload = &payloads[rng.usize(..payloads.len())];
        match (rng.choice(sample), rng.u32(..4)) {
            (Some(good), 0) => Record { partition: (good.partition + 1) % 16, ..good.clone() },
            (Some(good), 1) => Record { key: key.into(), ..good.clone() },
            _ => Record::new(topic, rng.i32(0..16), &key, payload),
        }
    };
    (0..POISONED).map(&mut one).collect()
}

/// Orders that nobody placed, of the client whose rows the databases refuse.
fn refused(rng: &mut fastrand::Rng) -> Result<Vec<Record>> {
    let mut one = || {
        let order = OrderId::try_from(rng.i64(i64::MAX / 2..))?;
        let payload = serde_json::json!({
            "version": 1, "type": "OrderPlaced", "order_id": order, "item_id": 1, "seller_id": 1,
            "client_id": REFUSED_CLIENT, "quantity": 1, "time": "2026-01-02T03:04:05.000006Z",
        });
        let partition = i32::try_from(partition_of(order))?;
        Ok(Record::new("incoming", partition, &order.to_string(), &payload.to_string()))
    };
    (0..POISONED).map(|_| one()).collect()
}
