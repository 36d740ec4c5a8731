//! Progress of long steps, for whoever shows it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a step has to say.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The step of this name began.
    Begin(&'a str),
    /// It ended well after this time.
    End(&'a str, Duration),
    /// It failed.
    Failed(&'a str),
    /// Something worth a line of its own.
    Note(&'a str),
}

/// Receives the progress of steps that may run side by side.
#[derive(Clone)]
pub struct Report(Arc<dyn Fn(Step<'_>) + Send + Sync>);

impl fmt::Debug for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Report")
    }
}

impl Report {
    /// Calls `show` with each step's progress.
    pub fn new(show: impl Fn(Step<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }

    /// Into the log, at debug level.
    pub fn log() -> Self {
        Self::new(|step| tracing::debug!(?step))
    }

    /// Says something that is not a step.
    pub fn note(&self, text: &str) {
        (self.0)(Step::Note(text));
    }

    /// Runs one step and reports its begin and end; its name becomes part of the error.
    pub async fn step<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        (self.0)(Step::Begin(name));
        let begin = Instant::now();
        let result = work.await;
        match &result {
            Ok(_) => (self.0)(Step::End(name, begin.elapsed())),
            Err(_) => (self.0)(Step::Failed(name)),
        }
        result.with_context(|| format!("{name} failed"))
    }
}
