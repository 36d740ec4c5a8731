//! Breaks parts and watches over the consequences: probes while something is broken, and lets go on
//! what was frozen for too long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordersaga_checker::History;
use ordersaga_devstack::{Condition, Identity};
use ordersaga_runtime::clock;
use parking_lot::Mutex;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::incident::{Fault, Incident, Kind, Plan, Round};
use crate::probe::Prober;
use crate::stack::{Part, Stack};

/// A part is frozen for this long at the most.
pub(crate) const LONGEST_FREEZE: Duration = Duration::from_mins(1);
/// From the begin of a round of probes to that of the next.
const ROUND: Duration = Duration::from_millis(500);
/// The same while only the ends of orders are waited for.
const SETTLING: Duration = Duration::from_millis(100);
/// How soon it is noticed that something was broken.
const LOOK: Duration = Duration::from_millis(50);

/// Orders of the probes that are remembered for the proof.
const REMEMBERED: usize = 10_000;

/// A part that is frozen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freeze {
    process: Identity,
    /// When it goes on by itself.
    pub(crate) until: Instant,
}

/// Why nothing was done to a part.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is no part of this name.
    NoSuchPart,
    /// It has no process now.
    Ended,
    /// Its process is not what the stack says, or cannot be signalled.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The stack, what is broken of it, and what became of that.
pub(crate) struct Watch {
    pub(crate) stack: Stack,
    prober: Prober,
    frozen: Mutex<BTreeMap<String, Freeze>>,
    incident: Mutex<Option<Incident>>,
    /// What the probes were told.
    history: Mutex<History>,
}

impl Watch {
    pub(crate) fn new(stack: Stack) -> Result<Self> {
        let prober = Prober::new()?;
        let (frozen, incident, history) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { stack, prober, frozen, incident, history })
    }

    /// What the probes were promised so far.
    pub(crate) fn history(&self) -> History {
        self.history.lock().clone()
    }

    fn remember(&self, plan: &Plan, round: &Round) {
        let mut history = self.history.lock();
        if let Some(order) = round.placed
            && history.placed.len() < REMEMBERED
        {
            history.acknowledged(plan.place.as_deref(), order);
        }
        history.cancelled.extend(plan.cancel.filter(|_| round.is_cancelled));
    }

    /// Lets `look` see what is broken, or was last.
    pub(crate) fn see<T>(&self, look: impl FnOnce(Option<&Incident>) -> T) -> T {
        look(self.incident.lock().as_ref())
    }

    /// The part's freeze, if it is frozen.
    pub(crate) fn freeze_of(&self, part: &str) -> Option<Freeze> {
        self.frozen.lock().get(part).copied()
    }

    fn running(&self, name: &str) -> Result<(Part, Identity), Refused> {
        let parts = self.stack.parts()?;
        let part = parts.into_iter().find(|part| part.name == name).ok_or(Refused::NoSuchPart)?;
        let process = part.process.ok_or(Refused::Ended)?;
        Ok((part, process))
    }

    /// Kills a part, frozen or not. The stack starts it again.
    pub(crate) async fn kill(&self, name: &str) -> Result<(), Refused> {
        let (part, process) = self.running(name)?;
        let began = Instant::now();
        self.stack.kill(process).await?;
        self.frozen.lock().remove(&part.name);
        let ended = Some(Instant::now());
        self.end_faults_of(&part.name);
        self.add(Fault { part: part.name, kind: Kind::Kill, began, ended });
        Ok(())
    }

    /// Freezes a part, for [`LONGEST_FREEZE`] at the most. Nothing to do if it is frozen.
    pub(crate) fn freeze(&self, name: &str) -> Result<(), Refused> {
        let (part, process) = self.running(name)?;
        let mut frozen = self.frozen.lock();
        if part.condition == Condition::Frozen {
            return Ok(());
        }
        let began = Instant::now();
        // Written down first: what is frozen is to go on whatever fails.
        let until = began + LONGEST_FREEZE;
        frozen.insert(part.name.clone(), Freeze { process, until });
        if let Err(error) = self.stack.freeze(process) {
            frozen.remove(&part.name);
            // It may be frozen in part; a process that is not ours is left alone again.
            let _ = self.stack.thaw(process);
            return Err(error.into());
        }
        drop(frozen);
        self.add(Fault { part: part.name, kind: Kind::Freeze, began, ended: None });
        Ok(())
    }

    /// Lets a part go on. Nothing to do if it is not frozen.
    pub(crate) fn thaw(&self, name: &str) -> Result<(), Refused> {
        let (part, process) = self.running(name)?;
        if part.condition == Condition::Frozen {
            self.stack.thaw(process)?;
        }
        self.frozen.lock().remove(&part.name);
        self.end_faults_of(&part.name);
        Ok(())
    }

    /// Lets everything go on that is frozen.
    pub(crate) fn thaw_all(&self) -> Result<()> {
        self.frozen.lock().clear();
        self.stack.thaw_all()
    }

    fn add(&self, fault: Fault) {
        let mut incident = self.incident.lock();
        if let Some(incident) = incident.as_mut().filter(|incident| !incident.is_over()) {
            incident.add(fault);
        } else {
            let run = format!("playground-{}", clock::now().timestamp_micros());
            *incident = Some(Incident::new(run, fault));
        }
    }

    fn end_faults_of(&self, part: &str) {
        if let Some(incident) = self.incident.lock().as_mut() {
            incident.end_faults_of(part, Instant::now());
        }
    }

    /// Runs until it is told to stop.
    pub(crate) async fn keep(&self, stop: CancellationToken) {
        let work = async { tokio::join!(self.keep_thawing(), self.keep_probing()) };
        stop.run_until_cancelled(work).await;
    }

    async fn keep_thawing(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            let frozen = self.frozen.lock().clone();
            for (name, freeze) in frozen.into_iter().filter(|(_, freeze)| freeze.until <= now) {
                // It may have ended, or have been let go on from elsewhere.
                if let Err(error) = self.stack.thaw(freeze.process) {
                    tracing::warn!(part = name, error = format!("{error:#}"), "not thawed");
                }
                self.frozen.lock().remove(&name);
                self.end_faults_of(&name);
            }
        }
    }

    async fn keep_probing(&self) {
        loop {
            let next = tokio::time::Instant::now();
            let plan = self.incident.lock().as_ref().and_then(|incident| {
                Some((incident.plan()?, if incident.is_settling() { SETTLING } else { ROUND }))
            });
            let pause = plan.as_ref().map_or(LOOK, |(_, pause)| *pause);
            if let Some((plan, _)) = plan {
                let round = async {
                    let (state, parts) = (self.stack.state()?, self.stack.parts()?);
                    self.prober.round(&state, &parts, &plan).await
                };
                match round.await.context("a round of probes") {
                    Ok(round) => {
                        self.remember(&plan, &round);
                        if let Some(incident) = self.incident.lock().as_mut() {
                            incident.apply(&plan, round);
                        }
                    }
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "no probes"),
                }
            }
            sleep_until(next + pause).await;
        }
    }
}
