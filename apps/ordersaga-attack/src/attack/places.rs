//! Attacks on places: requests that take one and do not come to an end.

use std::io;
use std::time::Duration;

use ordersaga_devstack::Service;
use tokio::io::AsyncWriteExt;

use super::client::{Client, status};

/// How long a client that hung up leaves its connection half open.
const OPEN: Duration = Duration::from_secs(1);

pub(super) async fn hang_up(client: Client) -> io::Result<String> {
    // Half of them send more first, behind which a service may miss the end.
    let behind = if client.number.is_multiple_of(2) { "" } else { "x" };
    let mut stream = client.send(&(poll(&client) + behind)).await?;
    stream.shutdown().await?;
    // It stays half open for a moment: a reset would be seen at once.
    tokio::time::sleep(OPEN).await;
    Ok("hung up".to_owned())
}

pub(super) async fn polls(client: Client) -> io::Result<String> {
    let mut stream = client.send(&poll(&client)).await?;
    status(&mut stream).await
}

/// Each client waits for another order; there is none of these numbers.
fn poll(client: &Client) -> String {
    let order = 900_000_000_000 + client.number;
    format!("GET /api/v1/status?order_id={order}&wait_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub(super) async fn bodies(client: Client) -> io::Result<String> {
    let path = match client.service {
        Service::Store => "/api/v1/items/add",
        _ => "/api/v1/orders/create",
    };
    let begin = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    let mut stream = client.send(&begin).await?;
    status(&mut stream).await
}
