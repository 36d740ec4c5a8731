//! Over a real socket: framing, and the end of a server.

use super::*;

struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

async fn start(api: Api) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let service = HttpService::new(ABOUT, api, Health::default(), &config());
    let server = tokio::spawn(serve(listener, service, stop.clone()));
    Running { address, stop, server }
}

impl Running {
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        soon(reading).await.unwrap();
        answer
    }

    async fn stopped(self) {
        soon(self.server).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn requests_over_a_socket() {
    let running = start(Api::default()).await;
    for (request, status, part) in [
        (
            "POST /api/orders HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: 13\r\n\r\n{\"item_id\":4}",
            201,
            "{\"order_id\":41}",
        ),
        (
            "POST /api/orders HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: \
             application/json\r\ntransfer-encoding: chunked\r\n\r\nd\r\n{\"item_id\":4}\r\n0\r\n\r\n",
            201,
            "{\"order_id\":41}",
        ),
        (
            "POST /api/orders HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: 100000\r\n\r\n",
            413,
            "urn:ordersaga:problem:payload-too-large",
        ),
        (
            "GET /api/orders?order_id=666 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            500,
            "urn:ordersaga:problem:internal",
        ),
        (
            "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            404,
            "urn:ordersaga:problem:not-found",
        ),
    ] {
        let answer = running.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n\n{answer}");
        assert!(answer.contains(part), "{request}\n\n{answer}");
    }
    running.stop.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn requests_in_hand_finish_and_idle_connections_close() {
    let api = Api::default();
    let running = start(api.clone()).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    busy.write_all(b"GET /api/slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    api.entered.notified().await;

    running.stop.cancel();
    soon(idle.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(!running.server.is_finished());
    api.release.notify_one();
    let mut answer = String::new();
    soon(busy.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let address = running.address;
    running.stopped().await;
    TcpStream::connect(address).await.expect_err("nothing listens any more");
}
