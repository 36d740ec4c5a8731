//! What clients send wrong, and right.

use super::*;

#[tokio::test]
async fn good_requests_are_answered() {
    let endpoint = endpoint(&config());
    let answer = send(&endpoint, post(r#"{"item_id": 4}"#)).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, r#"{"order_id":41}"#));
    assert_eq!(answer.header("location"), Some("/s?id=41"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-request-id").unwrap().len(), 32);

    let with_charset = post_as("application/json; charset=utf-8", r#"{"item_id":4,"quantity":9}"#);
    assert_eq!(send(&endpoint, with_charset).await.body, r#"{"order_id":49}"#);
    for uri in ["/api/orders?order_id=9223372036854775807", "/api/orders?wait_ms=0&order_id=1"] {
        assert_eq!(send(&endpoint, get(uri)).await.status, 200, "{uri}");
    }
    assert_eq!(send(&endpoint, get("/api/orders/7/lines")).await.body, r#"{"order_id":7}"#);
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let endpoint = endpoint(&config());
    for value in
        ["0", "-1", "9223372036854775808", "abc", "", "1.0", "+1", "%31%00", "1&order_id=1"]
    {
        let answer = send(&endpoint, get(&format!("/api/orders?order_id={value}"))).await;
        answer.is_problem(ProblemType::InvalidParameter, Some("order_id"));
    }
    for (uri, field) in [
        ("/api/orders", "order_id"),
        ("/api/orders?", "order_id"),
        ("/api/orders?order_id", "order_id"),
        ("/api/orders?order_id=1&orderid=1", "orderid"),
        ("/api/orders?order_id=1&wait_ms=1001", "wait_ms"),
        ("/api/orders?order_id=1&wait_ms=", "wait_ms"),
        ("/api/orders?order_id=1&wait_ms=1&wait_ms=1", "wait_ms"),
        ("/api/slow?x=1", "x"),
    ] {
        let answer = send(&endpoint, get(uri)).await;
        let problem = answer.is_problem(ProblemType::InvalidParameter, Some(field));
        assert!(!problem.detail.contains("integer_int64"), "{}", problem.detail);
    }
    let answer = send(&endpoint, get("/api/orders/0/lines")).await;
    answer.is_problem(ProblemType::InvalidParameter, None);
}

#[tokio::test]
async fn wrong_headers_are_named() {
    let endpoint = endpoint(&config());
    let with_keys = |keys: &[&[u8]]| {
        let mut request = post(r#"{"item_id":1}"#);
        for key in keys {
            let key = poem::http::HeaderValue::from_bytes(key).unwrap();
            request.headers_mut().append("idempotency-key", key);
        }
        request
    };
    for keys in [&[&b"a"[..], b"b"][..], &["ключ".as_bytes()], &[b"12345678901"], &[b""]] {
        let answer = send(&endpoint, with_keys(keys)).await;
        answer.is_problem(ProblemType::InvalidParameter, Some("Idempotency-Key"));
    }
    let answer = send(&endpoint, with_keys(&[b"used"])).await;
    answer.is_problem(ProblemType::IdempotencyKeyReused, Some("Idempotency-Key"));
    assert_eq!(send(&endpoint, with_keys(&[b"fresh"])).await.status, 201);
}

#[tokio::test]
async fn wrong_bodies_are_refused() {
    let endpoint = endpoint(&config());
    for (body, field) in [
        (r#"{"item_id":0}"#, "item_id"),
        (r#"{"item_id":"1"}"#, "item_id"),
        (r#"{"item_id":1,"quantity":1001}"#, "quantity"),
        (r#"{"item_id":1,"price":1}"#, "price"),
        ("{}", "item_id"),
    ] {
        let answer = send(&endpoint, post(body)).await;
        answer.is_problem(ProblemType::InvalidField, Some(field));
    }
    for body in ["", "{", r#"{"item_id":1}x"#] {
        send(&endpoint, post(body)).await.is_problem(ProblemType::BadRequest, None);
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""] {
        let answer = send(&endpoint, post_as(content_type, r#"{"item_id":1}"#)).await;
        answer.is_problem(ProblemType::UnsupportedMediaType, None);
    }
    let mut untyped = post(r#"{"item_id":1}"#);
    untyped.headers_mut().remove("content-type");
    send(&endpoint, untyped).await.is_problem(ProblemType::UnsupportedMediaType, None);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let endpoint = endpoint(&config());
    let of_length = |length: usize| {
        let json = r#"{"item_id":1}"#;
        post(format!("{json}{}", " ".repeat(length - json.len())))
    };
    assert_eq!(send(&endpoint, of_length(200)).await.status, 201);
    send(&endpoint, of_length(201)).await.is_problem(ProblemType::PayloadTooLarge, None);

    // Without an announced length the limit is found while reading.
    for (length, status) in [(200, 201), (201, 413)] {
        let mut request = of_length(length);
        request.headers_mut().remove("content-length");
        request.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
        assert_eq!(send(&endpoint, request).await.status, status, "{length} bytes");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let endpoint = endpoint(&config());
    for uri in ["/nowhere", "/api/orders/", "//api/orders", "/API/orders", "/docs/nothing.js"] {
        send(&endpoint, get(uri)).await.is_problem(ProblemType::NotFound, None);
    }
    for (method, uri, allow) in [
        ("DELETE", "/api/orders", "GET, HEAD, POST"),
        ("POST", "/api/slow", "GET, HEAD"),
        ("BREW", "/api/orders", "GET, HEAD, POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("HEAD", "/api/orders/1/lines", ""),
    ] {
        let answer = send(&endpoint, asking(method, uri)).await;
        if allow.is_empty() {
            assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        } else {
            answer.is_problem(ProblemType::MethodNotAllowed, None);
            assert_eq!(answer.header("allow"), Some(allow));
        }
    }
}
