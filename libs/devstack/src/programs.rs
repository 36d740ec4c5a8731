//! Where the machine's programs are: Postgres' server, Redis, Java.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Oldest Postgres whose `postgres_fdw` batches inserts with ON CONFLICT as the status store needs it.
pub const POSTGRES_SINCE: u32 = 15;
/// Oldest Java that runs the broker.
pub const JAVA_SINCE: u32 = 17;

/// A program by name, on PATH or where Debian keeps servers.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The folder of the newest Postgres server's programs, and its major version.
pub fn postgres() -> Option<(u32, PathBuf)> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = installed
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| is_server(folder))
        .max();
    newest.or_else(postgres_on_path)
}

fn is_server(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

fn postgres_on_path() -> Option<(u32, PathBuf)> {
    let program = find("postgres")?;
    let folder = program.parent().filter(|folder| is_server(folder))?;
    let text = crate::run(Command::new(&program).arg("--version")).ok()?;
    Some((first_number(&text)?, folder.to_owned()))
}

/// The machine's Java (`JAVA_HOME` first) and its major version.
pub fn java() -> Option<(u32, PathBuf)> {
    let at_home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let program = at_home.filter(|file| file.is_file()).or_else(|| find("java"))?;
    Some((first_number(&java_version(&program).ok()?)?, program))
}

/// What `java -version` says, which it says on standard error.
pub(crate) fn java_version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("-version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(crate) fn require_java() -> Result<PathBuf> {
    let found = java().filter(|(version, _)| *version >= JAVA_SINCE);
    let (_, program) =
        found.with_context(|| format!("no Java runtime of version {JAVA_SINCE} or newer found"))?;
    Ok(program)
}

pub(crate) fn require_postgres() -> Result<PathBuf> {
    let found = postgres().filter(|(version, _)| *version >= POSTGRES_SINCE);
    let (_, folder) = found.with_context(|| {
        format!("no Postgres server of version {POSTGRES_SINCE} or newer found")
    })?;
    Ok(folder)
}

fn first_number(text: &str) -> Option<u32> {
    let digits = text.split(|character: char| !character.is_ascii_digit());
    digits.into_iter().find(|part| !part.is_empty())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_major_versions() {
        let java = "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment";
        assert_eq!(first_number(java), Some(17));
        assert_eq!(first_number("postgres (PostgreSQL) 16beta1"), Some(16));
        assert_eq!(first_number("none"), None);
    }
}
