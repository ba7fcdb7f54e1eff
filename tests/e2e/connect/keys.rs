//! A person's own key for a service, entered on the page and nowhere else.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::browser::Browser;
use keyward_tests::server::Server;
use serde_json::{Value, json};

use super::{World, address};
use crate::expect;

fn with_keys(config: &mut Value) {
    config["providers"] = json!({"tickets": {
        "type": "api_key", "title": "Ticket <Desk>", "help_url": "https://tickets.example/keys?a=1&b=2", "max_ttl_days": 30,
    }});
    config["bindings"][0]["credentials"] =
        json!([{"type": "header", "name": "x-api-key", "template": "{secret}", "secret": {"ref": "grant://tickets"}}]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_enters_a_key_that_only_their_own_agent_uses() {
    let world = World::start("connect-key", json!({}), with_keys).await;
    let key = world.stack.secret.clone();
    let token = world.token("alice").await;
    let url = world.invited(&token).await;
    let mut browser = Browser::new();
    let question = world.log_in(&mut browser, &url, "alice").await;
    assert_eq!(question.title(), "Connect Ticket <Desk>?");
    assert!(question.body.contains(r#"type="password""#) && !question.body.contains("<Desk>"), "{}", question.body);
    assert!(question.body.contains("https://tickets.example/keys?a=1&amp;b=2"), "{}", question.body);

    // What cannot be kept is refused, and the page still works: no time, too long a time, no key, spaces.
    for fields in [
        vec![("decision", "connect"), ("key", key.as_str())],
        vec![("decision", "connect"), ("key", key.as_str()), ("days", "31")],
        vec![("decision", "connect"), ("key", key.as_str()), ("days", "0")],
        vec![("decision", "connect"), ("key", ""), ("days", "7")],
        vec![("decision", "connect"), ("key", "two words and more"), ("days", "7")],
    ] {
        let page = browser.submit(&question, &fields, None).await.unwrap();
        assert_eq!((page.status, page.title().as_str()), (422, "This key cannot be used"), "{fields:?}: {}", page.body);
    }
    assert_eq!(world.count().await, 0);
    let fields = [("decision", "connect"), ("key", key.as_str()), ("days", "7")];
    let page = browser.submit(&question, &fields, None).await.unwrap();
    assert_eq!(page.title(), "Connected", "{}", page.body);
    assert!(!page.body.contains(&key), "the key is shown");

    let answer = world.call(&token, json!({})).await;
    assert_eq!(expect::allowed(&world.stack, &answer).await, "hello");
    let bob = world.token("bob").await;
    let answer = world.call(&bob, json!({})).await;
    assert_eq!(answer.json().unwrap()["result"]["resultType"], "input_required", "{}", answer.text());

    let written = world.stack.everything_written().await.unwrap();
    assert!(!written.contains(&key), "the key was written somewhere");
    let bytes = std::fs::read(world.database()).unwrap();
    let wal = std::fs::read(world.database().with_file_name("keyward.db-wal")).unwrap_or_default();
    for bytes in [bytes, wal] {
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "the key lies in the database");
    }
}

/// Alice enters the upstream's key at this address, for so many days.
async fn enter(world: &World, url: &str, days: &str) {
    let mut browser = Browser::new();
    let question = world.log_in(&mut browser, url, "alice").await;
    let fields = [("decision", "connect"), ("key", world.stack.secret.as_str()), ("days", days)];
    let page = browser.submit(&question, &fields, None).await.unwrap();
    assert_eq!(page.title(), "Connected", "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_ended_serves_no_more_and_is_asked_for_again() {
    let world = World::start("connect-key-ends", json!({}), with_keys).await;
    let token = world.token("alice").await;
    enter(&world, &world.invited(&token).await, "1").await;
    let answer = world.call(&token, json!({})).await;
    assert_eq!(expect::allowed(&world.stack, &answer).await, "hello");
    let list = || {
        let config = world.stack.folder.join("keyward.yaml").display().to_string();
        let listed = Server::run(&["grants", "list", "--config", &config], world.stack.variables()).unwrap();
        assert!(listed.status.success(), "{listed:?}");
        String::from_utf8(listed.stdout).unwrap()
    };
    assert!(list().contains("tickets"), "{}", list());

    // A day later, as the database knows it.
    world.stack.change_database("UPDATE grants SET expires_ms = expires_ms - 86400000").unwrap();
    world.stack.upstream.reset().await.unwrap();
    let body = world.call(&token, json!({})).await.json().unwrap();
    assert_eq!(body["result"]["resultType"], "input_required", "{body}");
    let plain = agent::tool_call(1, "echo", json!({"message": "hello"})).bearer(&token);
    let answer = world.stack.send_bare(plain).await.unwrap();
    expect::denied(&world.stack, &answer, Reason::ConsentRequired, 1).await;
    assert!(!list().contains("tickets"), "{}", list());

    // Entered anew it serves again.
    enter(&world, &address(&body), "7").await;
    let answer = world.call(&token, json!({})).await;
    assert_eq!(expect::allowed(&world.stack, &answer).await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_puts_a_secret_that_is_used_and_never_shown() {
    let world = World::start("connect-secrets", json!({}), |config| {
        config["bindings"][0]["credentials"] =
            json!([{"type": "header", "name": "x-api-key", "template": "{secret}", "secret": {"ref": "keyward://team/desk"}}]);
    })
    .await;
    let token = world.token("alice").await;
    let answer = world.call(&token, json!({})).await;
    assert_eq!(answer.json().unwrap()["error"]["data"]["reason"], "credential_unavailable", "{}", answer.text());
    let config = world.stack.folder.join("keyward.yaml");
    let config = config.to_str().unwrap();
    let run = |arguments: &[&str], input: &str| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--config", config]).collect();
        Server::run_with_input(&arguments, world.stack.variables(), input).unwrap()
    };
    let put = run(&["secrets", "put", "team/desk"], &world.stack.secret);
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let list = run(&["secrets", "list"], "");
    let said = [put.stdout, list.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("keyward://team/desk") && !said.contains(&world.stack.secret), "{said}");

    let started = Instant::now();
    loop {
        world.stack.upstream.reset().await.unwrap();
        let answer = world.call(&token, json!({})).await;
        if world.count().await == 1 {
            assert_eq!(answer.result().unwrap()["content"][0]["text"], "hello");
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(run(&["secrets", "delete", "team/desk"], "").status.success());
    let started = Instant::now();
    loop {
        world.stack.upstream.reset().await.unwrap();
        world.call(&token, json!({})).await;
        if world.count().await == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(1), "the deleted secret is still in use");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
