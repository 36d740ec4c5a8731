//! One Postgres cluster as a child process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;

use crate::folder::{self, User};
use crate::private;
use crate::process::{Launch, TICK, is_alive, run_as};
use crate::programs;

/// Written by a running server into its folder.
const PID_FILE: &str = "postmaster.pid";

/// Settings of every cluster; all else is Postgres' own default, durability included.
const SETTINGS: [&str; 9] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=100",
    // What was written between two checkpoints: with less, pages are written again and again.
    "shared_buffers=256MB",
    // The data fits in memory: an index read costs what a sequential one does.
    "random_page_cost=1.1",
    // Short statements only: compiling them costs more than it saves.
    "jit=off",
    // Many orders a second write much log; a checkpoint a minute would write every page again.
    "max_wal_size=2GB",
    "log_line_prefix=%m [%p] %u@%d ",
    "timezone=UTC",
];

/// Creates the clusters that are not there yet: one by initdb, the others as copies of it, which
/// is several times faster. `password` is the superuser's.
pub(crate) fn create(folders: &[PathBuf], password: &str) -> Result<()> {
    let missing = folders.iter().filter(|folder| !exists(folder));
    let user = User::unprivileged()?;
    let new = missing
        .map(|folder| {
            let above = folder.parent().context("a cluster needs a folder above it")?;
            folder::create_for(user.as_ref(), above)?;
            // By its real path: the user may not be able to go through a link's folder.
            let name = folder.file_name().context("a cluster needs a name")?;
            Ok(above.canonicalize()?.join(name))
        })
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = new.first() else {
        return Ok(());
    };
    // The clusters get their names last, so that one with its name is whole.
    let model = first.with_extension("new");
    remove(&model)?;
    initdb(user.as_ref(), &model, password)?;
    for folder in &new[1..] {
        let copy = folder.with_extension("new");
        remove(&copy)?;
        folder::copy(user.as_ref(), &model, &copy)?;
    }
    for folder in &new {
        std::fs::rename(folder.with_extension("new"), folder)?;
    }
    Ok(())
}

/// Whether the folder has a cluster's data.
pub(crate) fn exists(folder: &Path) -> bool {
    folder.join("PG_VERSION").is_file()
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn initdb(user: Option<&User>, folder: &Path, password: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new().context("cannot make the password file")?;
    std::io::Write::write_all(&mut file, password.as_bytes())?;
    if let Some(user) = user {
        user.give(file.path())?;
    }
    let arguments: [OsString; 9] = [
        "--username=postgres".into(),
        "--auth-local=scram-sha-256".into(),
        "--auth-host=scram-sha-256".into(),
        "--encoding=UTF8".into(),
        "--locale=C.UTF-8".into(),
        // The kernel writes an empty cluster to disk soon enough; forcing it costs seconds.
        "--no-sync".into(),
        "--pwfile".into(),
        file.path().into(),
        folder.into(),
    ];
    run_as(user, &programs::require_postgres()?.join("initdb"), &arguments)
}

/// Copies a cluster that does not run, as the user who will run the copy.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    folder::copy(User::unprivileged()?.as_ref(), from, to)
}

/// How to start the cluster; `settings` are added to those that all have.
pub(crate) fn launch(folder: &Path, port: u16, settings: &[String], log: &Path) -> Result<Launch> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), folder.into()];
    arguments.extend(["-p".into(), port.to_string().into()]);
    for setting in SETTINGS.into_iter().chain(settings.iter().map(String::as_str)) {
        arguments.extend(["-c".into(), setting.into()]);
    }
    Ok(Launch {
        program: programs::require_postgres()?.join("postgres"),
        arguments,
        // As a client, which a coordinator is, it looks into its home: not into the starter's.
        environment: [("HOME".to_owned(), folder.to_string_lossy().into_owned())].into(),
        folder: None,
        log: log.to_owned(),
        // Fast shutdown: connections end, data are written, nothing is to recover.
        death_signal: "INT",
        user: User::unprivileged()?,
    })
}

fn pid_file(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(PID_FILE)).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Whether the server of this process id takes connections, as its own status file says.
pub(crate) fn is_ready(folder: &Path, pid: u32) -> bool {
    let lines = pid_file(folder);
    lines.first().is_some_and(|line| *line == pid.to_string())
        && lines.get(7).is_some_and(|line| line == "ready")
}

/// Clears the way for a start: waits for a server that is still stopping after its starter was
/// killed, and makes a pid file whose number may by now be another cluster's one that the server
/// takes for its own. The file stays: by it the server knows the memory of its predecessor, and does
/// not start while a child of a killed one still uses it.
pub(crate) async fn clear(folder: &Path) -> Result<()> {
    let lines = pid_file(folder);
    let Some(pid) = lines.first().and_then(|line| line.parse().ok()) else {
        // None, or that of a server which was killed before it had written its number.
        return remove_pid_file(folder);
    };
    let name = folder.to_string_lossy();
    let deadline = Instant::now() + Duration::from_secs(20);
    while is_alive(pid, &name) {
        if Instant::now() >= deadline {
            bail!("another Postgres server (process {pid}) runs on {name}");
        }
        tokio::time::sleep(TICK).await;
    }
    let file = folder.join(PID_FILE);
    if !file.exists() {
        // It has stopped cleanly.
        return Ok(());
    }
    // A server that finds its parent's number there knows that the file is stale.
    let own = std::process::id().to_string();
    let lines: Vec<_> = [own].into_iter().chain(lines.into_iter().skip(1)).collect();
    // Not behind a link: the folder is the server's user's, and this may be root.
    let mut file = private::open(&file, OFlags::WRONLY | OFlags::TRUNC)?;
    std::io::Write::write_all(&mut file, (lines.join("\n") + "\n").as_bytes())
        .with_context(|| format!("cannot write {PID_FILE} in {name}"))
}

fn remove_pid_file(folder: &Path) -> Result<()> {
    match std::fs::remove_file(folder.join(PID_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
