//! What becomes of `Mcp-Session-Id`: the upstream gets its own, the filter a key where a session may begin, strangers nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use keyward_contract::session::{Directive, SessionKey, Span, seal};
use serde_json::json;

use super::scene::{Answer, Ask, Scene, call, rpc};

const UPSTREAM_ID: &str = "canary-upstream-session";

fn initialize() -> Ask {
    rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    }}))
}

fn within(mut ask: Ask, id: &str) -> Ask {
    ask.headers.push(("mcp-session-id", id.to_owned()));
    ask
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sealing(answer: &Answer) -> (SessionKey, Span) {
    let told = answer.session().unwrap();
    let Some(Directive::Seal(key, span)) = Directive::parse(&told) else { panic!("{told}") };
    (key, span)
}

fn sealed(key: &SessionKey, span: Span) -> String {
    seal(key, &[4; 24], span, UPSTREAM_ID.as_bytes()).unwrap()
}

/// The values of the header that the upstream gets.
fn sent(answer: &Answer) -> Vec<String> {
    let (set, _) = answer.allowed();
    set.into_iter().filter(|(name, _)| name == "mcp-session-id").map(|(_, value)| value).collect()
}

#[tokio::test]
async fn a_session_goes_from_its_sealing_to_its_use() {
    let scene = Scene::start().await;
    let answer = scene.check(&initialize()).await;
    assert!(sent(&answer).is_empty());
    let (key, span) = sealing(&answer);
    assert_eq!(span.ends_unix_secs - span.issued_unix_secs, 8 * 3600);
    assert!(span.issued_unix_secs.abs_diff(now_secs()) < 60);

    let id = sealed(&key, span);
    let answer = scene.check(&within(call("echo"), &id)).await;
    assert_eq!(sent(&answer), [UPSTREAM_ID]);
    assert_eq!(answer.session().as_deref(), Some("keep"), "no key where no session begins");
    let record = scene.last_decision();
    assert_eq!(record["session"].as_str().map(str::len), Some(32), "{record}");
    let written = scene.trail.text();
    assert!(!written.contains(&id) && !written.contains(UPSTREAM_ID), "{written}");

    // A client may begin anew without leaving the old one out.
    let answer = scene.check(&within(initialize(), &id)).await;
    assert_eq!(sent(&answer), [UPSTREAM_ID]);
    sealing(&answer);
}

#[tokio::test]
async fn what_was_not_sealed_for_the_caller_and_what_has_ended_is_not_found() {
    let scene = Scene::start().await;
    let (key, span) = sealing(&scene.check(&initialize()).await);
    let now = now_secs();
    let good = sealed(&key, span);
    let ended = Span { issued_unix_secs: now - 100, ends_unix_secs: now - 1 };
    // Sealed for longer than the configuration allows by now.
    let too_old = Span { issued_unix_secs: now - 9 * 3600, ends_unix_secs: now + 3600 };
    let foreign = sealed(&SessionKey::new([1; 32]), span);
    for (id, cause) in [
        (UPSTREAM_ID.to_owned(), "not sealed for this caller"),
        (String::new(), "not sealed for this caller"),
        (foreign, "not sealed for this caller"),
        (format!("{good},{good}"), "not sealed for this caller"),
        (sealed(&key, ended), "max_lifetime_secs"),
        (sealed(&key, too_old), "max_lifetime_secs"),
    ] {
        let (status, _, body) = scene.check(&within(call("echo"), &id)).await.denied();
        assert_eq!((status, &body["error"]["data"]["reason"]), (404, &json!("session_not_found")), "{body}");
        let record = scene.last_decision();
        assert_eq!((&record["stage"], &record["decision"]), (&json!("session"), &json!("deny")), "{record}");
        assert!(record["explanation"].as_str().unwrap().contains(cause), "{record}");
        assert!(id.is_empty() || !scene.trail.text().contains(&id));
    }
    assert_eq!(sent(&scene.check(&within(call("echo"), &good)).await), [UPSTREAM_ID]);
}

#[tokio::test]
async fn other_callers_of_the_contract_and_other_upstreams() {
    let scene = Scene::start().await;
    let (key, span) = sealing(&scene.check(&initialize()).await);
    let id = sealed(&key, span);
    // Stock ext_authz would forward what only the filter understands.
    let mut native = within(call("echo"), &id);
    native.filter = false;
    let answer = scene.check(&native).await;
    assert_eq!((sent(&answer), answer.session()), (vec![UPSTREAM_ID.to_owned()], None));
    // What is no MCP server has headers of its own.
    let mut plain = within(call("echo"), "anything");
    (plain.server, plain.host, plain.method, plain.body) = (Some("plain"), "plain.example", "GET", String::new());
    let answer = scene.check(&plain).await;
    assert!(
        sent(&answer).is_empty()
            && answer.session().is_none()
            && answer.removed().0.iter().all(|it| it != "mcp-session-id")
    );
}

#[tokio::test]
async fn a_revision_without_sessions_has_none() {
    let scene = Scene::start().await;
    let mut ask = rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "echo", "arguments": {},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}},
    }}));
    ask.headers.retain(|(name, _)| *name == "content-type");
    let mirrored = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    ask.headers.extend(mirrored.map(|(name, value)| (name, value.to_owned())));
    let answer = scene.check(&within(ask, "anything")).await;
    assert!(sent(&answer).is_empty());
    assert_eq!(answer.session().as_deref(), Some("drop"));
    assert!(answer.removed().0.contains(&"mcp-session-id".to_owned()));
}
