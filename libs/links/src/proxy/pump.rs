//! One direction of a connection: a queue between a socket that is read and one that is written.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Link, Toxic};

/// Most bytes held for a direction that is cut, late or slow; then its sender waits.
pub(super) const MOST: usize = 1 << 20;
/// Most bytes read at once.
pub(super) const CHUNK: usize = 16 << 10;
/// A throttled link sends this often, as much as it may.
const WRITES_PER_SECOND: u32 = 50;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// A peer has reset its connection, and the other may learn of it.
#[derive(Debug)]
pub(super) struct Broken;

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
    written: usize,
}

/// What has been read and not yet written.
#[derive(Default)]
pub(super) struct Queue {
    packets: VecDeque<Packet>,
    held: usize,
}

impl Queue {
    pub(super) fn has_room(&self) -> bool {
        self.held < MOST
    }

    /// Takes what was read just now.
    pub(super) fn push(&mut self, bytes: &[u8], link: &Link) {
        let late = match link.toxic {
            Some(Toxic::Latency { delay, jitter }) => delay + jitter.mul_f64(fastrand::f64()),
            _ => Duration::ZERO,
        };
        let due = Instant::now() + late;
        // Jitter changes no order.
        let due = self.packets.back().map_or(due, |last| due.max(last.due));
        self.held += bytes.len();
        self.packets.push_back(Packet { due, bytes: bytes.to_vec(), written: 0 });
    }

    /// When there is something to write.
    fn due(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.due)
    }

    /// What is to be written next.
    fn next(&self, most: usize) -> &[u8] {
        let Some(packet) = self.packets.front() else {
            return &[];
        };
        let rest = &packet.bytes[packet.written..];
        &rest[..rest.len().min(most)]
    }

    /// So much of it was written.
    fn advance(&mut self, count: usize) {
        self.held -= count;
        if let Some(packet) = self.packets.front_mut() {
            packet.written += count;
            if packet.written == packet.bytes.len() {
                self.packets.pop_front();
            }
        }
    }

    /// After a change of the link nothing is late any more by what it was before.
    fn hurry(&mut self) {
        let now = Instant::now();
        for packet in &mut self.packets {
            packet.due = packet.due.min(now);
        }
    }
}

/// Most bytes of one write, and how long such a write occupies the link.
fn pace(link: &Link) -> (usize, Duration) {
    match link.toxic {
        Some(Toxic::Throttle { bytes_per_second }) => {
            let most = (bytes_per_second / WRITES_PER_SECOND).max(1);
            let pause = f64::from(most) / f64::from(bytes_per_second.max(1));
            (most as usize, Duration::from_secs_f64(pause))
        }
        _ => (usize::MAX, Duration::ZERO),
    }
}

/// Waits until a direction is not cut.
pub(super) async fn until_whole(link: &mut watch::Receiver<Link>, way: Way) {
    // An error means that the proxy is gone: then nobody waits.
    let _ = link.wait_for(|link| !link.is_cut(way)).await;
}

/// Passes on what is read, and then the end of it, until both are done.
pub(super) async fn run(
    way: Way,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut queue: Queue,
    mut link: watch::Receiver<Link>,
) -> Result<(), Broken> {
    let mut incoming = vec![0; CHUNK];
    let mut ended = false;
    let mut free_at = Instant::now();
    loop {
        let (cut, (most, pause)) = {
            let link = link.borrow_and_update();
            (link.is_cut(way), pace(&link))
        };
        let due = queue.due().map(|due| due.max(free_at));
        if ended && due.is_none() && !cut {
            // A peer that is gone says so by an error of its own.
            let _ = writer.shutdown().await;
            return Ok(());
        }
        let waits = due.filter(|due| *due > Instant::now());
        tokio::select! {
            changed = link.changed() => match changed {
                Ok(()) => queue.hurry(),
                Err(_) => return Err(Broken),
            },
            () = sleep_until(waits.unwrap_or(free_at)), if !cut && waits.is_some() => {}
            written = writer.write(queue.next(most)), if !cut && waits.is_none() && due.is_some() => {
                let Ok(count) = written else {
                    // The receiver is gone, which is news that travels back.
                    until_whole(&mut link, way.back()).await;
                    return Err(Broken);
                };
                queue.advance(count);
                free_at = Instant::now() + pause;
            }
            read = reader.read(&mut incoming), if !ended && queue.has_room() => match read {
                Ok(0) => ended = true,
                Ok(count) => queue.push(&incoming[..count], &link.borrow()),
                Err(_) => {
                    until_whole(&mut link, way).await;
                    return Err(Broken);
                }
            },
        }
    }
}
