//! A session id is worth something only to its own caller at its own server entry, and only for a while.

use std::time::{Duration, Instant};

use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::agent::{Session, WITH_SESSIONS, earlier_request, tool_call};
use keyward_tests::client::{Answer, Request};
use keyward_tests::envoy::Route;
use keyward_tests::issuer::Token;
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, ROLE, Stack};
use serde_json::{Value, json};

use crate::expect;
use crate::injection::header;
use crate::replica::Replica;

const REVISION: &str = "2025-11-25";
/// Under this path the same upstream is another server entry.
const OTHER_PATH: &str = "/other";
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "everybody"} if "demo-user" in input.principal.roles
"#;

/// Two server entries to one upstream, everybody may everything, tenants are a claim.
fn builder(name: &str) -> Builder {
    let metadata = json!({"server": "other", "mode": "mcp"});
    let route = Route { prefix: OTHER_PATH.to_owned(), cluster: "demo_upstream".to_owned(), metadata };
    Stack::builder(name).policy(POLICY).envoy(|envoy| envoy.routes.push(route)).config(|config| {
        let mut other = config["servers"]["demo"].clone();
        other["destinations"] = json!([{"host": "127.0.0.1", "path": OTHER_PATH}]);
        config["servers"]["other"] = other;
        config["bindings"][0]["servers"] = json!(["demo", "other"]);
        config["identity"]["issuers"][0]["tenant_claim"] = json!("org");
    })
}

fn with_database(builder: Builder) -> Builder {
    builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").config(|config| {
        config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
    })
}

fn token(stack: &Stack, subject: &str, tenant: &str) -> String {
    stack.issuer.sign(&Token::new(subject, &[ROLE]).claim("org", tenant)).unwrap()
}

async fn open(stack: &Stack, token: &str) -> (Session, String) {
    let session = Session::open(stack.agents, REVISION, token).await.unwrap();
    let upstream_id = header(&stack.upstream.last().await.unwrap(), "mcp-session-id");
    assert_eq!(upstream_id.len(), 1);
    (session, upstream_id[0].clone())
}

fn echo_message() -> Value {
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"message": "hello"}}})
}

/// A call within a session, under any id.
fn echo(id: &str, token: &str) -> Request {
    earlier_request(REVISION, &echo_message()).header("mcp-session-id", id).bearer(token)
}

async fn not_found(stack: &Stack, request: Request, cause: &str) {
    stack.upstream.reset().await.unwrap();
    let answer = request.send(stack.agents).await.unwrap();
    let decision = expect::denied(stack, &answer, Reason::SessionNotFound, 2).await;
    assert_eq!(answer.status, 404);
    let record = stack.server.decision(&decision).await.unwrap();
    assert_eq!(record["stage"], "session", "{record}");
    assert!(record["explanation"].as_str().unwrap().contains(cause), "{record}");
}

async fn goes_on(stack: &Stack, request: Request) -> Answer {
    stack.upstream.reset().await.unwrap();
    let answer = request.send(stack.agents).await.unwrap();
    assert_eq!(expect::allowed(stack, &answer).await, "hello");
    answer
}

/// Waits until a request finds no session.
async fn not_found_soon(stack: &Stack, request: &Request, cause: &str) -> Duration {
    let began = Instant::now();
    while request.clone().send(stack.agents).await.unwrap().status != 404 {
        assert!(began.elapsed() < Duration::from_secs(10), "the session goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    not_found(stack, request.clone(), cause).await;
    began.elapsed()
}

/// Runs `keyward sessions …` on the stack's configuration: the exit code, and what it printed.
fn sessions(stack: &Stack, arguments: &[&str]) -> (Option<i32>, String) {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let all = [&["sessions"], arguments, &["--config", &config]].concat();
    let output = Server::run(&all, stack.variables()).unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_worth_nothing_to_others_elsewhere_or_changed() {
    let stack = builder("sessions-bound").start().await.unwrap();
    let (alice, bob) = (token(&stack, "alice", "one"), token(&stack, "bob", "one"));
    for revision in WITH_SESSIONS {
        let session = Session::open(stack.agents, revision, &alice).await.unwrap();
        assert_eq!(session.call_tool(2, "echo", json!({"message": revision})).await.unwrap().status, 200);
    }
    let (session, upstream_id) = open(&stack, &alice).await;
    let id = session.id.clone().unwrap();
    assert_ne!(id, upstream_id);
    assert!(id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
    let answer = goes_on(&stack, echo(&id, &alice)).await;
    assert_eq!(header(&stack.upstream.last().await.unwrap(), "mcp-session-id"), [upstream_id.as_str()]);
    assert!(!String::from_utf8_lossy(&answer.everything()).contains(&upstream_id));

    const FOREIGN: &str = "not sealed for this caller at this server entry";
    not_found(&stack, echo(&id, &bob), FOREIGN).await;
    not_found(&stack, echo(&id, &token(&stack, "alice", "two")), FOREIGN).await;
    not_found(&stack, echo(&upstream_id, &alice), FOREIGN).await;
    let mut elsewhere = echo(&id, &alice);
    OTHER_PATH.clone_into(&mut elsewhere.path);
    not_found(&stack, elsewhere.clone(), FOREIGN).await;
    // Without the session it gets there.
    elsewhere.without_header("mcp-session-id").send(stack.agents).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 1);
    not_found(&stack, echo("", &alice), FOREIGN).await;
    not_found(&stack, echo(&id, &alice).header("mcp-session-id", &id), FOREIGN).await;
    for at in [0, id.len() / 2, id.len() - 1] {
        let other = if id.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut changed = id.clone();
        changed.replace_range(at..=at, other);
        not_found(&stack, echo(&changed, &alice), FOREIGN).await;
    }
    // Neither the stream nor the end of somebody else's session.
    for method in [Method::GET, Method::DELETE] {
        let mut foreign = session.stream().without_header("authorization").bearer(&bob);
        foreign.method = method;
        stack.upstream.reset().await.unwrap();
        expect::plainly_denied(&stack, &foreign.send(stack.agents).await.unwrap(), Reason::SessionNotFound).await;
    }
    goes_on(&stack, echo(&id, &alice)).await;
    expect::nothing_written(&stack, &[&id, &upstream_id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_opens_again_and_the_end_ends_at_the_upstream() {
    let stack = builder("sessions-stream").start().await.unwrap();
    let alice = token(&stack, "alice", "one");
    let (session, upstream_id) = open(&stack, &alice).await;
    for _ in 0..2 {
        let stream = session.stream().open(stack.agents).await.unwrap();
        assert_eq!(stream.status, 200);
        let shown = stream.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        assert!(shown.is_none() || shown == session.id, "{shown:?}");
        drop(stream);
    }
    let mut end = session.stream();
    end.method = Method::DELETE;
    let answer = end.send(stack.agents).await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.status);
    let last = stack.upstream.last().await.unwrap();
    assert_eq!((&last["method"], header(&last, "mcp-session-id")), (&json!("DELETE"), vec![upstream_id]));
    // The upstream knows it no more: its own answer, not Keyward's.
    stack.upstream.reset().await.unwrap();
    let answer = session.send(&echo_message()).await.unwrap();
    assert_eq!((answer.status.as_u16(), stack.upstream.count().await.unwrap()), (404, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revision_without_sessions_sends_and_gets_none() {
    let stack = builder("sessions-stateless").start().await.unwrap();
    let alice = token(&stack, "alice", "one");
    let call = tool_call(1, "echo", json!({"message": "hello"})).header("mcp-session-id", "anything").bearer(&alice);
    let answer = goes_on(&stack, call).await;
    assert!(header(&stack.upstream.last().await.unwrap(), "mcp-session-id").is_empty());
    assert_eq!(answer.header("mcp-session-id"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_without_a_database_know_each_others_ids_and_old_keys_open_while_named() {
    let keys = ["KEY_OLD", "KEY_NEW"].map(|name| json!({"ref": format!("env://{name}")}));
    let (old, new) = (keys[0].clone(), keys[1].clone());
    let mut stack = builder("sessions-replicas")
        .variable("KEY_OLD", "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=")
        .variable("KEY_NEW", "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=")
        .config(|config| config["sessions"] = json!({"keys": [old]}))
        .start()
        .await
        .unwrap();
    let alice = token(&stack, "alice", "one");
    let (session, _) = open(&stack, &alice).await;
    let id = session.id.unwrap();
    let replica = Replica::start(&stack).await;
    for _ in 0..2 {
        for agents in [replica.agents, stack.agents] {
            let answer = echo(&id, &alice).send(agents).await.unwrap();
            assert_eq!(answer.result().unwrap()["content"][0]["text"], "hello");
        }
    }
    stack.change_config(|config| config["sessions"] = json!({"keys": [new, old]})).unwrap();
    let is_new = |record: &Value| record["event"] == "config_reloaded";
    stack.server.audit_record(is_new).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    goes_on(&stack, echo(&id, &alice)).await;
    let (session, _) = open(&stack, &alice).await;
    let next = session.id.unwrap();
    stack.change_config(|config| config["sessions"] = json!({"keys": [new]})).unwrap();
    not_found_soon(&stack, &echo(&id, &alice), "not sealed").await;
    goes_on(&stack, echo(&next, &alice)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_session_ends_and_a_used_one_at_its_longest_time() {
    let stack = builder("sessions-ends")
        .config(|config| config["sessions"] = json!({"idle_secs": 2, "max_lifetime_secs": 8}))
        .start()
        .await
        .unwrap();
    let alice = token(&stack, "alice", "one");
    let began = Instant::now();
    let (unused, _) = open(&stack, &alice).await;
    let (used, _) = open(&stack, &alice).await;
    let (unused, used) = (echo(&unused.id.unwrap(), &alice), echo(&used.id.unwrap(), &alice));
    while began.elapsed() < Duration::from_secs(4) {
        goes_on(&stack, used.clone()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    not_found(&stack, unused, "idle_secs").await;
    let took = not_found_soon(&stack, &used, "max_lifetime_secs").await;
    assert!(began.elapsed() > Duration::from_secs(6), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_found_on_no_replica_and_use_counts_on_all() {
    let stack = with_database(builder("sessions-end"))
        .config(|config| config["sessions"] = json!({"idle_secs": 6}))
        .start()
        .await
        .unwrap();
    let replica = Replica::start(&stack).await;
    let (alice, bob) = (token(&stack, "alice", "one"), token(&stack, "bob", "one"));
    let (session, upstream_id) = open(&stack, &alice).await;
    let (others, _) = open(&stack, &bob).await;
    let (idle, _) = open(&stack, &bob).await;
    let (id, others, idle) = (session.id.unwrap(), others.id.unwrap(), idle.id.unwrap());
    // Used at the other replica only, longer than it may be unused.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        for call in [echo(&id, &alice), echo(&others, &bob)] {
            assert_eq!(call.send(replica.agents).await.unwrap().status, 200);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    goes_on(&stack, echo(&id, &alice)).await;
    not_found(&stack, echo(&idle, &bob), "idle_secs").await;

    let record = stack.server.audit_record(|record| record["session"].is_string()).await.unwrap();
    let name = record["session"].as_str().unwrap().to_owned();
    let (code, listed) = sessions(&stack, &["list", "--tenant", "one"]);
    assert_eq!((code, listed.lines().count()), (Some(0), 3), "{listed}");
    assert!(listed.contains(&name) && listed.contains("server=demo"), "{listed}");
    assert!(!listed.contains(&id) && !listed.contains(&upstream_id), "{listed}");
    let (code, text) = sessions(&stack, &["end", &name]);
    assert_eq!((code, text.trim()), (Some(0), format!("{name}: ended").as_str()));
    let took = not_found_soon(&stack, &echo(&id, &alice), "an operator ended it").await;
    println!("ended within {took:?}");
    // Each replica hears of it by itself, within a second.
    let began = Instant::now();
    while echo(&id, &alice).send(replica.agents).await.unwrap().status != 404 {
        assert!(began.elapsed() < Duration::from_secs(5), "the other replica still knows the session");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    goes_on(&stack, echo(&others, &bob)).await;
    let (code, text) = sessions(&stack, &["end", &name]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no such session"), "{text}");
    let is_ended = |record: &Value| record["event"] == "sessions_ended";
    let record = stack.server.audit_record(is_ended).await.unwrap();
    assert!(record["detail"].as_str().unwrap().contains(&name), "{record}");
}
