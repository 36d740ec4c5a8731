//! Free ports on loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Result, bail};
use parking_lot::Mutex;

/// Below the ports the kernel gives to outgoing connections: between choosing a port and listening
/// on it, no connection of another process can take it by chance.
const RANGE: Range<u16> = 17_000..32_000;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port nobody listens on; never the same one twice from one process.
pub fn free_port() -> Result<u16> {
    choose(&mut HANDED_OUT.lock(), || fastrand::u16(RANGE), is_free)
}

/// Whether nobody listens on this loopback port.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn choose(
    handed_out: &mut BTreeSet<u16>,
    mut candidate: impl FnMut() -> u16,
    free: impl Fn(u16) -> bool,
) -> Result<u16> {
    for _ in 0..1_000 {
        let port = candidate();
        if !handed_out.contains(&port) && free(port) {
            handed_out.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port found between {} and {}", RANGE.start, RANGE.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_taken_and_handed_out_ports() {
        let mut handed_out = BTreeSet::from([1]);
        let mut candidates = [1, 2, 3].into_iter();
        let port = choose(&mut handed_out, || candidates.next().unwrap_or(9), |port| port != 2);
        assert_eq!(port.ok(), Some(3));
        assert!(handed_out.contains(&3));
    }

    #[test]
    fn gives_up_when_nothing_is_free() {
        assert!(choose(&mut BTreeSet::new(), || 1, |_| false).is_err());
    }

    #[test]
    fn a_listened_on_port_is_not_free() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        assert!(!is_free(listener.local_addr()?.port()));
        Ok(())
    }
}
