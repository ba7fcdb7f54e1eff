//! Headers and body agree, the revision is known, the message is one.

use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Protocol, Request, RequestBody};
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use crate::{expect, leak};

fn echo(id: impl Into<Value>) -> Request {
    agent::tool_call(id, "echo", json!({"message": "hello"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_contradict_the_body_are_refused() {
    let stack = Stack::builder("parsing-headers").policy(leak::POLICY).start().await.unwrap();
    let without = |name: &str| echo(5).without_header(name);
    let resource = agent::request(5, "resources/read", json!({"uri": "upstream://about"}));
    let cases = [
        ("another method", without("mcp-method").header("mcp-method", "tools/list")),
        ("the method in another case", without("mcp-method").header("mcp-method", "Tools/Call")),
        ("no method", without("mcp-method")),
        ("two methods", echo(5).header("mcp-method", "tools/list")),
        ("another name", without("mcp-name").header("mcp-name", "delete_everything")),
        ("no name", without("mcp-name")),
        ("two names", echo(5).header("mcp-name", "delete_everything")),
        ("another name in base64", without("mcp-name").header("mcp-name", "=?base64?ZGVsZXRl?=")),
        ("a name that is no base64", without("mcp-name").header("mcp-name", "=?base64?!!!?=")),
        ("a name of other bytes", without("mcp-name").header("mcp-name", b"ech\xc3\xb6")),
        ("another resource", resource.without_header("mcp-name").header("mcp-name", "upstream://other")),
        ("a malformed parameter", echo(5).header("mcp-param-message", "=?base64?!!!?=")),
        ("another revision", without("mcp-protocol-version").header("mcp-protocol-version", "2025-11-25")),
        ("no revision", without("mcp-protocol-version")),
    ];
    for (name, request) in cases {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let answer = stack.send(request.clone().protocol(protocol)).await.unwrap();
            println!("{name}: {} {}", answer.status, answer.text());
            expect::denied(&stack, &answer, Reason::HeaderMismatch, 5).await;
        }
    }
    // What mirrors the body means nothing in an earlier revision, so nobody may send it.
    let message = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "echo"}});
    for revision in agent::WITH_SESSIONS {
        let request = agent::earlier_request(revision, &message).header("mcp-name", "echo");
        let answer = stack.send(request).await.unwrap();
        expect::denied(&stack, &answer, Reason::HeaderMismatch, 5).await;
    }
    // The same in base64 is the same.
    let answer = stack.send(without("mcp-name").header("mcp-name", "=?base64?ZWNobw==?=")).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_revision_is_refused_with_the_known_ones() {
    let stack = Stack::builder("parsing-revision").policy(leak::POLICY).start().await.unwrap();
    for revision in ["2024-11-05", "2027-01-01", "1", "2025-06-18, 2025-11-25", "latest"] {
        let message = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list"});
        let request = Request::post("/mcp", &message).header("mcp-protocol-version", revision);
        let answer = stack.send(request).await.unwrap();
        expect::denied(&stack, &answer, Reason::UnsupportedRevision, "a").await;
        let data = &answer.json().unwrap()["error"]["data"];
        assert_eq!(data["requested"], revision, "{data}");
        assert_eq!(data["supported"], json!(["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]), "{data}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_a_revision_lacks_are_not_allowed() {
    let stack = Stack::builder("parsing-methods").policy(leak::POLICY).start().await.unwrap();
    let cases = [
        (Method::GET, agent::NEWEST, "POST"),
        (Method::DELETE, agent::NEWEST, "POST"),
        (Method::PUT, agent::NEWEST, "POST"),
        (Method::PATCH, "2025-11-25", "GET"),
        (Method::OPTIONS, "2025-11-25", "GET"),
        (Method::HEAD, agent::NEWEST, "POST"),
    ];
    for (method, revision, allowed) in cases {
        let request = Request::new(method.clone(), "/mcp").header("mcp-protocol-version", revision);
        let answer = stack.send(request).await.unwrap();
        assert_eq!(answer.status, 405, "{method} {revision}: {}", answer.text());
        assert!(answer.header("allow").contains(allowed), "{method} {revision}: {:?}", answer.headers);
        if method != Method::HEAD {
            expect::plainly_denied(&stack, &answer, Reason::MethodNotAllowed).await;
        }
        assert_eq!(stack.upstream.count().await.unwrap(), 0);
    }
    // No tunnel, whatever the revision.
    let request = echo(1).header("upgrade", "websocket").header("connection", "upgrade");
    let answer = stack.send(request).await.unwrap();
    assert!(answer.status.is_client_error(), "{}", answer.status);
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_with_its_id_where_it_has_one() {
    let stack = Stack::builder("parsing-malformed").policy(leak::POLICY).start().await.unwrap();
    let message = |changes: Value| {
        let mut message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo"}});
        for (name, value) in changes.as_object().unwrap() {
            message[name] = value.clone();
        }
        message
    };
    let without = |name: &str| {
        let mut message = message(json!({}));
        message.as_object_mut().unwrap().remove(name);
        message
    };
    let cases = [
        ("no version", without("jsonrpc"), Reason::InvalidRequest, json!(7)),
        ("version 1", message(json!({"jsonrpc": "1.0"})), Reason::InvalidRequest, json!(7)),
        ("no method", without("method"), Reason::InvalidRequest, json!(null)),
        ("method of a number", message(json!({"method": 1})), Reason::InvalidRequest, json!(7)),
        ("id null", message(json!({"id": null})), Reason::InvalidRequest, json!(null)),
        ("id of a fraction", message(json!({"id": 1.5})), Reason::InvalidRequest, json!(null)),
        ("id of an object", message(json!({"id": {}})), Reason::InvalidRequest, json!(null)),
        ("id of a request missing", without("id"), Reason::InvalidRequest, json!(null)),
        ("params of a list", message(json!({"params": []})), Reason::InvalidRequest, json!(7)),
        ("params missing", without("params"), Reason::InvalidParams, json!(7)),
        ("name missing", message(json!({"params": {}})), Reason::InvalidParams, json!(7)),
        ("name of a number", message(json!({"params": {"name": 1}})), Reason::InvalidParams, json!(7)),
        (
            "arguments of a list",
            message(json!({"params": {"name": "echo", "arguments": []}})),
            Reason::InvalidParams,
            json!(7),
        ),
        ("another member", message(json!({"extra": 1})), Reason::InvalidRequest, json!(7)),
        ("a result, too", message(json!({"result": {}})), Reason::InvalidRequest, json!(7)),
        ("a text", json!("tools/call"), Reason::InvalidRequest, json!(null)),
    ];
    for (name, body, reason, id) in cases {
        let answer = stack.send(agent::earlier_request("2025-06-18", &body)).await.unwrap();
        println!("{name}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status, 400, "{name}");
        expect::denied(&stack, &answer, reason, id).await;
    }
    // The newest revision demands `_meta`.
    let mut body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"});
    for params in [json!({}), json!({"_meta": {}}), json!({"_meta": {"io.modelcontextprotocol/protocolVersion": 1}})] {
        body["params"] = params;
        let request = Request::post("/mcp", &body).header("mcp-protocol-version", agent::NEWEST);
        let answer = stack.send(request.header("mcp-method", "tools/list")).await.unwrap();
        expect::denied(&stack, &answer, Reason::InvalidParams, 7).await;
    }
    // A body that calls itself something else is not read at all.
    let other_type = |value: &str| echo(7).without_header("content-type").header("content-type", value);
    let gzip = echo(7).header("content-encoding", "gzip");
    for request in [other_type("text/plain"), other_type("application/json; charset=utf-16"), gzip] {
        let answer = stack.send(request).await.unwrap();
        expect::denied(&stack, &answer, Reason::InvalidRequest, json!(null)).await;
    }
    let mut with_body = Request::new(Method::GET, "/mcp").header("mcp-protocol-version", "2025-11-25");
    with_body.body = RequestBody::Whole("{}".into());
    let answer = stack.send(with_body).await.unwrap();
    expect::plainly_denied(&stack, &answer, Reason::InvalidRequest).await;
}
