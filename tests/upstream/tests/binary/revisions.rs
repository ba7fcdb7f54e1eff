//! Each revision gets its own right answers, with sessions and without.

use serde_json::{Value, json};

use crate::running::{Call, Upstream};

async fn session(upstream: &Upstream, revision: &str) -> String {
    let answer = upstream
        .send(Call::post(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
        }})))
        .await;
    assert_eq!(answer.message()["result"]["protocolVersion"], revision, "{}", answer.text());
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(upstream.send(in_session(&initialized, &session, revision)).await.status(), 202);
    session
}

fn in_session(body: &Value, session: &str, revision: &str) -> Call {
    let call = Call::post(body).with("mcp-session-id", session);
    if revision == "2025-03-26" { call } else { call.with("mcp-protocol-version", revision) }
}

fn call(id: u32, name: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
}

#[tokio::test]
async fn revisions_with_sessions_list_call_and_leak() {
    let upstream = Upstream::start(&[]).await;
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = session(&upstream, revision).await;
        for (method, key) in [
            ("tools/list", "tools"),
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ] {
            let body = json!({"jsonrpc": "2.0", "id": 2, "method": method});
            let message = upstream.send(in_session(&body, &session, revision)).await.message();
            assert!(!message["result"][key].as_array().unwrap().is_empty(), "{message}");
        }
        for carrier in ["text", "tcp_split", "gzip", "sse_split", "trailer"] {
            let body = call(3, "leak", json!({"carrier": carrier, "form": "json_unicode", "packing": "json"}));
            let answer = upstream.send(in_session(&body, &session, revision)).await;
            assert_eq!(answer.status(), 200, "{carrier}");
            if carrier != "gzip" {
                assert_eq!(answer.message()["id"], 3);
                assert!(answer.message()["result"]["resultType"].is_null(), "{revision}");
            }
        }
        let read =
            json!({"jsonrpc": "2.0", "id": 4, "method": "resources/read", "params": {"uri": "upstream://leak/hex"}});
        let message = upstream.send(in_session(&read, &session, revision)).await.message();
        assert!(message["result"]["contents"][0]["text"].as_str().unwrap().contains("4b77372f"));
        let end = Call { method: "DELETE", ..in_session(&json!({}), &session, revision) };
        assert!(upstream.send(end).await.status() < 300);
        let gone = upstream.send(in_session(&call(5, "echo", json!({"message": "x"})), &session, revision)).await;
        assert_eq!(gone.status(), 404);
    }
}

#[tokio::test]
async fn with_a_session_a_log_message_comes_on_the_get_stream() {
    let upstream = Upstream::start(&[]).await;
    let session_id = session(&upstream, "2025-11-25").await;
    let open = Call { method: "GET", ..in_session(&json!(""), &session_id, "2025-11-25") };
    let arguments = json!({"carrier": "log", "form": "json_unicode"});
    let leak = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        upstream.send(in_session(&call(3, "leak", arguments), &session_id, "2025-11-25")).await;
        let end = Call { method: "DELETE", ..in_session(&json!({}), &session_id, "2025-11-25") };
        upstream.send(end).await;
    };
    let (stream, ()) = tokio::join!(upstream.send(open), leak);
    assert!(stream.text().contains(r#""data":"received \u004b\u0077"#), "{}", stream.text());
}

#[tokio::test]
async fn a_batch_is_answered_element_by_element_in_its_revision_only() {
    let upstream = Upstream::start(&[]).await;
    let session_id = session(&upstream, "2025-03-26").await;
    let batch = json!([
        call(1, "echo", json!({"message": "one"})),
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        call(2, "leak", json!({"carrier": "text", "form": "json_unicode"})),
    ]);
    let answer = upstream.send(in_session(&batch, &session_id, "2025-03-26")).await;
    let answers = answer.json();
    assert_eq!(answers.as_array().unwrap().len(), 2, "{answers}");
    assert_eq!(answers[0]["result"]["content"][0]["text"], "one");
    assert!(answer.text().contains(r"received \u004b\u0077"));
    let session_id = session(&upstream, "2025-11-25").await;
    assert!(upstream.send(in_session(&batch, &session_id, "2025-11-25")).await.status() >= 400);
}

#[tokio::test]
async fn the_stateless_revision_knows_no_get_and_checks_headers() {
    let upstream = Upstream::start(&["--json-responses"]).await;
    let answer = upstream.tool("echo", json!({"message": "x"})).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["result"]["resultType"], "complete");
    let mut call = Call::tool("echo", json!({"message": "x"}));
    call.headers.retain(|(name, _)| name != "mcp-name");
    let answer = upstream.send(call).await;
    assert_eq!((answer.status(), &answer.json()["error"]["code"]), (400, &json!(-32020)));
}

#[tokio::test]
async fn only_loopback_and_allowed_authorities_may_stand_in_host_and_origin() {
    let upstream = Upstream::start(&["--allowed-host", "demo-upstream.internal:9000"]).await;
    let echo = || Call::tool("echo", json!({"message": "x"}));
    for (host, origin, expected) in [
        ("demo-upstream.internal:9000", None, 200),
        ("localhost:1", Some("http://localhost:3000"), 200),
        ("demo-upstream.internal:9000", Some("http://demo-upstream.internal:9000"), 200),
        ("demo-upstream.internal:9001", None, 403),
        ("evil.example", None, 403),
        ("localhost", Some("http://evil.example"), 403),
    ] {
        let mut call = echo().with("host", host);
        if let Some(origin) = origin {
            call = call.with("origin", origin);
        }
        assert_eq!(upstream.send(call).await.status(), expected, "{host} {origin:?}");
    }
}
