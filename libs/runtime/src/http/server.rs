//! The listening socket, its connections, and the end of both.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use poem::{
    Endpoint, Request, Response,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use poem_openapi::OpenApi;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    body::Held,
    connections::{Connections, Standing, count_turned_away},
    limits::{Kind, Limits},
    metrics::log_sparingly,
    service::{AdminPages, HttpService},
    stream::Stream,
};
use crate::{config::HttpConfig, files};

/// How long requests in hand may take after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Accepting fails when the process has no file descriptors left; trying at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that is not wanted any more may take to end.
const FAREWELL: Duration = Duration::from_millis(500);
/// Requests at the same time on one HTTP/2 connection.
const STREAMS: u32 = 32;
/// What an HTTP/2 client may send before it is read: on a stream, and on all of a connection.
const STREAM_WINDOW: u32 = 32 * 1_024;
const CONNECTION_WINDOW: u32 = 64 * 1_024;
/// What of an answer waits on one HTTP/2 stream for its client to read.
const STREAM_BUFFER: usize = 32 * 1_024;
/// Connections that wait to be accepted, or fewer if the system allows fewer. Of what comes above it
/// the kernel keeps no state, and may take it for a connection when its client is long gone.
const BACKLOG: u32 = 4_096;
/// Connections to the address for operators.
const ADMIN_CONNECTIONS: usize = 64;

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
    let socket = listen(address);
    let socket = socket.with_context(|| format!("HTTP cannot be served on {address}"))?;
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Or a restarted service waits until the connections of its predecessor are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the API until `stop` is cancelled, then lets the requests in hand finish.
pub async fn serve<A: OpenApi + 'static>(
    listener: Listener,
    service: HttpService<A>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let config = service.config.clone();
    let most = files::room_for(config.connections);
    if most < config.connections {
        tracing::warn!(most, "fewer connections than configured: too few files may be open");
    }
    let (limits, auth) = (service.limits.clone(), service.auth.clone());
    let (connections, keep) = (Connections::new(&config, most), stop.clone());
    let server = Server { connections, limits, config, stop };
    tokio::join!(server.run(listener, service.into_endpoint()), auth.keep(keep));
    Ok(())
}

/// Serves the pages for operators until `stop` is cancelled.
pub async fn serve_admin(
    listener: Listener,
    pages: AdminPages,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let config = pages.config.clone();
    let connections = Connections::new(&config, ADMIN_CONNECTIONS);
    // Apart from the places of the public address, where they may all be taken.
    let limits = Limits::new(&config);
    Server { connections, limits, config, stop }.run(listener, pages.into_endpoint()).await;
    Ok(())
}

struct Server {
    connections: Arc<Connections>,
    limits: Arc<Limits>,
    config: HttpConfig,
    stop: CancellationToken,
}

impl Server {
    async fn run(self, listener: Listener, endpoint: impl Endpoint<Output = Response> + 'static) {
        let (endpoint, builder) = (Arc::new(endpoint), Arc::new(self.builder()));
        let (tasks, give_up) = (TaskTracker::new(), CancellationToken::new());
        tracing::info!(address = %listener.address, "listening");
        while let Some(accepted) = self.stop.run_until_cancelled(listener.socket.accept()).await {
            match accepted {
                Ok((stream, client)) => {
                    // Without room the stream is dropped, and with it the connection closed.
                    if let Some(standing) = self.connections.admit(client.ip()) {
                        let serving = Serving {
                            standing,
                            local: LocalAddr(listener.address.into()),
                            client: RemoteAddr(client.into()),
                            limits: self.limits.clone(),
                            silence: self.config.silence,
                            stop: self.stop.clone(),
                        };
                        let done = serving.run(stream, builder.clone(), endpoint.clone());
                        tasks.spawn(give_up.clone().run_until_cancelled_owned(done));
                    }
                }
                Err(error) => {
                    count_turned_away("system");
                    log_sparingly(|suppressed| {
                        tracing::warn!(%error, suppressed, "connections are not accepted");
                    });
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            give_up.cancel();
            tasks.wait().await;
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        let head = self.config.head_limit_bytes;
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.silence)
            .max_buf_size(usize::try_from(head).unwrap_or(usize::MAX))
            .http2()
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(head)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_BUFFER);
        builder
    }
}

/// One connection being served.
struct Serving {
    standing: Standing,
    local: LocalAddr,
    client: RemoteAddr,
    limits: Arc<Limits>,
    silence: Duration,
    stop: CancellationToken,
}

/// Why a request gets no answer; its connection ends.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// Not even refused: that would be one more answer that is not read. Nothing was done.
    #[error("too many answers are on their way")]
    TooMany,
    #[error("the client has gone")]
    Gone,
}

impl Serving {
    async fn run(
        self,
        stream: TcpStream,
        builder: Arc<auto::Builder<TokioExecutor>>,
        endpoint: Arc<impl Endpoint<Output = Response> + 'static>,
    ) {
        // Responses are single writes: waiting to fill a segment only adds latency. It fails for a
        // client that has gone already.
        let _ = stream.set_nodelay(true);
        let (stream, connection) = (Stream::new(stream), self.standing.connection.clone());
        let watch = stream.watch();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let at_work = connection.begin();
            let answer = self.limits.take(Kind::Answer, Some(&connection.peer));
            let (local, client) = (self.local.clone(), self.client.clone());
            let mut request = Request::from((request, local, client, Scheme::HTTP));
            request.set_data(connection.clone());
            let (endpoint, watch) = (endpoint.clone(), watch.clone());
            async move {
                let answer = answer.map_err(|_| Unanswered::TooMany)?;
                let response = tokio::select! {
                    response = endpoint.get_response(request) => hyper::Response::from(response),
                    () = watch.closed() => return Err(Unanswered::Gone),
                };
                drop(at_work);
                Ok::<_, Unanswered>(response.map(|body| Held::new(body, answer)))
            }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // Whatever a client does to its connection is not worth a line in the log.
            _ = serving.as_mut() => return,
            () = connection.unwanted(self.silence) => {
                // A request that comes at this very moment is not lost with HTTP/2.
                serving.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, serving).await;
                return;
            }
            () = self.stop.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    }
}
