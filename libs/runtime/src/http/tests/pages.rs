//! The pages beside the API, and the specification.

use futures_util::StreamExt;
use serde_json::json;

use super::*;
use crate::config::TitledUrl;

fn document(title: &str, origin: &str) -> TitledUrl {
    let url = format!("{origin}/openapi.json");
    TitledUrl { title: title.to_owned(), url, origin: origin.to_owned() }
}

#[tokio::test]
async fn the_pages_of_every_service() {
    let health = Health::default();
    let postgres = health.required("postgres");
    let service = HttpService::new(ABOUT, Api::default(), health, &config());
    let endpoint = service.into_endpoint();

    let answer = send(&endpoint, get("/health")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"status":"ok"}"#));

    let answer = send(&endpoint, get("/ready")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["dependencies"][0]["detail"], "starting");
    postgres.up();
    let answer = send(&endpoint, get("/ready")).await;
    assert_eq!((answer.status, &answer.json()["ready"]), (200, &Value::Bool(true)));

    let answer = send(&endpoint, get("/openapi.json")).await;
    let served: Value = answer.json();
    assert_eq!(served["servers"].as_array().unwrap().len(), 1);
    assert_eq!(served["servers"][0]["url"], "/");
    assert_eq!(
        served["paths"],
        serde_json::from_str::<Value>(&spec::<Api>(&ABOUT)).unwrap()["paths"]
    );

    for uri in ["/", "/docs"] {
        let answer = send(&endpoint, get(uri)).await;
        assert_eq!((answer.status, answer.header("location")), (307, Some("/docs/")));
    }
    let page = send(&endpoint, get("/docs/")).await;
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.body.contains("swagger-ui"));
    assert!(page.body.contains("<title>Example - ordersaga</title>"), "{}", page.body);
    let script = send(&endpoint, get("/docs/swagger-initializer.js")).await;
    assert!(script.body.contains("\"/openapi.json\""), "{}", script.body);
    assert!(script.body.contains("\"tryItOutEnabled\": true"), "{}", script.body);
    for (file, kind) in [("swagger-ui-bundle.js", "javascript"), ("swagger-ui.css", "css")] {
        let answer = send(&endpoint, get(&format!("/docs/{file}"))).await;
        assert_eq!(answer.status, 200, "{file}");
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert_eq!(answer.body.len(), length, "{file} in pieces");
        assert!(answer.header("content-type").unwrap().contains(kind), "{file}");
    }
}

#[tokio::test]
async fn swagger_ui_offers_the_documents_that_the_client_reaches() {
    let documents = vec![
        document("Example", "http://localhost:8000"),
        document("Near", "http://localhost:8001"),
        document("Far", "https://shop.example.org"),
    ];
    let hosts = vec!["shop.example.org".to_owned()];
    let endpoint = endpoint(&HttpConfig { hosts, documents, ..config() });
    let offered = async |host: &str| {
        let path = "/docs/swagger-initializer.js";
        let request = Request::builder().uri_str(path).header("host", host).finish();
        let answer = send(&endpoint, request).await;
        let policy = answer.header("content-security-policy").unwrap().to_owned();
        let near = answer.body.contains("http://localhost:8001/openapi.json");
        assert_eq!(near, policy.contains("'self' http://localhost:8001 https"), "{policy}");
        assert!(answer.body.contains("\"/openapi.json\""), "its own: {}", answer.body);
        assert!(answer.body.contains("https://shop.example.org/openapi.json"));
        assert!(policy.contains(" https://shop.example.org;"), "{policy}");
        near
    };
    assert!(offered("localhost:8000").await && offered("127.0.0.1").await);
    assert!(!offered("shop.example.org").await);
}

#[tokio::test]
async fn pages_of_allowed_origins_ask_before_and_may_read() {
    let endpoint = endpoint(&config());
    let ask = async |method: &str, path: &str, origin: &str| {
        let mut request = asking(method, path);
        let headers = request.headers_mut();
        headers.insert("origin", origin.parse().unwrap());
        if method == "OPTIONS" {
            headers.insert("access-control-request-method", "POST".parse().unwrap());
        }
        send(&endpoint, request).await
    };
    let (desk, evil) = ("https://desk.example.org", "https://evil.example");
    let answer = ask("OPTIONS", "/api/orders", desk).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-origin"), Some(desk));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("Content-Type") && headers.contains("Idempotency-Key"), "{headers}");

    let answer = ask("GET", "/api/orders?order_id=1", desk).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(desk));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for name in ["Location", "X-Request-Id", "Retry-After", "Idempotent-Replayed"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    assert_eq!(ask("OPTIONS", "/nowhere", desk).await.status, 404);

    for (method, status) in [("OPTIONS", 405), ("GET", 200)] {
        let answer = ask(method, "/api/orders?order_id=1", evil).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn each_kind_of_problem_has_a_page() {
    let endpoint = endpoint(&config());
    let list = send(&endpoint, get("/problems/")).await;
    assert!(list.header("content-type").unwrap().starts_with("text/html"));
    for kind in ProblemType::ALL {
        let path = format!("/problems/{}", kind.slug());
        assert!(list.body.contains(&path), "{}", list.body);
        let page = send(&endpoint, get(&path)).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains(&kind.uri()), "{}", page.body);
    }
    let bare = send(&endpoint, get("/problems")).await;
    assert_eq!((bare.status, bare.header("location")), (307, Some("/problems/")));
    let unknown = send(&endpoint, get("/problems/none")).await;
    unknown.is_problem(ProblemType::NotFound, None);
}

#[tokio::test]
async fn metrics_are_labelled_by_pattern() {
    let endpoint = endpoint(&config());
    for uri in ["/api/orders/7/lines", "/api/orders/0/lines", "/no/such/path/at/all"] {
        send(&endpoint, get(uri)).await;
    }
    send(&endpoint, asking("BREW", "/ready")).await;
    let text = send(&endpoint, get("/metrics")).await.body;
    for series in [
        r#"_count{method="GET",route="/api/orders/{order_id}/lines",status="200"} "#,
        r#"_count{method="GET",route="/api/orders/{order_id}/lines",status="400"} "#,
        r#"_count{method="GET",route="unmatched",status="404"} "#,
        r#"_count{method="OTHER",route="/ready",status="405"} "#,
    ] {
        let series = format!("http_server_request_duration_seconds{series}");
        assert!(text.contains(&series), "{series} is missing in:\n{text}");
    }
    assert!(text.contains("\nhttp_server_active_requests "), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(!text.contains("BREW") && !text.contains("/no/such"), "{text}");
}

#[test]
fn the_document_is_complete_and_stable() {
    let text = spec::<Api>(&ABOUT);
    assert_eq!(text, spec::<Api>(&ABOUT));
    assert!(text.ends_with("}\n"));
    let spec: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(spec["info"]["license"]["name"], "Apache-2.0");
    assert_eq!(spec["servers"][0]["url"], ABOUT.server);
    assert_eq!(spec["security"], serde_json::json!([{}, {"bearer": []}]));
    assert_eq!(spec["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");

    let statuses = |path: &str, method: &str| {
        let responses = &spec["paths"][path][method]["responses"];
        let responses = responses.as_object().unwrap_or_else(|| panic!("{path}: {spec:#}"));
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
            let reference = response["$ref"].as_str().unwrap_or_else(|| panic!("{response}"));
            let response = spec.pointer(reference.trim_start_matches('#')).unwrap();
            let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{path} {status}");
            let retry = response["headers"].get("Retry-After").is_some();
            assert_eq!(retry, ["429", "503"].contains(&status.as_str()), "{path} {status}");
        }
        responses.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(statuses("/api/orders", "post"), "201 400 401 403 408 413 415 422 429 500 503 504");
    assert_eq!(statuses("/api/orders", "get"), "200 400 401 403 404 429 500 503 504");
    assert_eq!(statuses("/api/slow", "get"), "200 400 401 403 429 500 503 504");
    assert_eq!(statuses("/api/news", "get"), "200 400 401 429 500 503 504", "everybody may");
    let scope = |path: &str, method: &str| {
        let description = spec["paths"][path][method]["description"].as_str();
        let words = description.unwrap_or_default().rsplit_once("scope `").map(|(_, rest)| rest);
        words.and_then(|rest| Some(rest.split_once('`')?.0.to_owned())).unwrap_or_default()
    };
    assert_eq!(scope("/api/orders", "post"), "orders:write");
    assert_eq!(scope("/api/slow", "get"), "admin");
    assert_eq!(scope("/api/news", "get"), "");

    let create = &spec["paths"]["/api/orders"]["post"];
    assert_eq!(create["requestBody"]["required"], true);
    let order = &spec["components"]["schemas"]["NewOrder"];
    assert_eq!(order["required"], serde_json::json!(["item_id"]));
    assert_eq!(order["properties"]["item_id"]["minimum"], 1);
    let quantity = &order["properties"]["quantity"];
    assert_eq!((quantity.get("default"), &quantity["maximum"]), (None, &1_000.into()));
    assert!(quantity["description"].as_str().unwrap().ends_with("1 if it is left out."));
    assert_eq!(order["additionalProperties"], false);
    assert_eq!(spec["components"]["schemas"]["OrderCreated"].get("additionalProperties"), None);
    assert_eq!(create["responses"]["201"]["links"]["find_order"]["operationId"], "find_order");
    let reused = &spec["components"]["examples"]["idempotency-key-reused"]["value"];
    assert_eq!(reused["type"], "urn:ordersaga:problem:idempotency-key-reused");
    let id = &spec["paths"]["/api/orders"]["get"]["parameters"][0]["schema"];
    assert_eq!((&id["format"], &id["minimum"]), (&"int64".into(), &1.into()));
}

#[test]
fn problem_types_are_distinct_and_ordered() {
    let slugs: std::collections::HashSet<_> = ProblemType::ALL.map(ProblemType::slug).into();
    assert_eq!(slugs.len(), ProblemType::ALL.len());
    assert!(ProblemType::ALL.map(ProblemType::status).is_sorted());
}

#[tokio::test]
async fn a_page_of_the_service_s_own_is_kept_by_browsers_and_may_ask_the_services_alone() {
    let documents = vec![
        document("Example", "http://localhost:8000"),
        document("Far", "https://shop.example.org"),
    ];
    let hosts = vec!["shop.example.org".to_owned()];
    let config = HttpConfig { hosts, documents, ..config() };
    let files: &[(&str, &[u8])] = &[("index.html", b"<p>page</p>"), ("a/main.js", b"run()")];
    let service = HttpService::new(ABOUT, Api::default(), Health::default(), &config);
    let endpoint = service.site(files).into_endpoint();
    let ask = async |path: &str, host: &str, tag: &str| {
        let request = Request::builder().uri_str(path).header("host", host);
        send(&endpoint, request.header("if-none-match", tag).finish()).await
    };

    let page = ask("/", "localhost", "").await;
    assert_eq!((page.status, page.body.as_str()), (200, "<p>page</p>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self';"), "{policy}");
    assert!(policy.contains("'self' http://localhost:8000 https://shop.example.org;"), "{policy}");
    let script = ask("/desk/a/main.js", "localhost", "").await;
    assert!(script.header("content-type").unwrap().starts_with("text/javascript"));
    let again = ask("/desk/a/main.js", "localhost", script.header("etag").unwrap()).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let zipped = |codings: &str, tag: &str| {
        let request = Request::builder().uri_str("/desk/a/main.js").header("host", "localhost");
        request.header("accept-encoding", codings).header("if-none-match", tag).finish()
    };
    for (codings, is_zipped) in [
        ("gzip, deflate, br", true),
        ("br, GZIP;q=0.5", true),
        ("gzip;q=0, br", false),
        ("identity", false),
    ] {
        let sent = endpoint.get_response(zipped(codings, "")).await;
        let header =
            |name: &str| sent.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(header("content-encoding").is_some(), is_zipped, "{codings}");
        let tag = header("etag").unwrap();
        assert_ne!(Some(tag.as_str()) == script.header("etag"), is_zipped, "{codings}");
        let varies = sent.headers().get_all("vary").iter().any(|it| it == "Accept-Encoding");
        assert!(varies, "a cache has to tell them apart");
        let bytes = sent.into_body().into_bytes().await.unwrap();
        assert_eq!(bytes == gzip(b"run()"), is_zipped, "{codings}");
        assert_eq!(send(&endpoint, zipped(codings, &tag)).await.status, 304);
    }
    ask("/desk/b.js", "localhost", "").await.is_problem(ProblemType::NotFound, None);

    let near = ask("/desk/services.json", "localhost", "").await;
    assert_eq!(near.json()["Example"], "http://localhost:8000");
    let far = ask("/desk/services.json", "shop.example.org", "").await;
    assert_eq!(far.json(), json!({"Far": "https://shop.example.org"}));
}

#[tokio::test]
async fn a_stream_ends_with_bye_and_holds_its_place_until_then() {
    let config = HttpConfig { streams: 1, ..config() };
    let service = HttpService::new(ABOUT, Api::default(), Health::default(), &config);
    let open = |_: &Request| {
        let one = event("order", Some("7:1"), &json!({"order_id": 7})).unwrap();
        Ok(futures_util::stream::iter([one]).boxed())
    };
    let endpoint = service.stream("/api/v1/stream", Access::Public, open).into_endpoint();
    let first = endpoint.get_response(get("/api/v1/stream")).await;
    let refused = send(&endpoint, get("/api/v1/stream")).await;
    refused.is_problem(ProblemType::TooManyRequests, None);
    assert_eq!(refused.header("retry-after"), Some("10"));

    assert_eq!(first.header("cache-control"), Some("no-store, no-transform"));
    let text = first.into_body().into_string().await.unwrap();
    let (order, bye) = text.split_once("\n\n").unwrap();
    assert_eq!(order, "event: order\nid: 7:1\ndata: {\"order_id\":7}");
    assert!(bye.starts_with("event: bye\nretry: "), "{bye}");
    assert_eq!(send(&endpoint, get("/api/v1/stream")).await.status, 200);
}
