//! The connections that stand: which may come, which have to make room, and which are silent.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use indexmap::IndexMap;
use parking_lot::Mutex;
use poem::Request;
use prometheus::{IntCounterVec, IntGauge, register_int_counter_vec, register_int_gauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::{Peer, client_address, share_of};
use crate::config::HttpConfig;

/// A connection that was of use a moment ago does not have to make room, unless for an address that
/// has fewer: its client may be thinking, and would only come back.
const THINKING: Duration = Duration::from_secs(1);
/// Of so many connections, taken at random, one has to make room. Looking at all of them for each
/// that comes would let a flood of those keep the service busy.
const LOOKED_AT: usize = 16;

static CONNECTIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("http_server_connections", "Connections that stand.")
        .expect("registered once")
});

static TURNED_AWAY: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let turned_away = register_int_counter_vec!(
        "http_server_connections_turned_away_total",
        "Connections closed without regard to their client: refused because all (limit) or all of \
         one address (address) were in use, closed to make room (idle) or because nothing useful \
         came over them (silent), or not accepted by the system (system).",
        &["reason"]
    )
    .expect("registered once");
    // A counter that is first seen at 1 has not risen, to whoever watches it.
    for reason in ["limit", "address", "idle", "silent", "system"] {
        turned_away.with_label_values(&[reason]);
    }
    turned_away
});

/// Counts a connection that ended, or never began, by our will.
pub(super) fn count_turned_away(reason: &str) {
    TURNED_AWAY.with_label_values(&[reason]).inc();
}

/// A connection, as all that handle its requests see it.
#[derive(Debug)]
pub(super) struct Connection {
    /// The client's address, with all it holds.
    pub(super) peer: Arc<Peer>,
    address: IpAddr,
    opened: Instant,
    /// When it was last of use, in milliseconds since it was opened.
    used: AtomicU64,
    requests: AtomicUsize,
    closed: CancellationToken,
}

/// A request at work on a connection.
pub(super) struct AtWork(Arc<Connection>);

/// All connections of a listener.
pub(super) struct Connections {
    most: usize,
    /// How many of one address.
    share: usize,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    next: u64,
    standing: IndexMap<u64, Arc<Connection>>,
    /// The addresses connections come from, with how many.
    peers: HashMap<IpAddr, (Arc<Peer>, usize)>,
}

/// A connection that stands until this is dropped.
pub(super) struct Standing {
    connections: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

/// What the clients of a request's address hold, if it came over a connection.
pub(super) fn peer_of(request: &Request) -> Option<&Arc<Peer>> {
    request.data::<Arc<Connection>>().map(|connection| &connection.peer)
}

impl Connection {
    /// A request has come: the connection is in use until it is answered.
    pub(super) fn begin(self: &Arc<Self>) -> AtWork {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_used();
        AtWork(self.clone())
    }

    /// Something of use came or went.
    pub(super) fn was_used(&self) {
        self.was_used_at(Instant::now());
    }

    fn was_used_at(&self, now: Instant) {
        let age = (now - self.opened).as_millis();
        self.used.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Since when it is of no use; `None` while a request is at work.
    fn idle_since(&self) -> Option<Instant> {
        let idle = self.requests.load(Ordering::Relaxed) == 0;
        idle.then(|| self.opened + Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    /// Ends when it has to make room, or was of no use for `silence`.
    pub(super) async fn unwanted(&self, silence: Duration) {
        let silent = async {
            loop {
                let since = self.idle_since().unwrap_or_else(Instant::now);
                if since.elapsed() >= silence {
                    return;
                }
                tokio::time::sleep_until(since + silence).await;
            }
        };
        tokio::select! {
            () = self.closed.cancelled() => count_turned_away("idle"),
            () = silent => count_turned_away("silent"),
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.was_used();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// None yet, and never more than `most`.
    pub(super) fn new(config: &HttpConfig, most: usize) -> Arc<Self> {
        LazyLock::force(&TURNED_AWAY);
        let share = share_of(most, config.address_share);
        Arc::new(Self { most, share, all: Mutex::default() })
    }

    /// Lets a connection from `address` in, if there is room or an idle one can make some.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Standing> {
        self.admit_at(address, Instant::now())
    }

    fn admit_at(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Standing> {
        let address = client_address(address);
        let mut all = self.all.lock();
        let (peer, own) = all.peers.get(&address).cloned().unwrap_or_default();
        let thinks = |since: Instant| now < since + THINKING;
        if own >= self.share
            && !all.make_room(|one, since, _| one.address == address && !thinks(since))
        {
            count_turned_away("address");
            return None;
        }
        if all.standing.len() >= self.most
            && !all.make_room(|_, since, of_its_address| !thinks(since) || of_its_address > own + 1)
        {
            count_turned_away("limit");
            return None;
        }
        let connection = Arc::new(Connection {
            peer,
            address,
            opened: now,
            used: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            closed: CancellationToken::new(),
        });
        let number = all.add(connection.clone());
        Some(Standing { connections: self.clone(), number, connection })
    }
}

impl All {
    fn add(&mut self, connection: Arc<Connection>) -> u64 {
        let peer = connection.peer.clone();
        self.peers.entry(connection.address).or_insert((peer, 0)).1 += 1;
        let number = self.next;
        self.next += 1;
        self.standing.insert(number, connection);
        CONNECTIONS.inc();
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let connection = self.standing.swap_remove(&number)?;
        CONNECTIONS.dec();
        if let Some((_, count)) = self.peers.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&connection.address);
            }
        }
        Some(connection)
    }

    /// Closes one of the idle connections that `may` be closed, given since when it is idle and how
    /// many its address has: of those that are looked at, of the address with the most the one idle
    /// for longest. False if there is none.
    fn make_room(&mut self, may: impl Fn(&Connection, Instant, usize) -> bool) -> bool {
        let candidates = self.some().filter_map(|number| {
            let connection = &self.standing[&number];
            let since = connection.idle_since()?;
            let of_its_address = self.peers.get(&connection.address).map_or(0, |(_, count)| *count);
            may(connection, since, of_its_address).then_some((
                Reverse(of_its_address),
                since,
                number,
            ))
        });
        let closed = candidates.min().and_then(|(.., number)| self.remove(number));
        closed.inspect(|connection| connection.closed.cancel()).is_some()
    }

    /// The numbers of some connections, or of all if there are few.
    fn some(&self) -> impl Iterator<Item = u64> {
        let all = self.standing.len();
        let at = move |n| if all <= LOOKED_AT { n } else { fastrand::usize(..all) };
        (0..all.min(LOOKED_AT))
            .filter_map(move |n| self.standing.get_index(at(n)))
            .map(|(number, _)| *number)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.connections.all.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(most: usize, address_share: u8) -> Arc<Connections> {
        let config = HttpConfig { address_share, ..super::super::tests::config() };
        Connections::new(&config, most)
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_longest_idle_makes_room_and_none_at_work() {
        let (connections, start) = (connections(3, 100), Instant::now());
        let admit = |n: u8, now: Instant| connections.admit_at(address(n), now);
        let standing: Vec<_> = (1..=3).map(|n| admit(n, start).unwrap()).collect();
        assert!(admit(4, start).is_none(), "all were opened just now");
        let _at_work = standing[0].connection.begin();
        let later = start + 2 * THINKING;
        standing[1].connection.was_used_at(later);
        let fourth = admit(4, later).unwrap();
        let closed = |n: usize| standing[n].connection.closed.is_cancelled();
        assert_eq!([closed(0), closed(1), closed(2)], [false, false, true]);
        assert!(admit(5, later).is_none(), "the others are in use");
        drop(fourth);
        assert!(admit(5, later).is_some());
        drop(standing);
        assert!(connections.all.lock().peers.is_empty());
    }

    #[test]
    fn the_address_with_the_most_makes_room_for_others_at_once() {
        let (connections, now) = (connections(10, 100), Instant::now());
        let admit = |n: u8| connections.admit_at(address(n), now);
        let mut many: Vec<_> = (0..8).map(|_| admit(1).unwrap()).collect();
        let few = [admit(2).unwrap(), admit(2).unwrap()];
        many.push(admit(3).unwrap());
        assert!(few.iter().all(|it| !it.connection.closed.is_cancelled()));
        assert_eq!(many.iter().filter(|it| it.connection.closed.is_cancelled()).count(), 1);
        assert!(admit(1).is_none(), "it has the most itself");
    }

    #[test]
    fn one_address_makes_room_for_itself() {
        let (connections, start) = (connections(100, 50), Instant::now());
        let admit = |n: u8, now: Instant| connections.admit_at(address(n), now);
        let mut own: Vec<_> = (0..50).map(|_| admit(1, start).unwrap()).collect();
        let other = admit(2, start).unwrap();
        assert!(admit(1, start).is_none());
        own.push(admit(1, start + 2 * THINKING).unwrap());
        let closed = own.iter().filter(|it| it.connection.closed.is_cancelled());
        assert_eq!(closed.count(), 1);
        assert!(!other.connection.closed.is_cancelled());
        assert_eq!(connections.all.lock().standing.len(), 51);
    }

    #[tokio::test]
    async fn a_connection_without_use_is_unwanted() {
        let connections = connections(10, 100);
        let standing = connections.admit(address(1)).unwrap();
        let silence = Duration::from_millis(20);
        let at_work = standing.connection.begin();
        let in_use = tokio::time::timeout(5 * silence, standing.connection.unwanted(silence));
        assert!(in_use.await.is_err());
        drop(at_work);
        standing.connection.unwanted(silence).await;
    }
}
