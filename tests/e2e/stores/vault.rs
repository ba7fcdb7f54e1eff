//! Vault: each way to log in, KV version 2, namespaces, paths of a caller's own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyward_tests::client::Request;
use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::stack::ROLE;
use keyward_tests::stores::{self, Kind, Store};
use serde_json::{Value, json};

use super::{
    builder, caching, call, call_until, denied, echo, received, service_account, store_says, until_denied_because,
    written_nowhere,
};
use crate::{leak, scripted};

const SECRET_ID: &str = "canary-secret-id-77d0b1";
const ROOT: &str = "canary-root-token-19c3e2";
const BEFORE: &str = "canary-value-before";
const AFTER: &str = "canary-value-after";

/// A Vault with the engine `kv`, a policy for `team/`, and each login method with the role `keyward`.
async fn vault(test: &str, issuer: &Issuer, token_secs: u64) -> Store {
    let store = Store::start(Kind::Vault, test).unwrap();
    let rules = json!({"kv/data/team/*": ["read"], "kv/data/users/+/key": ["read"]});
    for namespace in ["", "team-a"] {
        let tell = |command: &'static str, mut arguments: Value| {
            arguments["namespace"] = json!(namespace);
            let store = &store;
            async move { store.tell(command, arguments).await.unwrap() }
        };
        tell("mount", json!({"path": "kv", "kind": "kv"})).await;
        tell("policy", json!({"name": "keyward", "rules": rules})).await;
        for kind in ["approle", "kubernetes", "jwt"] {
            tell("login_mount", json!({"path": kind, "kind": kind, "jwks": issuer.jwks()})).await;
        }
        let role = json!({"policies": ["keyward"], "ttl": token_secs, "max_ttl": token_secs * 2});
        let with = |more: Value| {
            let mut all = role.clone();
            for (name, value) in more.as_object().into_iter().flatten() {
                all[name] = value.clone();
            }
            all
        };
        tell("login_role", with(json!({"mount": "approle", "role": "keyward", "role_id": "role-keyward"}))).await;
        tell("secret_id", json!({"mount": "approle", "role": "keyward", "secret_id": SECRET_ID})).await;
        let bound = json!({"mount": "kubernetes", "role": "keyward", "audience": "vault",
            "bound_service_account_names": ["keyward"], "bound_service_account_namespaces": ["gateways"]});
        tell("login_role", with(bound)).await;
        let bound = json!({"mount": "jwt", "role": "keyward", "bound_audiences": ["vault"], "bound_subject": "keyward",
            "bound_claims": {"project": "gateways"}});
        tell("login_role", with(bound)).await;
    }
    store
}

fn approle(store: &Store) -> Value {
    json!({"type": "vault", "address": store.url(), "caching": caching(), "auth": {
        "type": "approle", "role_id": "role-keyward", "secret_id": {"ref": "env://VAULT_SECRET_ID"}}})
}

fn workload_token(issuer: &Issuer) -> String {
    issuer.sign(&Token::new("keyward", &[]).claim("aud", "vault").claim("project", "gateways")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hvac_finds_the_store_of_these_tests_to_be_vault() {
    let issuer = Issuer::new().unwrap();
    let store = Store::start(Kind::Vault, "stores-hvac").unwrap();
    let account = service_account(&issuer, "gateways", "keyward", "https://kubernetes.default.svc");
    let report = stores::check_with_hvac(&store, &workload_token(&issuer), &account, &issuer.jwks()).unwrap();
    assert_eq!(report["hvac"], "2.4.0");
    assert_eq!(report["checked"].as_array().map(Vec::len), Some(14), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_by_every_way_to_log_in() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-logins", &issuer, 3600).await;
    store.tell("token", json!({"policies": ["keyward"], "token": ROOT})).await.unwrap();
    let put = json!({"mount": "kv", "path": "team/jira", "data": {"key": "canary-value-by-vault", "other": 1}});
    store.tell("put", put).await.unwrap();
    let entry = |auth: Value| json!({"type": "vault", "address": store.url(), "auth": auth});
    let stores = json!({
        "by-token": entry(json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}})),
        "by-approle": approle(&store),
        "by-kubernetes": entry(json!({"type": "kubernetes", "role": "keyward", "jwt": {"ref": "file://account.jwt"}})),
        "by-jwt": entry(json!({"type": "jwt", "role": "keyward", "jwt": {"ref": "file://workload.jwt"}})),
    });
    let names = ["by-token", "by-approle", "by-kubernetes", "by-jwt"];
    let headers: Vec<(String, Value)> = names
        .iter()
        .map(|name| (format!("x-{name}"), json!({"ref": format!("{name}://kv/team/jira"), "json_key": "key"})))
        .collect();
    let headers: Vec<(&str, Value)> = headers.iter().map(|(name, secret)| (name.as_str(), secret.clone())).collect();
    let account = service_account(&issuer, "gateways", "keyward", "vault");
    let stack = builder("stores-vault-logins", stores, &headers)
        .variable("VAULT_TOKEN", ROOT)
        .variable("VAULT_SECRET_ID", SECRET_ID)
        .variable("KEYWARD_LOG", "debug")
        .file("account.jwt", format!("{account}\n"))
        .file("workload.jwt", workload_token(&issuer))
        .start()
        .await
        .unwrap();
    call(&stack, "x-by-token").await;
    for name in names {
        assert_eq!(received(&stack, &format!("x-{name}")).await, ["canary-value-by-vault"], "{name}");
    }
    let logins = store.tell("logins", json!({})).await.unwrap();
    assert_eq!(logins.as_array().map(Vec::len), Some(3), "{logins}");
    written_nowhere(&stack, &["canary-value-by-vault", SECRET_ID, ROOT, &account]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_does_not_fit_is_denied() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-role", &issuer, 3600).await;
    store
        .tell("put", json!({"mount": "kv", "path": "team/jira", "data": {"key": "canary-value-by-vault"}}))
        .await
        .unwrap();
    let account = service_account(&issuer, "elsewhere", "keyward", "vault");
    let forged = service_account(&Issuer::new().unwrap(), "gateways", "keyward", "vault");
    for (name, jwt, said) in
        [("account", &account, "namespace not authorized"), ("forged", &forged, "permission denied")]
    {
        let auth = json!({"type": "kubernetes", "role": "keyward", "jwt": {"ref": "file://account.jwt"}});
        let stores = json!({"vault": {"type": "vault", "address": store.url(), "auth": auth}});
        let secret = json!({"ref": "vault://kv/team/jira", "json_key": "key"});
        let stack = builder(&format!("stores-vault-role-{name}"), stores, &[("x-key", secret)]);
        let stack = stack.file("account.jwt", jwt).start().await.unwrap();
        let cause = denied(&stack, echo().bearer(&stack.token)).await;
        assert!(cause.contains(said), "{cause}");
        written_nowhere(&stack, &[jwt]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_the_policy_does_not_name_is_denied_without_a_new_login() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-policy", &issuer, 3600).await;
    store
        .tell("put", json!({"mount": "kv", "path": "other/jira", "data": {"key": "canary-value-by-vault"}}))
        .await
        .unwrap();
    let secret = json!({"ref": "vault://kv/other/jira", "json_key": "key"});
    let stack = builder("stores-vault-policy", json!({"vault": approle(&store)}), &[("x-key", secret)]);
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    let cause = denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("permission denied") && cause.contains("capability `read`"), "{cause}");
    assert_eq!(store.tell("logins", json!({})).await.unwrap().as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_namespaces_are_kept_apart() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-versions", &issuer, 3600).await;
    for (namespace, value) in [("", "canary-one-of-root"), ("", "canary-two-of-root"), ("team-a", "canary-one-of-team")]
    {
        let put = json!({"mount": "kv", "path": "team/jira", "data": {"key": value}, "namespace": namespace});
        store.tell("put", put).await.unwrap();
    }
    let mut team = approle(&store);
    team["namespace"] = json!("team-a");
    let key = |reference: &str| json!({"ref": reference, "json_key": "key"});
    let headers = [
        ("x-newest", key("vault://kv/team/jira")),
        ("x-first", key("vault://kv/team/jira?version=1")),
        ("x-team", key("team://kv/team/jira")),
    ];
    let stack = builder("stores-vault-versions", json!({"vault": approle(&store), "team": team}), &headers);
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    assert_eq!(call(&stack, "x-newest").await, "canary-two-of-root");
    assert_eq!(received(&stack, "x-first").await, ["canary-one-of-root"]);
    assert_eq!(received(&stack, "x-team").await, ["canary-one-of-team"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_reaches_the_upstream_without_a_failed_call() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-rotation", &issuer, 3600).await;
    let put =
        |value: &'static str| store.tell("put", json!({"mount": "kv", "path": "team/jira", "data": {"key": value}}));
    put(BEFORE).await.unwrap();
    // An upstream that takes these keys and nothing else.
    let taken = Arc::new(Mutex::new(vec![BEFORE]));
    let own = Arc::clone(&taken);
    let address = scripted::start(move |request| {
        let key = scripted::header(request, "x-key");
        let is_taken = own.lock().unwrap().contains(&key);
        let body = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", "refused": !is_taken}});
        let status = if is_taken { "200 OK" } else { "401 Unauthorized" };
        scripted::response(status, "content-type: application/json\r\n", body.to_string().as_bytes())
    })
    .await;
    let secret = json!({"ref": "vault://kv/team/jira", "json_key": "key"});
    let stack = builder("stores-vault-rotation", json!({"vault": approle(&store)}), &[("x-key", secret)]);
    let stack = scripted::route(stack.policy(leak::POLICY), address, "http");
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    let call = async || stack.send(Request::post(scripted::PATH, &json!({}))).await.unwrap();
    let calls_for = async |time: Duration| {
        let started = Instant::now();
        while started.elapsed() < time {
            let answer = call().await;
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), stack.server.process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    calls_for(Duration::from_millis(300)).await;
    // The upstream takes both for longer than the store is looked at anew, then only the new one.
    taken.lock().unwrap().push(AFTER);
    put(AFTER).await.unwrap();
    calls_for(Duration::from_secs(4)).await;
    *taken.lock().unwrap() = vec![AFTER];
    calls_for(Duration::from_secs(1)).await;
    // The upstream can say no: without the new key it would have.
    *taken.lock().unwrap() = vec![BEFORE];
    assert_eq!(call().await.status, 401);
    written_nowhere(&stack, &[BEFORE, AFTER]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_is_replaced_by_one_login_without_a_failed_call() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-login", &issuer, 3600).await;
    let put =
        |value: &'static str| store.tell("put", json!({"mount": "kv", "path": "team/jira", "data": {"key": value}}));
    put("canary-value-before").await.unwrap();
    let secret = json!({"ref": "vault://kv/team/jira", "json_key": "key"});
    let stack = builder("stores-vault-login", json!({"vault": approle(&store)}), &[("x-key", secret)]);
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    call(&stack, "x-key").await;
    store.tell("expire_tokens", json!({})).await.unwrap();
    put("canary-value-after").await.unwrap();
    call_until(&stack, "x-key", "canary-value-after", Duration::from_secs(4)).await;
    let logins = store.tell("logins", json!({})).await.unwrap();
    assert_eq!(logins.as_array().map(Vec::len), Some(2), "{logins}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_renewed_while_it_is_used() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-renewal", &issuer, 9).await;
    store
        .tell("put", json!({"mount": "kv", "path": "team/jira", "data": {"key": "canary-value-by-vault"}}))
        .await
        .unwrap();
    let secret = json!({"ref": "vault://kv/team/jira", "json_key": "key"});
    let stack = builder("stores-vault-renewal", json!({"vault": approle(&store)}), &[("x-key", secret)]);
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    let renewed = || async {
        call(&stack, "x-key").await;
        store.requests().await.unwrap().iter().any(|line| line.contains("renew-self"))
    };
    let started = std::time::Instant::now();
    while !renewed().await {
        assert!(started.elapsed() < Duration::from_secs(14), "{:?}", store.requests().await.unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(store.tell("logins", json!({})).await.unwrap().as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_path_cannot_leave_its_folder() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-path", &issuer, 3600).await;
    let put = |path: &'static str, value: &'static str| {
        store.tell("put", json!({"mount": "kv", "path": path, "data": {"key": value}}))
    };
    put("users/alice/key", "canary-value-of-alice").await.unwrap();
    put("users/bob/key", "canary-value-of-bob").await.unwrap();
    put("users/a%2Fb/key", "canary-value-of-slash").await.unwrap();
    put("team/key", "canary-value-of-team").await.unwrap();
    let secret = json!({"ref": "vault://kv/users/{user}/key", "json_key": "key"});
    let stack = builder("stores-vault-path", json!({"vault": approle(&store)}), &[("x-key", secret)]);
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    for (subject, value) in
        [("alice", "canary-value-of-alice"), ("bob", "canary-value-of-bob"), ("a/b", "canary-value-of-slash")]
    {
        stack.upstream.reset().await.unwrap();
        let token = stack.token_for(subject, &[ROLE]).unwrap();
        let answer = stack.send_bare(echo().bearer(&token)).await.unwrap();
        assert!(answer.result().is_ok(), "{subject}: {}", answer.text());
        assert_eq!(received(&stack, "x-key").await, [value], "{subject}");
    }
    for subject in
        ["../team", "alice/../bob", "..", "%2e%2e/team", "alice/key?version=1#", "alice\\..\\bob", "*", "carol"]
    {
        let token = stack.token_for(subject, &[ROLE]).unwrap();
        denied(&stack, echo().bearer(&token)).await;
    }
    let outside = |line: &String| line.contains("/data/") && !line.starts_with("GET /v1/kv/data/users/");
    let requests = store.requests().await.unwrap();
    assert!(!requests.iter().any(outside), "{requests:#?}");
    assert!(!requests.iter().any(|line| line.contains("..")), "{requests:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_deleted_destroyed_or_was_never_there_is_no_secret() {
    let issuer = Issuer::new().unwrap();
    let store = vault("stores-vault-deleted", &issuer, 3600).await;
    store.tell("policy", json!({"name": "operator", "rules": {"kv/*": ["update"]}})).await.unwrap();
    store.tell("token", json!({"policies": ["operator"], "token": ROOT})).await.unwrap();
    for _ in 0..3 {
        let put = json!({"mount": "kv", "path": "team/jira", "data": {"key": "canary-value-by-vault"}});
        store.tell("put", put).await.unwrap();
    }
    let (ended, never) = ("this version was deleted or destroyed", "there is nothing");
    for (version, end, cause) in [(1, Some("delete"), ended), (2, Some("destroy"), ended), (7, None, never)] {
        let secret = json!({"ref": format!("vault://kv/team/jira?version={version}"), "json_key": "key"});
        let test = format!("stores-vault-deleted-{version}");
        let stack = builder(&test, json!({"vault": approle(&store)}), &[("x-key", secret)]);
        let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
        if let Some(end) = end {
            // It was there, and was used; then its owner ends it.
            assert_eq!(call(&stack, "x-key").await, "canary-value-by-vault");
            let path = format!("/v1/kv/{end}/team/jira");
            let request = Request::post(&path, &json!({"versions": [version]})).header("x-vault-token", ROOT);
            assert_eq!(request.send(store.address).await.unwrap().status, 204, "{end}");
        }
        until_denied_because(&stack, cause).await;
        written_nowhere(&stack, &["canary-value-by-vault"]).await;
    }
    // The newest one is left.
    let secret = json!({"ref": "vault://kv/team/jira", "json_key": "key"});
    let stack = builder("stores-vault-deleted-left", json!({"vault": approle(&store)}), &[("x-key", secret)]);
    let stack = stack.variable("VAULT_SECRET_ID", SECRET_ID).start().await.unwrap();
    assert_eq!(call(&stack, "x-key").await, "canary-value-by-vault");
    store_says(&store, "logins", |logins| logins.as_array().filter(|all| all.len() == 4).map(drop)).await;
}
