//! The ports that a stack takes, and who listens there.

use std::collections::BTreeMap;

use ordersaga_devstack::{Service, is_free};
use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};

use super::finding::{Finding, or_ok};
use super::seen::Surroundings;

/// The broker's, as `up` has it.
const BROKER: u16 = 9092;

/// Who listens on a port, as far as the kernel tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Holder {
    name: String,
    pid: Option<i32>,
}

/// Ports of a stack that is not there are free, or taken by a system that answers.
pub(super) fn free(seen: &Surroundings) -> Vec<Finding> {
    if seen.running().is_some() {
        return vec![Finding::ok("the stack that runs here has its ports")];
    }
    let answers = |port: u16| {
        seen.services.iter().any(|one| one.health.is_ok() && one.url.ends_with(&format!(":{port}")))
    };
    let ports = Service::ALL.map(Service::port).into_iter().chain([BROKER]);
    let taken: Vec<_> = ports.filter(|port| !is_free(*port)).collect();
    let holders = if taken.is_empty() { BTreeMap::new() } else { holders() };
    let any_answers = taken.iter().any(|port| answers(*port));
    let found = taken.into_iter().filter_map(|port| {
        // Beside services that answer, the broker is theirs.
        let is_ours = answers(port) || (port == BROKER && any_answers);
        judge(port, is_ours, holders.get(&port), seen.is_elsewhere)
    });
    or_ok(found.collect(), "8000 to 8002 and 9092 are free, or answer as ordersaga")
}

fn judge(port: u16, is_ours: bool, holder: Option<&Holder>, is_elsewhere: bool) -> Option<Finding> {
    if is_ours {
        return None;
    }
    let who = match holder {
        Some(Holder { name, pid: Some(pid) }) => format!("{name} (pid {pid})"),
        _ => "a program of another user".to_owned(),
    };
    let what = format!("port {port} is taken by {who}: `ordersaga up` cannot start");
    let finding = if is_elsewhere { Finding::warning(what) } else { Finding::problem(what) };
    Some(match holder.and_then(|holder| holder.pid) {
        Some(pid) => finding.mend(format!("end that program: kill {pid}")),
        None => finding.mend(format!("find it as root and end it: ss -ltnp 'sport = :{port}'")),
    })
}

/// Who listens, by port.
fn holders() -> BTreeMap<u16, Holder> {
    let entries = [tcp(), tcp6()].into_iter().flatten().flatten();
    let listening: BTreeMap<u64, u16> = entries
        .filter(|entry: &TcpNetEntry| entry.state == TcpState::Listen)
        .map(|entry| (entry.inode, entry.local_address.port()))
        .collect();
    let mut holders: BTreeMap<u16, Holder> = BTreeMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        for port in sockets(&process).filter_map(|inode| listening.get(&inode)) {
            let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
            holders.entry(*port).or_insert(Holder { name, pid: Some(process.pid) });
        }
    }
    holders
}

/// The sockets of a process; none of another user's.
fn sockets(process: &Process) -> impl Iterator<Item = u64> {
    let files = process.fd().into_iter().flatten().flatten();
    files.filter_map(|file| match file.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn who_holds_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holders().remove(&port).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder.pid, Some(own));
        let found = judge(port, false, Some(&holder), false).unwrap();
        assert_eq!(found.level, Level::Problem);
        assert_eq!(found.mend, Some(format!("end that program: kill {own}")));
    }

    #[test]
    fn a_port_of_a_system_that_answers_is_no_finding() {
        assert_eq!(judge(8000, true, None, false), None);
        let unknown = judge(8000, false, None, false).unwrap();
        assert!(unknown.mend.unwrap().contains("ss -ltnp"));
        assert_eq!(judge(8000, false, None, true).unwrap().level, Level::Warning);
    }
}
