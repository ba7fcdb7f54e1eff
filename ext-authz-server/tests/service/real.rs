//! The whole of it: a real configuration, real tokens, real Rego, over real gRPC.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::fixture::{Fixture, SECRET};
use super::running::{Running, serve};
use super::scene::{Answer, call};

async fn start(name: &str) -> Running {
    serve(Fixture::new(name)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_policy_decide() {
    let mut running = start("decide").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (set, scrub) = running.check(&call("echo"), &json!({})).await.allowed();
    assert!(set.contains(&("x-api-key".into(), SECRET.into())));
    assert_eq!(scrub, [SECRET]);
    let cases = [
        ("echo", json!({"aud": "https://other.example"}), "invalid_token"),
        ("echo", json!({"iss": "https://other.example"}), "invalid_token"),
        ("echo", json!({"exp": now - 600}), "invalid_token"),
        ("echo", json!({"nbf": now + 600}), "invalid_token"),
        ("echo", json!({"roles": []}), "not_allowed"),
        ("leak", json!({}), "allowed"),
        ("delete_everything", json!({}), "not_allowed"),
    ];
    for (tool, claims, expected) in cases {
        assert_eq!(running.reason(&call(tool), &claims).await, expected, "{tool} {claims}");
    }
    let mut forbidden = call("echo");
    forbidden.body = forbidden.body.replace("canary-argument", "forbidden");
    assert_eq!(running.reason(&forbidden, &json!({})).await, "not_allowed");
    let mut forged = call("echo");
    let token = running.fixture.token(&json!({}));
    let (head, _) = token.rsplit_once('.').unwrap();
    forged.headers.push(("authorization", format!("Bearer {head}.{}", "A".repeat(86))));
    forged.token = None;
    let answer = Answer(running.client.check(forged.message()).await.unwrap().into_inner());
    assert_eq!(answer.denied().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_serves_and_a_bad_one_changes_nothing() {
    let mut running = start("reload").await;
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "allowed");
    let revision = running.engine.plan().revision().to_owned();
    running.fixture.write("policies/main.rego", "package keyward\n\ndecision := {\"allow\":");
    assert!(running.snapshots.reload().is_err());
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "allowed");
    running
        .fixture
        .write("policies/main.rego", "package keyward\n\ndecision := {\"allow\": false, \"rule\": \"closed\"}\n");
    running.snapshots.reload().unwrap();
    let began = Instant::now();
    while running.engine.plan().revision() == revision {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "not_allowed");
    std::fs::remove_file(running.fixture.directory.join("api.key")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_where_it_listens_and_ends_with_0() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let fixture = Fixture::new("program");
    let mut program = Command::new(env!("CARGO_BIN_EXE_keyward"))
        .args(["serve", "--config"])
        .arg(fixture.configuration())
        .env("KEYWARD_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: Value = serde_json::from_str(&line).unwrap();
    let grpc = format!("http://{}", addresses["grpc"].as_str().unwrap());
    let channel = Channel::from_shared(grpc).unwrap().connect().await.unwrap();
    let mut client = AuthorizationClient::new(channel);
    let token = fixture.token(&json!({}));
    let mut ask = call("echo");
    ask.token = None;
    ask.headers.push(("authorization", format!("Bearer {token}")));
    Answer(client.check(ask.message()).await.unwrap().into_inner()).allowed();

    let process = rustix::process::Pid::from_raw(i32::try_from(program.id()).unwrap()).unwrap();
    std::fs::rename(fixture.directory.join("audit.jsonl"), fixture.directory.join("audit.1")).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    while !fixture.directory.join("audit.jsonl").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Answer(client.check(ask.message()).await.unwrap().into_inner()).allowed();
    drop(client);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || (program.wait().unwrap(), program.stderr.take().unwrap()));
    let (status, mut stderr) = status.await.unwrap();
    assert_eq!(status.code(), Some(0));
    let mut logged = String::new();
    stderr.read_to_string(&mut logged).unwrap();
    assert!(logged.contains("draining"), "{logged}");
    let read = |file: &str| std::fs::read_to_string(fixture.directory.join(file)).unwrap();
    let (old, new) = (read("audit.1"), read("audit.jsonl"));
    assert!(old.contains("\"started\"") && new.contains("\"stopped\""), "{old}{new}");
    for text in [&logged, &old, &new, &line] {
        for marked in [SECRET, token.as_str(), "canary-argument", "an audit key of enough bytes"] {
            assert!(!text.contains(marked), "{marked} in {text}");
        }
    }
}
