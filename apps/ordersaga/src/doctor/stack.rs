//! The local stack of `ordersaga up`.

use std::borrow::Cow;

use procfs::process::Process;

use super::finding::{Finding, or_ok};
use super::seen::Surroundings;
use ordersaga_devstack::state::{Phase, Running, State};

/// Whether one runs, how far it is, and whether one left its state behind.
pub(super) fn state(seen: &Surroundings) -> Vec<Finding> {
    let folder = quoted(seen);
    let is_left = seen.folder.join("stack.json").exists();
    vec![match &seen.state {
        Err(error) => Finding::problem(format!("the state cannot be read: {error}"))
            .mend(format!("ordersaga down --data {folder}; ordersaga up --data {folder}")),
        Ok(state) => judge(state.as_ref().map(|state| state.phase), is_left, &folder),
    }]
}

/// The folder as a shell takes it.
fn quoted(seen: &Surroundings) -> String {
    let folder = seen.folder.to_string_lossy();
    // A path has no zero byte, which alone cannot be quoted.
    shlex::try_quote(&folder).map_or_else(|_| folder.to_string(), Cow::into_owned)
}

fn judge(phase: Option<Phase>, is_left: bool, folder: &str) -> Finding {
    match phase {
        Some(Phase::Ready) => Finding::ok(format!("one runs on {folder}")),
        Some(Phase::Starting) => Finding::warning(format!("the one on {folder} is still starting"))
            .mend(format!("wait, then: ordersaga status --data {folder}")),
        Some(Phase::Stopping) => Finding::warning(format!("the one on {folder} is being stopped"))
            .mend(format!("wait, then: ordersaga up --data {folder}")),
        None if is_left => Finding::warning(format!(
            "the one on {folder} ended without stopping in order; nothing that was acknowledged is lost"
        ))
        .mend(format!("ordersaga up --data {folder}")),
        None => Finding::ok(format!("none runs on {folder}")),
    }
}

/// Which processes have ended, were started again, or are frozen.
pub(super) fn processes(seen: &Surroundings) -> Vec<Finding> {
    let Some(state) = seen.running() else {
        return vec![Finding::ok("no stack runs here")];
    };
    let folder = quoted(seen);
    let found = state
        .processes
        .iter()
        .filter_map(|process| judge_process(process, is_frozen(process), &folder));
    or_ok(found.collect(), format!("{} processes run", count(state)))
}

fn count(state: &State) -> usize {
    state.processes.iter().filter(|process| process.pid.is_some()).count()
}

/// Stopped by a signal, or by a debugger. What `setpriv` starts has the pid itself.
fn is_frozen(process: &Running) -> bool {
    let pid = process.pid.and_then(|pid| i32::try_from(pid).ok());
    let stat = pid.and_then(|pid| Process::new(pid).ok()?.stat().ok());
    stat.is_some_and(|stat| matches!(stat.state, 'T' | 't'))
}

fn judge_process(process: &Running, is_frozen: bool, folder: &str) -> Option<Finding> {
    let Running { name, pid, restarts, .. } = process;
    let logs = format!("ordersaga logs {name} --data {folder}");
    match pid {
        None => Some(
            Finding::problem(format!("{name} has ended and is started again after a pause"))
                .mend(logs),
        ),
        Some(pid) if is_frozen => Some(
            Finding::problem(format!("{name} (pid {pid}) is stopped by a signal"))
                .mend(format!("kill -CONT {pid}")),
        ),
        Some(_) if *restarts > 0 => Some(
            Finding::warning(format!("{name} ended by itself and was started again, {restarts}×"))
                .mend(logs)
                .runbook("ServiceRestarting"),
        ),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn process(pid: Option<u32>, restarts: u32) -> Running {
        Running {
            name: "shard1".to_owned(),
            port: 1,
            pid,
            started: None,
            is_service: false,
            restarts,
        }
    }

    #[test]
    fn a_process_that_ended_froze_or_came_back_is_told() {
        let judged = |process: &Running, frozen| judge_process(process, frozen, "data");
        assert_eq!(judged(&process(Some(7), 0), false), None);
        let ended = judged(&process(None, 0), false).unwrap();
        assert_eq!(ended.level, Level::Problem);
        assert_eq!(ended.mend.as_deref(), Some("ordersaga logs shard1 --data data"));
        let frozen = judged(&process(Some(7), 0), true).unwrap();
        assert_eq!(frozen.mend.as_deref(), Some("kill -CONT 7"));
        assert_eq!(judged(&process(Some(7), 2), false).unwrap().level, Level::Warning);
    }

    #[test]
    fn a_state_that_was_left_behind_is_told() {
        assert_eq!(judge(None, false, "data").level, Level::Ok);
        let left = judge(None, true, "data");
        assert_eq!(left.mend.as_deref(), Some("ordersaga up --data data"));
        assert_eq!(judge(Some(Phase::Ready), true, "data").level, Level::Ok);
        assert_eq!(judge(Some(Phase::Starting), true, "data").level, Level::Warning);
    }
}
