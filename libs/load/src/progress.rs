//! The line that shows how far a run is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use ordersaga_load::{Phase, Progress};

/// How often it changes on a terminal, and how often a line is added elsewhere.
const OFTEN: Duration = Duration::from_millis(250);
const RARELY: Duration = Duration::from_secs(5);
/// Rates are those of so long a time.
const SPAN: Duration = Duration::from_secs(1);

/// Shows progress on standard error.
pub(crate) struct Display {
    quiet: bool,
    is_terminal: bool,
    shown: Option<Instant>,
    /// Orders acknowledged and ended at a time, for rates.
    before: (Duration, u64, u64),
    rates: (f64, f64),
}

impl Display {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            is_terminal: std::io::stderr().is_terminal(),
            shown: None,
            before: (Duration::ZERO, 0, 0),
            rates: (0.0, 0.0),
        }
    }

    /// Shows it, if it is time.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let pause = if self.is_terminal { OFTEN } else { RARELY };
        if self.quiet || self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        self.count(progress);
        let line = self.line(progress);
        let mut error = std::io::stderr();
        let _ = if self.is_terminal {
            write!(error, "\r\x1b[K{line}").and_then(|()| error.flush())
        } else {
            writeln!(error, "{line}")
        };
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn count(&mut self, progress: &Progress) {
        let (at, acknowledged, ended) = self.before;
        let passed = progress.elapsed.saturating_sub(at);
        if passed >= SPAN {
            let rate = |now: u64, before: u64| (now - before) as f64 / passed.as_secs_f64();
            self.rates = (rate(progress.acknowledged, acknowledged), rate(progress.ended, ended));
            self.before = (progress.elapsed, progress.acknowledged, progress.ended);
        }
    }

    fn line(&self, progress: &Progress) -> String {
        let Progress { phase, elapsed, acknowledged, ended, in_flight, refused, errors } = progress;
        let phase = match phase {
            Phase::Preparing => return "preparing".to_owned(),
            Phase::Checking => return "checking".to_owned(),
            Phase::Warmup => "warmup",
            Phase::Load => "load",
            Phase::Settling => "settling",
        };
        let (seconds, (created, done)) = (elapsed.as_secs_f64(), self.rates);
        let open = acknowledged.saturating_sub(*ended);
        format!(
            "{phase} {seconds:.0} s: {created:.0}/s created, {done:.0}/s ended; {in_flight} requests in flight, {open} orders open; {refused} refused, {errors} errors"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_second() {
        let mut display = Display::new(true);
        let mut progress = Progress {
            phase: Phase::Load,
            elapsed: Duration::from_secs(2),
            acknowledged: 2_000,
            ended: 1_000,
            in_flight: 64,
            refused: 0,
            errors: 0,
        };
        display.count(&progress);
        progress.elapsed += Duration::from_millis(1_500);
        progress.acknowledged += 6_000;
        progress.ended += 3_000;
        display.count(&progress);
        let line = display.line(&progress);
        assert!(line.starts_with("load 4 s: 4000/s created, 2000/s ended; 64 requests"), "{line}");
        assert!(line.contains("4000 orders open"), "{line}");
    }
}
