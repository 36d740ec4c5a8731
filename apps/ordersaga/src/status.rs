//! `status`, and the tables that show where things are.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use ordersaga_devstack::state::{Phase, Running, State};
use ordersaga_devstack::{Cluster, Service, is_free, is_ready, resident_bytes};
use ordersaga_terminal::plain;
use serde::Serialize;

use crate::playground;
use crate::state::Folder;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// As JSON; with --watch an object on a line of its own each time
    #[arg(long)]
    json: bool,
    /// Go on showing it, once a second
    #[arg(long)]
    watch: bool,
    /// Wait until all of it is ready, which ends --watch, too
    #[arg(long)]
    exit_when_ready: bool,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Makes a terminal show what follows in place of what it shows.
const AGAIN: &str = "\x1b[H\x1b[J";

/// What `status --json` says of a stack, and `up --detach --json`.
#[derive(Debug, Serialize)]
struct Status {
    folder: String,
    /// None if nothing runs there.
    phase: Option<Phase>,
    /// Whether all of it is.
    is_ready: bool,
    processes: Vec<Process>,
    addresses: Vec<Address>,
}

#[derive(Debug, Serialize)]
struct Process {
    name: String,
    pid: Option<u32>,
    memory_bytes: u64,
    /// None of the supervisor.
    port: Option<u16>,
    /// `ready`, `not ready` or `ended`; of the supervisor, how far the stack is.
    state: &'static str,
    restarts: u32,
}

/// Where something is, without its password.
#[derive(Debug, Serialize)]
struct Address {
    name: String,
    address: String,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { folder, json, watch, exit_when_ready } = arguments;
    if !watch && !exit_when_ready {
        return show(&folder.for_look(), *json).await;
    }
    loop {
        // A stack may begin meanwhile, and elsewhere than the last one.
        let seen = Seen::of(&folder.for_look()).await?;
        let is_over = *exit_when_ready && seen.status.is_ready;
        if *watch && write_again(&seen.text(*json, false)?).is_err() {
            // Nobody reads it any more, as after `| head`.
            return Ok(ExitCode::SUCCESS);
        }
        if is_over {
            if !watch {
                say!("{}", seen.text(*json, true)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Shows the stack of a folder; success when all of it is ready.
pub(crate) async fn show(folder: &Path, as_json: bool) -> Result<ExitCode> {
    let seen = Seen::of(folder).await?;
    say!("{}", seen.text(as_json, true)?);
    Ok(if seen.status.is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows what replaces what was shown before, on a terminal.
fn write_again(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    let again = if output.is_terminal() { AGAIN } else { "" };
    writeln!(output, "{again}{}", plain(text))?;
    output.flush()
}

/// A stack at some moment.
struct Seen {
    state: Option<State>,
    status: Status,
}

impl Seen {
    async fn of(folder: &Path) -> Result<Self> {
        let state = State::load(folder)?;
        let status = Status::of(folder, state.as_ref()).await;
        Ok(Self { state, status })
    }

    fn text(&self, as_json: bool, pretty: bool) -> Result<String> {
        Ok(match &self.state {
            _ if as_json && pretty => serde_json::to_string_pretty(&self.status)?,
            _ if as_json => serde_json::to_string(&self.status)?,
            None => format!("Nothing runs on {}.", self.status.folder),
            Some(state) => format!("{}\n{}", self.status.table(), addresses(state)),
        })
    }
}

impl Status {
    async fn of(folder: &Path, state: Option<&State>) -> Self {
        let folder = folder.display().to_string();
        let Some(state) = state else {
            let (processes, addresses) = (Vec::new(), Vec::new());
            return Self { folder, phase: None, is_ready: false, processes, addresses };
        };
        let mut is_ready = state.phase == Phase::Ready;
        let mut processes = vec![Process {
            name: "supervisor".to_owned(),
            pid: Some(state.supervisor),
            memory_bytes: resident_bytes(state.supervisor).saturating_sub(below(state)),
            port: None,
            state: phase(state.phase),
            restarts: 0,
        }];
        for process in &state.processes {
            let (word, ready) = condition(process).await;
            is_ready &= ready;
            processes.push(Process {
                name: process.name.clone(),
                pid: process.pid,
                memory_bytes: process.pid.map_or(0, resident_bytes),
                port: Some(process.port),
                state: word,
                restarts: process.restarts,
            });
        }
        let addresses = places(state).map(|(name, address)| Address { name, address }).collect();
        Self { folder, phase: Some(state.phase), is_ready, processes, addresses }
    }

    fn table(&self) -> Table {
        let mut table = table(&["process", "pid", "memory", "port", "state", "restarts"]);
        for process in &self.processes {
            let number = |number: Option<u32>| number.map_or_else(String::new, |n| n.to_string());
            let restarts = process.port.map(|_| process.restarts);
            table.add_row([
                process.name.clone(),
                number(process.pid),
                format!("{} MiB", process.memory_bytes / (1024 * 1024)),
                number(process.port.map(u32::from)),
                process.state.to_owned(),
                number(restarts),
            ]);
        }
        table
    }
}

/// Memory of what the supervisor started, which lies below it.
fn below(state: &State) -> u64 {
    let pids = state.processes.iter().filter_map(|process| process.pid);
    pids.map(resident_bytes).sum()
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready => "running",
        Phase::Stopping => "stopping",
    }
}

async fn condition(process: &Running) -> (&'static str, bool) {
    let ready =
        if process.is_service { is_ready(process.port).await } else { !is_free(process.port) };
    let word = match (process.pid, ready) {
        (None, _) => "ended",
        (Some(_), true) => "ready",
        (Some(_), false) => "not ready",
    };
    (word, ready)
}

/// A table as all are shown.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// Where everything is, without passwords.
pub(crate) fn addresses(state: &State) -> String {
    let mut table = table(&["what", "where"]);
    for (name, address) in places(state) {
        let hint = match Service::ALL.into_iter().find(|service| service.name() == name) {
            Some(Service::Monitoring) => {
                "  (order desk; Swagger UI at /docs/; also /metrics, /ready)"
            }
            Some(_) => "  (Swagger UI; also /metrics, /ready)",
            None if name == playground::PROGRAM => {
                "  (Swagger UI; the desk breaks parts and checks the invariants by it)"
            }
            None => "",
        };
        table.add_row([name, format!("{address}{hint}")]);
    }
    let folder = state.parts.folder.display();
    format!("{table}\nPasswords are in {folder}/parts.json, logs in {folder}/logs.")
}

fn places(state: &State) -> impl Iterator<Item = (String, String)> {
    let is_served = |process: &&Running| process.is_service || process.name == playground::PROGRAM;
    let services = state.processes.iter().filter(is_served);
    let services = services
        .map(|service| (service.name.clone(), format!("http://localhost:{}/", service.port)));
    let parts = &state.parts;
    let others = [
        ("broker (Kafka protocol)".to_owned(), parts.broker_address()),
        ("Redis".to_owned(), parts.redis_url()),
    ];
    let clusters = Cluster::ALL.map(|cluster| {
        let (port, database) = (parts.server(cluster).port, cluster.database());
        let address = format!("postgres://postgres@127.0.0.1:{port}/{database}");
        (format!("Postgres {cluster}"), address)
    });
    services.chain(others).chain(clusters)
}
