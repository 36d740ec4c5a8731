//! Attacks by way of an honest user's browser, which has opened a hostile page: it sends requests
//! for that page, and says so.

use std::io;

use ordersaga_devstack::Service;

use super::client::{Client, status};

pub(super) async fn cross_site(client: Client) -> io::Result<String> {
    // Reads are answered: the browser keeps the answer from the page.
    let says = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nOrigin: http://evil.example";
    ask(&client, "POST", says).await
}

pub(super) async fn foreign_host(client: Client) -> io::Result<String> {
    let method = if client.service == Service::Monitoring { "GET" } else { "POST" };
    ask(&client, method, "Host: evil.example\r\nSec-Fetch-Site: same-origin").await
}

async fn ask(client: &Client, method: &str, says: &str) -> io::Result<String> {
    let order = client.newest_order();
    let path = match client.service {
        Service::CreateOrder => format!("/api/v1/orders/cancel?order_id={order}"),
        Service::Store => "/api/v1/items/add".to_owned(),
        Service::Monitoring => format!("/api/v1/status?order_id={order}"),
    };
    let request = format!("{method} {path} HTTP/1.1\r\n{says}\r\nContent-Length: 0\r\n\r\n");
    let mut stream = client.send(&request).await?;
    status(&mut stream).await
}
