//! A change of configuration, policy, keys or secrets while requests come: none is lost, and a bad one changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{self, Answer, Request};
use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::stack::{ROLE, SUBJECT, Stack};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::search::Search;
use crate::{expect, leak, scripted};

const CONNECTIONS: usize = 8;

/// Requests that go on until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<Answer>>>,
}

// === impl Load ===

impl Load {
    fn start(stack: &Stack, request: &Request) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |_| {
            let (stop, agents) = (Arc::clone(&stop), stack.agents);
            let request = request.clone().bearer(&stack.token);
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    answers.push(request.clone().send(agents).await.unwrap());
                }
                answers
            })
        };
        Self { workers: (0..CONNECTIONS).map(worker).collect(), stop }
    }

    async fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for worker in self.workers {
            answers.extend(worker.await.unwrap());
        }
        answers
    }
}

fn echo() -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

async fn revision(stack: &Stack) -> String {
    let ready: Value = serde_json::from_str(&client::get(stack.server.admin, "/readyz").await.unwrap()).unwrap();
    ready["policy_revision"].as_str().unwrap().to_owned()
}

/// Waits until another revision serves.
async fn changed(stack: &Stack, before: &str) -> String {
    let started = Instant::now();
    loop {
        let now = revision(stack).await;
        if now != before {
            return now;
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the change was not noticed:\n{}",
            stack.server.process.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn refusals(stack: &Stack) -> u64 {
    let metrics = stack.server.metrics().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(r#"keyward_reloads_total{result="refused"} "#));
    line.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_lose_no_request() {
    let mut stack = Stack::builder("reload-load").policy(leak::POLICY).start().await.unwrap();
    let load = Load::start(&stack, &echo());
    let pause = || tokio::time::sleep(Duration::from_millis(400));
    let mut revisions = vec![revision(&stack).await];
    for round in 0..3 {
        stack.change_file("policies/keyward.rego", format!("{}# round {round}\n", leak::POLICY)).unwrap();
        revisions.push(changed(&stack, &revisions[revisions.len() - 1]).await);
        pause().await;
        stack.change_config(|config| config["bindings"][0]["owner"] = json!(format!("team-{round}"))).unwrap();
        revisions.push(changed(&stack, &revisions[revisions.len() - 1]).await);
        pause().await;
        // The same keys and one more, and the same secret in a new file.
        let mut jwks = stack.issuer.jwks();
        let more = Issuer::new().unwrap().jwks();
        if let Some(keys) = jwks["keys"].as_array_mut() {
            let mut key = more["keys"][0].clone();
            key["kid"] = json!(format!("next-{round}"));
            keys.push(key);
        }
        stack.change_file("jwks.json", jwks.to_string()).unwrap();
        stack.change_file("secrets/demo", &stack.secret).unwrap();
        pause().await;
    }
    let answers = load.stop().await;
    let lost: Vec<_> = answers.iter().filter(|answer| answer.result().is_err()).map(|answer| answer.text()).collect();
    println!("{} requests over {} revisions, {} lost", answers.len(), revisions.len(), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert!(answers.len() > 100, "only {} requests", answers.len());
    let records = stack.server.audit().unwrap();
    assert!(records.iter().filter(|record| record["event"] == "config_reloaded").count() >= 6);
    // Every decision names a revision that served.
    let decisions = records.iter().filter(|record| record["event"] == "decision");
    assert!(decisions.clone().count() >= answers.len());
    for record in decisions {
        assert!(revisions.iter().any(|known| record["policy_revision"] == known.as_str()), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_change_changes_nothing_and_says_why() {
    let mut stack = Stack::builder("reload-bad").start().await.unwrap();
    let good_policy = fs::read_to_string(stack.folder.join("policies/keyward.rego")).unwrap();
    let good_config = fs::read_to_string(stack.folder.join("keyward.yaml")).unwrap();
    let good_jwks = stack.issuer.jwks().to_string();
    let before = revision(&stack).await;
    let unknown_key = format!("{good_config}\nno_such_key: 1\n");
    let bad = [
        ("policies/keyward.rego", "package keyward\n\ndecision := {", &good_policy, "keyward.rego"),
        ("policies/keyward.rego", "package another\n\ndecision := true\n", &good_policy, "decision"),
        ("keyward.yaml", &unknown_key, &good_config, "no_such_key"),
        ("keyward.yaml", "version: [", &good_config, "keyward.yaml"),
        ("keyward.yaml", "", &good_config, "keyward.yaml"),
        ("jwks.json", "{\"keys\": 7}", &good_jwks, "jwks.json"),
    ];
    for (number, (file, content, good, says)) in bad.into_iter().enumerate() {
        stack.change_file(file, content).unwrap();
        let started = Instant::now();
        while refusals(&stack).await <= number as u64 {
            assert!(started.elapsed() < Duration::from_secs(5), "`{content}` in {file} is not refused and counted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let is_refusal = |record: &Value| {
            record["event"] == "config_refused" && record["detail"].as_str().is_some_and(|text| text.contains(says))
        };
        let record = stack
            .server
            .audit_record(is_refusal)
            .await
            .unwrap_or_else(|error| unreachable!("{file} {content:?}: {error:#}"));
        assert_eq!(record["policy_revision"], before.as_str(), "{record}");
        let log = stack.server.process.log();
        assert!(log.contains(says), "the log does not say `{says}`:\n{log}");
        // The old revision goes on: what it allows, and what it denies.
        assert_eq!(revision(&stack).await, before);
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        assert_eq!(expect::allowed(&stack, &answer).await, "hello");
        stack.upstream.reset().await.unwrap();
        let answer = stack.call_tool("delete_everything", json!({})).await.unwrap();
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
        assert_eq!(answer.json().unwrap()["error"]["data"]["policy_revision"], before.as_str());
        stack.change_file(file, good).unwrap();
        // Seen as good again before the next one breaks it.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    // A good one is taken afterwards.
    stack.change_config(|config| config["bindings"][0]["owner"] = json!("another-team")).unwrap();
    changed(&stack, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tighter_policy_and_withdrawn_keys_take_effect() {
    let stack = Stack::builder("reload-tighter").start().await.unwrap();
    let before = revision(&stack).await;
    expect::allowed(&stack, &stack.send(echo()).await.unwrap()).await;
    stack.upstream.reset().await.unwrap();
    let nothing =
        "package keyward\n\ndecision := {\"allow\": false, \"rule\": \"closed\", \"explanation\": \"a test\"}\n";
    stack.change_file("policies/keyward.rego", nothing).unwrap();
    changed(&stack, &before).await;
    let answer = stack.send(echo()).await.unwrap();
    expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;

    // The issuer's keys are replaced: tokens of the old keys end, also those that were verified before.
    let next = Issuer::new().unwrap();
    stack.change_file("jwks.json", next.jwks().to_string()).unwrap();
    let started = Instant::now();
    loop {
        let answer = stack.send(echo()).await.unwrap();
        if answer.status == 401 {
            expect::unauthenticated(&stack, &answer, Reason::InvalidToken, 1).await;
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let token = next.sign(&Token::new(SUBJECT, &[ROLE])).unwrap();
    let answer = stack.send_bare(echo().bearer(&token)).await.unwrap();
    expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
}

/// An upstream that tells which key it got, without ever writing it out.
async fn telling(keys: &'static [&'static str]) -> std::net::SocketAddr {
    scripted::start(move |request| {
        let key = scripted::header(request, "x-api-key");
        let number =
            keys.iter().position(|known| *known == key).map_or_else(|| "unknown".to_owned(), |at| at.to_string());
        let text = json!({"jsonrpc": "2.0", "id": 1, "result": {"key": number, "echo": key}}).to_string();
        scripted::response("200 OK", "content-type: application/json\r\n", text.as_bytes())
    })
    .await
}

fn to_telling() -> Request {
    let mut request = echo();
    scripted::PATH.clone_into(&mut request.path);
    request
}

fn key_of(answer: &Answer) -> u64 {
    let result = answer.result().unwrap();
    result["key"].as_str().and_then(|number| number.parse().ok()).unwrap_or_else(|| unreachable!("{result}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_secret_changes_at_the_next_call_and_no_request_is_lost() {
    const KEYS: &[&str] = &["first-mounted-key-value", "second-mounted-key-value", "third-mounted-key-value"];
    let upstream = telling(KEYS).await;
    let builder = Stack::builder("reload-secret").policy(leak::POLICY).config(|config| {
        config["bindings"][0]["credentials"][0]["secret"] = json!({"ref": "file://mounted/key"});
    });
    // As Kubernetes mounts it: a link to a link to the folder of a version.
    let builder = builder.file("secrets/placeholder", "placeholder");
    let stack = scripted::route(builder, upstream, "mcp").start().await.unwrap();
    let mounted = stack.folder.join("mounted");
    let version = |name: &str, key: &str| {
        fs::create_dir_all(mounted.join(name)).unwrap();
        fs::write(mounted.join(name).join("key"), key).unwrap();
    };
    version("..1", KEYS[0]);
    symlink("..1", mounted.join("..data")).unwrap();
    symlink("..data/key", mounted.join("key")).unwrap();
    assert_eq!(key_of(&stack.send(to_telling()).await.unwrap()), 0);

    let load = Load::start(&stack, &to_telling());
    tokio::time::sleep(Duration::from_millis(500)).await;
    version("..2", KEYS[1]);
    symlink("..2", mounted.join("..data_tmp")).unwrap();
    fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
    assert_eq!(key_of(&stack.send(to_telling()).await.unwrap()), 1, "not at the next call");
    fs::remove_dir_all(mounted.join("..1")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;

    // An atomic rename over the file itself.
    fs::write(mounted.join("..2/new"), KEYS[2]).unwrap();
    fs::rename(mounted.join("..2/new"), mounted.join("..2/key")).unwrap();
    assert_eq!(key_of(&stack.send(to_telling()).await.unwrap()), 2, "not at the next call");
    tokio::time::sleep(Duration::from_millis(500)).await;

    let answers = load.stop().await;
    println!("{} requests over three secrets", answers.len());
    let mut seen: Vec<u64> = answers.iter().map(key_of).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2]);
    // Each answer echoes the key that its own request brought: whichever it was, it did not come back.
    for search in KEYS.iter().map(|key| Search::new(key)) {
        assert!(answers.iter().all(|answer| search.find_in_answer(answer).is_none()));
    }
    // A secret that is gone denies, and comes back with the file.
    fs::remove_file(mounted.join("key")).unwrap();
    let answer = stack.send(to_telling()).await.unwrap();
    expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
    symlink("..data/key", mounted.join("key")).unwrap();
    assert_eq!(key_of(&stack.send(to_telling()).await.unwrap()), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_way_is_scrubbed_of_the_secret_it_was_asked_with() {
    let stack = Stack::builder("reload-under-way").policy(leak::POLICY).start().await.unwrap();
    let search = Search::new(&stack.secret);
    let arguments = json!({"events": 10, "interval_ms": 100, "form": "base64"});
    let meta = json!({"progressToken": "progress-1"});
    let call = agent::request(1, "tools/call", json!({"name": "stream", "arguments": arguments, "_meta": meta}));
    let answer = call.bearer(&stack.token).open(stack.agents).await.unwrap();
    stack.change_file("secrets/demo", "another-secret-value").unwrap();
    let answer = answer.finish().await;
    assert_eq!(answer.response().unwrap()["id"], 1, "{}", answer.text());
    assert!(answer.events().len() >= 10, "{}", answer.text());
    assert_eq!(search.find_in_answer(&answer), None);
}
