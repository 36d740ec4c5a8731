//! Shows how far the suite is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ordersaga_devstack::{Report, Step};

/// How far the suite is: a bar on a terminal, and a line for each run.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many runs.
    pub(crate) fn new(runs: usize) -> Self {
        let bar = ProgressBar::new(runs as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_secs(1));
        Self(bar)
    }

    /// Something begins.
    pub(crate) fn begin(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// It has ended, with this line.
    pub(crate) fn end(&self, line: &str) {
        self.0.inc(1);
        self.note(line);
    }

    /// A line of its own.
    pub(crate) fn note(&self, line: &str) {
        self.0.suspend(|| say!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The steps of the start, a line for each.
pub(crate) fn steps() -> Report {
    Report::new(|step| match step {
        Step::Begin(_) => {}
        Step::End(name, time) => say!("{name}: {:.1} s", time.as_secs_f64()),
        Step::Failed(name) => say!("{name}: failed"),
        Step::Note(text) => say!("{text}"),
    })
}
