//! What an allowed request gets.

use serde_json::json;

use super::scene::{DECISION_ID, PASSWORD, SECRET, Scene, call, rpc};

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn the_filter_gets_the_credential_and_what_to_scrub() {
    let scene = Scene::start().await;
    let answer = scene.check(&call("echo")).await;
    let (set, scrub) = answer.allowed();
    assert_eq!(set, [pair(":authority", "upstream.internal:9000"), pair("x-api-key", SECRET)]);
    assert_eq!(scrub, [SECRET]);
    let (headers, parameters) = answer.removed();
    for name in ["authorization", "proxy-authorization", "x-authorization", "cookie", "dpop"] {
        assert!(headers.contains(&name.to_owned()), "{name}");
    }
    assert_eq!(parameters, ["apiKey"]);

    let record = scene.last_decision();
    assert_eq!(record["decision"], "allow");
    assert_eq!(record["decision_id"], DECISION_ID);
    assert_eq!(record["request_id"], "envoy-request-id");
    assert_eq!(record["policy_revision"], "rev1");
    assert_eq!(record["environment"], "test");
    assert_eq!(record["server"], "demo");
    assert_eq!(record["mode"], "mcp");
    assert_eq!(record["principal"]["key"], "key-of-alice");
    assert_eq!(record["principal"]["agent"], "bot");
    assert_eq!(record["operations"][0]["method"], "tools/call");
    assert_eq!(record["operations"][0]["target"], "echo");
    assert!(record["operations"][0]["arguments_digest"].as_str().unwrap().starts_with("hmac-sha256:"));
    assert_eq!(record["rule"], "demo");
    assert_eq!(record["bindings"][0], json!({"id": "key", "mode": "service_account", "references": ["env://SECRET"]}));
    assert_eq!(record["destination"], "upstream.internal:9000");
    assert_eq!(record["source"], "192.0.2.7");
    assert_eq!(record["protocol_revision"], "2025-11-25");
}

#[tokio::test]
async fn stock_ext_authz_gets_the_credential_and_nothing_to_scrub() {
    let scene = Scene::start().await;
    let mut ask = call("echo");
    ask.filter = false;
    ask.server = None;
    let answer = scene.check(&ask).await;
    let (set, scrub) = answer.allowed();
    assert!(set.contains(&pair("x-api-key", SECRET)));
    assert!(scrub.is_empty());
    let record = scene.last_decision();
    let id = record["decision_id"].as_str().unwrap();
    assert!(keyward_server::request::is_decision_id(id) && id != DECISION_ID, "{id}");
    assert_eq!(record["server"], "demo");
}

#[tokio::test]
async fn several_credentials_go_on_one_request() {
    let scene = Scene::start().await;
    let (set, scrub) = scene.check(&call("both")).await.allowed();
    let encoded = "c3ZjOmNhbmFyeS05YjFjLXBhc3N3b3Jk";
    assert!(set.contains(&pair("x-api-key", SECRET)));
    assert!(set.contains(&pair("authorization", &format!("Basic {encoded}"))));
    assert_eq!(scrub, [SECRET, PASSWORD, &format!("svc:{PASSWORD}"), encoded]);
}

#[tokio::test]
async fn every_kind_of_message_is_decided() {
    let scene = Scene::start().await;
    scene.check(&rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))).await.allowed();
    scene
        .check(&rpc(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})))
        .await
        .allowed();
    scene.check(&rpc(&json!({"jsonrpc": "2.0", "id": 1, "result": {}}))).await.allowed();
    for method in ["GET", "DELETE"] {
        let mut ask = rpc(&json!({}));
        (ask.method, ask.body) = (method, String::new());
        scene.check(&ask).await.allowed();
    }
}

#[tokio::test]
async fn plain_http_is_decided_by_destination_and_method() {
    let scene = Scene::start().await;
    let mut ask = rpc(&json!("anything"));
    (ask.server, ask.host, ask.method, ask.path) = (None, "plain.example:8443", "PUT", "/mcp/items/1?page=2");
    let (set, _) = scene.check(&ask).await.allowed();
    assert!(set.contains(&pair("x-api-key", SECRET)));
    let record = scene.last_decision();
    assert_eq!((&record["mode"], &record["operations"][0]["method"]), (&json!("http"), &json!("PUT")));
    assert_eq!(record["operations"][0]["target"], "/mcp/items/1");
}

#[tokio::test]
async fn an_allowed_batch_goes_on_as_a_whole() {
    let scene = Scene::start().await;
    let call = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo"}});
    let mut ask = rpc(
        &json!([call(1), call(2), {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}}]),
    );
    ask.headers.retain(|(name, _)| *name != "mcp-protocol-version");
    let (set, _) = scene.check(&ask).await.allowed();
    assert!(set.contains(&pair("x-api-key", SECRET)));
    assert_eq!(scene.last_decision()["operation_count"], 3);
}
