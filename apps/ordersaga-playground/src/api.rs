//! The HTTP API: the parts of the stack and what may be done to them, and the [`proof`].

pub(crate) mod proof;

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use ordersaga_devstack::Condition;
use ordersaga_runtime::clock;
use ordersaga_runtime::http::{About, Failure, JsonBody, LookupFailure, ProblemType};
use poem_openapi::param::Path;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Tags};
use serde::Serialize;

use crate::incident::{self, Answer, Incident, Phase};
use crate::probe::{CLIENT, ITEM};
use crate::stack::{self, Part};
use crate::watch::{LONGEST_FREEZE, Refused, Watch};

/// What the API says of itself.
pub(crate) const ABOUT: About = About {
    name: crate::NAME,
    title: "Playground",
    version: env!("CARGO_PKG_VERSION"),
    description: "Breaks parts of a stack on this machine, shows what works meanwhile, and checks \
                  the invariants. It is there with `ordersaga up --playground` only.",
    server: "http://127.0.0.1:8003",
    location: "",
    // Whoever is asked who he is must be an administrator.
    access: &[],
    links: &[],
    variants: &[],
};

/// The operations.
pub(crate) struct Api {
    watch: Arc<Watch>,
}

#[derive(Tags)]
enum Tag {
    /// Processes of the stack, and what becomes of it when they are killed or frozen.
    Parts,
    /// Whether the invariants hold.
    Proof,
}

/// The stack as it is now.
#[derive(Object, Serialize)]
#[oai(example)]
struct PartList {
    /// Every process of the stack, but the playground's own.
    parts: Vec<StackPart>,
    /// What is broken, or was last. Left out if nothing was.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<IncidentReport>,
    /// A part is frozen for so many seconds at the most.
    longest_freeze_seconds: u64,
}

impl Example for PartList {
    fn example() -> Self {
        Self {
            parts: vec![StackPart::example()],
            incident: Some(IncidentReport::example()),
            longest_freeze_seconds: LONGEST_FREEZE.as_secs(),
        }
    }
}

/// A process of the stack.
#[derive(Object, Serialize)]
#[oai(example)]
struct StackPart {
    /// Its name.
    name: String,
    /// What it is.
    kind: PartKind,
    /// What it does.
    state: PartState,
    /// Whether it takes requests.
    is_ready: bool,
    /// Its process. Left out if that has ended.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// How often the stack has started it again.
    restarts: u32,
    /// When it goes on by itself. Left out if it is not frozen.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    thaws_at: Option<DateTime<Utc>>,
}

impl Example for StackPart {
    fn example() -> Self {
        Self {
            name: "service-store".to_owned(),
            kind: PartKind::Service,
            state: PartState::Running,
            is_ready: true,
            pid: Some(4711),
            restarts: 1,
            thaws_at: None,
        }
    }
}

/// What a part is.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum PartKind {
    /// One of the three services.
    Service,
    /// A Postgres cluster.
    Postgres,
    /// The cache.
    Redis,
    /// The broker.
    Broker,
}

/// What a part does.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum PartState {
    /// Its process runs.
    Running,
    /// Its process is frozen: connections stay open and fall silent.
    Frozen,
    /// Its process has ended; the stack starts it again.
    Ended,
}

/// From the first fault until everything works again.
#[derive(Object, Serialize)]
#[oai(example)]
struct IncidentReport {
    /// How far it is.
    phase: IncidentPhase,
    /// What was broken, in its order.
    faults: Vec<FaultReport>,
    /// What clients can do: what the last probes have found.
    probes: Vec<ProbeReport>,
    /// Orders that were acknowledged since.
    orders_placed: usize,
    /// Those of them that have not ended.
    orders_open: usize,
    /// Those of them that are gone, or ended otherwise than they may.
    orders_lost: usize,
    /// The item they order.
    item_id: i64,
    /// The client they are placed as.
    client_id: i64,
    /// Milliseconds from the end of the last fault until everything worked and all orders had ended.
    /// Left out before.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    healed_after_ms: Option<u64>,
}

impl Example for IncidentReport {
    fn example() -> Self {
        Self {
            phase: IncidentPhase::Healed,
            faults: vec![FaultReport::example()],
            probes: vec![ProbeReport::example()],
            orders_placed: 14,
            orders_open: 0,
            orders_lost: 0,
            item_id: ITEM,
            client_id: CLIENT,
            healed_after_ms: Some(2_100),
        }
    }
}

/// How far an incident is.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum IncidentPhase {
    /// A part is frozen, or not up again.
    Broken,
    /// Every part is up; not everything has been seen to work, or orders have not ended.
    Healing,
    /// Everything works, and all orders have ended.
    Healed,
    /// It took too long, and is not watched any more.
    NotHealed,
}

/// Something that was done to a part.
#[derive(Object, Serialize)]
#[oai(example)]
struct FaultReport {
    /// The part.
    part: String,
    /// What was done.
    kind: FaultKind,
    /// Milliseconds since it began.
    began_ms_ago: u64,
    /// Milliseconds that it lasted. Left out while it lasts.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lasted_ms: Option<u64>,
}

impl Example for FaultReport {
    fn example() -> Self {
        let part = "service-store".to_owned();
        Self { part, kind: FaultKind::Freeze, began_ms_ago: 12_000, lasted_ms: Some(8_000) }
    }
}

/// What was done to a part.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum FaultKind {
    /// It was killed with SIGKILL.
    Kill,
    /// It was stopped with SIGSTOP.
    Freeze,
}

/// What the probes have found of one thing that clients do.
#[derive(Object, Serialize)]
#[oai(example)]
struct ProbeReport {
    /// What clients do.
    what: Probed,
    /// Whether it works.
    state: ProbeState,
    /// Milliseconds that it took. Left out unless it works.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    /// Why it fails. Left out unless it does.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Example for ProbeReport {
    fn example() -> Self {
        Self { what: Probed::Create, state: ProbeState::Works, took_ms: Some(12), why: None }
    }
}

/// What clients do.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Probed {
    /// Place an order.
    Create,
    /// Have it decided by the store.
    Reserve,
    /// Ask for the status of an order.
    Status,
    /// Look at an item.
    Items,
    /// Cancel an order.
    Cancel,
}

/// Whether something works.
#[derive(Enum, Serialize, Clone, Copy)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ProbeState {
    /// There was nothing to try it with.
    Untried,
    /// It was done.
    Works,
    /// It is accepted, and not done yet.
    Waits,
    /// It fails.
    Fails,
}

#[derive(ApiResponse)]
enum Listed {
    /// The stack.
    #[oai(status = 200)]
    Listed(JsonBody<PartList>),
}

fn a_part() -> String {
    "service-store".to_owned()
}

impl Api {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self { watch }
    }

    async fn list(&self) -> Result<Listed, Failure> {
        let parts = self.watch.stack.parts().map_err(Failure::unavailable)?;
        let parts = join_all(parts.into_iter().map(|part| self.part(part))).await;
        let incident = self.watch.see(|incident| incident.map(IncidentReport::from));
        let longest_freeze_seconds = LONGEST_FREEZE.as_secs();
        Ok(Listed::Listed(JsonBody(PartList { parts, incident, longest_freeze_seconds })))
    }

    async fn part(&self, part: Part) -> StackPart {
        let until = self.watch.freeze_of(&part.name).map(|freeze| freeze.until);
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        StackPart {
            kind: part.kind.into(),
            state: part.condition.into(),
            is_ready: part.is_ready().await,
            pid: part.process.map(|process| process.pid),
            restarts: part.restarts,
            thaws_at: left.and_then(|left| Some(clock::now() + TimeDelta::from_std(left).ok()?)),
            name: part.name,
        }
    }

    async fn after(&self, done: Result<(), Refused>) -> Result<Listed, LookupFailure> {
        match done {
            Ok(()) => Ok(self.list().await?),
            Err(Refused::NoSuchPart) => {
                Err(LookupFailure::not_found("The stack has no part of this name."))
            }
            Err(Refused::Ended) => {
                let detail = "The part does not run just now. The stack starts it again.";
                Err(Failure::new(ProblemType::Unavailable, detail).into())
            }
            Err(Refused::Failed(error)) => {
                let detail = format!("Nothing was done: {error:#}.");
                Err(Failure::new(ProblemType::Unavailable, detail).into())
            }
        }
    }
}

#[OpenApi(tag = "Tag::Parts")]
impl Api {
    /// The parts of the stack
    ///
    /// With what was broken last: what works meanwhile, and whether all is well again. While
    /// something is broken, a small order is placed every half second, and its status, its item and
    /// a cancellation are asked for.
    #[oai(path = "/api/v1/parts", method = "get", operation_id = "list_parts")]
    async fn parts(&self) -> Result<Listed, Failure> {
        self.list().await
    }

    /// Kills a part
    ///
    /// With SIGKILL, it and its children. The stack starts it again, after a pause if it is killed
    /// often.
    #[oai(path = "/api/v1/parts/:name/kill", method = "post", operation_id = "kill_part")]
    async fn kill(
        &self,
        /// The part's name.
        #[oai(example = "a_part")]
        name: Path<String>,
    ) -> Result<Listed, LookupFailure> {
        self.after(self.watch.kill(&name).await).await
    }

    /// Freezes a part
    ///
    /// With SIGSTOP, it and its children: connections stay open and fall silent. It goes on by
    /// itself after a minute, and when the playground ends.
    #[oai(path = "/api/v1/parts/:name/freeze", method = "post", operation_id = "freeze_part")]
    async fn freeze(
        &self,
        /// The part's name.
        #[oai(example = "a_part")]
        name: Path<String>,
    ) -> Result<Listed, LookupFailure> {
        self.after(self.watch.freeze(&name)).await
    }

    /// Lets a frozen part go on
    #[oai(path = "/api/v1/parts/:name/thaw", method = "post", operation_id = "thaw_part")]
    async fn thaw(
        &self,
        /// The part's name.
        #[oai(example = "a_part")]
        name: Path<String>,
    ) -> Result<Listed, LookupFailure> {
        self.after(self.watch.thaw(&name)).await
    }
}

impl From<stack::Kind> for PartKind {
    fn from(kind: stack::Kind) -> Self {
        match kind {
            stack::Kind::Service => Self::Service,
            stack::Kind::Postgres => Self::Postgres,
            stack::Kind::Redis => Self::Redis,
            stack::Kind::Broker => Self::Broker,
        }
    }
}

impl From<Condition> for PartState {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Running => Self::Running,
            Condition::Frozen => Self::Frozen,
            Condition::Ended => Self::Ended,
        }
    }
}

fn ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Incident> for IncidentReport {
    fn from(incident: &Incident) -> Self {
        let (phase, healed_after_ms) = match incident.phase() {
            Phase::Broken => (IncidentPhase::Broken, None),
            Phase::Healing => (IncidentPhase::Healing, None),
            Phase::Healed(after) => (IncidentPhase::Healed, Some(ms(after))),
            Phase::NotHealed => (IncidentPhase::NotHealed, None),
        };
        let answers = &incident.answers;
        let probes = [
            (Probed::Create, &answers.create),
            (Probed::Reserve, &answers.reserve),
            (Probed::Status, &answers.status),
            (Probed::Items, &answers.items),
            (Probed::Cancel, &answers.cancel),
        ];
        Self {
            phase,
            faults: incident.faults.iter().map(FaultReport::from).collect(),
            probes: probes.map(ProbeReport::from).into(),
            orders_placed: incident.placed(),
            orders_open: incident.open(),
            orders_lost: incident.lost(),
            item_id: ITEM,
            client_id: CLIENT,
            healed_after_ms,
        }
    }
}

impl From<&incident::Fault> for FaultReport {
    fn from(fault: &incident::Fault) -> Self {
        Self {
            part: fault.part.clone(),
            kind: match fault.kind {
                incident::Kind::Kill => FaultKind::Kill,
                incident::Kind::Freeze => FaultKind::Freeze,
            },
            began_ms_ago: ms(fault.began.elapsed()),
            lasted_ms: fault.ended.map(|ended| ms(ended.saturating_duration_since(fault.began))),
        }
    }
}

impl From<(Probed, &Answer)> for ProbeReport {
    fn from((what, answer): (Probed, &Answer)) -> Self {
        let (state, took, why) = match answer {
            Answer::Untried => (ProbeState::Untried, None, None),
            Answer::Works(took) => (ProbeState::Works, Some(*took), None),
            Answer::Waits => (ProbeState::Waits, None, None),
            Answer::Fails(why) => (ProbeState::Fails, None, Some(why.clone())),
        };
        Self { what, state, took_ms: took.map(ms), why }
    }
}
