//! Over a real socket: framing, and the end of a server.

use super::*;

struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

async fn start(api: Api) -> Running {
    start_with(api, &config()).await
}

async fn start_with(api: Api, config: &HttpConfig) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let service = HttpService::new(ABOUT, api, Health::default(), config);
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
            "POST /api/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: 13\r\n\r\n{\"item_id\":4}",
            201,
            "{\"order_id\":41}",
        ),
        (
            "POST /api/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
             application/json\r\ntransfer-encoding: chunked\r\n\r\nd\r\n{\"item_id\":4}\r\n0\r\n\r\n",
            201,
            "{\"order_id\":41}",
        ),
        (
            "POST /api/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: 100000\r\n\r\n",
            413,
            "urn:ordersaga:problem:payload-too-large",
        ),
        (
            "GET /api/orders?order_id=666 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            500,
            "urn:ordersaga:problem:internal",
        ),
        (
            "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
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
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    busy.write_all(b"GET /api/slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
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

#[tokio::test]
async fn a_client_that_closes_gives_its_place_back() {
    // What it sends behind its request hides the end from whoever reads no further.
    for behind in [&b""[..], b"x", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let api = Api::default();
        let running = start_with(api.clone(), &HttpConfig { concurrency: 1, ..config() }).await;
        let mut gone = TcpStream::connect(running.address).await.unwrap();
        let slow = b"GET /api/slow HTTP/1.1\r\nhost: localhost\r\n\r\n";
        gone.write_all(&[slow, behind].concat()).await.unwrap();
        api.entered.notified().await;
        // It only says that it sends no more.
        gone.shutdown().await.unwrap();
        let ask =
            b"GET /api/orders?order_id=1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answered = async {
            while !running.exchange(ask).await.starts_with("HTTP/1.1 200 ") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(answered).await;
        running.stop.cancel();
        running.stopped().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_useful_is_cut_off() {
    let silence = Duration::from_millis(200);
    let running = start_with(Api::default(), &HttpConfig { silence, ..config() }).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let ping = b"\0\0\x08\x06\0\0\0\0\0ABCDEFGH";
    for (first, then) in [(&b""[..], &b"x"[..]), (b"GET / HTTP/1.1\r\nx: ", b"x"), (preface, ping)]
    {
        let mut client = TcpStream::connect(running.address).await.unwrap();
        client.write_all(first).await.unwrap();
        let cut_off = async {
            while client.write_all(then).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(cut_off).await;
    }
    running.stop.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let config = HttpConfig { connections: 1, ..config() };
    let running = start_with(Api::default(), &config).await;
    let _first = TcpStream::connect(running.address).await.unwrap();
    let ask = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut second = TcpStream::connect(running.address).await.unwrap();
    // It may be reset before it is read from.
    let refused = async {
        second.write_all(ask).await?;
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.map(|_| answer)
    };
    let refused = soon(refused).await.unwrap_or_default();
    assert_eq!(refused, "");
    // The first is idle, and has to make room after a while.
    let answered = async {
        loop {
            let mut third = TcpStream::connect(running.address).await.unwrap();
            let mut answer = String::new();
            let _ = third.write_all(ask).await;
            if third.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(soon(answered).await.starts_with("HTTP/1.1 200 "));
    running.stop.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let running = start(Api::default()).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
    let mut sent = 0;
    while client.write_all(&[b'x'; 1_024]).await.is_ok() && sent < 1_000_000 {
        sent += 1_024;
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    let read = soon(client.read_to_string(&mut answer)).await;
    assert!(read.is_err() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    running.stop.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn answers_say_what_browsers_may_do_with_them() {
    let running = start(Api::default()).await;
    for (method, path, host, status) in [
        ("GET", "/health", "localhost", 200),
        ("GET", "/docs/", "localhost", 200),
        ("GET", "/nowhere", "localhost", 404),
        ("PUT", "/health", "localhost", 405),
        ("GET", "/health", "evil.example", 421),
        ("GET", "/health", "a b", 400),
        ("GET", "/api/orders?order_id=666", "localhost", 500),
    ] {
        let ask = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = running.exchange(ask.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{ask}: {answer}");
        assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
        let policies: Vec<_> =
            answer.lines().filter(|line| line.starts_with("content-security-policy: ")).collect();
        assert_eq!(policies.len(), 1, "{answer}");
        assert!(policies[0].contains("frame-ancestors 'none'"), "{answer}");
    }
    running.stop.cancel();
    running.stopped().await;
}
