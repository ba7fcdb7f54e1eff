//! Keyward's server itself asks nobody inside: no store, no token endpoint and no issuer's keys at an address that nothing
//! allows.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::stack::{Builder, SUBJECT, Stack};
use serde_json::{Value, json};

use super::trap;
use crate::stores::{builder, denied, echo};

/// What lies inside and leads to the listener. `127.0.0.1` itself would be allowed: a configuration names it.
const HOSTS: [&str; 2] = ["0.0.0.0", "[::ffff:127.0.0.1]"];
const SECOND: &str = "https://second.example";

/// The cause of a refusal that comes before any connection.
fn assert_refused(said: &str, url: &str, reached: &AtomicU64) {
    assert!(said.contains("must not be asked"), "{url}: {said}");
    assert_eq!(reached.load(Ordering::Acquire), 0, "{url}: a connection came");
}

/// A listener on loopback that refuses nobody, and proof that this host leads to it.
async fn listener(host: &str) -> (String, std::sync::Arc<AtomicU64>) {
    let (address, reached) = trap(Ipv4Addr::LOCALHOST, 0).await;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    drop(tokio::net::TcpStream::connect((bare, address.port())).await.unwrap());
    while reached.load(Ordering::Acquire) == 0 {
        tokio::task::yield_now().await;
    }
    reached.store(0, Ordering::Release);
    (format!("https://{host}:{}", address.port()), reached)
}

/// The stack with this credential beside the key that the upstream demands.
fn with_credential(test: &str, credential: Value) -> Builder {
    Stack::builder(test).config(|config| {
        if let Some(own) = config["bindings"][0]["credentials"].as_array_mut() {
            own.push(credential);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_store_inside_is_asked() {
    for host in HOSTS {
        let (url, reached) = listener(host).await;
        let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
        let stores = json!({"vault": {"type": "vault", "address": url, "auth": auth}});
        let secret = json!({"ref": "vault://kv/team/jira", "json_key": "key"});
        let stack = builder("perimeter-outbound-store", stores, &[("x-key", secret)]);
        let stack = stack.variable("VAULT_TOKEN", "canary-token-of-outbound").start().await.unwrap();
        let said = denied(&stack, echo().bearer(&stack.token)).await;
        assert_refused(&said, &url, &reached);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_endpoint_inside_is_asked() {
    for host in HOSTS {
        let (url, reached) = listener(host).await;
        let credential = json!({
            "type": "oauth", "grant": "client_credentials", "token_endpoint": format!("{url}/token"),
            "client": {"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}}, "scopes": ["read"],
        });
        let stack = with_credential("perimeter-outbound-token", credential);
        let stack = stack.variable("CLIENT_SECRET", "canary-secret-of-outbound").start().await.unwrap();
        let said = denied(&stack, echo().bearer(&stack.token)).await;
        assert_refused(&said, &url, &reached);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_keys_of_an_issuer_inside_are_fetched() {
    for host in HOSTS {
        let (url, reached) = listener(host).await;
        let issuer = Issuer::new().unwrap();
        let stack = Stack::builder("perimeter-outbound-keys").config(|config| {
            let mut second = config["identity"]["issuers"][0].clone();
            second["name"] = json!("second");
            second["issuer"] = json!(SECOND);
            second["jwks"] = json!({"url": format!("{url}/jwks.json")});
            if let Some(issuers) = config["identity"]["issuers"].as_array_mut() {
                issuers.push(second);
            }
        });
        let stack = stack.start().await.unwrap();
        let token = issuer.sign(&Token::new(SUBJECT, &[]).claim("iss", SECOND)).unwrap();
        let answer = stack.send_bare(echo().bearer(&token)).await.unwrap();
        assert!(answer.result().is_err(), "{}", answer.text());
        assert_eq!(stack.upstream.count().await.unwrap(), 0);
        assert_refused(&stack.server.process.log(), &url, &reached);
    }
}
