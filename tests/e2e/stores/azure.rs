//! Azure Key Vault, with each way to get a token for it.

use std::time::Duration;

use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::stores::{Kind, Store};
use serde_json::{Value, json};

use super::{builder, caching, call, call_until, denied, echo, received, written_nowhere};

const CLIENT_SECRET: &str = "canary-client-secret-0a91";
const TENANT: &str = "11111111-2222-3333-4444-555555555555";

/// A vault that lets in the managed identity and one app. Returns the first version of the secret, too.
async fn vault(test: &str, issuer: &Issuer) -> (Store, String) {
    let store = Store::start(Kind::Azure, test).unwrap();
    let first = put(&store, "canary-first-in-azure").await;
    put(&store, "canary-second-in-azure").await;
    for principal in ["system-assigned", "app-1"] {
        store.tell("allow", json!({"principal": principal})).await.unwrap();
    }
    let app = json!({"tenant": TENANT, "client_id": "app-1", "client_secret": CLIENT_SECRET});
    store.tell("client", app).await.unwrap();
    let app = json!({"tenant": TENANT, "client_id": "app-1", "jwks": issuer.jwks(), "subject": "gateways/keyward"});
    store.tell("federated", app).await.unwrap();
    (store, first)
}

async fn put(store: &Store, value: &str) -> String {
    let version = store.tell("put", json!({"name": "jira", "value": value})).await.unwrap();
    version.as_str().unwrap_or_default().to_owned()
}

/// In place of `https://NAME.vault.azure.net` and `https://vault.azure.net`, loopback.
fn entry(store: &Store, auth: Value) -> Value {
    json!({"type": "azure", "address": store.url(), "resource": "http://127.0.0.1", "caching": caching(), "auth": auth})
}

fn managed(store: &Store) -> Value {
    entry(store, json!({"type": "managed_identity", "address": store.url()}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_by_every_way_to_get_a_token() {
    let issuer = Issuer::new().unwrap();
    let (store, first) = vault("stores-azure", &issuer).await;
    let app = |method: &str, name: &str, secret: Value| {
        let mut auth = json!({"type": method, "login_address": store.url(), "tenant_id": TENANT, "client_id": "app-1"});
        auth[name] = secret;
        entry(&store, auth)
    };
    let workload =
        issuer.sign(&Token::new("gateways/keyward", &[]).claim("aud", "api://AzureADTokenExchange")).unwrap();
    let stores = json!({
        "by-identity": managed(&store),
        "by-secret": app("client_secret", "client_secret", json!({"ref": "env://AZURE_CLIENT_SECRET"})),
        "by-federation": app("federation", "assertion", json!({"ref": "file://workload.jwt"})),
    });
    let headers = [
        ("x-newest", json!({"ref": "by-identity://jira"})),
        ("x-first", json!({"ref": format!("by-identity://jira/{first}")})),
        ("x-by-secret", json!({"ref": "by-secret://jira"})),
        ("x-by-federation", json!({"ref": "by-federation://jira"})),
    ];
    let stack = builder("stores-azure", stores, &headers)
        .variable("AZURE_CLIENT_SECRET", CLIENT_SECRET)
        .file("workload.jwt", &workload)
        .variable("KEYWARD_LOG", "debug")
        .start()
        .await
        .unwrap();
    assert_eq!(call(&stack, "x-newest").await, "canary-second-in-azure");
    assert_eq!(received(&stack, "x-first").await, ["canary-first-in-azure"]);
    assert_eq!(received(&stack, "x-by-secret").await, ["canary-second-in-azure"]);
    assert_eq!(received(&stack, "x-by-federation").await, ["canary-second-in-azure"]);
    store.tell("expire_tokens", json!({})).await.unwrap();
    put(&store, "canary-third-in-azure").await;
    call_until(&stack, "x-newest", "canary-third-in-azure", Duration::from_secs(4)).await;
    written_nowhere(
        &stack,
        &["canary-first-in-azure", "canary-second-in-azure", "canary-third-in-azure", CLIENT_SECRET],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_wants_tokens_for_something_else_gets_none() {
    let issuer = Issuer::new().unwrap();
    let (store, _) = vault("stores-azure-challenge", &issuer).await;
    store.tell("challenge", json!({"resource": "https://management.azure.com"})).await.unwrap();
    let stack = builder(
        "stores-azure-challenge",
        json!({"azure": managed(&store)}),
        &[("x-key", json!({"ref": "azure://jira"}))],
    );
    let stack = stack.start().await.unwrap();
    let cause = denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("another resource"), "{cause}");
    assert!(!store.requests().await.unwrap().iter().any(|line| line.contains("oauth2")), "a token was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_and_a_missing_role_are_denied() {
    let issuer = Issuer::new().unwrap();
    let (store, _) = vault("stores-azure-denied", &issuer).await;
    let auth = json!({"type": "client_secret", "login_address": store.url(), "tenant_id": TENANT, "client_id": "app-1",
        "client_secret": {"ref": "env://AZURE_CLIENT_SECRET"}});
    let other = json!({"type": "managed_identity", "address": store.url(), "client_id": "app-2"});
    let stores = json!({"azure": entry(&store, auth), "other": entry(&store, other)});
    let stack = builder("stores-azure-denied", stores, &[("x-key", json!({"ref": "azure://jira"}))]);
    let mut stack = stack.variable("AZURE_CLIENT_SECRET", "canary-wrong-secret-0a92").start().await.unwrap();
    let cause = denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("AADSTS7000215"), "{cause}");
    stack
        .change_config(|config| config["bindings"][0]["credentials"][1]["secret"]["ref"] = json!("other://jira"))
        .unwrap();
    let cause = super::until_denied_because(&stack, "Key Vault Secrets User").await;
    assert!(cause.contains("not authorized"), "{cause}");
    written_nowhere(&stack, &["canary-wrong-secret-0a92"]).await;
}
