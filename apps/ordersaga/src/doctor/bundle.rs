//! A file for somebody who helps: findings, state, logs, metrics and readiness, without secrets.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use ordersaga_devstack::Parts;
use tar::{Builder, Header};

use super::seen::{Asked, Surroundings};

/// Lines of each log.
const LINES: usize = 1_000;
/// More of a log is not read.
const BYTES: u64 = 4 * 1024 * 1024;
const REMOVED: &str = "[removed]";
/// Variables that hold secrets.
const SECRET: &[&str] = &["ORDERSAGA_TOKEN", "KAFKA_PASSWORD", "PGPASSWORD"];

/// Writes the file, which only its owner may read.
pub(super) fn write(file: &Path, seen: &Surroundings, findings: &str) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    let archive = GzEncoder::new(made.with_context(context)?, Compression::default());
    let mut archive = Builder::new(archive);
    for (name, text) in contents(seen, findings)? {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        let name = format!("ordersaga/{name}");
        archive.append_data(&mut header, name, text.as_bytes()).with_context(context)?;
    }
    archive.into_inner().and_then(GzEncoder::finish).with_context(context)?;
    Ok(())
}

/// Names and texts of what goes in.
fn contents(seen: &Surroundings, findings: &str) -> Result<Vec<(String, String)>> {
    let mut found = vec![("doctor.json".to_owned(), findings.to_owned())];
    if let Some(state) = seen.running() {
        let mut state = serde_json::to_value(state)?;
        state["parts"]["passwords"] = REMOVED.into();
        found.push(("stack.json".to_owned(), serde_json::to_string_pretty(&state)?));
    }
    for one in &seen.services {
        let name = one.service.name();
        found.push((format!("{name}/ready.json"), said(&one.ready)));
        let page = one.metrics.last().map(|reading| reading.page.clone());
        found.extend(page.map(|page| (format!("{name}/metrics.txt"), page)));
    }
    let lists = [
        ("stuck", &seen.saga.stuck),
        ("dead-letters", &seen.saga.letters),
        ("stats", &seen.saga.stats),
    ];
    found.extend(lists.map(|(name, asked)| (format!("{name}.json"), said(asked))));
    // Without the passwords it cannot be told whether a log has one.
    if let Some(parts) = &seen.parts {
        found.extend(logs(&parts.folder.join("logs"))?);
    }
    let secrets = secrets(seen.parts.as_ref());
    Ok(found.into_iter().map(|(name, text)| (name, without(&text, &secrets))).collect())
}

fn said(asked: &Asked) -> String {
    asked.as_ref().map_or_else(Clone::clone, |answer| answer.text.clone())
}

/// The ends of all logs of a stack.
fn logs(folder: &Path) -> Result<Vec<(String, String)>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.is_file() && !file.is_symlink());
    files.sort();
    let named = files.iter().filter_map(|file| Some((file.file_name()?.to_str()?, file)));
    named.map(|(name, file)| Ok((format!("logs/{name}"), end(file)?))).collect()
}

fn end(file: &Path) -> Result<String> {
    let context = || format!("cannot read {}", file.display());
    let mut log = File::open(file).with_context(context)?;
    let length = log.metadata().with_context(context)?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(BYTES))).with_context(context)?;
    let mut bytes = Vec::new();
    log.take(BYTES).read_to_end(&mut bytes).with_context(context)?;
    Ok(last_lines(&String::from_utf8_lossy(&bytes)))
}

fn last_lines(text: &str) -> String {
    let begin = text.trim_end().rmatch_indices('\n').nth(LINES - 1);
    text[begin.map_or(0, |(at, _)| at + 1)..].to_owned()
}

/// Whatever must not be shown: the stack's passwords, and those of the environment.
fn secrets(parts: Option<&Parts>) -> BTreeSet<String> {
    let of_parts = parts.into_iter().flat_map(|parts| parts.passwords.values());
    let of_parts = of_parts.flat_map(|kept| {
        [&kept.superuser, &kept.owner, &kept.service, &kept.fdw].map(Clone::clone)
    });
    let of_environment = SECRET.iter().filter_map(|name| std::env::var(name).ok());
    of_parts.chain(of_environment).filter(|secret| !secret.is_empty()).collect()
}

/// The text without these secrets, and without the password of any URL.
fn without(text: &str, secrets: &BTreeSet<String>) -> String {
    let text = secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, REMOVED));
    let mut parts = text.split("://");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str("://");
        kept.push_str(&without_password(part));
    }
    kept
}

/// What stands behind `://`, without a password before its `@`.
fn without_password(part: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "/?#\"'<>".contains(c);
    let authority = &part[..part.find(ends).unwrap_or(part.len())];
    let Some((before, _)) = authority.rsplit_once('@') else { return part.to_owned() };
    let Some((user, _)) = before.split_once(':') else { return part.to_owned() };
    format!("{user}:{REMOVED}{}", &part[before.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_stays() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let parts = Parts::open(folder.path(), None)?;
        let secrets = secrets(Some(&parts));
        assert!(secrets.len() > parts.passwords.len());
        let lines: Vec<_> = secrets.iter().map(|secret| format!("a {secret} b\n")).collect();
        let text = lines.concat();
        let kept = without(&text, &secrets);
        assert!(secrets.iter().all(|secret| !kept.contains(secret)), "{kept}");
        assert_eq!(
            without("to postgres://me:geheim@db:5432/x and http://x/a:b@c", &BTreeSet::new()),
            "to postgres://me:[removed]@db:5432/x and http://x/a:b@c"
        );
        Ok(())
    }

    #[test]
    fn of_a_log_the_last_lines_are_kept() {
        let lines: Vec<_> = (1..=LINES + 5).map(|line| format!("{line}\n")).collect();
        let text = lines.concat();
        let kept = last_lines(&text);
        assert_eq!(kept.lines().count(), LINES);
        assert!(kept.starts_with("6\n") && kept.ends_with("1005\n"));
        assert_eq!(last_lines("1\n2"), "1\n2");
    }
}
