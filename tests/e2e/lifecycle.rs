//! A binding serves from the moment in which enough people approved it and somebody activated it, and until it is stopped.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, Stack};
use keyward_tests::stores::{Kind, Store};
use serde_json::json;

use crate::expect;
use crate::stores::{builder, echo};

const ID: &str = "demo-api-key";
const TOKEN: &str = "canary-lifecycle-token-83ab";
/// In how much time a step takes effect: a second, and what the test itself needs.
const SOON: Duration = Duration::from_millis(1500);

fn with_lifecycle(builder: Builder, approvals: usize) -> Builder {
    builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").config(move |config| {
        config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
        config["lifecycle"] = json!({"approvals": approvals});
    })
}

/// Runs `keyward bindings …` on the stack's configuration: the exit code, and what it printed.
fn bindings(stack: &Stack, arguments: &str) -> (Option<i32>, String) {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let mut all = vec!["bindings"];
    all.extend(arguments.split(' '));
    all.extend(["--config", &config]);
    let output = Server::run(&all, stack.variables()).unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn done(stack: &Stack, arguments: &str) {
    let (code, text) = bindings(stack, arguments);
    assert_eq!(code, Some(0), "{arguments}: {text}");
}

/// Waits until a call is denied for this reason.
async fn denied_soon(stack: &Stack, reason: Reason) -> Duration {
    let began = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if answer.text().contains(reason.code()) {
            expect::denied(stack, &answer, reason, 1).await;
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a call goes through.
async fn allowed_soon(stack: &Stack) -> Duration {
    let began = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if answer.result().is_ok() {
            expect::allowed(stack, &answer).await;
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_and_an_activation_let_it_serve_and_a_stop_or_a_change_ends_that() {
    let mut stack = with_lifecycle(Stack::builder("lifecycle-two"), 2).start().await.unwrap();
    let refused = async |stack: &Stack| {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        expect::denied(stack, &answer, Reason::BindingInactive, 1).await
    };
    refused(&stack).await;
    done(&stack, &format!("approve {ID} --by alice"));
    // The same person again is nobody else.
    done(&stack, &format!("approve {ID} --by alice"));
    let (code, text) = bindings(&stack, &format!("activate {ID} --by alice"));
    assert_eq!(code, Some(1));
    assert!(text.contains("it is draft, with 1 of 2 approvals"), "{text}");
    tokio::time::sleep(SOON).await;
    let decision = refused(&stack).await;
    let record = stack.server.decision(&decision).await.unwrap();
    assert_eq!(record["explanation"], "inactive_binding: binding `demo-api-key` is draft", "{record}");

    done(&stack, &format!("approve {ID} --by bob"));
    done(&stack, &format!("activate {ID} --by bob"));
    let took = allowed_soon(&stack).await;
    assert!(took < SOON, "activated: {took:?}");

    done(&stack, &format!("disable {ID} --by carol --reason leaked"));
    let disabled = denied_soon(&stack, Reason::BindingInactive).await;
    assert!(disabled < SOON, "disabled: {disabled:?}");
    println!("activated within {took:?}, disabled within {disabled:?}");
    let in_force = |record: &serde_json::Value| {
        let step = &record["binding"];
        record["event"] == "binding_change_in_force" && step["action"] == "disable" && step["by"] == "carol"
    };
    let record = stack.server.audit_record(in_force).await.unwrap();
    let step = &record["binding"];
    assert_eq!(
        (&step["id"], &step["from"], &step["to"], &step["version"], &step["reason"]),
        (&json!(ID), &json!("active"), &json!("disabled"), &json!(4), &json!("leaked")),
        "{record}"
    );

    done(&stack, &format!("activate {ID} --by carol"));
    allowed_soon(&stack).await;
    // Somebody opens it to another host: nobody approved that.
    stack
        .change_config(|config| {
            if let Some(hosts) = config["bindings"][0]["hosts"].as_array_mut() {
                hosts.push(json!("elsewhere.example:443"));
            }
        })
        .unwrap();
    denied_soon(&stack, Reason::BindingInactive).await;
    let (_, text) = bindings(&stack, "list");
    assert!(text.contains("demo-api-key  draft  5 "), "{text}");

    // What is revoked does not come back, not after a restart either.
    done(&stack, &format!("revoke {ID} --by carol"));
    stack.restart_server().unwrap();
    let answer = stack.send(echo()).await.unwrap();
    expect::json_rpc_error(&answer, Reason::BindingInactive, &json!(1));
    let (code, text) = bindings(&stack, &format!("activate {ID} --by alice"));
    assert_eq!(code, Some(1));
    assert!(text.contains("it is revoked"), "{text}");
    let (_, text) = bindings(&stack, &format!("history {ID}"));
    assert_eq!(text.lines().count(), 6, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_change_one_version_exactly_one_wins() {
    let stack = with_lifecycle(Stack::builder("lifecycle-race"), 0).start().await.unwrap();
    allowed_soon(&stack).await;
    let outcomes: Vec<(Option<i32>, String)> = std::thread::scope(|scope| {
        let stack = &stack;
        let writers: Vec<_> = ["disable", "revoke"]
            .map(|action| scope.spawn(move || bindings(stack, &format!("{action} {ID} --version 0 --by {action}r"))))
            .into();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let won = outcomes.iter().filter(|(code, _)| *code == Some(0)).count();
    let lost = outcomes.iter().filter(|(_, text)| text.contains("it is at version 1 and ")).count();
    assert_eq!((won, lost), (1, 1), "{outcomes:#?}");
    denied_soon(&stack, Reason::BindingInactive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_lets_what_is_known_serve_for_a_while() {
    let builder = with_lifecycle(Stack::builder("lifecycle-away"), 0);
    let stack = builder.config(|config| config["lifecycle"]["max_stale_secs"] = json!(5)).start().await.unwrap();
    allowed_soon(&stack).await;
    // Nothing can be read any more, as if the database were away.
    stack.change_database("ALTER TABLE invalidations RENAME TO away").unwrap();
    let began = Instant::now();
    let mut served = Duration::ZERO;
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if answer.result().is_err() {
            expect::denied(&stack, &answer, Reason::DecisionUnavailable, 1).await;
            break;
        }
        served = began.elapsed();
        assert!(served < Duration::from_secs(10), "it serves for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("served for {served:?} after the database was gone");
    assert!(served > Duration::from_secs(3), "{served:?}");
    stack.change_database("ALTER TABLE away RENAME TO invalidations").unwrap();
    allowed_soon(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_lent_for_it_is_given_back_when_it_is_disabled() {
    let store = Store::start(Kind::Vault, "lifecycle-lease").unwrap();
    store.tell("mount", json!({"path": "database", "kind": "database"})).await.unwrap();
    store.tell("role", json!({"mount": "database", "role": "app"})).await.unwrap();
    let rules = json!({"database/creds/app": ["read"], "sys/leases/revoke": ["update"]});
    store.tell("policy", json!({"name": "keyward", "rules": rules})).await.unwrap();
    store.tell("token", json!({"policies": ["keyward"], "token": TOKEN})).await.unwrap();
    let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
    let stores = json!({"vault": {"type": "vault", "address": store.url(), "auth": auth}});
    let headers = [("x-pair", json!({"ref": "vault://database/creds/app?dynamic", "json_key": "password"}))];
    let builder = builder("lifecycle-lease", stores, &headers).variable("VAULT_TOKEN", TOKEN);
    let stack = with_lifecycle(builder, 0).start().await.unwrap();
    allowed_soon(&stack).await;
    let leases = async || store.tell("leases", json!({})).await.unwrap().as_array().cloned().unwrap_or_default();
    let before = leases().await;
    assert!(before.len() == 1 && before[0]["revoked"] == false, "{before:#?}");
    done(&stack, &format!("disable {ID}"));
    denied_soon(&stack, Reason::BindingInactive).await;
    let began = Instant::now();
    while leases().await[0]["revoked"] == false {
        assert!(began.elapsed() < SOON, "the lease is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Back in use, it asks for another one.
    done(&stack, &format!("activate {ID}"));
    allowed_soon(&stack).await;
    let after = leases().await;
    assert!(after.len() == 2 && after[1]["revoked"] == false, "{after:#?}");
}
