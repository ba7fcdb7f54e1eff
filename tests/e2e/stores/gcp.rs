//! Google Cloud's Secret Manager, with each way to get a token for it.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::stores::{Kind, Store};
use serde_json::{Value, json};

use super::{builder, caching, call, call_until, denied, echo, received, written_nowhere};

const SECRET: &str = "projects/p/secrets/jira";
const EMAIL: &str = "keyward@p.iam.gserviceaccount.com";
const DEFAULT: &str = "default@project.iam.gserviceaccount.com";
const PROVIDER: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster";

async fn manager(test: &str) -> Store {
    let store = Store::start(Kind::Gcp, test).unwrap();
    for value in ["canary-first-in-gcp", "canary-second-in-gcp"] {
        put(&store, value).await;
    }
    for principal in [DEFAULT, EMAIL] {
        store.tell("allow", json!({"principal": principal, "secret": SECRET})).await.unwrap();
    }
    store
}

async fn put(store: &Store, value: &str) {
    store.tell("put", json!({"secret": SECRET, "value": value})).await.unwrap();
}

fn entry(store: &Store, auth: Value) -> Value {
    json!({"type": "gcp", "address": store.url(), "impersonation_address": store.url(), "caching": caching(), "auth": auth})
}

fn metadata(store: &Store) -> Value {
    entry(store, json!({"type": "metadata", "address": store.url()}))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The key file of a service account that the store knows.
async fn service_account(store: &Store) -> String {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let account = json!({"email": EMAIL, "key_id": "key-1", "public_key": pem("PUBLIC KEY", public.as_ref())});
    store.tell("service_account", account).await.unwrap();
    json!({"type": "service_account", "client_email": EMAIL, "private_key_id": "key-1",
        "private_key": pem("PRIVATE KEY", private.as_ref()), "token_uri": format!("{}/token", store.url())})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_by_every_way_to_get_a_token() {
    let store = manager("stores-gcp").await;
    let issuer = Issuer::new().unwrap();
    let provider = json!({"audience": PROVIDER, "jwks": issuer.jwks(), "subject_audience": PROVIDER});
    store.tell("provider", provider).await.unwrap();
    let workload =
        issuer.sign(&Token::new("system:serviceaccount:gateways:keyward", &[]).claim("aud", PROVIDER)).unwrap();
    let federation = json!({"type": "federation", "audience": PROVIDER, "token_url": format!("{}/v1/token", store.url()),
        "subject_token": {"ref": "file://workload.jwt"}, "service_account": EMAIL});
    let stores = json!({
        "by-metadata": metadata(&store),
        "by-key": entry(&store, json!({"type": "service_account", "key": {"ref": "file://secrets/account.json"}})),
        "by-federation": entry(&store, federation),
    });
    let headers = [
        ("x-newest", json!({"ref": format!("by-metadata://{SECRET}/versions/latest")})),
        ("x-first", json!({"ref": format!("by-metadata://{SECRET}/versions/1")})),
        ("x-by-key", json!({"ref": format!("by-key://{SECRET}/versions/latest")})),
        ("x-by-federation", json!({"ref": format!("by-federation://{SECRET}/versions/latest")})),
    ];
    let stack = builder("stores-gcp", stores, &headers)
        .file("secrets/account.json", service_account(&store).await)
        .file("workload.jwt", &workload)
        .variable("KEYWARD_LOG", "debug")
        .start()
        .await
        .unwrap();
    assert_eq!(call(&stack, "x-newest").await, "canary-second-in-gcp");
    assert_eq!(received(&stack, "x-first").await, ["canary-first-in-gcp"]);
    assert_eq!(received(&stack, "x-by-key").await, ["canary-second-in-gcp"]);
    assert_eq!(received(&stack, "x-by-federation").await, ["canary-second-in-gcp"]);
    // Tokens that end early are replaced, and a new version arrives, without a failed call.
    store.tell("expire_tokens", json!({})).await.unwrap();
    put(&store, "canary-third-in-gcp").await;
    call_until(&stack, "x-newest", "canary-third-in-gcp", Duration::from_secs(4)).await;
    assert_eq!(received(&stack, "x-first").await, ["canary-first-in-gcp"]);
    written_nowhere(&stack, &["canary-first-in-gcp", "canary-second-in-gcp", "canary-third-in-gcp", &workload]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_payload_and_a_missing_right_are_denied() {
    let store = manager("stores-gcp-denied").await;
    let headers = [("x-key", json!({"ref": format!("gcp://{SECRET}/versions/latest")}))];
    store.tell("corrupt", json!({"corrupt": true})).await.unwrap();
    let mut stack = builder("stores-gcp-denied", json!({"gcp": metadata(&store)}), &headers).start().await.unwrap();
    let cause = denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("`dataCrc32c`"), "{cause}");
    store.tell("corrupt", json!({"corrupt": false})).await.unwrap();
    super::until_allowed(&stack).await;
    let other = json!({"ref": "gcp://projects/p/secrets/other/versions/latest"});
    stack.change_config(|config| config["bindings"][0]["credentials"][1]["secret"] = other).unwrap();
    super::until_denied_because(&stack, "secretmanager.secretAccessor").await;
}
