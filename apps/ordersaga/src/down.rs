//! `down`: stops a stack that runs in the background.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordersaga_devstack::is_alive;
use ordersaga_devstack::state::{State, is_running};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::progress::seconds;
use crate::state::Folder;

const LOOK: Duration = Duration::from_millis(50);
/// Services drain, the broker and Postgres write what they hold.
const WITHIN: Duration = Duration::from_mins(2);

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What `down --json` says.
#[derive(Debug, Serialize)]
struct Outcome {
    folder: String,
    was_running: bool,
    /// It did not stop in time.
    was_killed: bool,
    seconds: f64,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folder = arguments.folder.for_look();
    let begin = Instant::now();
    let state = State::load(&folder)?;
    let was_killed = match &state {
        Some(state) => !stop(state, &folder, begin).await?,
        None => false,
    };
    let outcome = Outcome {
        folder: folder.display().to_string(),
        was_running: state.is_some(),
        was_killed,
        seconds: begin.elapsed().as_secs_f64(),
    };
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        say!("{}", outcome.text());
    }
    Ok(if was_killed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Outcome {
    fn text(&self) -> String {
        match self {
            Self { was_running: false, folder, .. } => format!("Nothing runs on {folder}."),
            Self { was_killed: true, .. } => {
                format!("Killed: it did not stop within {}.", seconds(WITHIN))
            }
            Self { seconds, .. } => format!("Stopped after {seconds:.1} s."),
        }
    }
}

/// Asks a stack to stop, and kills it if it does not; whether it stopped by itself.
async fn stop(state: &State, folder: &Path, begin: Instant) -> Result<bool> {
    let pid = i32::try_from(state.supervisor).ok().and_then(Pid::from_raw);
    let pid = pid.context("stack.json names no supervisor")?;
    kill_process(pid, Signal::TERM).context("cannot ask the supervisor to stop")?;
    // The supervisor goes last, after a temporary folder with the lock in it.
    while is_running(folder) || is_alive(state.supervisor, "ordersaga") {
        if begin.elapsed() > WITHIN {
            // Everything it started goes with it.
            kill_process(pid, Signal::KILL).context("cannot kill the supervisor")?;
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}
