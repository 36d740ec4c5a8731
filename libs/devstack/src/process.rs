//! Child processes that never outlive this one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::folder::User;
use crate::private::open_to_append;

/// How often a condition that nobody tells about (an exit, a line in a log) is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What to start: a program, where its output goes, and how it ends when this process does.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: BTreeMap<String, String>,
    /// Where it runs, if not where this process does.
    pub(crate) folder: Option<PathBuf>,
    /// Output is appended here.
    pub(crate) log: PathBuf,
    /// Name of the signal it gets when this process ends.
    pub(crate) death_signal: &'static str,
    /// Runs as this user when given (only possible for root).
    pub(crate) user: Option<User>,
}

impl Launch {
    fn command(&self) -> Result<Command> {
        let log = open_to_append(&self.log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", self.death_signal]);
        if let Some(user) = &self.user {
            command.args(user.arguments());
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        command.envs(&self.environment);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().context("cannot share the log file")?);
        command.stderr(log);
        // A group of its own: Ctrl-C on the terminal reaches the tool only, which stops in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }
}

type Job = (Command, Sender<io::Result<Child>>);

/// Starts a child on the one thread that lives as long as this process: the kernel sends the
/// parent-death signal when the *thread* that started the child ends, and test threads end early.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs): (Sender<Job>, Receiver<Job>) = channel();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                // The asker waits for this answer, so it is there to receive it.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let program = command.get_program().to_owned();
    let (answer, child) = channel();
    spawner.send((command, answer)).map_err(|_| anyhow!("the spawner thread has ended"))?;
    child
        .recv()
        .context("the spawner thread has ended")?
        .with_context(|| format!("cannot start {}", program.display()))
}

/// A running child. Dropping it kills it and its children.
pub(crate) struct Process {
    child: Mutex<Child>,
    pid: Pid,
}

impl Process {
    pub(crate) fn start(launch: &Launch) -> Result<Self> {
        let child = spawn(launch.command()?)?;
        let pid = Pid::from_child(&child);
        let child = Mutex::new(child);
        Ok(Self { child, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().ok().flatten()
    }

    pub(crate) async fn wait_exit(&self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Sends a signal to the process itself.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // Holding the lock while it is not reaped keeps its pid from being somebody else's.
        let mut child = self.child.lock();
        if child.try_wait()?.is_some() {
            bail!("process {} has ended", self.pid());
        }
        kill_process(self.pid, signal)
            .with_context(|| format!("cannot signal process {}", self.pid()))
    }

    /// Sends a signal to the process and all below it.
    pub(crate) fn signal_tree(&self, signal: Signal) -> Result<Vec<Pid>> {
        signal_tree(self.pid, signal, |signal| self.signal(signal))
    }

    /// kill -9 of the process and all below it; returns when they are gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        if self.exited().is_some() {
            return Ok(());
        }
        let below = self.signal_tree(Signal::KILL)?;
        let within = Duration::from_secs(10);
        let gone = self.wait_exit(within).await;
        gone.with_context(|| format!("process {} survived a SIGKILL", self.pid()))?;
        let deadline = Instant::now() + within;
        while below.iter().any(|pid| exists(*pid)) {
            if Instant::now() >= deadline {
                bail!("children of process {} survived a SIGKILL", self.pid());
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() && self.signal_tree(Signal::KILL).is_ok() {
            // Reaped here, or it would stay a zombie as long as this process lives.
            let _ = self.child.lock().wait();
        }
    }
}

/// Sends a signal to all below a process and, by `send`, to itself. It is frozen first, so that no
/// child is born unseen.
pub(crate) fn signal_tree(
    root: Pid,
    signal: Signal,
    send: impl Fn(Signal) -> Result<()>,
) -> Result<Vec<Pid>> {
    if signal != Signal::CONT {
        send(Signal::STOP)?;
    }
    let below = descendants(root);
    for pid in &below {
        // One that has just ended by itself needs no signal.
        let _ = kill_process(*pid, signal);
    }
    send(signal)?;
    Ok(below)
}

fn exists(pid: Pid) -> bool {
    test_kill_process(pid).is_ok() && state(pid) != Some('Z')
}

/// The fields of /proc/PID/stat after the command's name, which may itself contain spaces.
pub(crate) fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

pub(crate) fn state(pid: Pid) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

pub(crate) fn parent(pid: Pid) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

fn processes() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}

fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, i32)> =
        processes().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let above = found[next].as_raw_nonzero().get();
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// Whether a process of this id runs whose command line contains `text`.
pub fn is_alive(pid: u32, text: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
}

/// Memory a process and all below it hold, each shared page counted in proportion where the kernel
/// tells, else resident size.
pub fn resident_bytes(pid: u32) -> u64 {
    let Some(root) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return 0;
    };
    let mut all = descendants(root);
    all.push(root);
    all.into_iter().filter_map(memory_kib).sum::<u64>() * 1024
}

fn memory_kib(pid: Pid) -> Option<u64> {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    field("smaps_rollup", "Pss:").or_else(|| field("status", "VmRSS:"))
}

/// Runs a program to its end, as `user` if given; its output only matters when it fails.
pub(crate) fn run_as(user: Option<&User>, program: &Path, arguments: &[OsString]) -> Result<()> {
    let mut command = match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(user.arguments()).arg("--").arg(program);
            // The caller's folder may be closed to that user, and some programs go back to it.
            command.current_dir("/");
            command
        }
        None => Command::new(program),
    };
    command.args(arguments);
    run(&mut command).map(drop)
}

/// Runs a command to its end and returns what it printed; an error carries its output.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}\n{text}{errors}", output.status);
    }
    Ok(text)
}
