//! What processes have used, as the kernel tells in `/proc`.

use std::collections::HashMap;
use std::fs;

/// A process as its `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// Clock ticks of user and kernel.
    own_ticks: u64,
    /// Those of ended and reaped children.
    children_ticks: u64,
    resident_pages: u64,
}

/// All processes at one moment.
#[derive(Debug)]
pub(crate) struct Processes {
    by_parent: HashMap<u32, Vec<Stat>>,
    by_pid: HashMap<u32, Stat>,
}

/// What a process and all below it have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// Shared pages count for each process.
    pub(crate) resident_bytes: u64,
}

impl Processes {
    /// Looks at all of them: some milliseconds.
    pub(crate) fn look() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats = entries.filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<u32>().ok()?;
            // One that has ended since the folder was listed is none.
            Stat::parse(&fs::read_to_string(entry.path().join("stat")).ok()?)
        });
        Self::new(stats)
    }

    fn new(stats: impl Iterator<Item = Stat>) -> Self {
        let mut all = Self { by_parent: HashMap::new(), by_pid: HashMap::new() };
        for stat in stats {
            all.by_pid.insert(stat.pid, stat);
            all.by_parent.entry(stat.parent).or_default().push(stat);
        }
        all
    }

    /// A process and all below it.
    fn tree(&self, root: u32) -> Vec<Stat> {
        let mut found: Vec<Stat> = self.by_pid.get(&root).copied().into_iter().collect();
        let mut next = 0;
        while next < found.len() {
            let below = self.by_parent.get(&found[next].pid);
            found.extend(below.into_iter().flatten());
            next += 1;
        }
        found
    }

    /// What the processes below these have used, themselves included. A child that ends leaves its
    /// ticks to its parent, so that none is lost: a backend of Postgres may come and go unseen.
    pub(crate) fn usage(&self, roots: &[u32]) -> Usage {
        let all = roots.iter().flat_map(|root| self.tree(*root));
        let (ticks, pages) = all.fold((0, 0), |(ticks, pages), s| {
            (ticks + s.own_ticks + s.children_ticks, pages + s.resident_pages)
        });
        Usage::new(ticks, pages)
    }

    /// What one process has used, without those below it.
    pub(crate) fn usage_alone(&self, pid: u32) -> Usage {
        let stat = self.by_pid.get(&pid);
        stat.map_or(Usage::default(), |stat| Usage::new(stat.own_ticks, stat.resident_pages))
    }

    /// Bytes that the processes below these gave the kernel to write to disk.
    pub(crate) fn written_bytes(&self, roots: &[u32]) -> u64 {
        let all = roots.iter().flat_map(|root| self.tree(*root));
        let written = |stat: Stat| {
            written(&fs::read_to_string(format!("/proc/{}/io", stat.pid)).unwrap_or_default())
        };
        all.map(written).sum()
    }
}

impl Usage {
    fn new(ticks: u64, pages: u64) -> Self {
        Self {
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            resident_bytes: pages * rustix::param::page_size() as u64,
        }
    }
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name stands in brackets and may itself have brackets and spaces.
        let (begin, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of these is field 3 of proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            pid: begin.split(' ').next()?.parse().ok()?,
            parent: u32::try_from(field(4)?).ok()?,
            own_ticks: field(14)? + field(15)?,
            children_ticks: field(16)? + field(17)?,
            resident_pages: field(24)?,
        })
    }
}

/// From `/proc/PID/io`: what was to be written, less what was deleted before it was.
fn written(text: &str) -> u64 {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    field("write_bytes:").saturating_sub(field("cancelled_write_bytes:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTMASTER: &str = "310 (postgres) S 1 310 310 0 -1 4194560 9 9 0 0 100 20 3000 400 20 \
                              0 1 0 55 232 2000 18446744073709551615 1 1 0 0 0 0 0";
    const BACKEND: &str = "320 (a) b (c) S 310 320 320 0 -1 4194560 9 9 0 0 7 3 0 0 20 0 1 0 55 \
                           232 500 18446744073709551615 1 1 0 0 0 0 0";

    /// Half of the ticks are those of ended children.
    fn stat(pid: u32, parent: u32, ticks: u64) -> Stat {
        let (own_ticks, children_ticks) = (ticks / 2, ticks - ticks / 2);
        Stat { pid, parent, own_ticks, children_ticks, resident_pages: 1 }
    }

    fn ticks(usage: Usage) -> f64 {
        (usage.cpu_seconds * rustix::param::clock_ticks_per_second() as f64).round()
    }

    #[test]
    fn reads_times_with_those_of_ended_children() {
        let stat = Stat::parse(POSTMASTER).unwrap();
        assert_eq!((stat.own_ticks, stat.children_ticks), (120, 3400));
        assert_eq!((stat.pid, stat.parent, stat.resident_pages), (310, 1, 2000));
    }

    #[test]
    fn a_name_may_contain_brackets_and_spaces() {
        let stat = Stat::parse(BACKEND).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.own_ticks), (320, 310, 10));
        assert_eq!(Stat::parse("320 (a) S 310"), None);
    }

    #[test]
    fn usage_is_that_of_the_whole_tree_and_of_nothing_else() {
        let all = [stat(1, 0, 900), stat(10, 1, 300), stat(11, 10, 20), stat(12, 11, 5)];
        let all = all.into_iter().chain([stat(20, 1, 40)]);
        let processes = Processes::new(all);
        assert!((ticks(processes.usage(&[10])) - 325.0).abs() < 0.1);
        assert!((ticks(processes.usage(&[11, 20])) - 65.0).abs() < 0.1);
        assert!(ticks(processes.usage(&[99])).abs() < 0.1);
        assert!((ticks(processes.usage_alone(10)) - 150.0).abs() < 0.1);
    }

    #[test]
    fn a_child_that_ends_leaves_what_it_used_to_its_parent() -> anyhow::Result<()> {
        let own = std::process::id();
        let before = Processes::look().usage(&[own]).cpu_seconds;
        let burn = "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done";
        let status = std::process::Command::new("sh").args(["-c", burn]).status()?;
        assert!(status.success());
        let after = Processes::look().usage(&[own]).cpu_seconds;
        assert!(after - before > 0.05, "{before} {after}");
        Ok(())
    }

    #[test]
    fn what_was_deleted_before_it_was_written_does_not_count() {
        let text = "rchar: 1\nwchar: 2\nread_bytes: 0\nwrite_bytes: 8192\n\
                    cancelled_write_bytes: 4096\n";
        assert_eq!(written(text), 4096);
        assert_eq!(written(""), 0);
    }
}
