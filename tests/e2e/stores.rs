//! Credentials come out of the store that a team already runs, follow it, and end with it.

mod azure;
mod gcp;
mod kubernetes;
mod leases;
mod onepassword;
mod outage;
mod vault;

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::stack::{Builder, Stack};
use keyward_tests::stores::Store;
use serde_json::{Value, json};

use crate::expect;
use crate::search::Search;

/// Values are looked at every second, and may become three seconds old in an outage.
pub(crate) fn caching() -> Value {
    json!({"refresh_secs": 1, "max_stale_secs": 3})
}

pub(crate) fn echo() -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

/// A stack whose binding puts the secret behind each reference into the header beside it. The upstream demands none of them.
pub(crate) fn builder(test: &str, stores: Value, headers: &[(&str, Value)]) -> Builder {
    let credentials: Vec<Value> = headers
        .iter()
        .map(|(name, secret)| json!({"type": "header", "name": name, "template": "{secret}", "secret": secret}))
        .collect();
    Stack::builder(test).config(move |config| {
        config["stores"] = stores;
        if let Some(own) = config["bindings"][0]["credentials"].as_array_mut() {
            own.extend(credentials);
        }
    })
}

/// The values of a header of the request that the upstream received last.
pub(crate) async fn received(stack: &Stack, name: &str) -> Vec<String> {
    let last = stack.upstream.last().await.unwrap();
    let of_pair = |pair: &Value| {
        let (key, value) = (pair.get(0)?.as_str()?, pair.get(1)?.as_str()?);
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    };
    last["headers"].as_array().map(|pairs| pairs.iter().filter_map(of_pair).collect()).unwrap_or_default()
}

/// Calls, which must work, and returns what the upstream received under `name`.
pub(crate) async fn call(stack: &Stack, name: &str) -> String {
    stack.upstream.reset().await.unwrap();
    let answer = stack.send(echo()).await.unwrap();
    assert!(answer.result().is_ok(), "{}\n{}", answer.text(), stack.server.process.log());
    expect::allowed(stack, &answer).await;
    let mut values = received(stack, name).await;
    assert_eq!(values.len(), 1, "{values:?}");
    values.remove(0)
}

/// Calls again and again, each of which must work, until the upstream received `wanted` under `name`.
pub(crate) async fn call_until(stack: &Stack, name: &str, wanted: &str, limit: Duration) {
    let started = Instant::now();
    loop {
        let value = call(stack, name).await;
        if value == wanted {
            return;
        }
        assert!(started.elapsed() < limit, "still another value after {limit:?}\n{}", stack.server.process.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A call is denied for want of a credential, and nothing reaches the upstream. Returns the audit record and the log.
pub(crate) async fn denied(stack: &Stack, request: Request) -> String {
    stack.upstream.reset().await.unwrap();
    let answer = stack.send_bare(request).await.unwrap();
    denied_answer(stack, &answer).await
}

pub(crate) async fn denied_answer(stack: &Stack, answer: &Answer) -> String {
    let decision = expect::denied(stack, answer, Reason::CredentialUnavailable, 1).await;
    let record = stack.server.decision(&decision).await.unwrap();
    assert_eq!(record["stage"], "credential", "{record}");
    // The record has room for the beginning of a cause, the log for all of it.
    format!("{record}\n{}", stack.server.process.log())
}

/// None of these stands, in whatever form, in anything that any part wrote.
pub(crate) async fn written_nowhere(stack: &Stack, secrets: &[&str]) {
    let written = stack.everything_written().await.unwrap();
    for secret in secrets {
        assert_eq!(Search::new(secret).find(written.as_bytes()), None);
    }
}

/// A token of a Kubernetes service account, as the cluster's issuer signs it.
pub(crate) fn service_account(issuer: &Issuer, namespace: &str, name: &str, audience: &str) -> String {
    let subject = format!("system:serviceaccount:{namespace}:{name}");
    issuer.sign(&Token::new(&subject, &[]).claim("aud", audience)).unwrap()
}

/// Waits until the store says something.
pub(crate) async fn store_says<T>(store: &Store, command: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        let said = store.tell(command, json!({})).await.unwrap();
        if let Some(found) = wanted(&said) {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "the store still says {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until calls are allowed.
pub(crate) async fn until_allowed(stack: &Stack) {
    let started = Instant::now();
    while stack.send(echo()).await.unwrap().result().is_err() {
        assert!(started.elapsed() < Duration::from_secs(15), "{}", stack.server.process.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until calls are denied for this cause, and nothing reaches the upstream then. Returns
/// the audit record and the log.
pub(crate) async fn until_denied_because(stack: &Stack, cause: &str) -> String {
    let started = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if answer.result().is_err() {
            let record = denied_answer(stack, &answer).await;
            if record.contains(cause) {
                return record;
            }
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{}", stack.server.process.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
