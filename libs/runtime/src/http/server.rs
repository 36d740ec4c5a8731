//! The listening socket, its connections, and the end of both.

use std::{
    io::{self, Error, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::Context as _;
use poem::{
    Server,
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};
use poem_openapi::OpenApi;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use super::service::HttpService;

/// How long requests in hand may take after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// A connection over which nothing is written for so long, beyond the longest request, is closed:
/// it is idle, or its client sends a head byte by byte, or does not read.
const SILENCE: Duration = Duration::from_mins(1);
/// Accepting fails when the process has no file descriptors left; trying at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens already: clients may connect, and wait until [`serve`] accepts them.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// The address bound, with the real port if port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Binds the address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<Listener> {
    let socket = TcpListener::bind(address)
        .await
        .with_context(|| format!("HTTP cannot be served on {address} (HTTP_LISTEN)"))?;
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

/// Serves the API until `stop` is cancelled, then lets the requests in hand finish.
pub async fn serve<A: OpenApi + 'static>(
    listener: Listener,
    service: HttpService<A>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let name = service.about.name;
    let acceptor = ConnectionAcceptor { listener, silence: service.longest + SILENCE };
    Server::new_with_acceptor(acceptor)
        .name(name)
        .run_with_graceful_shutdown(service.into_endpoint(), stop.cancelled_owned(), Some(DRAIN))
        .await
        .context("the HTTP server failed")
}

struct ConnectionAcceptor {
    listener: Listener,
    silence: Duration,
}

impl Acceptor for ConnectionAcceptor {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![LocalAddr(self.listener.address.into())]
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
        match self.listener.socket.accept().await {
            Ok((stream, peer)) => {
                // Responses are single writes: waiting to fill a segment only adds latency.
                stream.set_nodelay(true)?;
                let local = LocalAddr(self.listener.address.into());
                let connection = Connection::new(stream, self.silence);
                Ok((connection, local, RemoteAddr(peer.into()), Scheme::HTTP))
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        }
    }
}

/// A connection that ends itself when nothing was written over it for one to two times `silence`.
/// It looks at the clock once in that time and not at every request.
struct Connection {
    stream: TcpStream,
    silence: Duration,
    timer: Pin<Box<Sleep>>,
    wrote: bool,
}

impl Connection {
    fn new(stream: TcpStream, silence: Duration) -> Self {
        Self { stream, silence, timer: Box::pin(sleep(silence)), wrote: false }
    }

    /// Called when the peer keeps us waiting; arranges to be called again in time.
    fn check(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        ready!(self.timer.as_mut().poll(cx));
        while std::mem::take(&mut self.wrote) {
            self.timer.as_mut().reset(Instant::now() + self.silence);
            ready!(self.timer.as_mut().poll(cx));
        }
        Poll::Ready(Error::new(ErrorKind::TimedOut, "the connection was silent for too long"))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => self.check(cx).map(Err),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(outcome) => {
                self.wrote = true;
                Poll::Ready(outcome)
            }
            Poll::Pending => self.check(cx).map(Err),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(silence: Duration) -> (Connection, TcpStream) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let mut acceptor = ConnectionAcceptor { listener, silence };
        (acceptor.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn a_client_that_sends_byte_by_byte_is_cut_off() {
        let (mut connection, mut client) = pair(Duration::from_millis(30)).await;
        let drip = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let error = loop {
            if let Err(error) = connection.read(&mut [0; 16]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(connection);
        drip.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_answers_lives_on() {
        let silence = Duration::from_millis(100);
        let (mut connection, mut client) = pair(silence).await;
        let server = tokio::spawn(async move {
            while connection.read(&mut [0; 16]).await? > 0 {
                connection.write_all(b"answer").await?;
            }
            io::Result::Ok(())
        });
        let started = Instant::now();
        while started.elapsed() < 4 * silence {
            client.write_all(b"question").await.unwrap();
            client.read_exact(&mut [0; 6]).await.unwrap();
        }
        drop(client);
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind(taken.local_addr()).await.err().unwrap();
        let error = format!("{error:#}");
        assert!(error.contains(&taken.local_addr().to_string()), "{error}");
        assert!(error.contains("in use"), "{error}");
    }
}
