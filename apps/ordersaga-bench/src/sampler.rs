//! What groups of processes use while a run lasts. Sampled rarely, since looking costs CPU itself:
//! what a moment between two samples would show is interpolated.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use ordersaga_runtime::clock;

use crate::proc::{Processes, Usage};

/// Name of this program's own group.
pub(crate) const BENCH: &str = "bench";
/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(500);

/// Processes that are counted as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Each with all below it.
    pub(crate) pids: Vec<u32>,
    /// Whether those below do not count.
    alone: bool,
}

impl Group {
    /// These processes, with all below them.
    pub(crate) fn new(name: impl Into<String>, pids: impl IntoIterator<Item = u32>) -> Self {
        Self { name: name.into(), pids: pids.into_iter().collect(), alone: false }
    }

    /// This program, above everything that it has started.
    pub(crate) fn own() -> Self {
        Self { name: BENCH.to_owned(), pids: vec![std::process::id()], alone: true }
    }

    fn usage(&self, processes: &Processes) -> Usage {
        match self.pids[..] {
            [pid] if self.alone => processes.usage_alone(pid),
            _ => processes.usage(&self.pids),
        }
    }
}

/// What each group had used at a moment.
#[derive(Debug, Clone)]
struct Sample {
    /// Microseconds since the epoch.
    at: i64,
    usage: Vec<Usage>,
}

/// The samples of a run.
#[derive(Debug)]
pub(crate) struct Samples(Vec<Sample>);

/// Takes samples until it is told to stop.
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Samples>,
}

impl Sampler {
    /// Takes the first sample before it returns.
    pub(crate) fn start(groups: Vec<Group>) -> Self {
        let (stop, stopped) = channel();
        let mut samples = Samples(vec![look(&groups)]);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                samples.push(look(&groups));
            }
            samples.push(look(&groups));
            samples
        });
        Self { stop, thread }
    }

    /// Takes the last sample; all of them.
    pub(crate) fn stop(self) -> Result<Samples> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the sampler panicked"))
    }
}

fn look(groups: &[Group]) -> Sample {
    let at = clock::now().timestamp_micros();
    let processes = Processes::look();
    Sample { at, usage: groups.iter().map(|group| group.usage(&processes)).collect() }
}

impl Samples {
    /// A process that has ended is no longer seen, nor is for a moment one that is just being
    /// reaped: what was used stays used.
    fn push(&mut self, mut sample: Sample) {
        if let Some(last) = self.0.last() {
            for (new, old) in sample.usage.iter_mut().zip(&last.usage) {
                new.cpu_seconds = new.cpu_seconds.max(old.cpu_seconds);
            }
        }
        self.0.push(sample);
    }

    /// CPU seconds that a group used between two moments, in microseconds since the epoch.
    pub(crate) fn cpu_seconds(&self, group: usize, begin: i64, end: i64) -> f64 {
        self.cpu_at(group, end) - self.cpu_at(group, begin)
    }

    fn cpu_at(&self, group: usize, at: i64) -> f64 {
        let cpu = |sample: &Sample| sample.usage[group].cpu_seconds;
        let after = self.0.partition_point(|sample| sample.at < at);
        match (after.checked_sub(1).map(|before| &self.0[before]), self.0.get(after)) {
            (Some(before), Some(after)) => {
                let part = (at - before.at) as f64 / (after.at - before.at) as f64;
                cpu(before) + (cpu(after) - cpu(before)) * part
            }
            (Some(only), None) | (None, Some(only)) => cpu(only),
            (None, None) => 0.0,
        }
    }

    /// The most memory that a group had.
    pub(crate) fn resident_peak(&self, group: usize) -> u64 {
        self.0.iter().map(|sample| sample.usage[group].resident_bytes).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(cpu: &[(i64, f64)]) -> Samples {
        let mut samples = Samples(Vec::new());
        for (at, cpu_seconds) in cpu.iter().copied() {
            samples.push(Sample { at, usage: vec![Usage { cpu_seconds, resident_bytes: 1 }] });
        }
        samples
    }

    fn used(samples: &Samples, begin: i64, end: i64) -> f64 {
        (samples.cpu_seconds(0, begin, end) * 1000.0).round() / 1000.0
    }

    #[test]
    fn moments_between_samples_are_interpolated() {
        let samples = samples(&[(0, 1.0), (100, 2.0), (200, 6.0)]);
        assert_eq!(used(&samples, 50, 150).to_string(), "2.5");
        assert_eq!(used(&samples, 100, 200).to_string(), "4");
        assert_eq!(used(&samples, -50, 900).to_string(), "5");
    }

    #[test]
    fn what_an_ended_process_used_stays_used() {
        let samples = samples(&[(0, 1.0), (100, 3.0), (200, 0.0)]);
        assert_eq!(used(&samples, 0, 200).to_string(), "2");
    }

    #[test]
    fn a_sampler_sees_its_own_process_from_its_begin_to_its_end() -> Result<()> {
        let begin = clock::now().timestamp_micros();
        let samples = Sampler::start(vec![Group::own()]).stop()?;
        assert_eq!(samples.0.len(), 2);
        assert!(samples.0[0].at >= begin && samples.0[1].at >= samples.0[0].at);
        assert!(samples.resident_peak(0) > 1 << 20);
        Ok(())
    }
}
