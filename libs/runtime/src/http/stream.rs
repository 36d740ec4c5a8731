//! A client's stream that can be asked whether its client has closed, while hyper holds it. hyper
//! sees the end only when it reads, and does not read past a request that it has not answered.

use std::{
    io::{ErrorKind, IoSlice, Result},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt as _;
use rustix::net::Shutdown;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How often the stream of a request that takes its time is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The stream, to be read and written.
pub(super) struct Stream {
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
}

/// Sees whether the client has closed.
#[derive(Clone)]
pub(super) struct Watch(Arc<OwnedWriteHalf>);

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self { read, write: Arc::new(write) }
    }

    pub(super) fn watch(&self) -> Watch {
        Watch(self.write.clone())
    }
}

impl Watch {
    /// Ends when the client has closed its side, whatever it has sent before.
    pub(super) async fn closed(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // At once, since either nothing is known or something is to be read.
            let known = self.0.ready(Interest::READABLE).now_or_never();
            if known.is_some_and(|known| known.is_ok_and(Ready::is_read_closed)) {
                return;
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let stream: &TcpStream = (*self.write).as_ref();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write_vectored(parts) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        let stream: &TcpStream = (*self.write).as_ref();
        Poll::Ready(Ok(rustix::net::shutdown(stream, Shutdown::Write)?))
    }
}
