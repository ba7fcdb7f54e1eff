//! Bodies and streams that try to get past the filter.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method};
use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Protocol, Request};
use keyward_tests::envoy::UpstreamCluster;
use keyward_tests::stack::Stack;
use serde_json::json;

use crate::expect;

fn forbidden() -> Request {
    agent::tool_call(1, "delete_everything", json!({}))
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    trailers
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_do_not_get_past_the_check() {
    let stack = Stack::builder("deny-trailers").start().await.unwrap();
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let answer = stack.send(forbidden().protocol(protocol).trailers(trailers())).await.unwrap();
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;

        let chunked = forbidden().chunked(7, Duration::from_millis(1)).protocol(protocol).trailers(trailers());
        let answer = stack.send(chunked).await.unwrap();
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
    }
    let allowed = agent::tool_call(1, "echo", json!({"message": "hello"})).protocol(Protocol::Http2);
    let answer = stack.send(allowed.trailers(trailers())).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_stay_here() {
    let stack = Stack::builder("deny-trailers-http2")
        .envoy(|envoy| envoy.upstream = UpstreamCluster { http2: true, ..envoy.upstream.clone() })
        .start()
        .await
        .unwrap();
    let call =
        || agent::tool_call(1, "echo", json!({"message": "hello"})).protocol(Protocol::Http2).trailers(trailers());
    let received = async || stack.upstream.last().await.unwrap()["trailers"].to_string();
    let straight = call().header("x-api-key", &stack.secret).send(stack.upstream.address).await.unwrap();
    assert_eq!(straight.status, 200);
    assert!(received().await.contains("x-checksum"), "the upstream does not show trailers: {}", received().await);
    // Nobody decided on what they say.
    stack.upstream.reset().await.unwrap();
    let answer = stack.send(call()).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    assert_eq!(received().await, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_small_pieces_is_read_whole() {
    let stack = Stack::builder("deny-chunked").start().await.unwrap();
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let answer = stack.send(forbidden().protocol(protocol).chunked(1, Duration::ZERO)).await.unwrap();
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_body_is_no_call() {
    let stack = Stack::builder("deny-no-body").start().await.unwrap();
    let mut request = forbidden();
    request.body = keyward_tests::client::RequestBody::Empty;
    for request in [request.clone(), request.protocol(Protocol::Http2).trailers(trailers())] {
        let answer = stack.send(request).await.unwrap();
        expect::denied(&stack, &answer, Reason::InvalidJson, json!(null)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_under_the_limit_is_decided_on() {
    let stack = Stack::builder("deny-not-too-large").start().await.unwrap();
    let message = "a".repeat(1_000_000);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let call = agent::tool_call(1, "echo", json!({"message": message.as_str()})).protocol(protocol);
        for call in [call.clone(), call.chunked(65_536, Duration::ZERO)] {
            let answer = stack.send(call).await.unwrap();
            // By the policy, which allows no such message: the whole body came to the server.
            expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused() {
    let stack = Stack::builder("deny-large-body").start().await.unwrap();
    // Over the filter's limit but under Envoy's: the filter answers.
    let over_filter = agent::tool_call(1, "echo", json!({"message": "a".repeat(1_050_000)}));
    for request in [over_filter.clone(), over_filter.chunked(65_536, Duration::ZERO)] {
        let answer = stack.send(request.clone().protocol(Protocol::Http2)).await.unwrap();
        assert_eq!(answer.status, 413, "{}", answer.text());
        expect::denied(&stack, &answer, Reason::RequestTooLarge, json!(null)).await;
        // An HTTP/1.1 client that is still sending may lose the answer with the connection (RFC 9112 section 9.6).
        refused_or_cut(&stack, request).await;
    }
    // Over both, in pieces: whoever answers, nothing goes through.
    let over_both = agent::tool_call(1, "echo", json!({"message": "a".repeat(3_000_000)}));
    refused_or_cut(&stack, over_both.chunked(65_536, Duration::ZERO)).await;
}

async fn refused_or_cut(stack: &Stack, request: Request) {
    let answer = stack.send(request).await;
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_in_time_is_refused() {
    let stack = Stack::builder("deny-slow-body")
        .envoy(|envoy| envoy.plugin.push(("body_timeout_ms".to_owned(), json!(500))))
        .start()
        .await
        .unwrap();
    let mut slow = forbidden().chunked(10, Duration::from_millis(300));
    slow.limit = Duration::from_secs(10);
    let answer = stack.send(slow).await.unwrap();
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let mut stack = Stack::builder("deny-gone-client").start().await.unwrap();
    stack.server.freeze(true).unwrap();
    let call = agent::tool_call(1, "echo", json!({"message": "hello"})).bearer(&stack.token);
    let mut impatient = call.clone();
    impatient.limit = Duration::from_millis(200);
    assert!(impatient.send(stack.agents).await.is_err(), "a frozen server decided");
    // Envoy has to hear of it first, which a busy machine delays; the server is frozen until then.
    let began = Instant::now();
    while stack.envoy.stat("http.agents.downstream_rq_active").await.unwrap() != 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "Envoy still has the request of a client that is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stack.server.freeze(false).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "the call of a client that is gone reached the upstream");

    let answer = call.send(stack.agents).await.unwrap();
    expect::allowed(&stack, &answer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_and_the_end_of_a_session_need_a_token_too() {
    let stack = Stack::builder("deny-get-delete").start().await.unwrap();
    for method in [Method::GET, Method::DELETE] {
        let request = Request::new(method, "/mcp")
            .header("accept", "text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .header("mcp-session-id", "guessed");
        let answer = stack.send_bare(request).await.unwrap();
        expect::plainly_denied(&stack, &answer, Reason::Unauthenticated).await;
        assert!(answer.header("www-authenticate").starts_with("Bearer "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_two_readers_could_read_differently_are_refused() {
    let stack = Stack::builder("deny-paths").start().await.unwrap();
    for path in ["/mcp%2f..%2fadmin", "/%2e%2e/mcp", "/mcp/..;/x", "/mcp%00", "/other"] {
        let mut request = forbidden();
        path.clone_into(&mut request.path);
        let answer = stack.send(request).await.unwrap();
        assert_eq!(stack.upstream.count().await.unwrap(), 0, "{path}");
        assert_ne!(answer.json().ok().and_then(|body| body.get("result").cloned()), Some(json!({})), "{path}");
    }
}
