//! A file that is read again when it changes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::{Mutex, RwLock};

use crate::health::Dependency;
use crate::http::Failure;

/// How often it is looked whether a file has changed.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file, and the largest answer of a URL.
pub(super) const LARGEST: u64 = 1_024 * 1_024;

/// What was read of a file: the newest that could be read.
pub(super) struct Watched<T> {
    file: PathBuf,
    parse: fn(&str) -> anyhow::Result<T>,
    /// The text that was looked at last, good or not; none if there was none.
    seen: Mutex<Option<String>>,
    current: RwLock<Option<Arc<T>>>,
    state: Dependency,
}

impl<T> Watched<T> {
    /// Reads it, if it can be read.
    pub(super) fn new(
        file: &Path,
        parse: fn(&str) -> anyhow::Result<T>,
        state: Dependency,
    ) -> Self {
        let (seen, current) = (Mutex::default(), RwLock::default());
        let watched = Self { file: file.to_owned(), parse, seen, current, state };
        watched.look();
        watched
    }

    /// What it says now; 503 if it never could be read.
    pub(super) fn get(&self) -> Result<Arc<T>, Failure> {
        let current = self.current.read().clone();
        current.ok_or_else(|| Failure::unavailable(anyhow::anyhow!("nothing was read yet")))
    }

    /// Reads it whenever it changes.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // Once a second, and it is small: no thread of its own is needed.
            self.look();
        }
    }

    fn look(&self) {
        let text = text_of(&self.file);
        let mut seen = self.seen.lock();
        if matches!((&text, &*seen), (Ok(text), Some(seen)) if text == seen) {
            return;
        }
        let parsed = text.and_then(|text| {
            let parsed = (self.parse)(&text);
            *seen = Some(text);
            parsed
        });
        match parsed {
            Ok(new) => {
                let is_first = self.current.write().replace(Arc::new(new)).is_none();
                self.state.up();
                if !is_first {
                    tracing::info!(file = %self.file.display(), "read again");
                }
            }
            // What was read before stays in force, and a repetition of the reason is not logged.
            Err(error) => self.state.down(format!("{}: {error:#}", self.file.display())),
        }
    }
}

/// Reads a file once.
pub(super) fn read<T>(file: &Path, parse: fn(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
    text_of(file).and_then(|text| parse(&text)).with_context(|| file.display().to_string())
}

fn text_of(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = File::open(file).context("it cannot be opened")?;
    file.take(LARGEST + 1).read_to_string(&mut text).context("it cannot be read")?;
    ensure!(text.len() as u64 <= LARGEST, "it is larger than {LARGEST} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[test]
    fn a_broken_file_leaves_what_was_read_in_force() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        let parse: fn(&str) -> anyhow::Result<i32> = |text| Ok(text.trim().parse()?);
        let health = Health::default();
        write("none");
        let watched = Watched::new(file.path(), parse, health.awaited("keys"));
        assert!(watched.get().is_err() && !health.report().ready);
        for (text, wanted, is_up) in [("1", 1, true), ("x", 1, false), ("2", 2, true)] {
            write(text);
            watched.look();
            assert_eq!(*watched.get().unwrap(), wanted);
            let report = health.report();
            assert_eq!(report.dependencies[0].ready, is_up, "{text}");
            assert!(report.ready, "the old one is in force");
        }
        write("x");
        watched.look();
        assert!(health.report().dependencies[0].detail.is_some());
        // It is as it was when it was good.
        write("2");
        watched.look();
        assert!(health.report().dependencies[0].ready);
        std::fs::remove_file(file.path()).unwrap();
        watched.look();
        assert!(!health.report().dependencies[0].ready && *watched.get().unwrap() == 2);
    }
}
