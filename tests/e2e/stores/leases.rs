//! Credentials that an engine of Vault makes: made when asked for, renewed while used, given back at the end.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, Stack};
use keyward_tests::stores::{Kind, Store};
use serde_json::{Value, json};

use super::{builder, caching, call, echo, received, service_account, store_says, written_nowhere};

const TOKEN: &str = "canary-lease-token-5b07";

/// A Vault whose engine `database` makes pairs of user name and password.
async fn vault(test: &str, ttl: u64, max_ttl: u64) -> Store {
    let store = Store::start(Kind::Vault, test).unwrap();
    store.tell("mount", json!({"path": "database", "kind": "database"})).await.unwrap();
    let role = json!({"mount": "database", "role": "app", "ttl": ttl, "max_ttl": max_ttl});
    store.tell("role", role).await.unwrap();
    store
        .tell(
            "policy",
            json!({"name": "keyward", "rules": {"database/creds/app": ["read"], "sys/leases/revoke": ["update"]}}),
        )
        .await
        .unwrap();
    store.tell("token", json!({"policies": ["keyward"], "token": TOKEN})).await.unwrap();
    store
}

/// A stack that sends the pair as HTTP Basic, beside the key that the upstream demands.
async fn stack(test: &str, store: &Store) -> Stack {
    let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
    logged_in(test, store, auth).variable("VAULT_TOKEN", TOKEN).start().await.unwrap()
}

/// The same with this way to log in.
fn logged_in(test: &str, store: &Store, auth: Value) -> Builder {
    let stores = json!({"vault": {"type": "vault", "address": store.url(), "caching": caching(), "auth": auth}});
    let lease = |key: &str| json!({"ref": "vault://database/creds/app?dynamic", "json_key": key});
    let basic = json!({"type": "basic", "username_secret": lease("username"), "secret": lease("password")});
    let stack = builder(test, stores, &[]).config(|config| {
        // A lease is to be given back, not to end while the server drains.
        config["listen"]["drain_secs"] = json!(0);
        if let Some(credentials) = config["bindings"][0]["credentials"].as_array_mut() {
            credentials.push(basic);
        }
    });
    stack.variable("KEYWARD_LOG", "debug")
}

/// The pair that the upstream received.
async fn pair(stack: &Stack) -> (String, String) {
    let value = call(stack, "authorization").await;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ").unwrap()).unwrap();
    let text = String::from_utf8(decoded).unwrap();
    let (username, password) = text.split_once(':').unwrap();
    (username.to_owned(), password.to_owned())
}

async fn is_live(store: &Store, pair: &(String, String)) -> bool {
    let said = store.tell("is_live", json!({"username": pair.0, "password": pair.1})).await.unwrap();
    said == true
}

fn all(leases: &Value) -> Vec<Value> {
    leases.as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_made_when_asked_for_renewed_while_used_and_given_back_at_the_end() {
    let store = vault("stores-leases", 4, 600).await;
    let mut stack = stack("stores-leases", &store).await;
    assert!(all(&store.tell("leases", json!({})).await.unwrap()).is_empty(), "a lease was taken before anybody asked");
    let first = pair(&stack).await;
    assert!(first.0.starts_with("v-app-") && is_live(&store, &first).await);
    // Longer than it would last without renewal, and every call with a live pair.
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(7) {
        let now = pair(&stack).await;
        assert_eq!(now, first);
        assert!(is_live(&store, &now).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let leases = all(&store.tell("leases", json!({})).await.unwrap());
    assert_eq!(leases.len(), 1, "{leases:#?}");
    assert!(leases[0]["renewals"].as_u64().unwrap_or_default() >= 1, "{leases:#?}");
    written_nowhere(&stack, &[&first.1, TOKEN]).await;
    stack.server.process.stop(Duration::from_secs(15));
    store_says(&store, "leases", |leases| all(leases).iter().all(|lease| lease["revoked"] == true).then_some(())).await;
    assert!(!is_live(&store, &first).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_live_longer_is_replaced_without_a_failed_call() {
    let store = vault("stores-leases-end", 3, 5).await;
    let stack = stack("stores-leases-end", &store).await;
    let first = pair(&stack).await;
    let started = std::time::Instant::now();
    loop {
        let now = pair(&stack).await;
        assert!(is_live(&store, &now).await, "a call carried a pair that the database no longer takes");
        if now != first {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_a_login_of_its_own_is_given_back_and_takes_its_leases_along() {
    const SECRET_ID: &str = "canary-secret-id-of-leases-0c41";
    let issuer = Issuer::new().unwrap();
    let ways = [
        (
            "approle",
            json!({"type": "approle", "role_id": "role-keyward", "secret_id": {"ref": "env://VAULT_SECRET_ID"}}),
        ),
        ("kubernetes", json!({"type": "kubernetes", "role": "keyward", "jwt": {"ref": "file://account.jwt"}})),
        ("jwt", json!({"type": "jwt", "role": "keyward", "jwt": {"ref": "file://workload.jwt"}})),
    ];
    for (kind, auth) in ways {
        let test = format!("stores-leases-{kind}");
        let store = vault(&test, 600, 3600).await;
        // Leases can be read, and not be given back one by one: only the end of the login ends them.
        let rules = json!({"database/creds/app": ["read"]});
        store.tell("policy", json!({"name": "reader", "rules": rules})).await.unwrap();
        store.tell("login_mount", json!({"path": kind, "kind": kind, "jwks": issuer.jwks()})).await.unwrap();
        let role = json!({"mount": kind, "role": "keyward", "policies": ["reader"], "role_id": "role-keyward",
            "audience": "vault", "bound_audiences": ["vault"], "bound_subject": "keyward",
            "bound_service_account_names": ["keyward"], "bound_service_account_namespaces": ["gateways"]});
        store.tell("login_role", role).await.unwrap();
        store.tell("secret_id", json!({"mount": kind, "role": "keyward", "secret_id": SECRET_ID})).await.unwrap();
        let mut stack = logged_in(&test, &store, auth)
            .variable("VAULT_SECRET_ID", SECRET_ID)
            .file("account.jwt", service_account(&issuer, "gateways", "keyward", "vault"))
            .file("workload.jwt", issuer.sign(&Token::new("keyward", &[]).claim("aud", "vault")).unwrap())
            .start()
            .await
            .unwrap();
        let first = pair(&stack).await;
        assert!(is_live(&store, &first).await, "{kind}");
        written_nowhere(&stack, &[&first.1, SECRET_ID]).await;
        stack.server.process.stop(Duration::from_secs(15));
        assert!(!is_live(&store, &first).await, "{kind}: {}", stack.server.process.log());
        let requests = store.requests().await.unwrap();
        let given_back = requests.iter().filter(|line| line.starts_with("POST /v1/auth/token/revoke-self")).count();
        assert_eq!(given_back, 1, "{kind}: {requests:#?}");
        assert!(!requests.iter().any(|line| line.contains("sys/leases/revoke")), "{kind}: {requests:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unbinding_gives_the_lease_back() {
    let store = vault("stores-leases-unbound", 600, 3600).await;
    let mut stack = stack("stores-leases-unbound", &store).await;
    let first = pair(&stack).await;
    assert!(is_live(&store, &first).await);
    let remove = |config: &mut Value| {
        if let Some(credentials) = config["bindings"][0]["credentials"].as_array_mut() {
            credentials.pop();
        }
    };
    stack.change_config(remove).unwrap();
    store_says(&store, "leases", |leases| all(leases).iter().all(|lease| lease["revoked"] == true).then_some(())).await;
    stack.upstream.reset().await.unwrap();
    let answer = stack.send(echo()).await.unwrap();
    assert!(answer.result().is_ok(), "{}", answer.text());
    assert!(received(&stack, "authorization").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_look_give_back_what_they_were_lent() {
    let store = vault("stores-leases-looking", 600, 3600).await;
    let stack = stack("stores-leases-looking", &store).await;
    let params = json!({"name": "echo", "arguments": {"message": "hello"}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    stack.change_file("call.json", call.to_string()).unwrap();
    stack.change_file("token", &stack.token).unwrap();
    let file = |name: &str| stack.folder.join(name).display().to_string();
    let (config, request, token) = (file("keyward.yaml"), file("call.json"), file("token"));
    let commands: [&[&str]; 5] = [
        &["check-config", "--secrets"],
        &["bindings", "list"],
        &["bindings", "show", "demo-api-key"],
        &["bindings", "export"],
        &["explain", "--server", "demo", "--token-file", &token, "--request", &request, "--source", "127.0.0.1"],
    ];
    for (number, command) in commands.iter().enumerate() {
        let output = Server::run(&[*command, &["--config", &config]].concat(), stack.variables()).unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && !said.contains("NOT SET"), "{command:?}: {said}");
        // Each had to take one, to see that it can be had; none is left.
        let leases = all(&store.tell("leases", json!({})).await.unwrap());
        assert_eq!(leases.len(), number + 1, "{command:?}: {leases:#?}");
        assert!(leases.iter().all(|lease| lease["revoked"] == true), "{command:?}: {leases:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_ends_takes_its_leases_along_and_the_next_call_gets_a_new_one() {
    let store = vault("stores-leases-login", 600, 3600).await;
    let stack = stack("stores-leases-login", &store).await;
    let first = pair(&stack).await;
    store.tell("expire_tokens", json!({})).await.unwrap();
    store.tell("token", json!({"policies": ["keyward"], "token": TOKEN})).await.unwrap();
    assert!(!is_live(&store, &first).await);
    // The store alone knows that; Keyward hears it at the next look, a refresh later.
    let started = std::time::Instant::now();
    while pair(&stack).await == first {
        assert!(started.elapsed() < Duration::from_secs(8), "{}", stack.server.process.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(is_live(&store, &pair(&stack).await).await);
}
