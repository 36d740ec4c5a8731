//! Who may ask for what, over the endpoint.

use std::io::Write;

use ordersaga_api_key::ApiKey;

use super::*;
use crate::config::AuthMode;

/// A file of keys, and the keys by the scopes they have.
struct Keys {
    file: tempfile::NamedTempFile,
}

impl Keys {
    fn new() -> Self {
        Self { file: tempfile::NamedTempFile::new().unwrap() }
    }

    fn add(&self, name: &str, scopes: &[Scope]) -> String {
        let (name, scopes) = (name.to_owned(), scopes.to_vec());
        let (key, entry) = ApiKey::generate(name, scopes, None, None).unwrap();
        self.file.as_file().write_all(entry.to_toml().unwrap().as_bytes()).unwrap();
        key
    }

    fn config(&self) -> HttpConfig {
        let api_keys_file = Some(self.file.path().to_owned());
        let auth = AuthConfig { mode: AuthMode::ApiKey, api_keys_file, ..AuthConfig::default() };
        HttpConfig { auth, ..config() }
    }
}

fn with(mut request: Request, credentials: &str) -> Request {
    let value = format!("Bearer {credentials}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn each_operation_asks_for_its_scope() {
    let keys = Keys::new();
    let reader = keys.add("reader", &[Scope::OrdersRead]);
    let writer = keys.add("writer", &[Scope::OrdersWrite]);
    let admin = keys.add("admin", &[Scope::Admin]);
    let endpoint = endpoint(&keys.config());
    let find = || get("/api/orders?order_id=1");
    // The last one is declared nowhere.
    let lines = || get("/api/orders/7/lines");
    for (request, key, status) in [
        (find(), &reader, 200),
        (find(), &writer, 403),
        (find(), &admin, 200),
        (post(r#"{"item_id":1}"#), &reader, 403),
        (post(r#"{"item_id":1}"#), &writer, 201),
        (lines(), &reader, 403),
        (lines(), &admin, 200),
        (get("/metrics"), &writer, 403),
        (get("/metrics"), &admin, 200),
        (get("/health"), &writer, 200),
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        assert_eq!(send(&endpoint, with(request, key)).await.status, status, "{what}");
    }
    let refused = send(&endpoint, with(find(), &writer)).await;
    let problem = refused.is_problem(ProblemType::Forbidden, None);
    assert!(problem.detail.contains("orders:read"), "{}", problem.detail);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
}

#[tokio::test]
async fn without_good_credentials_there_are_only_pages_for_everybody() {
    let keys = Keys::new();
    let key = keys.add("reader", &[Scope::OrdersRead]);
    let endpoint = endpoint(&keys.config());
    for open in ["/health", "/ready", "/docs/", "/openapi.json", "/problems/"] {
        let answer = send(&endpoint, get(open)).await;
        assert!(answer.status != 401, "{open}");
        assert!(send(&endpoint, with(get(open), "wrong")).await.status != 401, "{open}");
    }
    for (request, error) in [
        (get("/api/orders?order_id=1"), None),
        (get("/metrics"), None),
        // Not even whether the request is well formed.
        (get("/api/orders?nonsense=1"), None),
        (post("{"), None),
        (with(get("/api/orders?order_id=1"), "wrong"), Some("invalid_token")),
        (with(get("/api/orders?order_id=1"), &key[1..]), Some("invalid_token")),
        (with(get("/api/orders?order_id=1"), "a b"), Some("invalid_request")),
    ] {
        let answer = send(&endpoint, request).await;
        let problem = answer.is_problem(ProblemType::Unauthenticated, None);
        assert!(!problem.detail.contains(&key[1..]), "{}", problem.detail);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer realm="), "{challenge}");
        assert_eq!(challenge.contains("error="), error.is_some(), "{challenge}");
        assert!(challenge.contains(error.unwrap_or_default()), "{challenge}");
    }
}

#[tokio::test]
async fn whoever_is_not_admitted_takes_no_place() {
    let keys = Keys::new();
    let key = keys.add("admin", &[Scope::Admin]);
    let api = Api::default();
    let config = HttpConfig { concurrency: 1, ..keys.config() };
    let service = HttpService::new(ABOUT, api.clone(), Health::default(), &config);
    let endpoint = Arc::new(service.into_endpoint());
    let slow = tokio::spawn({
        let (endpoint, request) = (endpoint.clone(), with(get("/api/slow"), &key));
        async move { send(&*endpoint, request).await.status }
    });
    soon(api.entered.notified()).await;
    let find = || get("/api/orders?order_id=1");
    assert_eq!(send(&*endpoint, with(find(), &key)).await.status, 429, "the only place is taken");
    assert_eq!(send(&*endpoint, find()).await.status, 401);
    api.release.notify_one();
    assert_eq!(soon(slow).await.unwrap(), 200);
}

#[tokio::test]
async fn each_principal_has_requests_of_its_own() {
    let keys = Keys::new();
    let (one, two) = (keys.add("one", &[Scope::OrdersRead]), keys.add("two", &[Scope::OrdersRead]));
    let mut config = keys.config();
    config.auth.requests_per_second = 1;
    let endpoint = endpoint(&config);
    let mut statuses = Vec::new();
    for _ in 0..11 {
        statuses.push(send(&endpoint, with(get("/api/orders?order_id=1"), &one)).await.status);
    }
    assert_eq!(statuses[..10], [200; 10]);
    let refused = send(&endpoint, with(get("/api/orders?order_id=1"), &one)).await;
    refused.is_problem(ProblemType::TooManyRequests, None);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(send(&endpoint, with(get("/api/orders?order_id=1"), &two)).await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_before_its_credentials_are_looked_at() {
    let keys = Keys::new();
    let key = keys.add("writer", &[Scope::OrdersWrite]);
    let endpoint = endpoint(&keys.config());
    let mut request = with(post(r#"{"item_id":1}"#), &key);
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    send(&endpoint, request).await.is_problem(ProblemType::ForeignOrigin, None);
    // The browser asks before it sends credentials, and without any.
    let mut request = asking("OPTIONS", "/api/orders");
    request.headers_mut().insert("origin", "https://desk.example.org".parse().unwrap());
    request.headers_mut().insert("access-control-request-method", "POST".parse().unwrap());
    let answer = send(&endpoint, request).await;
    assert_eq!(answer.status, 204);
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("Authorization"), "{headers}");
}
