//! Batches: decided element by element, and sent whole or not at all.

use keyward_contract::reason::Reason;
use keyward_tests::client::{Answer, Request};
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use crate::expect;

fn call(id: impl Into<Value>, tool: &str) -> Value {
    let params = json!({"name": tool, "arguments": {"message": "hello"}});
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params})
}

async fn send(stack: &Stack, batch: &Value) -> Answer {
    stack.upstream.reset().await.unwrap();
    stack.send(Request::post("/mcp", batch)).await.unwrap()
}

fn reason_of(answer: &Answer, id: &Value) -> String {
    let body = answer.json().unwrap();
    let found = body.as_array().and_then(|elements| elements.iter().find(|element| &element["id"] == id));
    let found = found.unwrap_or_else(|| unreachable!("no answer to {id}: {body}"));
    assert_eq!(found["jsonrpc"], "2.0", "{found}");
    let reason = found["error"]["data"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(found["error"]["code"], Reason::from_code(&reason).unwrap().json_rpc(), "{found}");
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_whole_or_not_at_all() {
    let stack = Stack::builder("parsing-batch").start().await.unwrap();
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});

    // All allowed: one request at the upstream, which gets every element.
    let batch = json!([call(1, "echo"), notification, call("two", "echo")]);
    let answer = send(&stack, &batch).await;
    assert_eq!(stack.upstream.count().await.unwrap(), 1, "{}", answer.text());
    let sent: Value = serde_json::from_str(stack.upstream.last().await.unwrap()["body"].as_str().unwrap()).unwrap();
    assert_eq!(sent, batch);

    // One denied: nothing is sent, and each request gets its own error.
    let answer = send(&stack, &json!([call(1, "echo"), call("two", "delete_everything"), call(3, "echo")])).await;
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json().unwrap().as_array().map(Vec::len), Some(3));
    for (id, reason) in
        [(json!(1), "batch_member_denied"), (json!("two"), "not_allowed"), (json!(3), "batch_member_denied")]
    {
        assert_eq!(reason_of(&answer, &id), reason, "{id}");
    }
    let decision = answer.json().unwrap()[0]["error"]["data"]["decision_id"].as_str().unwrap().to_owned();
    let record = stack.server.decision(&decision).await.unwrap();
    assert_eq!(record["operation_count"], 3, "{record}");
    assert_eq!(record["operations"][1]["target"], "delete_everything", "{record}");

    // A denied notification keeps the rest here, too, and has no answer of its own.
    let forbidden = json!({"jsonrpc": "2.0", "method": "notifications/no_such_thing"});
    let answer = send(&stack, &json!([call(1, "echo"), forbidden])).await;
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    assert_eq!(answer.json().unwrap().as_array().map(Vec::len), Some(1), "{}", answer.text());
    assert_eq!(reason_of(&answer, &json!(1)), "batch_member_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_none_is_refused() {
    let stack = Stack::builder("parsing-no-batch").start().await.unwrap();
    let many: Vec<Value> = (0..65).map(|id| call(id, "echo")).collect();
    let cases = [
        ("empty", json!([]), Reason::InvalidRequest),
        ("not of objects", json!([1, 2]), Reason::InvalidRequest),
        ("nested", json!([[call(1, "echo")]]), Reason::InvalidRequest),
        ("with an id twice", json!([call(1, "echo"), call(1, "echo")]), Reason::InvalidRequest),
        ("with a malformed element", json!([call(1, "echo"), {"jsonrpc": "2.0"}]), Reason::InvalidRequest),
        ("too long", json!(many), Reason::RequestTooLarge),
    ];
    for (name, batch, reason) in cases {
        let answer = send(&stack, &batch).await;
        println!("{name}: {}", answer.status);
        expect::denied(&stack, &answer, reason, json!(null)).await;
    }
    for revision in ["2025-06-18", "2025-11-25", "2026-07-28"] {
        stack.upstream.reset().await.unwrap();
        let request = Request::post("/mcp", &json!([call(1, "echo")])).header("mcp-protocol-version", revision);
        let answer = stack.send(request).await.unwrap();
        expect::denied(&stack, &answer, Reason::InvalidRequest, json!(null)).await;
    }
    // The revision itself may be named.
    let request = Request::post("/mcp", &json!([call(1, "echo")])).header("mcp-protocol-version", "2025-03-26");
    let answer = stack.send(request).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 1, "{}", answer.text());
}
