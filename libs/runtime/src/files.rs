//! Open files: how many the process may have, and how many of them may be clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For what the service opens itself: its connections to databases, Redis and the broker, logs.
const RESERVE: u64 = 256;

/// Lets the process open as many files as the system lets it; most systems start with less.
pub(crate) fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// How many of `wanted` connections from clients leave room for the service's own files.
pub(crate) fn room_for(wanted: usize) -> usize {
    getrlimit(Resource::Nofile).current.map_or(wanted, |files| wanted.min(clients(files)))
}

fn clients(files: u64) -> usize {
    let clients = files.saturating_sub(RESERVE).max(files / 4);
    usize::try_from(clients).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_room_for_the_services_own_files() {
        assert_eq!(clients(1_024), 768);
        assert_eq!(clients(100), 25);
        raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
