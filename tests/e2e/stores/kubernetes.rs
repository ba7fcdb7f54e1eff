//! Secrets of a cluster, through its API with the pod's own account.

use std::time::Duration;

use keyward_tests::issuer::Issuer;
use keyward_tests::stores::{Kind, Store};
use serde_json::{Value, json};

use super::{builder, caching, call, call_until, denied, echo, received, service_account, written_nowhere};

const AUDIENCE: &str = "https://kubernetes.default.svc";
const ACCOUNT: &str = "system:serviceaccount:gateways:keyward";

async fn cluster(test: &str, issuer: &Issuer) -> Store {
    let store = Store::start(Kind::Kubernetes, test).unwrap();
    store.tell("keys", json!({"jwks": issuer.jwks(), "audience": AUDIENCE})).await.unwrap();
    store.tell("allow", json!({"subject": ACCOUNT, "namespace": "apps", "name": "jira"})).await.unwrap();
    for (namespace, name) in [("apps", "jira"), ("apps", "other")] {
        put(&store, namespace, name, "canary-value-in-cluster").await;
    }
    store
}

async fn put(store: &Store, namespace: &str, name: &str, value: &str) {
    let data = json!({"token": value, "user": "canary-user-in-cluster"});
    store.tell("put", json!({"namespace": namespace, "name": name, "data": data})).await.unwrap();
}

fn configured(store: &Store) -> Value {
    json!({"k8s": {"type": "kubernetes", "address": store.url(), "ca_file": store.ca_file(), "caching": caching(),
        "token": {"ref": "file://account.jwt"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_or_all_keys_reach_the_upstream_and_follow_the_secret() {
    let issuer = Issuer::new().unwrap();
    let store = cluster("stores-kubernetes", &issuer).await;
    let headers = [
        ("x-key", json!({"ref": "k8s://apps/jira/token"})),
        ("x-user", json!({"ref": "k8s://apps/jira", "json_key": "user"})),
    ];
    let token = service_account(&issuer, "gateways", "keyward", AUDIENCE);
    let stack = builder("stores-kubernetes", configured(&store), &headers).file("account.jwt", &token);
    let stack = stack.variable("KEYWARD_LOG", "debug").start().await.unwrap();
    assert_eq!(call(&stack, "x-key").await, "canary-value-in-cluster");
    assert_eq!(received(&stack, "x-user").await, ["canary-user-in-cluster"]);
    put(&store, "apps", "jira", "canary-value-rotated").await;
    // The kubelet replaces the token, too; the old one ends.
    let next = Issuer::new().unwrap();
    store.tell("keys", json!({"jwks": next.jwks(), "audience": AUDIENCE})).await.unwrap();
    let token = service_account(&next, "gateways", "keyward", AUDIENCE);
    stack.change_file("account.jwt", &token).unwrap();
    call_until(&stack, "x-key", "canary-value-rotated", Duration::from_secs(4)).await;
    written_nowhere(&stack, &["canary-value-in-cluster", "canary-value-rotated", "canary-user-in-cluster", &token])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_does_not_name_is_denied() {
    let issuer = Issuer::new().unwrap();
    let store = cluster("stores-kubernetes-role", &issuer).await;
    let token = service_account(&issuer, "gateways", "keyward", AUDIENCE);
    let stack =
        builder("stores-kubernetes-role", configured(&store), &[("x-key", json!({"ref": "k8s://apps/other/token"}))]);
    let stack = stack.file("account.jwt", &token).start().await.unwrap();
    let cause = denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("is forbidden") && cause.contains("`resourceNames`"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_clusters_authority_did_not_sign_gets_no_token() {
    let issuer = Issuer::new().unwrap();
    let store = cluster("stores-kubernetes-tls", &issuer).await;
    let other = Store::start(Kind::Kubernetes, "stores-kubernetes-tls-other").unwrap();
    let mut stores = configured(&store);
    stores["k8s"]["ca_file"] = json!(other.ca_file());
    let token = service_account(&issuer, "gateways", "keyward", AUDIENCE);
    let stack = builder("stores-kubernetes-tls", stores, &[("x-key", json!({"ref": "k8s://apps/jira/token"}))]);
    let stack = stack.file("account.jwt", &token).start().await.unwrap();
    denied(&stack, echo().bearer(&stack.token)).await;
    assert!(store.requests().await.unwrap().is_empty());
}
