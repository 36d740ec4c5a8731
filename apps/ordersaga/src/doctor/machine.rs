//! The machine: programs, Rust, memory, disk, files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use procfs::{Current, Meminfo};
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, or_ok};
use super::seen::Surroundings;
use crate::{cargo, install};

const MIB: u64 = 1024 * 1024;
/// What a whole stack holds, idle.
const STACK: u64 = 600 * MIB;
/// Connections that a service takes by default, and as many files besides.
const FILES: u64 = 2 * 4096;

/// What `ordersaga install` would install.
pub(super) fn programs(seen: &Surroundings) -> Vec<Finding> {
    let (missing, found) = (install::missing(), install::found());
    vec![judge_programs(&missing, &found, seen.is_elsewhere)]
}

fn judge_programs(missing: &[String], found: &str, is_elsewhere: bool) -> Finding {
    if missing.is_empty() {
        return Finding::ok(found);
    }
    let what = format!("missing: {}", missing.join(", "));
    let finding = if is_elsewhere { Finding::warning(what) } else { Finding::problem(what) };
    finding.mend("ordersaga install")
}

/// Rust, where there is a workspace to build.
pub(super) fn rust(_: &Surroundings) -> Vec<Finding> {
    if !cargo::root().join("rust-toolchain.toml").is_file() {
        return vec![Finding::ok("no workspace is here to be built")];
    }
    let mut rustc = Command::new("rustc");
    // rustup would install what is missing, which is not asked for.
    rustc.arg("--version").current_dir(cargo::root()).env("RUSTUP_AUTO_INSTALL", "0");
    let said = ordersaga_devstack::run(&mut rustc).map_err(|error| format!("{error:#}"));
    vec![judge_rust(said.as_deref().map_err(String::as_str), env!("CARGO_PKG_RUST_VERSION"))]
}

/// `said` is what `rustc --version` says, as "rustc 1.95.0 (…)".
fn judge_rust(said: Result<&str, &str>, since: &str) -> Finding {
    let version = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let found = match said {
        Ok(said) => said.split_whitespace().nth(1).unwrap_or_default(),
        Err(error) => {
            let finding = Finding::problem(format!("Rust cannot be used: {error}"));
            return finding.mend("install Rust as https://rustup.rs says");
        }
    };
    match (version(found), version(since)) {
        (Some(found_version), Some(least)) if found_version < least => {
            Finding::problem(format!("Rust is {found}, and {since} is needed"))
                .mend("rustup update")
        }
        _ => Finding::ok(format!("Rust {found}")),
    }
}

/// Memory that new programs can have.
pub(super) fn memory(seen: &Surroundings) -> Vec<Finding> {
    let found = Meminfo::current().ok().and_then(|info| info.mem_available);
    vec![found.map_or_else(
        || Finding::unknown("the kernel does not tell how much memory is free"),
        |bytes| judge_memory(bytes, seen.running().is_some() || seen.is_elsewhere),
    )]
}

fn judge_memory(available: u64, is_running: bool) -> Finding {
    let what = format!("{} MiB of memory are free", available / MIB);
    let mend = "end other programs, or use a machine with more memory";
    let (least, enough) = if is_running { (STACK / 8, STACK / 2) } else { (STACK, 2 * STACK) };
    match available {
        bytes if bytes < least => Finding::problem(what).mend(mend),
        bytes if bytes < enough => Finding::warning(what).mend(mend),
        _ => Finding::ok(what),
    }
}

/// Room where data are written.
pub(super) fn disk(seen: &Surroundings) -> Vec<Finding> {
    let places = ["", "postgres", "postgres/create-order", "broker"];
    let mut devices = Vec::new();
    let mut found = Vec::new();
    for place in places {
        let Some(place) = existing(&seen.folder.join(place)) else { continue };
        let device = fs::metadata(&place).map(|data| data.dev()).ok();
        if devices.contains(&device) {
            continue;
        }
        devices.push(device);
        found.push(match statvfs(&place) {
            Ok(disk) => {
                let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
                judge_disk(&place, bytes(disk.f_bavail), bytes(disk.f_blocks))
            }
            Err(error) => Finding::unknown(format!("{}: {error}", place.display())),
        });
    }
    found
}

/// The folder itself, or the nearest above it that there is; links followed.
fn existing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find_map(|folder| folder.canonicalize().ok())
}

/// By the runbook less than 15 % is too little; a large disk has room for long even then.
fn judge_disk(place: &Path, free: u64, all: u64) -> Finding {
    let percent = free.saturating_mul(100) / all.max(1);
    let what = format!("{}: {} MiB are free, {percent} %", place.display(), free / MIB);
    let mend = "make room on this disk, or use --data on another";
    if free < 1024 * MIB {
        Finding::problem(what).mend(mend).runbook("DiskSpaceLow")
    } else if percent < 15 && free < 20 * 1024 * MIB {
        Finding::warning(what).mend(mend).runbook("DiskSpaceLow")
    } else {
        Finding::ok(what)
    }
}

/// Services raise their own limit as far as they may.
pub(super) fn open_files(_: &Surroundings) -> Vec<Finding> {
    or_ok(
        judge_open_files(getrlimit(Resource::Nofile).maximum).into_iter().collect(),
        format!("a process may have {FILES} files open, or more"),
    )
}

fn judge_open_files(most: Option<u64>) -> Option<Finding> {
    let most = most.filter(|most| *most < FILES)?;
    let what = format!("a process may have {most} files open: a service takes fewer connections");
    let finding = if most < 512 { Finding::problem(what) } else { Finding::warning(what) };
    let mend = format!("raise the hard limit: ulimit -Hn {FILES}, or LimitNOFILE of the unit");
    Some(finding.mend(mend).runbook("FileDescriptorsLow"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_missing_program_is_a_problem_where_a_stack_is_to_run() {
        let missing = ["Redis server".to_owned()];
        let here = judge_programs(&missing, "", false);
        assert_eq!(here.level, Level::Problem);
        assert_eq!(here.mend.as_deref(), Some("ordersaga install"));
        assert_eq!(judge_programs(&missing, "", true).level, Level::Warning);
        assert_eq!(judge_programs(&[], "Redis", false).level, Level::Ok);
    }

    #[test]
    fn rust_is_compared_by_version() {
        assert_eq!(judge_rust(Ok("rustc 1.95.0 (abc 2026-04-01)"), "1.95").level, Level::Ok);
        assert_eq!(judge_rust(Ok("rustc 1.100.0 (abc)"), "1.95").level, Level::Ok);
        let old = judge_rust(Ok("rustc 1.9.0 (abc)"), "1.95");
        assert_eq!((old.level, old.mend.as_deref()), (Level::Problem, Some("rustup update")));
        assert_eq!(judge_rust(Err("no rustc"), "1.95").level, Level::Problem);
    }

    #[test]
    fn memory_is_judged_by_what_is_still_to_start() {
        assert_eq!(judge_memory(400 * MIB, true).level, Level::Ok);
        assert_eq!(judge_memory(400 * MIB, false).level, Level::Problem);
        assert_eq!(judge_memory(50 * MIB, true).level, Level::Problem);
        assert_eq!(judge_memory(1000 * MIB, false).level, Level::Warning);
    }

    #[test]
    fn a_disk_is_judged_by_share_and_size() {
        let level = |free, all| judge_disk(Path::new("/data"), free * MIB, all * MIB).level;
        assert_eq!(level(900, 1000), Level::Problem);
        assert_eq!(level(5_000, 100_000), Level::Warning);
        assert_eq!(level(50_000, 1_000_000), Level::Ok);
        assert_eq!(level(50_000, 100_000), Level::Ok);
    }

    #[test]
    fn few_files_are_told() {
        let level = |most| judge_open_files(most).map(|finding| finding.level);
        assert_eq!(level(Some(256)), Some(Level::Problem));
        assert_eq!(level(Some(4096)), Some(Level::Warning));
        assert_eq!(level(Some(1_048_576)), None);
        assert_eq!(level(None), None);
    }
}
