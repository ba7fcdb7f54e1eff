//! What the tests expect of an answer: the shapes that docs/check-contract.md promises.

use http::StatusCode;
use keyward_contract::reason::Reason;
use keyward_tests::client::Answer;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

/// The answer is Keyward's JSON-RPC error for this reason and request id, and the upstream received nothing. Returns
/// the decision id; empty where the reason needs no decision.
pub(crate) async fn denied(stack: &Stack, answer: &Answer, reason: Reason, id: impl Into<Value>) -> String {
    let id = id.into();
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "the upstream received a request; answer: {}", answer.text());
    json_rpc_error(answer, reason, &id)
}

/// The answer is a JSON-RPC error of Keyward's for this reason and request id.
pub(crate) fn json_rpc_error(answer: &Answer, reason: Reason, id: &Value) -> String {
    let text = answer.text();
    assert_eq!(answer.status.as_u16(), reason.http_status(), "{text}");
    assert!(answer.header("content-type").starts_with("application/json"), "{:?}", answer.headers);
    assert_eq!(answer.header("content-length"), text.len().to_string());
    let body = answer.json().unwrap();
    assert_eq!(body["jsonrpc"], "2.0", "{text}");
    assert_eq!(&body["id"], id, "{text}");
    assert_eq!(body["error"]["code"], json!(reason.json_rpc()), "{text}");
    assert_eq!(body["error"]["message"].as_str().map(str::is_empty), Some(false), "{text}");
    assert_eq!(body["error"]["data"]["reason"], reason.code(), "{text}");
    assert!(body.get("result").is_none(), "{text}");
    if reason.http_status() == 200 {
        let decision = body["error"]["data"]["decision_id"].as_str().unwrap_or_default();
        assert!(decision.len() == 32 && decision.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    }
    body["error"]["data"]["decision_id"].as_str().unwrap_or_default().to_owned()
}

/// The answer is a 401 that names the scheme, as RFC 6750 says, and the upstream received nothing.
pub(crate) async fn unauthenticated(stack: &Stack, answer: &Answer, reason: Reason, id: impl Into<Value>) {
    denied(stack, answer, reason, id).await;
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("Bearer "), "`{challenge}`");
    let says_invalid = challenge.contains("error=\"invalid_token\"");
    assert_eq!(says_invalid, reason == Reason::InvalidToken, "`{challenge}`");
}

/// The answer is a plain HTTP error of Keyward's for this reason, and the upstream received nothing.
pub(crate) async fn plainly_denied(stack: &Stack, answer: &Answer, reason: Reason) {
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "the upstream received a request; answer: {}", answer.text());
    assert_eq!(answer.status.as_u16(), reason.plain_status(), "{}", answer.text());
    let body = answer.json().unwrap();
    assert_eq!(body["error"]["reason"], reason.code(), "{body}");
    assert_eq!(body["error"]["message"].as_str().map(str::is_empty), Some(false), "{body}");
}

/// Envoy itself answered with an error, and the upstream received nothing.
pub(crate) async fn envoy_refused(stack: &Stack, answer: &Answer) {
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "the upstream received a request; answer: {}", answer.text());
    assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{}", answer.status);
    assert!(answer.broken.is_none(), "{:?}", answer.broken);
}

/// The call went through: one request at the upstream and a result. Returns the text of its first content.
pub(crate) async fn allowed(stack: &Stack, answer: &Answer) -> String {
    let result = answer.result().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(stack.upstream.count().await.unwrap(), 1);
    assert_ne!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// None of these values stands in anything that any part wrote.
pub(crate) async fn nothing_written(stack: &Stack, values: &[&str]) {
    let written = stack.everything_written().await.unwrap();
    for value in values {
        assert!(!written.contains(value), "a secret stands in a log, a record or an admin page");
    }
}
