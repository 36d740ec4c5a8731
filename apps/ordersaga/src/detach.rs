//! `up --detach`: a supervisor in the background, followed until everything is ready.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ordersaga_devstack::state::{Phase, State};
use ordersaga_devstack::{open_to_append, own_folder, private_folder};

use crate::status;

const LOOK: Duration = Duration::from_millis(100);

/// Starts the supervisor of `folder` and shows what it says until it is ready; with `as_json` apart
/// from where everything is then.
pub(crate) async fn run(
    folder: &Path,
    remove: bool,
    playground: bool,
    as_json: bool,
) -> Result<ExitCode> {
    let logs = folder.join("logs");
    own_folder(folder)?;
    private_folder(&logs)?;
    let log = logs.join("supervisor.log");
    let output = open_to_append(&log)?;
    let mut shown = File::open(&log).context("cannot read the supervisor's log")?;
    // What earlier ones said stays in it.
    shown.seek(SeekFrom::End(0))?;
    let mut supervisor = start(folder, remove, playground, output)?;
    loop {
        let ended = supervisor.try_wait()?;
        let ready = is_ready(folder, supervisor.id())?;
        show(&mut shown, as_json)?;
        if let Some(status) = ended {
            bail!("the stack did not start ({status}); see {}", logs.display());
        }
        if ready {
            return if as_json { status::show(folder, true).await } else { Ok(ExitCode::SUCCESS) };
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn start(folder: &Path, remove: bool, playground: bool, output: File) -> Result<Child> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(own);
    command.args(["supervise", "--data"]).arg(folder);
    if remove {
        command.arg("--remove");
    }
    if playground {
        command.arg("--playground");
    }
    command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    command.spawn().context("cannot start the supervisor")
}

fn is_ready(folder: &Path, supervisor: u32) -> Result<bool> {
    let state = State::load(folder)?;
    Ok(state.is_some_and(|state| state.supervisor == supervisor && state.phase == Phase::Ready))
}

/// Shows what the log has got since the last time.
fn show(log: &mut File, as_json: bool) -> Result<()> {
    let mut new = Vec::new();
    log.read_to_end(&mut new)?;
    let mut output: Box<dyn Write> =
        if as_json { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
    output.write_all(&new)?;
    Ok(output.flush()?)
}
