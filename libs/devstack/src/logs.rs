//! Logs: their ends, for errors, and the bound of those that are written for a long time.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::private::open;

/// A log that is longer than this is shortened.
const LIMIT: u64 = 16 * 1024 * 1024;
/// A multiple of any file system's blocks: only whole ones can be taken out of a file.
const BLOCK: u64 = 64 * 1024;

/// Shortens each log in `folder` that is longer than 16 MiB: what it had is then in `NAME.1.log`
/// beside it, in place of what was there. Whoever writes it goes on in it, as logs are opened to
/// append.
pub fn shorten_logs(folder: &Path) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let logs = entries.flatten().map(|entry| entry.path()).filter(|path| is_written(path));
    let mut outcome = Ok(());
    for log in logs {
        // One that cannot be shortened keeps no other from it.
        outcome = outcome.and(shorten(&log, LIMIT));
    }
    outcome
}

fn is_written(path: &Path) -> bool {
    let is_log = path.extension().is_some_and(|end| end == "log");
    let number = path.file_stem().map(Path::new).and_then(Path::extension);
    is_log && number.is_none_or(|number| number != "1")
}

/// Where the beginning of a log is, if it was shortened.
fn beginning(log: &Path) -> PathBuf {
    log.with_extension("1.log")
}

fn shorten(log: &Path, limit: u64) -> Result<()> {
    let failed = || format!("cannot shorten {}", log.display());
    let found = fs::symlink_metadata(log).with_context(failed)?;
    if !found.is_file() || found.len() <= limit {
        return Ok(());
    }
    let file = open(log, OFlags::RDWR)?;
    // Never all of it: what is left may not be empty.
    let blocks = (found.len() - 1) / BLOCK * BLOCK;
    let folder = log.parent().with_context(failed)?;
    let mut old = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    io::copy(&mut Read::take(&file, blocks), &mut old).with_context(failed)?;
    let mut old = old.persist(beginning(log)).with_context(failed)?;
    // The kernel takes the copied part out between two writes: nothing is lost.
    if fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, blocks).is_err() {
        // Not on every file system (ext4 and XFS can). Here what is written between the two lines
        // below is lost.
        io::copy(&mut &file, &mut old).with_context(failed)?;
        file.set_len(0).with_context(failed)?;
    }
    Ok(())
}

/// What a log has got since it was this long.
pub(crate) fn since(log: &Path, length: u64) -> String {
    let length = usize::try_from(length).unwrap_or_default();
    let mut text = fs::read(log).unwrap_or_default();
    if text.len() < length {
        // It was shortened meanwhile.
        text = whole(log);
    }
    String::from_utf8_lossy(&text[length.min(text.len())..]).into_owned()
}

/// The last lines of a log, for an error.
pub fn tail(log: &Path) -> String {
    let text = whole(log);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn whole(log: &Path) -> Vec<u8> {
    [beginning(log).as_path(), log].map(|file| fs::read(file).unwrap_or_default()).concat()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::private::open_to_append;

    #[test]
    fn a_shortened_log_has_lost_nothing_and_is_written_on() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("part.log");
        let mut writer = open_to_append(&log)?;
        let mut text = String::new();
        let mut write = |lines: std::ops::Range<u32>| -> Result<String> {
            let new: Vec<_> = lines.map(|number| format!("line {number}\n")).collect();
            writer.write_all(new.concat().as_bytes())?;
            text += &new.concat();
            Ok(text.clone())
        };
        let limit = 3 * BLOCK;
        let begin = write(0..10_000)?;
        shorten(&log, limit)?;
        assert_eq!(fs::read_to_string(&log)?, begin, "not yet");
        let length = fs::metadata(&log)?.len();
        let all = write(10_000..20_000)?;
        shorten(&log, limit)?;
        assert!(fs::metadata(&log)?.len() <= BLOCK);
        assert_eq!(String::from_utf8(whole(&log))?, all);
        assert_eq!(since(&log, length), all[begin.len()..], "across the cut");

        let all = write(20_000..20_003)?;
        assert_eq!(String::from_utf8(whole(&log))?, all, "the writer did not notice");
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(tail(&log), lines[lines.len() - 15..].join("\n"));

        // A second time: only the last part before it is kept.
        let all = write(20_003..40_000)?;
        shorten(&log, limit)?;
        let kept = String::from_utf8(whole(&log))?;
        assert!(all.ends_with(&kept) && kept.len() < all.len());
        Ok(())
    }

    #[test]
    fn only_logs_that_are_written_are_shortened() {
        for (name, written) in [
            ("broker.log", true),
            ("service-store.log", true),
            ("broker.1.log", false),
            ("broker", false),
            ("1", false),
        ] {
            assert_eq!(is_written(Path::new(name)), written, "{name}");
        }
        assert_eq!(beginning(Path::new("a/broker.log")), Path::new("a/broker.1.log"));
    }
}
