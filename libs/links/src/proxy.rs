//! A TCP proxy on loopback whose link can be made bad while it runs.
//!
//! It behaves like a network, not like a program in the way: what is sent while the link is cut is
//! not lost but late, as TCP would send it again. It is held, up to [`pump::MOST`] and then by
//! letting the sender wait, and goes on when the link is whole. So is the news of an end: a peer
//! behind a cut link learns of a closed or reset connection only afterwards.

mod pump;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use pump::{Queue, Way};

/// What is wrong with a link.
#[derive(Clone, Debug)]
pub enum Toxic {
    /// Both directions pass, late by `delay` plus up to `jitter`.
    Latency {
        /// At the least.
        delay: Duration,
        /// At the most more.
        jitter: Duration,
    },
    /// Nothing reaches the server, without an error; answers pass.
    CutUp,
    /// No answer arrives, without an error; requests pass: a commit whose acknowledgement is lost.
    CutDown,
    /// Nothing passes in either direction; connections stay open and new ones are accepted.
    Cut,
    /// Connections, old and new, are reset at once.
    Refuse,
    /// So many bytes a second in each direction.
    Throttle {
        /// More wait.
        bytes_per_second: u32,
    },
}

/// The state of a link, as its connections see it.
#[derive(Clone, Debug, Default)]
struct Link {
    toxic: Option<Toxic>,
    /// How often all connections were reset.
    resets: u64,
}

impl Link {
    fn is_cut(&self, way: Way) -> bool {
        match self.toxic {
            Some(Toxic::Cut) => true,
            Some(Toxic::CutUp) => way == Way::Up,
            Some(Toxic::CutDown) => way == Way::Down,
            _ => false,
        }
    }

    /// Whether a connection made at this number of resets is to be reset.
    fn resets_since(&self, resets: u64) -> bool {
        self.resets != resets || matches!(self.toxic, Some(Toxic::Refuse))
    }
}

/// A proxy in front of one server; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of its own; `upstream` need not listen yet.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("a proxy cannot listen")?;
        let port = listener.local_addr()?.port();
        let (link, view) = watch::channel(Link::default());
        let task = tokio::spawn(accept(listener, upstream, view));
        Ok(Self { port, link, task })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes the link bad from now on, for connections old and new; `None` heals it.
    pub fn set(&self, toxic: Option<Toxic>) {
        self.link.send_modify(|link| link.toxic = toxic);
    }

    /// Resets all current connections, once.
    pub fn reset(&self) {
        self.link.send_modify(|link| link.resets += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, link: watch::Receiver<Link>) {
    // Dropped with this task, which ends all connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve(client, upstream, link.clone()));
                }
                // Out of file descriptors, say: those who wait are accepted later.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How a connection ended.
enum End {
    /// Both sides had closed.
    Closed,
    Reset,
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, mut link: watch::Receiver<Link>) {
    let resets = link.borrow_and_update().resets;
    let mut server = None;
    let mut watched = link.clone();
    let end = tokio::select! {
        biased;
        reset = watched.wait_for(|link| link.resets_since(resets)) => match reset {
            Ok(_) => End::Reset,
            // The proxy is gone.
            Err(_) => End::Closed,
        },
        end = converse(&mut client, &mut server, upstream, link) => end,
    };
    if matches!(end, End::Reset) {
        for stream in [Some(&client), server.as_ref()].into_iter().flatten() {
            // Fails only on a socket that is closed already.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Both directions of a connection, until it ends. `server` outlives this future, to be reset.
async fn converse(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    upstream: SocketAddr,
    mut link: watch::Receiver<Link>,
) -> End {
    let mut early = Queue::default();
    let mut bytes = vec![0; pump::CHUNK];
    // The server does not see a connection before its first packet gets through; a client that
    // gives up until then has never been there.
    while link.borrow_and_update().is_cut(Way::Up) {
        tokio::select! {
            read = client.read(&mut bytes), if early.has_room() => match read {
                Ok(0) | Err(_) => return End::Closed,
                Ok(count) => early.push(&bytes[..count], &link.borrow()),
            },
            changed = link.changed() => if changed.is_err() {
                return End::Reset;
            },
        }
    }
    let Ok(connected) = TcpStream::connect(upstream).await else {
        pump::until_whole(&mut link, Way::Down).await;
        return End::Reset;
    };
    let server = server.insert(connected);
    // The senders have decided what goes into one packet.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let up = pump::run(Way::Up, client_reads, server_writes, early, link.clone());
    let down = pump::run(Way::Down, server_reads, client_writes, Queue::default(), link);
    match tokio::try_join!(up, down) {
        Ok(_) => End::Closed,
        Err(pump::Broken) => End::Reset,
    }
}
