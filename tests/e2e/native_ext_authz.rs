//! The same server behind Envoy's own `ext_authz` filter: it decides and injects; nothing is scrubbed there.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Protocol, Request};
use keyward_tests::envoy::Authorizer;
use keyward_tests::stack::{Stack, UPSTREAM_AUTHORITY};
use keyward_tests::upstream::Slot;
use serde_json::{Value, json};

use crate::expect;

fn echo() -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

async fn start(name: &str, slot: Slot) -> Stack {
    let builder = Stack::builder(name).slot(slot).envoy(|envoy| envoy.authorizer = Authorizer::NativeExtAuthz);
    builder.start().await.unwrap()
}

/// What never gets to an upstream.
fn assert_clean(stack: &Stack, last: &Value) {
    let headers = last["headers"].to_string();
    for name in ["x-keyward", "authorization", "cookie", "proxy-authorization"] {
        assert!(!headers.contains(name), "{name}: {last}");
    }
    assert!(!last.to_string().contains(&stack.token), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_allowed_gets_its_credential_and_nothing_internal() {
    let stack = start("native-header", Slot::Header("x-api-key".to_owned())).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        stack.upstream.reset().await.unwrap();
        let spoofed = echo()
            .protocol(protocol)
            .header("x-api-key", "mine")
            .header("cookie", "mine=1")
            .header("proxy-authorization", "Bearer mine");
        let answer = stack.send(spoofed).await.unwrap();
        assert_eq!(expect::allowed(&stack, &answer).await, "hello");
        let last = stack.upstream.last().await.unwrap();
        let headers = last["headers"].to_string();
        assert!(headers.contains(&format!(r#"["x-api-key","{}"]"#, stack.secret)), "{last}");
        assert!(headers.contains(&format!(r#"["host","{UPSTREAM_AUTHORITY}"]"#)), "{last}");
        assert!(!headers.contains("mine"), "{last}");
        assert_clean(&stack, &last);
    }
    let record = stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!(record["server"], "demo", "{record}");
    assert_eq!(record["decision_id"].as_str().map(str::len), Some(32), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_credential_arrives_too() {
    let stack = start("native-query", Slot::Query("apiKey".to_owned())).await;
    let mut call = echo();
    call.path = "/mcp?keep=1&apiKey=mine".to_owned();
    let answer = stack.send(call).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    let last = stack.upstream.last().await.unwrap();
    let query = last["query"].as_str().unwrap();
    assert!(query.contains("keep=1") && !query.contains("mine") && query.matches("apiKey=").count() == 1, "`{query}`");
    assert_clean(&stack, &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_denied_get_the_same_answers() {
    let mut stack = start("native-denied", Slot::Header("x-api-key".to_owned())).await;
    let answer = stack.call_tool("delete_everything", json!({})).await.unwrap();
    let decision = expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
    assert_eq!(stack.server.decision(&decision).await.unwrap()["reason"], "not_allowed");

    let answer = stack.send_bare(echo()).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::Unauthenticated, 1).await;
    let answer = stack.send_bare(echo().bearer("not.a.token")).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::InvalidToken, 1).await;
    let answer = stack.send(Request::post_bytes("/mcp", "{")).await.unwrap();
    expect::denied(&stack, &answer, Reason::InvalidJson, json!(null)).await;
    let answer = stack.send(echo().without_header("mcp-name").header("mcp-name", "other")).await.unwrap();
    expect::denied(&stack, &answer, Reason::HeaderMismatch, 1).await;
    let answer = stack.send(echo().authority("evil.example")).await.unwrap();
    expect::denied(&stack, &answer, Reason::DestinationDenied, 1).await;

    stack.server.process.kill();
    let answer = stack.send(echo()).await.unwrap();
    expect::envoy_refused(&stack, &answer).await;
}
