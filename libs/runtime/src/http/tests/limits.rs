//! Failures, and the limits of time and concurrency.

use super::*;

#[tokio::test]
async fn failures_of_the_service_tell_nothing_about_it() {
    let endpoint = endpoint(&config());
    for (id, kind, retry_after) in [
        (404, ProblemType::NotFound, None),
        (429, ProblemType::TooManyRequests, Some("7")),
        (500, ProblemType::Internal, None),
        (503, ProblemType::Unavailable, Some("1")),
        (666, ProblemType::Internal, None),
    ] {
        let answer = send(&endpoint, get(&format!("/api/orders?order_id={id}"))).await;
        answer.is_problem(kind, None);
        assert_eq!(answer.header("retry-after"), retry_after);
    }
}

#[tokio::test]
async fn sane_request_ids_are_kept() {
    let endpoint = endpoint(&config());
    for uri in ["/api/orders?order_id=1", "/api/orders?order_id=0", "/nowhere", "/health"] {
        let mut request = get(uri);
        request.headers_mut().insert("x-request-id", "attempt-7".parse().unwrap());
        assert_eq!(send(&endpoint, request).await.header("x-request-id"), Some("attempt-7"));
        let mut request = get(uri);
        request.headers_mut().insert("x-request-id", "not sane".parse().unwrap());
        assert_eq!(send(&endpoint, request).await.header("x-request-id").unwrap().len(), 32);
    }
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_not_queued() {
    let api = Api::default();
    let config = HttpConfig { concurrency: 1, ..config() };
    let service = HttpService::new(ABOUT, api.clone(), Health::default(), &config);
    let endpoint = Arc::new(service.into_endpoint());
    let waiting = endpoint.clone();
    let first = tokio::spawn(async move { send(&*waiting, get("/api/slow")).await.status });
    api.entered.notified().await;

    let answer = send(&*endpoint, get("/api/orders?order_id=1")).await;
    answer.is_problem(ProblemType::TooManyRequests, None);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let metrics = send(&*endpoint, get("/metrics")).await;
    assert_eq!(metrics.status, 200, "pages have a limit of their own");
    let counted = r#"http_server_requests_shed_total{reason="concurrency"} "#;
    assert!(metrics.body.contains(counted), "{}", metrics.body);

    api.release.notify_one();
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(send(&*endpoint, get("/api/orders?order_id=1")).await.status, 200);
}

#[tokio::test]
async fn a_body_on_its_way_takes_no_place_of_those_at_work() {
    let endpoint = endpoint(&HttpConfig { concurrency: 1, ..config() });
    let stuck = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let mut request = post(r#"{"item_id":1}"#);
    request.set_body(Body::from_bytes_stream(stuck));
    let mut slow = std::pin::pin!(send(&endpoint, request));
    let patience = Duration::from_millis(300);
    assert!(tokio::time::timeout(patience, &mut slow).await.is_err());
    assert_eq!(send(&endpoint, post(r#"{"item_id":4}"#)).await.status, 201);

    // Of bodies on their way there may be as many.
    let stuck = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let mut request = post(r#"{"item_id":1}"#);
    request.set_body(Body::from_bytes_stream(stuck));
    send(&endpoint, request).await.is_problem(ProblemType::TooManyRequests, None);
    slow.await.is_problem(ProblemType::RequestTimeout, None);
}

#[tokio::test]
async fn who_waits_for_news_leaves_its_place_to_others() {
    let api = Api::default();
    let config = HttpConfig { concurrency: 1, long_polls: 1, ..config() };
    let service = HttpService::new(ABOUT, api.clone(), Health::default(), &config);
    let endpoint = Arc::new(service.into_endpoint());
    let waiting = endpoint.clone();
    let first = tokio::spawn(async move { send(&*waiting, get("/api/news")).await.status });
    api.entered.notified().await;
    assert_eq!(send(&*endpoint, get("/api/orders?order_id=1")).await.status, 200);
    send(&*endpoint, get("/api/news")).await.is_problem(ProblemType::TooManyRequests, None);
    api.release.notify_one();
    assert_eq!(first.await.unwrap(), 200);
}

#[tokio::test]
async fn a_place_is_given_back_when_the_client_goes_away() {
    let api = Api::default();
    let config = HttpConfig { concurrency: 1, ..config() };
    let service = HttpService::new(ABOUT, api.clone(), Health::default(), &config);
    let endpoint = service.into_endpoint();
    tokio::select! {
        _ = send(&endpoint, get("/api/slow")) => panic!("nothing released it"),
        () = api.entered.notified() => {}
    }
    assert_eq!(send(&endpoint, get("/api/orders?order_id=1")).await.status, 200);
}

#[tokio::test]
async fn the_time_limit_holds_except_for_long_polls() {
    let api = Api::default();
    let config = HttpConfig { timeout: Duration::from_millis(20), ..config() };
    let limited = HttpService::new(ABOUT, api.clone(), Health::default(), &config);
    let started = std::time::Instant::now();
    let answer = soon(send(&limited.into_endpoint(), get("/api/slow"))).await;
    answer.is_problem(ProblemType::Timeout, None);
    assert!(started.elapsed() >= config.timeout, "it must not give up early");

    let patient = HttpService::new(ABOUT, api.clone(), Health::default(), &config)
        .long_poll("/api/slow", Duration::from_secs(30));
    let release = api.release.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(60)).await;
        release.notify_one();
    });
    assert_eq!(send(&patient.into_endpoint(), get("/api/slow")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_never_comes_does_not_hold_the_request() {
    let endpoint = endpoint(&HttpConfig { timeout: Duration::from_millis(20), ..config() });
    let stuck = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let mut request = post(r#"{"item_id":1}"#);
    request.set_body(Body::from_bytes_stream(stuck));
    soon(send(&endpoint, request)).await.is_problem(ProblemType::RequestTimeout, None);
}
