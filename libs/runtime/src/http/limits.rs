//! How much of the service its clients may hold at one time, all together and from one address.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::{metrics::Shed, problem::Failure};
use crate::config::HttpConfig;

/// Requests for `/metrics` at the same time.
const PAGES: usize = 64;
/// Requests with a large body at the same time.
const LARGE_BODIES: usize = 16;
/// Answers that may be on their way to clients that are slow to read them, or do not.
const SLOW_ANSWERS: usize = 1_024;
/// Of so few an address may have all.
const FEW: usize = 32;

/// What there is a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests from their head to the end of their answer.
    Answer,
    /// Requests at work.
    Request,
    /// Requests whose body is on its way.
    Body,
    /// Requests that wait for news.
    LongPoll,
    /// Requests that wait for `/metrics`.
    Page,
    /// Requests that may have a large body, from their head to the begin of their answer.
    LargeBody,
    /// Streams of events that are open.
    Stream,
}

const KINDS: usize = 7;

/// What each kind has, by [`Kind`].
#[derive(Debug, Default)]
struct Counts([AtomicUsize; KINDS]);

/// What clients hold, and may hold.
#[derive(Debug)]
pub(super) struct Limits {
    most: [usize; KINDS],
    share: [usize; KINDS],
    taken: Counts,
}

/// What the clients of one address hold.
#[derive(Debug, Default)]
pub(super) struct Peer(Counts);

/// A place of some kind; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<Limits>,
    peer: Option<Arc<Peer>>,
    kind: Kind,
}

/// The place that a request at work takes, for its handler.
#[derive(Clone, Debug)]
pub struct RequestPlace(Arc<Mutex<Place>>);

/// Why a place is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// As many as may be are taken.
    All,
    /// This address has its share.
    Share,
}

impl Limits {
    /// The limits of a configuration.
    pub(super) fn new(config: &HttpConfig) -> Arc<Self> {
        let answers =
            2 * config.concurrency + config.long_polls + config.streams + PAGES + SLOW_ANSWERS;
        let (requests, bodies) = (config.concurrency, config.concurrency);
        let most =
            [answers, requests, bodies, config.long_polls, PAGES, LARGE_BODIES, config.streams];
        let mut share = most.map(|most| share_of(most, config.address_share));
        // Of these, few as they are, nobody may have all.
        let of_bodies = LARGE_BODIES * usize::from(config.address_share) / 100;
        share[Kind::LargeBody as usize] = of_bodies.max(1);
        Arc::new(Self { most, share, taken: Counts::default() })
    }

    /// Takes a place, if there is one.
    pub(super) fn take(
        self: &Arc<Self>,
        kind: Kind,
        peer: Option<&Arc<Peer>>,
    ) -> Result<Place, Taken> {
        let at = kind as usize;
        // From here on the place is given back by being dropped.
        let place = Place { limits: self.clone(), peer: peer.cloned(), kind };
        let all = self.taken.0[at].fetch_add(1, Ordering::Relaxed);
        let own = peer.map_or(0, |peer| peer.0.0[at].fetch_add(1, Ordering::Relaxed));
        if all >= self.most[at] {
            return Err(Taken::All);
        }
        if own >= self.share[at] {
            return Err(Taken::Share);
        }
        Ok(place)
    }

    /// Takes a place for a request, or turns it away.
    pub(super) fn enter(
        self: &Arc<Self>,
        kind: Kind,
        peer: Option<&Arc<Peer>>,
    ) -> Result<Place, Failure> {
        self.take(kind, peer).map_err(|taken| {
            Failure::shed(match (taken, kind) {
                (Taken::Share, _) => Shed::Address,
                (Taken::All, Kind::LongPoll) => Shed::LongPolls,
                (Taken::All, Kind::Page) => Shed::Pages,
                (Taken::All, Kind::Stream) => Shed::Streams,
                (Taken::All, _) => Shed::Concurrency,
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let at = self.kind as usize;
        self.limits.taken.0[at].fetch_sub(1, Ordering::Relaxed);
        if let Some(peer) = &self.peer {
            peer.0.0[at].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl RequestPlace {
    pub(super) fn new(place: Place) -> Self {
        Self(Arc::new(Mutex::new(place)))
    }

    /// The request is going to wait for news: it leaves its place to others and takes one of those
    /// who wait. An error, as the request's answer, if there is none.
    pub fn wait(&self) -> Result<(), Failure> {
        let mut place = self.0.lock();
        if place.kind != Kind::LongPoll {
            *place = place.limits.enter(Kind::LongPoll, place.peer.as_ref())?;
        }
        Ok(())
    }
}

/// What one address may have of so many, given its share in percent.
pub(super) fn share_of(most: usize, percent: u8) -> usize {
    (most.saturating_mul(percent.into()) / 100).max(FEW.min(most))
}

/// The address by which clients are told apart: with IPv6 a host has a whole network, /64.
pub(super) fn client_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(concurrency: usize, address_share: u8) -> Arc<Limits> {
        let config = HttpConfig { concurrency, address_share, ..super::super::tests::config() };
        Limits::new(&config)
    }

    #[test]
    fn one_address_gets_its_share_and_all_together_the_whole() {
        let limits = limits(100, 60);
        let peers = [Arc::new(Peer::default()), Arc::new(Peer::default())];
        let take = |peer: &Arc<Peer>| limits.take(Kind::Request, Some(peer));
        let first: Vec<_> = (0..60).map(|_| take(&peers[0]).unwrap()).collect();
        assert_eq!(take(&peers[0]).unwrap_err(), Taken::Share);
        let second: Vec<_> = (0..40).map(|_| take(&peers[1]).unwrap()).collect();
        assert_eq!(take(&peers[1]).unwrap_err(), Taken::All);
        assert!(limits.take(Kind::Body, Some(&peers[0])).is_ok(), "of another kind");
        drop(first);
        assert!(take(&peers[1]).is_ok());
        drop(second);
        // Whoever was refused has taken nothing.
        assert!(peers.iter().all(|peer| peer.0.0[1].load(Ordering::Relaxed) == 0));
        assert_eq!(limits.taken.0[1].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn of_few_one_address_may_have_all() {
        let limits = limits(4, 10);
        let peer = Arc::new(Peer::default());
        let taken: Vec<_> = (0..5).map(|_| limits.take(Kind::Request, Some(&peer))).collect();
        assert!(taken[..4].iter().all(Result::is_ok));
        assert!(taken[4].is_err());
    }

    #[test]
    fn one_address_leaves_large_bodies_to_others() {
        let limits = limits(100, 75);
        let peers = [Arc::new(Peer::default()), Arc::new(Peer::default())];
        let take = |peer: &Arc<Peer>| limits.take(Kind::LargeBody, Some(peer));
        let taken: Vec<_> = (0..13).map(|_| take(&peers[0])).collect();
        assert!(taken[..12].iter().all(Result::is_ok));
        assert_eq!(taken[12].as_ref().unwrap_err(), &Taken::Share);
        assert!(take(&peers[1]).is_ok());
    }

    #[test]
    fn hosts_of_one_network_are_one_client() {
        let same = |a: &str, b: &str| {
            client_address(a.parse().unwrap()) == client_address(b.parse().unwrap())
        };
        assert!(same("2001:db8:1:2::7", "2001:db8:1:2:ffff::8"));
        assert!(!same("2001:db8:1:2::7", "2001:db8:1:3::7"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
