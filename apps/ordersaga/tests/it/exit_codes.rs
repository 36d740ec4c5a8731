//! What the tool exits with, and in which colours it says something.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::TemporaryFolder;
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{alone, block_on, until};
use crate::tool::{TOOL, said, tool};

/// The code of a command, which finds nothing that runs.
fn code(line: &str, folder: &Path) -> Result<Option<i32>> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    let words = words.map(|word| word.replace("DIR", &folder.display().to_string()));
    let mut run = tool(words);
    let output = run.stdin(Stdio::null()).output().with_context(|| line.to_owned())?;
    Ok(output.status.code())
}

#[test]
fn each_outcome_has_its_code() -> Result<()> {
    let folder = TemporaryFolder::new("codes")?;
    let nowhere = "http://127.0.0.1:1";
    for (line, wanted) in [
        ("help exit-codes".to_owned(), 0),
        ("--version".to_owned(), 0),
        ("status --help".to_owned(), 0),
        ("load --help".to_owned(), 0),
        ("down --data DIR".to_owned(), 0),
        ("model --scenario one-order --depth 2".to_owned(), 0),
        ("status --data DIR".to_owned(), 1),
        ("logs --data DIR".to_owned(), 1),
        (format!("demo --create-order {nowhere}"), 1),
        (format!("demo --json --create-order {nowhere}"), 1),
        ("topics describe --brokers 127.0.0.1:1 --file DIR/none".to_owned(), 1),
        ("dlq --data DIR list --no-such-option".to_owned(), 1),
        (String::new(), 2),
        ("bogus".to_owned(), 2),
        ("help bogus".to_owned(), 2),
        ("status --no-such-option".to_owned(), 2),
        ("capacity --section bogus".to_owned(), 2),
        ("simulate --scenario bogus".to_owned(), 2),
        ("retention --data DIR --no-such-option".to_owned(), 2),
        ("load --data DIR --no-such-option".to_owned(), 2),
        (format!("load --data DIR --create-order {nowhere} --store {nowhere} --seconds 1"), 2),
        ("model --explore 0.0.0.0:1".to_owned(), 2),
    ] {
        let found = code(&line, folder.path())?;
        ensure!(found == Some(wanted), "`ordersaga {line}` ends with {found:?}, not {wanted}");
    }
    Ok(())
}

#[test]
fn a_program_that_is_missing_has_a_code_of_its_own() -> Result<()> {
    let folder = TemporaryFolder::new("codes")?;
    let mut make = tool(["sdk", "go", "--out"]);
    make.arg(folder.path().join("out")).env("PATH", folder.path());
    ensure!(make.output()?.status.code() == Some(3));
    Ok(())
}

#[test]
fn ctrl_c_before_everything_is_ready_breaks_it_off() -> Result<()> {
    block_on(async {
        let _places = alone().await?;
        let folder = TemporaryFolder::new("codes")?;
        let data = folder.path().join("data");
        let mut starting = Command::new("setpriv");
        starting.args(["--pdeathsig", "TERM", "--", TOOL, "supervise", "--free-ports", "--data"]);
        starting.arg(&data).stdout(Stdio::null()).stderr(Stdio::null());
        let mut starting = starting.spawn()?;
        until("it has begun", async || Ok(data.join("stack.json").exists())).await?;
        kill_process(Pid::from_child(&starting), Signal::INT)?;
        let mut ended = None;
        until("it ends", async || {
            ended = starting.try_wait()?;
            Ok(ended.is_some())
        })
        .await?;
        ensure!(ended.and_then(|status| status.code()) == Some(130), "{ended:?}");
        Ok(())
    })
}

/// What the tool says on a terminal.
fn on_terminal(arguments: &str, variable: (&str, &str)) -> Result<String> {
    let mut terminal = Command::new("script");
    terminal.args([
        "--quiet",
        "--return",
        "--command",
        &format!("{TOOL} {arguments}"),
        "/dev/null",
    ]);
    terminal.stdin(Stdio::null()).env("CARGO", "true").env("TERM", "xterm-256color");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        terminal.env_remove(name);
    }
    said(terminal.env(variable.0, variable.1))
}

const ESCAPE: char = '\u{1b}';

/// Only help and errors about arguments are coloured, by clap: here and in the programs that the
/// tool hands over to.
#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() -> Result<()> {
    let none = ("UNUSED", "1");
    for help in ["--help", "status --help", "load --help"] {
        ensure!(on_terminal(help, none)?.contains(ESCAPE), "{help} has no colours");
        ensure!(!on_terminal(help, ("NO_COLOR", "1"))?.contains(ESCAPE), "{help}: NO_COLOR");
        ensure!(!on_terminal(help, ("CLICOLOR", "0"))?.contains(ESCAPE), "{help}: CLICOLOR");
        let words = || help.split(' ');
        ensure!(
            !said(tool(words()).env_remove("CLICOLOR_FORCE"))?.contains(ESCAPE),
            "{help}: pipe"
        );
        let forced = said(tool(words()).env("CLICOLOR_FORCE", "1"))?;
        ensure!(forced.contains(ESCAPE), "{help}: CLICOLOR_FORCE");
    }
    for plain in ["help exit-codes", "capacity", "down --data /nowhere", "bench --list"] {
        ensure!(!on_terminal(plain, ("CLICOLOR_FORCE", "1"))?.contains(ESCAPE), "{plain}");
    }
    Ok(())
}
