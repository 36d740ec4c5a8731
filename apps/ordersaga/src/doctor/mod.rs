//! `doctor`: looks at the machine and at the system, and says what is wrong and what mends it. Each
//! check gathers a value and hands it to a pure function, which judges it.

mod broker;
mod bundle;
mod clock;
mod databases;
mod finding;
mod load;
mod machine;
mod ports;
mod saga;
mod seen;
mod services;
mod settings;
mod stack;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use self::finding::{Finding, Report, Told};
use self::seen::Surroundings;
use crate::state::Folder;
use crate::target::Target;

const EXITS: &str = "Exit codes: 0 no problem was found, 1 there is one, or doctor itself failed.";

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXITS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    target: Target,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Also writes a file for somebody who helps: findings, state, logs, metrics; without passwords
    #[arg(long, value_name = "FILE.tar.gz")]
    bundle: Option<PathBuf>,
}

/// One check: what it is about, its name, and what it finds.
struct Check {
    subject: &'static str,
    name: &'static str,
    look: fn(&Surroundings) -> Vec<Finding>,
}

const fn check(
    subject: &'static str,
    name: &'static str,
    look: fn(&Surroundings) -> Vec<Finding>,
) -> Check {
    Check { subject, name, look }
}

/// All checks, in the order in which they are told.
const CHECKS: &[Check] = &[
    check("machine", "programs", machine::programs),
    check("machine", "rust", machine::rust),
    check("machine", "memory", machine::memory),
    check("machine", "disk", machine::disk),
    check("machine", "open-files", machine::open_files),
    check("machine", "ports", ports::free),
    check("machine", "clock", clock::steady),
    check("settings", "variables", settings::variables),
    check("settings", "proxy", settings::proxy),
    check("stack", "state", stack::state),
    check("stack", "processes", stack::processes),
    check("services", "health", services::health),
    check("services", "ready", services::ready),
    check("services", "version", services::version),
    check("services", "clock", clock::of_services),
    check("services", "outbox", load::outbox),
    check("services", "consumer", load::consumer),
    check("services", "lag", load::lag),
    check("services", "turned-away", load::turned_away),
    check("services", "limits", load::limits),
    check("saga", "stuck", saga::stuck),
    check("saga", "dead-letters", saga::dead_letters),
    check("saga", "deadlines", saga::deadlines),
    check("broker", "address", broker::address),
    check("broker", "topics", broker::topics),
    check("databases", "roles", databases::roles),
    check("databases", "replication", databases::replication),
    check("databases", "transactions", databases::transactions),
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let surroundings = Surroundings::look(&arguments.folder, &arguments.target);
    let findings = CHECKS.iter().flat_map(|check| {
        let told = |finding| Told { subject: check.subject, check: check.name, finding };
        (check.look)(&surroundings).into_iter().map(told)
    });
    let findings = findings.collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let report = Report::new(now.as_secs(), findings);
    let json = serde_json::to_string_pretty(&report)?;
    if arguments.json {
        say!("{}", ordersaga_terminal::json(&json));
    } else {
        say!("{}", report.text());
    }
    if let Some(file) = &arguments.bundle {
        bundle::write(file, &surroundings, &json)?;
        say_error!("Written: {}. Look at it before you send it.", file.display());
    }
    Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_check_has_a_name_of_its_own_and_subjects_stay_together() {
        let names: BTreeSet<_> = CHECKS.iter().map(|check| (check.subject, check.name)).collect();
        assert_eq!(names.len(), CHECKS.len());
        let mut subjects: Vec<_> = CHECKS.iter().map(|check| check.subject).collect();
        subjects.dedup();
        assert_eq!(subjects.iter().collect::<BTreeSet<_>>().len(), subjects.len());
    }
}
