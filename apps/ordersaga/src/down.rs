//! `down`: stops a stack that runs in the background.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordersaga_devstack::is_alive;
use rustix::process::{Pid, Signal, kill_process};

use crate::progress::seconds;
use crate::state::{Folder, State, is_running};

const LOOK: Duration = Duration::from_millis(50);
/// Services drain, the broker and Postgres write what they hold.
const WITHIN: Duration = Duration::from_mins(2);

pub(crate) async fn run(folder: &Folder) -> Result<ExitCode> {
    let folder = folder.for_look();
    let Some(state) = State::load(&folder)? else {
        say!("Nothing runs on {}.", folder.display());
        return Ok(ExitCode::SUCCESS);
    };
    let pid = i32::try_from(state.supervisor).ok().and_then(Pid::from_raw);
    let pid = pid.context("stack.json names no supervisor")?;
    let begin = Instant::now();
    kill_process(pid, Signal::TERM).context("cannot ask the supervisor to stop")?;
    // The supervisor goes last, after a temporary folder with the lock in it.
    while is_running(&folder) || is_alive(state.supervisor, "ordersaga") {
        if begin.elapsed() > WITHIN {
            // Everything it started goes with it.
            kill_process(pid, Signal::KILL).context("cannot kill the supervisor")?;
            say!("Killed: it did not stop within {}.", seconds(WITHIN));
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(LOOK).await;
    }
    say!("Stopped after {}.", seconds(begin.elapsed()));
    Ok(ExitCode::SUCCESS)
}
