//! What the clients of all attacks have in common.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ordersaga_devstack::Service;
use reqwest::RequestBuilder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Met;

/// Clients come from so many addresses, 127.0.0.2 and those that follow.
pub(super) const ADDRESSES: usize = 16;
/// What the kernel may keep for a connection at the client's side.
const BUFFER: u32 = 4 * 1_024;
/// How long a client waits for an answer that it reads.
const PATIENCE: Duration = Duration::from_secs(10);

/// What attackers know of the system, and where they come from.
pub(crate) struct Target {
    ports: BTreeMap<Service, u16>,
    /// The newest order of an honest client.
    newest_order: Arc<AtomicI64>,
    /// For each address a client that keeps its connections.
    origins: Vec<(Ipv4Addr, reqwest::Client)>,
}

impl Target {
    pub(crate) fn new(
        ports: BTreeMap<Service, u16>,
        newest_order: Arc<AtomicI64>,
    ) -> reqwest::Result<Self> {
        let origins = (2_u8..).take(ADDRESSES).map(|last| {
            let address = Ipv4Addr::new(127, 0, 0, last);
            let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
            let http = http.local_address(IpAddr::V4(address)).build()?;
            Ok((address, http))
        });
        let origins = origins.collect::<reqwest::Result<_>>()?;
        Ok(Self { ports, newest_order, origins })
    }
}

/// One of an attack's clients.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) service: Service,
    pub(super) http: reqwest::Client,
    pub(super) met: Met,
    from: Ipv4Addr,
    to: SocketAddr,
    newest_order: Arc<AtomicI64>,
}

impl Client {
    pub(super) fn new(target: &Target, service: Service, number: usize, met: &Met) -> Self {
        let (from, http) = &target.origins[number % target.origins.len()];
        Self {
            number,
            service,
            http: http.clone(),
            met: met.clone(),
            from: *from,
            to: (Ipv4Addr::LOCALHOST, target.ports[&service]).into(),
            newest_order: target.newest_order.clone(),
        }
    }

    pub(super) fn newest_order(&self) -> i64 {
        self.newest_order.load(Ordering::Relaxed)
    }

    /// Opens a connection and leaves it to the caller.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        self.connect_by(self.socket()?).await
    }

    /// Opens a connection that is reset when it is dropped.
    pub(super) async fn connect_to_reset(&self) -> io::Result<TcpStream> {
        let socket = self.socket()?;
        socket.set_zero_linger()?;
        self.connect_by(socket).await
    }

    /// A socket with the client's own address. The kernel keeps little for it: what is not read
    /// stays with the service.
    fn socket(&self) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.bind((self.from, 0).into())?;
        Ok(socket)
    }

    async fn connect_by(&self, socket: TcpSocket) -> io::Result<TcpStream> {
        let stream = socket.connect(self.to).await?;
        self.met.count("connected");
        Ok(stream)
    }

    /// Sends the begin of a request over a connection of its own.
    pub(super) async fn send(&self, request: &str) -> io::Result<TcpStream> {
        let mut stream = self.connect().await?;
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.to)
    }

    /// Asks and reads the answer; its status.
    pub(super) async fn answered(&self, request: RequestBuilder) -> io::Result<String> {
        let answer = async {
            let answer = request.send().await?;
            let status = answer.status().as_str().to_owned();
            answer.bytes().await.map(|_| status)
        };
        answer.await.map_err(|_| io::Error::other("no answer"))
    }
}

/// The status of the answer that comes.
pub(super) async fn status(answer: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut begin = [0; "HTTP/1.1 200".len()];
    answer.read_exact(&mut begin).await?;
    Ok(String::from_utf8_lossy(&begin["HTTP/1.1 ".len()..]).into_owned())
}

/// How an error is counted.
pub(super) fn label(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::BrokenPipe
        | ErrorKind::ConnectionReset
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => "closed".to_owned(),
        _ => error.to_string(),
    }
}
