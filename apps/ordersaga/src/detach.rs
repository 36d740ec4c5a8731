//! `up --detach`: a supervisor in the background, followed until everything is ready.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::state::{Phase, State};

const LOOK: Duration = Duration::from_millis(100);

/// Starts the supervisor of `folder` and shows what it says until it is ready.
pub(crate) async fn run(folder: &Path, remove: bool) -> Result<ExitCode> {
    let logs = folder.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let log = logs.join("supervisor.log");
    let mut supervisor = start(folder, remove, &log)?;
    let mut shown = File::open(&log).context("cannot read the supervisor's log")?;
    loop {
        let ended = supervisor.try_wait()?;
        let ready = is_ready(folder, supervisor.id())?;
        show(&mut shown)?;
        if let Some(status) = ended {
            bail!("the stack did not start ({status}); see {}", logs.display());
        }
        if ready {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn start(folder: &Path, remove: bool, log: &Path) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(own);
    command.args(["supervise", "--data"]).arg(folder);
    if remove {
        command.arg("--remove");
    }
    command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    command.spawn().context("cannot start the supervisor")
}

fn is_ready(folder: &Path, supervisor: u32) -> Result<bool> {
    let state = State::load(folder)?;
    Ok(state.is_some_and(|state| state.supervisor == supervisor && state.phase == Phase::Ready))
}

/// Shows what the log has got since the last time.
fn show(log: &mut File) -> Result<()> {
    let mut new = Vec::new();
    log.read_to_end(&mut new)?;
    let mut output = std::io::stdout();
    output.write_all(&new)?;
    Ok(output.flush()?)
}
