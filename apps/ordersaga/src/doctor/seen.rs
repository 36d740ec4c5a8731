//! What the checks look at: gathered once, before them.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ordersaga_devstack::{Parts, Service};

use crate::http::{Answer, Http, wait};
use crate::metrics::Metrics;
use crate::state::Folder;
use crate::target::{System, Target};
use ordersaga_devstack::state::State;

/// How long a service may take for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two readings of the metrics, for rates. The services tell their lag once a second.
pub(super) const BETWEEN: Duration = Duration::from_secs(2);

/// An answer, or a sentence about why there is none.
pub(super) type Asked = Result<Answer, String>;

/// The machine, the local stack and the system, as they were when `doctor` began.
pub(super) struct Surroundings {
    /// Where the local stack has its data, whether it runs or not.
    pub(super) folder: PathBuf,
    /// Of the local stack, if it runs.
    pub(super) state: Result<Option<State>, String>,
    /// Addresses and passwords of the local stack, if it has ever run.
    pub(super) parts: Option<Parts>,
    /// A system elsewhere is looked at, named by its address.
    pub(super) is_elsewhere: bool,
    pub(super) services: Vec<Seen>,
    pub(super) saga: Saga,
    /// When the looking began, by both clocks.
    pub(super) began: (SystemTime, Instant),
}

/// One service.
pub(super) struct Seen {
    pub(super) service: Service,
    pub(super) url: String,
    pub(super) health: Asked,
    pub(super) ready: Asked,
    pub(super) document: Asked,
    /// Two readings, as far as they could be had.
    pub(super) metrics: Vec<Reading>,
    /// When `health` was answered, by this machine's clock.
    pub(super) at: SystemTime,
}

/// One reading of a service's metrics.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) page: String,
    pub(super) metrics: Metrics,
}

/// What monitoring tells of orders and letters.
pub(super) struct Saga {
    pub(super) stuck: Asked,
    pub(super) letters: Asked,
    pub(super) stats: Asked,
}

impl Surroundings {
    /// Looks at everything that takes time.
    pub(super) fn look(folder: &Folder, target: &Target) -> Self {
        let began = (SystemTime::now(), Instant::now());
        let folder = folder.for_look();
        let state = State::load(&folder).map_err(|error| format!("{error:#}"));
        let system = target.system_within(LIMIT);
        let local = state.as_ref().ok().and_then(Option::as_ref).filter(|_| target.is_usual());
        let at = Service::ALL.map(|service| (service, address(local, &system, service)));
        let (services, saga) = thread::scope(|scope| {
            let asked = at.clone().map(|(service, url)| {
                let http = system.http();
                scope.spawn(move || Seen::look(http, service, url))
            });
            let monitoring = at.iter().find(|(service, _)| *service == Service::Monitoring);
            let monitoring = monitoring.map(|(_, url)| url.clone()).unwrap_or_default();
            let saga = Saga::look(system.http(), &monitoring);
            (asked.into_iter().filter_map(|asked| asked.join().ok()).collect(), saga)
        });
        Self {
            parts: Parts::load(&folder.join("parts.json")).ok(),
            folder,
            state,
            is_elsewhere: !target.is_usual(),
            services,
            saga,
            began,
        }
    }

    /// The state of the local stack, if it runs and can be read.
    pub(super) fn running(&self) -> Option<&State> {
        self.state.as_ref().ok().and_then(Option::as_ref)
    }

    /// The services that gave metrics, with the newest reading of each.
    pub(super) fn readings(&self) -> impl Iterator<Item = (&Seen, &Reading)> {
        self.services.iter().filter_map(|seen| Some((seen, seen.metrics.last()?)))
    }
}

/// Where a service is: as the local stack has it, else as monitoring says.
fn address(local: Option<&State>, system: &System, service: Service) -> String {
    let process = local
        .and_then(|state| state.processes.iter().find(|process| process.name == service.name()));
    match process {
        Some(process) => format!("http://localhost:{}", process.port),
        // An address that is none is told by the request.
        None => system.address_or_usual(service).unwrap_or_default(),
    }
}

impl Seen {
    fn look(http: &Http, service: Service, url: String) -> Self {
        let health = ask(http, &url, "/health");
        let at = SystemTime::now();
        // One that does not answer is not waited for again and again.
        let further = |path| match &health {
            Ok(_) => ask(http, &url, path),
            Err(error) => Err(error.clone()),
        };
        let (ready, document) = (further("/ready"), further("/openapi.json"));
        let read = || Reading::of(&further("/metrics").ok()?);
        let mut metrics: Vec<_> = read().into_iter().collect();
        if !metrics.is_empty() {
            wait(BETWEEN);
            metrics.extend(read());
        }
        Self { service, url, health, ready, document, metrics, at }
    }
}

impl Reading {
    fn of(answer: &Answer) -> Option<Self> {
        let page = answer.text.clone();
        let metrics = Metrics::parse(&page).ok().filter(|_| answer.status == 200)?;
        Some(Self { at: Instant::now(), page, metrics })
    }
}

impl Saga {
    fn look(http: &Http, monitoring: &str) -> Self {
        let stuck = ask(http, monitoring, "/api/v1/orders/stuck?limit=20");
        let further = |path| match &stuck {
            Ok(_) => ask(http, monitoring, path),
            Err(error) => Err(error.clone()),
        };
        let letters = further("/api/v1/dead-letters?limit=20");
        Self { letters, stats: further("/api/v1/stats?limit=10"), stuck }
    }
}

fn ask(http: &Http, url: &str, path: &str) -> Asked {
    http.get(&format!("{url}{path}")).map_err(|error| format!("{error:#}"))
}
