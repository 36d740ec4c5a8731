//! One keep-alive connection that never blocks: a request is given whole, its answer taken whole.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::answer::{Answer, Malformed, scan};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No connection could be made.
    Connect,
    /// It ended.
    Lost,
    /// What came is no answer.
    Malformed,
}

impl From<Malformed> for Trouble {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A connection, made when the first request needs it and again after it ended.
pub(crate) struct Connection {
    address: SocketAddr,
    /// What its events carry.
    token: u64,
    stream: Option<TcpStream>,
    /// It has been made, and not only begun.
    is_open: bool,
    /// What of the request is not yet sent.
    unsent: Vec<u8>,
    /// What came of the answer, if not all of it came at once.
    partial: Vec<u8>,
    awaits: bool,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, token: u64) -> Self {
        Self {
            address,
            token,
            stream: None,
            is_open: false,
            unsent: Vec::new(),
            partial: Vec::new(),
            awaits: false,
        }
    }

    /// Whether an answer is to come.
    pub(crate) fn awaits(&self) -> bool {
        self.awaits
    }

    /// Sends a request, or as soon as the connection is made.
    pub(crate) fn send(&mut self, epoll: &OwnedFd, request: &[u8]) -> Result<(), Trouble> {
        self.awaits = true;
        if self.stream.is_none() {
            self.connect(epoll).map_err(|_| Trouble::Connect)?;
        }
        if self.is_open && self.unsent.is_empty() {
            let sent = self.write(request)?;
            self.unsent.extend_from_slice(&request[sent..]);
        } else {
            self.unsent.extend_from_slice(request);
        }
        Ok(())
    }

    /// Does what an event allows; the answer, once it is whole, with the bytes it is in.
    pub(crate) fn on_event<'a>(
        &mut self,
        flags: EventFlags,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<(Answer, &'a [u8])>, Trouble> {
        if !self.is_open {
            self.opened(flags)?;
        }
        if !self.unsent.is_empty() && flags.contains(EventFlags::OUT) {
            let unsent = std::mem::take(&mut self.unsent);
            let sent = self.write(&unsent)?;
            self.unsent = unsent;
            self.unsent.drain(..sent);
        }
        let has_ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !has_ended && !flags.contains(EventFlags::IN) {
            return Ok(None);
        }
        if !self.awaits {
            // The server closes a connection that was idle, or speaks without being asked.
            return Err(Trouble::Lost);
        }
        let answer = self.read(buffer)?;
        if answer.is_none() && has_ended {
            return Err(Trouble::Lost);
        }
        Ok(answer.map(|answer| {
            self.awaits = false;
            if answer.closes || has_ended {
                self.close();
            }
            (answer, buffer.as_slice())
        }))
    }

    /// Ends it; the next request makes another.
    pub(crate) fn close(&mut self) {
        // Closing the only descriptor of a socket takes it out of the epoll as well.
        self.stream = None;
        self.is_open = false;
        self.awaits = false;
        self.unsent.clear();
        self.partial.clear();
    }

    fn connect(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let family = match self.address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let tcp = Some(ipproto::TCP);
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, tcp)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // Edge-triggered: an event comes once for each thing that happens, and asking is not
        // needed again.
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, socket.as_fd(), EventData::new_u64(self.token), interest)?;
        self.stream = Some(socket.into());
        Ok(())
    }

    fn opened(&mut self, flags: EventFlags) -> Result<(), Trouble> {
        let error = self.stream.as_ref().map(TcpStream::take_error);
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if failed || !matches!(error, Some(Ok(None))) {
            return Err(Trouble::Connect);
        }
        self.is_open = true;
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Trouble> {
        let Some(stream) = &self.stream else { return Ok(0) };
        let mut sent = 0;
        while sent < bytes.len() {
            match rustix::net::send(stream, &bytes[sent..], rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Trouble::Lost),
            }
        }
        Ok(sent)
    }

    /// Reads all there is. Only of an answer that is not whole anything is kept here.
    fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Answer>, Trouble> {
        const ROOM: usize = 16 << 10;
        let Some(stream) = &self.stream else { return Ok(None) };
        buffer.clear();
        buffer.append(&mut self.partial);
        loop {
            buffer.reserve(ROOM);
            let room = buffer.capacity() - buffer.len();
            match rustix::io::read(stream, rustix::buffer::spare_capacity(buffer)) {
                // Less than there was room for: there is no more, or it is the end.
                Ok(count) if count < room => break,
                Err(Errno::AGAIN) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(Trouble::Lost),
            }
        }
        let answer = scan(buffer)?;
        if answer.is_none() {
            self.partial.extend_from_slice(buffer);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use rustix::event::epoll::Event;

    use super::*;

    struct Bench {
        listener: TcpListener,
        epoll: OwnedFd,
        connection: Connection,
    }

    impl Bench {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let connection = Connection::new(listener.local_addr().unwrap(), 7);
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            Self { listener, epoll, connection }
        }

        /// Waits for events until there is an answer, or trouble.
        fn answer(&mut self) -> Result<(u16, Vec<u8>), Trouble> {
            let mut events: Vec<Event> = Vec::with_capacity(4);
            let mut buffer = Vec::new();
            loop {
                epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)
                    .unwrap();
                for event in events.drain(..) {
                    if let Some((answer, bytes)) =
                        self.connection.on_event(event.flags, &mut buffer)?
                    {
                        return Ok((answer.status, bytes[answer.body].to_vec()));
                    }
                }
            }
        }

        fn send(&mut self, request: &[u8]) -> Result<(), Trouble> {
            self.connection.send(&self.epoll, request)
        }

        /// The server's side: a connection is accepted, one request read, and this is done.
        fn serve(
            &self,
            length: usize,
            then: impl FnOnce(TcpStream) + Send + 'static,
        ) -> std::thread::JoinHandle<()> {
            let listener = self.listener.try_clone().unwrap();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; length];
                stream.read_exact(&mut request).unwrap();
                then(stream);
            })
        }
    }

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

    #[test]
    fn an_answer_in_pieces_is_put_together() {
        let mut bench = Bench::new();
        let server = bench.serve(4, |mut stream| {
            stream.set_nodelay(true).unwrap();
            for piece in ANSWER.chunks(7) {
                stream.write_all(piece).unwrap();
                std::thread::yield_now();
            }
            stream.read_exact(&mut [0; 4]).unwrap();
            stream.write_all(ANSWER).unwrap();
        });
        bench.send(b"ping").unwrap();
        assert_eq!(bench.answer(), Ok((200, b"hello".to_vec())));
        assert!(!bench.connection.awaits());
        bench.send(b"ping").unwrap();
        assert_eq!(bench.answer(), Ok((200, b"hello".to_vec())));
        server.join().unwrap();
    }

    #[test]
    fn a_connection_that_ends_is_lost_and_made_again() {
        let mut bench = Bench::new();
        let server = bench.serve(4, |mut stream| stream.write_all(&ANSWER[..20]).unwrap());
        bench.send(b"ping").unwrap();
        assert_eq!(bench.answer(), Err(Trouble::Lost));
        server.join().unwrap();
        bench.connection.close();
        let server = bench.serve(4, |mut stream| stream.write_all(ANSWER).unwrap());
        bench.send(b"ping").unwrap();
        assert_eq!(bench.answer().map(|(status, _)| status), Ok(200));
        server.join().unwrap();
    }

    #[test]
    fn where_nobody_listens_there_is_no_connection() {
        let mut bench = Bench::new();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        bench.connection = Connection::new(free, 1);
        let refused = bench.send(b"ping").and_then(|()| bench.answer().map(drop));
        assert_eq!(refused, Err(Trouble::Connect));
    }
}
