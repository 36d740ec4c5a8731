//! Floods: more of what everybody may do than a service can serve.

use std::io;

use serde_json::json;
use tokio::io::AsyncReadExt;

use super::client::Client;

pub(super) async fn idle(client: Client) -> io::Result<String> {
    let mut stream = client.connect().await?;
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok("closed".to_owned())
}

pub(super) async fn resets(client: Client) -> io::Result<String> {
    drop(client.connect_to_reset().await?);
    Ok("reset".to_owned())
}

pub(super) async fn metrics(client: Client) -> io::Result<String> {
    client.answered(client.http.get(client.url("/metrics"))).await
}

pub(super) async fn items(client: Client) -> io::Result<String> {
    let item = json!({"seller_id": 2, "price": 1, "name": "flood", "quantity": 1});
    client.answered(client.http.post(client.url("/api/v1/items/add")).json(&item)).await
}
