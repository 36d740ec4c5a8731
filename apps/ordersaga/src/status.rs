//! `status`, and the tables that show where things are.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use ordersaga_devstack::{Cluster, Service, is_free, is_ready, resident_bytes};

use crate::state::{Folder, Phase, Running, State};

pub(crate) async fn run(folder: &Folder) -> Result<ExitCode> {
    show(&folder.for_look()).await
}

/// Shows the stack of a folder; success when all of it is ready.
pub(crate) async fn show(folder: &Path) -> Result<ExitCode> {
    let Some(state) = State::load(folder)? else {
        say!("Nothing runs on {}.", folder.display());
        return Ok(ExitCode::FAILURE);
    };
    let mut table = table(&["process", "pid", "memory", "port", "state", "restarts"]);
    let mut all_ready = state.phase == Phase::Ready;
    let own = resident_bytes(state.supervisor).saturating_sub(below(&state));
    table.add_row(row("supervisor", Some(state.supervisor), own, ["", phase(state.phase), ""]));
    for process in &state.processes {
        let (word, ready) = condition(process).await;
        all_ready &= ready;
        let memory = process.pid.map_or(0, resident_bytes);
        let (port, restarts) = (process.port.to_string(), process.restarts.to_string());
        table.add_row(row(&process.name, process.pid, memory, [&port, word, &restarts]));
    }
    say!("{table}");
    say!("{}", addresses(&state));
    Ok(if all_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

fn row(name: &str, pid: Option<u32>, memory: u64, others: [&str; 3]) -> Vec<String> {
    let pid = pid.map_or_else(String::new, |pid| pid.to_string());
    let memory = format!("{} MiB", memory / (1024 * 1024));
    let [port, state, restarts] = others;
    [name, &pid, &memory, port, state, restarts].map(str::to_owned).into()
}

fn table(header: &[&str]) -> Table {
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
    for service in state.processes.iter().filter(|process| process.is_service) {
        let (port, is_monitoring) = (service.port, service.name == Service::Monitoring.name());
        let first = if is_monitoring { "order desk; Swagger UI at /docs/" } else { "Swagger UI" };
        table.add_row([
            &service.name,
            &format!("http://localhost:{port}/  ({first}; also /metrics, /ready)"),
        ]);
    }
    let parts = &state.parts;
    table.add_row(["broker (Kafka protocol)", &parts.broker_address()]);
    table.add_row(["Redis", &parts.redis_url()]);
    for cluster in Cluster::ALL {
        let (port, database) = (parts.server(cluster).port, cluster.database());
        table.add_row([
            &format!("Postgres {cluster}"),
            &format!("postgres://postgres@127.0.0.1:{port}/{database}"),
        ]);
    }
    let folder = parts.folder.display();
    format!("{table}\nPasswords are in {folder}/parts.json, logs in {folder}/logs.")
}
