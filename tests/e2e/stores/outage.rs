//! A store that is away: its values serve as long as configuration says, and then every call is denied.

use std::time::{Duration, Instant};

use keyward_tests::client::Answer;
use keyward_tests::stores::{Kind, Store};
use serde_json::json;

use super::{builder, call, echo, received};

const TOKEN: &str = "canary-outage-token-8c2f";

/// A Vault and a stack that looks at its value every second, which may become four seconds old.
async fn started(test: &str) -> (Store, keyward_tests::stack::Stack) {
    let store = Store::start(Kind::Vault, test).unwrap();
    store.tell("mount", json!({"path": "kv", "kind": "kv"})).await.unwrap();
    store.tell("policy", json!({"name": "keyward", "rules": {"kv/data/*": ["read"]}})).await.unwrap();
    store.tell("token", json!({"policies": ["keyward"], "token": TOKEN})).await.unwrap();
    store.tell("put", json!({"mount": "kv", "path": "jira", "data": {"key": "canary-value-before"}})).await.unwrap();
    let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
    let caching = json!({"refresh_secs": 1, "max_stale_secs": 4});
    let stores = json!({"vault": {"type": "vault", "address": store.url(), "caching": caching, "auth": auth}});
    let headers = [("x-key", json!({"ref": "vault://kv/jira", "json_key": "key"}))];
    let stack = builder(test, stores, &headers).variable("VAULT_TOKEN", TOKEN).start().await.unwrap();
    (store, stack)
}

/// The answer is a denial for want of the credential, or, where the store hangs longer than the filter waits, of a decision.
async fn nothing_sent(stack: &keyward_tests::stack::Stack, answer: &Answer) {
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "{}", answer.text());
    let reason = answer.json().unwrap()["error"]["data"]["reason"].clone();
    assert!(reason == "credential_unavailable" || reason == "decision_unavailable", "{reason}");
}

/// Calls until one is denied; every call before carried the value. How long that took since `began`.
async fn served_for(stack: &keyward_tests::stack::Stack, began: Instant) -> Duration {
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if answer.result().is_err() {
            nothing_sent(stack, &answer).await;
            return began.elapsed();
        }
        assert_eq!(received(stack, "x-key").await, ["canary-value-before"]);
        assert!(began.elapsed() < Duration::from_secs(12), "the value still serves");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bridged_for_as_long_as_configured_and_then_denied() {
    let (store, stack) = started("stores-outage").await;
    call(&stack, "x-key").await;
    let began = Instant::now();
    store.tell("seal", json!({"sealed": true})).await.unwrap();
    let served = served_for(&stack, began).await;
    super::until_denied_because(&stack, "vault://kv/jira").await;
    // Four seconds from when it was had, which was a moment before.
    assert!(served > Duration::from_millis(2500) && served < Duration::from_millis(5500), "{served:?}");
    // The store is back: so are the calls, by themselves.
    store.tell("seal", json!({"sealed": false})).await.unwrap();
    super::until_allowed(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_or_hangs_denies_in_time() {
    let (mut store, stack) = started("stores-outage-gone").await;
    call(&stack, "x-key").await;
    // It accepts connections and never answers.
    store.process.signal(rustix::process::Signal::STOP).unwrap();
    let served = served_for(&stack, Instant::now()).await;
    assert!(served < Duration::from_secs(10), "{served:?}");
    // Now it refuses them.
    store.kill();
    stack.upstream.reset().await.unwrap();
    let asked = Instant::now();
    let answer = stack.send(echo()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    nothing_sent(&stack, &answer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_is_not_noticed() {
    let (store, stack) = started("stores-outage-short").await;
    call(&stack, "x-key").await;
    store.tell("put", json!({"mount": "kv", "path": "jira", "data": {"key": "canary-value-after"}})).await.unwrap();
    store.tell("fail", json!({"status": 503, "count": 2})).await.unwrap();
    super::call_until(&stack, "x-key", "canary-value-after", Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_its_target_gets_no_token() {
    let (store, stack) = started("stores-outage-redirect").await;
    let other = Store::start(Kind::Vault, "stores-outage-redirect-target").unwrap();
    store.tell("redirect", json!({"location": format!("{}/v1/kv/data/jira", other.url())})).await.unwrap();
    let cause = super::denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("status 307"), "{cause}");
    assert!(other.requests().await.unwrap().is_empty());
}
