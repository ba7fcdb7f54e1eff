//! What a denied request is told, for every reason.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::scene::{Ask, DECISION_ID, SECRET, Scene, call, rpc};

/// Changes a request that would be allowed into one that is not.
type Spoil = fn(&mut Ask);

#[tokio::test]
async fn every_denial_is_well_formed_and_recorded() {
    let cases: [(&str, Spoil, i32, i64, &str, &str); 19] = [
        ("no token", |ask| ask.token = None, 401, -32001, "unauthenticated", "identity"),
        ("bad token", |ask| ask.token = Some("Bearer forged"), 401, -32001, "invalid_token", "identity"),
        ("keys away", |ask| ask.token = Some("Bearer keys-are-away"), 200, -32006, "decision_unavailable", "identity"),
        ("panic", |ask| ask.token = Some("Bearer panic"), 200, -32006, "decision_unavailable", "identity"),
        ("host", |ask| ask.host = "evil.example", 200, -32004, "destination_denied", "perimeter"),
        ("userinfo", |ask| ask.host = "mcp.example@evil.example", 200, -32004, "destination_denied", "perimeter"),
        ("dot segment", |ask| ask.path = "/mcp/../admin", 200, -32004, "destination_denied", "perimeter"),
        ("encoded slash", |ask| ask.path = "/mcp%2fadmin", 200, -32004, "destination_denied", "perimeter"),
        ("outside the prefix", |ask| ask.path = "/mcpx", 200, -32004, "destination_denied", "perimeter"),
        ("unknown server", |ask| ask.server = Some("nowhere"), 200, -32004, "destination_denied", "perimeter"),
        ("another's host", |ask| ask.host = "plain.example", 200, -32004, "destination_denied", "perimeter"),
        (
            "cluster",
            |ask| (ask.host, ask.cluster) = ("cluster.example", Some("green")),
            200,
            -32004,
            "destination_denied",
            "perimeter",
        ),
        ("unknown tool", |ask| *ask = call("delete_everything"), 200, -32003, "not_allowed", "policy"),
        ("policy fails", |ask| *ask = call("broken"), 200, -32003, "not_allowed", "policy"),
        (
            "argument",
            |ask| ask.body = ask.body.replace("canary-argument", "forbidden argument"),
            200,
            -32003,
            "not_allowed",
            "policy",
        ),
        ("credential's host", |ask| *ask = call("elsewhere"), 200, -32004, "destination_denied", "binding"),
        ("respelled parameter", |ask| ask.path = "/mcp?api%4Bey=x", 400, -32600, "invalid_request", "credential"),
        (
            "too large",
            |ask| ask.body = ask.body.replace("canary-argument", &"x".repeat(70_000)),
            413,
            -32600,
            "request_too_large",
            "request",
        ),
        ("length", |ask| ask.headers.push(("content-length", "3".into())), 400, -32600, "invalid_request", "request"),
    ];
    let scene = Scene::start().await;
    for (name, spoil, status, code, reason, stage) in cases {
        let mut ask = call("echo");
        spoil(&mut ask);
        let answer = scene.check(&ask).await;
        let (got_status, headers, body) = answer.denied();
        assert_eq!(got_status, status, "{name}: {body}");
        assert_eq!(answer.code(), if status == 401 { 16 } else { 7 }, "{name}");
        assert_eq!(body["error"]["code"], code, "{name}: {body}");
        assert_eq!(body["error"]["data"]["reason"], reason, "{name}: {body}");
        assert_eq!(body["error"]["data"]["decision_id"], DECISION_ID, "{name}: {body}");
        if stage != "request" {
            assert_eq!(body["id"], 7, "{name}: {body}");
            assert_eq!(body["error"]["data"]["policy_revision"], "rev1", "{name}: {body}");
        }
        assert!(headers.contains(&("content-type".into(), "application/json".into())), "{name}");
        assert_eq!(headers.iter().any(|(name, _)| name == "www-authenticate"), status == 401, "{name}");
        let record = scene.last_decision();
        assert_eq!(record["decision"], "deny", "{name}");
        assert_eq!((&record["stage"], &record["reason"]), (&json!(stage), &json!(reason)), "{name}: {record}");
    }
}

#[tokio::test]
async fn malformed_messages_are_answered_as_the_revision_prescribes() {
    let scene = Scene::start().await;
    let cases = [
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, 400, -32700, Value::Null),
        (r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{}}"#, 400, -32602, json!(9)),
        ("[]", 400, -32600, Value::Null),
        ("", 400, -32700, Value::Null),
    ];
    for (text, status, code, id) in cases {
        let mut ask = call("echo");
        ask.body = text.into();
        let (got_status, _, body) = scene.check(&ask).await.denied();
        assert_eq!((got_status, &body["error"]["code"], &body["id"]), (status, &json!(code), &id), "{text}: {body}");
        assert_eq!(body["error"]["data"]["decision_id"], DECISION_ID, "{text}: {body}");
        // Who is not recognised does not even learn that.
        ask.token = None;
        assert_eq!(scene.check(&ask).await.denied().0, 401, "{text}");
    }
    let mut ask = rpc(&json!({}));
    (ask.method, ask.body) = ("PUT", String::new());
    let (status, headers, _) = scene.check(&ask).await.denied();
    assert_eq!(status, 405);
    assert!(headers.iter().any(|(name, _)| name == "allow"));
}

#[tokio::test]
async fn the_challenge_says_whether_there_was_a_token() {
    let scene = Scene::start().await;
    for (token, challenge) in
        [(None, r#"Bearer realm="keyward""#), (Some("Bearer x"), r#"Bearer realm="keyward", error="invalid_token""#)]
    {
        let mut ask = call("echo");
        ask.token = token;
        let (_, headers, _) = scene.check(&ask).await.denied();
        assert!(headers.contains(&("www-authenticate".into(), challenge.into())), "{headers:?}");
    }
}

#[tokio::test]
async fn a_denied_batch_answers_each_request() {
    let scene = Scene::start().await;
    let call =
        |id: &str, tool: &str| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}});
    let mut ask = rpc(&json!([call("a", "echo"), note, call("b", "delete_everything")]));
    ask.headers.retain(|(name, _)| *name != "mcp-protocol-version");
    let (status, _, body) = scene.check(&ask).await.denied();
    assert_eq!(status, 200);
    let answers: Vec<_> =
        body.as_array().unwrap().iter().map(|one| (&one["id"], &one["error"]["data"]["reason"])).collect();
    assert_eq!(answers, [(&json!("a"), &json!("batch_member_denied")), (&json!("b"), &json!("not_allowed"))]);
    let record = scene.last_decision();
    assert_eq!(record["operations"][2]["reason"], "not_allowed");
}

#[tokio::test]
async fn where_there_is_no_request_to_answer_the_denial_is_plain() {
    let scene = Scene::start().await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}});
    for (name, mut ask) in [("notification", rpc(&note)), ("stream", rpc(&json!({}))), ("http", call("echo"))] {
        match name {
            "stream" => (ask.method, ask.body) = ("GET", String::new()),
            "http" => ask.server = Some("plain"),
            _ => {}
        }
        ask.host = "evil.example";
        let (status, _, body) = scene.check(&ask).await.denied();
        assert_eq!(status, 403, "{name}");
        assert_eq!(body["error"]["reason"], "destination_denied", "{name}: {body}");
        assert_eq!(body["error"]["decision_id"], DECISION_ID, "{name}: {body}");
    }
}

#[tokio::test]
async fn a_plain_body_of_which_only_a_part_is_here_is_refused() {
    let scene = Scene::start().await;
    let ask = |method: &'static str, body: &str, header: Option<(&'static str, &str)>| {
        let headers = header.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        let (host, body) = ("plain.example", body.to_owned());
        Ask { filter: false, server: None, host, method, headers, body, ..rpc(&json!({})) }
    };
    for (body, name, value) in [
        ("the beginning", "x-envoy-auth-partial-body", "true"),
        ("", "content-length", "400"),
        ("", "transfer-encoding", "chunked"),
    ] {
        let (status, _, body) = scene.check(&ask("POST", body, Some((name, value)))).await.denied();
        assert_eq!((status, &body["error"]["reason"]), (400, &json!("invalid_request")), "{name}: {body}");
        assert_eq!(scene.last_decision()["stage"], "request", "{name}");
    }
    for (method, body, header) in [
        ("GET", "", None),
        ("DELETE", "", Some(("content-length", "0"))),
        ("POST", "all of it", Some(("x-envoy-auth-partial-body", "false"))),
        ("POST", "all of it", Some(("content-length", "9"))),
    ] {
        assert_eq!(scene.check(&ask(method, body, header)).await.code(), 0, "{method}: {header:?}");
    }
}

#[tokio::test]
async fn a_missing_secret_denies_and_readiness_names_no_value() {
    let scene = Scene::start().await;
    scene.doors.secret_missing.store(true, Ordering::Release);
    let (status, _, body) = scene.check(&call("echo")).await.denied();
    assert_eq!((status, &body["error"]["data"]["reason"]), (200, &json!("credential_unavailable")));
    let record = scene.last_decision();
    assert_eq!(record["stage"], "credential");
    assert!(!record.to_string().contains(SECRET));
}

#[tokio::test]
async fn an_empty_message_is_denied() {
    let scene = Scene::start().await;
    let message = envoy_types::pb::envoy::service::auth::v3::CheckRequest::default();
    let response = scene.client().await.check(message).await.unwrap().into_inner();
    assert_ne!(response.status.unwrap().code, 0);
}

#[tokio::test]
async fn one_decision_too_many_is_refused_as_overloaded() {
    let scene = Scene::with(1, 256, std::time::Duration::ZERO).await;
    scene.doors.stuck.store(true, Ordering::Release);
    let (mut one, mut two) = (scene.client().await, scene.client().await);
    let first = tokio::spawn(async move { one.check(call("echo").message()).await.unwrap() });
    while scene.engine.readings().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let refused = super::scene::Answer(two.check(call("echo").message()).await.unwrap().into_inner());
    let (status, _, body) = refused.denied();
    assert_eq!((status, refused.code(), &body["id"]), (200, 7, &json!(7)));
    assert_eq!(body["error"]["data"]["reason"], "overloaded");
    scene.doors.held.add_permits(1);
    assert_eq!(first.await.unwrap().into_inner().status.unwrap().code, 0);
}

async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.unwrap();
}

#[tokio::test]
async fn a_full_audit_queue_denies() {
    let scene = Scene::with(64, 2, std::time::Duration::ZERO).await;
    // What is recorded of the start is written first.
    assert_eq!(scene.check(&call("echo")).await.code(), 0);
    until(|| scene.engine.audit().queued() == 0).await;
    scene.trail.shut.store(true, Ordering::Release);
    // One record is being written, two are in the queue.
    assert_eq!(scene.check(&call("echo")).await.code(), 0);
    until(|| scene.trail.waits.load(Ordering::Acquire)).await;
    for _ in 0..2 {
        assert_eq!(scene.check(&call("echo")).await.code(), 0);
    }
    for _ in 0..3 {
        let denied = scene.check(&call("echo")).await.denied().2;
        assert_eq!(denied["error"]["data"]["reason"], "overloaded", "{denied}");
    }
    assert!(scene.engine.audit().refused() > 0);
    let (status, page) = scene.page("/readyz").await;
    assert_eq!(status, 503);
    assert!(page.contains("the audit queue is full"), "{page}");
    scene.trail.shut.store(false, Ordering::Release);
    until(|| !scene.engine.audit().is_full()).await;
    assert_eq!(scene.check(&call("echo")).await.code(), 0);
}
