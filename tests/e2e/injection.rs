//! The upstream gets its credential, exactly where it wants it, and nothing of the agent's.

use http::Method;
use keyward_tests::agent;
use keyward_tests::client::{Protocol, Request};
use keyward_tests::stack::{SUBJECT, Stack, UPSTREAM_AUTHORITY};
use keyward_tests::upstream::Slot;
use serde_json::{Value, json};

use crate::expect;

/// All values of a header of the request that the upstream received last, as it reports them.
pub(crate) fn header(last: &Value, name: &str) -> Vec<String> {
    let of_pair = |pair: &Value| {
        let (key, value) = (pair.get(0)?.as_str()?, pair.get(1)?.as_str()?);
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    };
    last["headers"].as_array().map(|pairs| pairs.iter().filter_map(of_pair).collect()).unwrap_or_default()
}

fn echo() -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_gets_the_key_and_the_agent_its_answer() {
    let stack = Stack::builder("injection-header").start().await.unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo().protocol(protocol)).await.unwrap();
        assert_eq!(expect::allowed(&stack, &answer).await, "hello");
        let last = stack.upstream.last().await.unwrap();
        assert_eq!(header(&last, "x-api-key"), [stack.secret.as_str()]);
        assert_eq!(header(&last, "host"), [UPSTREAM_AUTHORITY]);
        assert!(header(&last, "authorization").is_empty(), "{last}");
        assert!(!last.to_string().contains(&stack.token), "the agent's token reached the upstream");
        assert!(!String::from_utf8_lossy(&answer.everything()).contains(&stack.secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_travels_as_a_query_parameter() {
    let stack = Stack::builder("injection-query").slot(Slot::Query("apiKey".to_owned())).start().await.unwrap();
    // What the client put there is gone. (The server refuses another spelling of its name.)
    let mut call = echo();
    call.path = "/mcp?keep=a%20b&apiKey=mine&keep=c".to_owned();
    let answer = stack.send(call).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    let last = stack.upstream.last().await.unwrap();
    let query = last["query"].as_str().unwrap_or_default();
    assert!(query.contains("keep=a%20b") && query.contains("keep=c"), "`{query}`");
    assert!(!query.contains("mine"), "`{query}`");
    assert_eq!(query.matches("apiKey=").count(), 1, "`{query}`");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_travels_as_a_basic_password() {
    let stack = Stack::builder("injection-basic").slot(Slot::Basic("svc".to_owned())).start().await.unwrap();
    let answer = stack.send(echo()).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    let sent = header(&stack.upstream.last().await.unwrap(), "authorization");
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].starts_with("Basic "), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_value_in_the_slot_never_arrives() {
    let stack = Stack::builder("injection-spoofed-slot").start().await.unwrap();
    let call = echo()
        .header("x-api-key", "mine")
        .header("X-API-Key", "mine too")
        .header("cookie", "session=mine")
        .header("proxy-authorization", "Bearer mine")
        .header("x-forwarded-authorization", "Bearer mine")
        .header("dpop", "mine")
        .header("x-keyward-scrub", "mine")
        .header("x-keyward-anything", "mine")
        .header("x-custom", "kept");
    let answer = stack.send(call).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    let last = stack.upstream.last().await.unwrap();
    assert_eq!(header(&last, "x-api-key"), [stack.secret.as_str()]);
    assert_eq!(header(&last, "x-custom"), ["kept"]);
    assert!(!last["headers"].to_string().contains("mine"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_credentials_are_both_injected() {
    let stack = Stack::builder("injection-two")
        .config(|config| {
            let second = json!({
                "type": "header", "name": "x-tenant-key", "template": "Key {secret}",
                "secret": {"ref": "file://secrets/second.json", "json_key": "key"},
            });
            if let Some(credentials) = config["bindings"][0]["credentials"].as_array_mut() {
                credentials.push(second);
            }
        })
        .file("secrets/second.json", r#"{"key": "second-secret-value"}"#)
        .start()
        .await
        .unwrap();
    let answer = stack.send(echo()).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    let last = stack.upstream.last().await.unwrap();
    assert_eq!(header(&last, "x-api-key"), [stack.secret.as_str()]);
    assert_eq!(header(&last, "x-tenant-key"), ["Key second-secret-value"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_gets_through_with_its_session() {
    let stack = Stack::builder("injection-revisions").start().await.unwrap();
    for revision in agent::WITH_SESSIONS {
        let session = stack.session(revision).await.unwrap();
        let answer = session.call_tool(2, "echo", json!({"message": revision})).await.unwrap();
        assert_eq!(answer.result().unwrap()["content"][0]["text"], revision);
        if session.id.is_some() {
            let mut end = session.stream();
            end.method = Method::DELETE;
            let answer = end.send(stack.agents).await.unwrap();
            assert!(answer.status.is_success() || answer.status == 405, "{}", answer.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_call_is_audited_without_its_secret() {
    let stack = Stack::builder("injection-audit").start().await.unwrap();
    let answer = stack.send(echo()).await.unwrap();
    expect::allowed(&stack, &answer).await;
    let record = stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!(record["event"], "decision", "{record}");
    assert_eq!(record["server"], "demo", "{record}");
    assert_eq!(record["principal"]["subject"], SUBJECT, "{record}");
    assert_eq!(record["operations"][0]["method"], "tools/call", "{record}");
    assert_eq!(record["operations"][0]["target"], "echo", "{record}");
    assert_eq!(record["bindings"][0]["id"], "demo-api-key", "{record}");
    assert_eq!(record["protocol_revision"], agent::NEWEST, "{record}");
    let written = stack.everything_written().await.unwrap();
    assert!(!written.contains(&stack.secret), "the secret was written somewhere");
    assert!(!written.contains(&stack.token), "the token was written somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_used_without_a_restart() {
    let stack = Stack::builder("injection-rotation").start().await.unwrap();
    expect::allowed(&stack, &stack.send(echo()).await.unwrap()).await;
    stack.change_file("secrets/demo", "rotated-secret-value").unwrap();
    let started = std::time::Instant::now();
    loop {
        // The upstream refuses the new key, but reports what it received.
        let _ = stack.send(echo()).await.unwrap();
        let sent = header(&stack.upstream.last().await.unwrap(), "x-api-key");
        if sent == ["rotated-secret-value"] {
            return;
        }
        assert!(started.elapsed().as_secs() < 10, "still the old secret: {sent:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
