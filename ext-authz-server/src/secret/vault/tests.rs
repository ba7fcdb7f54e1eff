//! What becomes of leases, with a store that remembers which it took back.

use std::sync::Mutex as Guarded;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use serde_json::json;

use super::*;
use crate::scratch::Scratch;

const REST: &str = "database/creds/app?dynamic";

/// A Vault in which every login and every lease is good, for `lifetime_secs` and no longer.
struct Fake {
    vault: Arc<Vault>,
    revoked: Arc<Guarded<Vec<String>>>,
    _scratch: Scratch,
}

impl Fake {
    async fn start(lifetime_secs: u64) -> Fake {
        let revoked: Arc<Guarded<Vec<String>>> = Arc::default();
        let (log, made) = (revoked.clone(), Arc::new(AtomicUsize::new(0)));
        let router = Router::new().fallback(move |request: Request| {
            let (log, made) = (log.clone(), made.clone());
            async move {
                let path = request.uri().path().to_owned();
                let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap();
                let answer = match path.as_str() {
                    "/v1/auth/token/lookup-self" => json!({"data": {"id": "t", "ttl": 3600, "renewable": false}}),
                    "/v1/database/creds/app" => {
                        let number = made.fetch_add(1, Ordering::Relaxed) + 1;
                        json!({"lease_id": format!("lease-{number}"), "lease_duration": lifetime_secs,
                            "renewable": false, "data": {"password": format!("password-{number}")}})
                    }
                    "/v1/sys/leases/revoke" => {
                        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
                        log.lock().unwrap().push(asked["lease_id"].as_str().unwrap().to_owned());
                        json!({})
                    }
                    _ => json!({}),
                };
                ([("content-type", "application/json")], answer.to_string()).into_response()
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let scratch = Scratch::new();
        scratch.write("token", "a token");
        let config = json!({"address": address, "auth": {"type": "token", "token": {"ref": "file://token"}}});
        let config: VaultStore = serde_json::from_value(config).unwrap();
        let secrets = Arc::new(Secrets::standard(scratch.path()));
        let vault = Arc::new(Vault::new("vault", &config, &secrets, &Outbound::default()));
        Fake { vault, revoked, _scratch: scratch }
    }

    async fn read(&self) -> Vec<u8> {
        self.vault.read(REST).await.unwrap_or_else(|error| panic!("{error}")).0.expose().to_vec()
    }

    fn revoked(&self) -> Vec<String> {
        let mut revoked = self.revoked.lock().unwrap().clone();
        revoked.sort();
        revoked
    }
}

#[tokio::test]
async fn a_replaced_lease_is_given_back_with_the_one_in_use_when_nothing_needs_it() {
    let fake = Fake::start(6).await;
    let first = fake.read().await;
    // Half of it passes: another one takes its place, and it lives on for the calls that carry it.
    if let Some(lease) = fake.vault.hold(REST).await.unwrap().as_mut() {
        lease.given -= Duration::from_secs(4);
    }
    assert_ne!(fake.read().await, first);
    assert!(fake.vault.give_back_unused(&|_| true).await.is_empty());
    assert!(fake.revoked().is_empty(), "both are in use");
    assert_eq!(fake.vault.give_back_unused(&|_| false).await, [REST]);
    assert_eq!(fake.revoked(), ["lease-1", "lease-2"]);
    assert!(fake.vault.leases.lock().await.replaced.is_empty());
}

#[tokio::test]
async fn who_waited_for_a_place_that_was_taken_away_makes_no_lease_in_it() {
    let fake = Fake::start(600).await;
    fake.read().await;
    let held = fake.vault.hold(REST).await.unwrap();
    let vault = fake.vault.clone();
    let reading = tokio::spawn(async move { vault.read(REST).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let vault = fake.vault.clone();
    let giving = tokio::spawn(async move { vault.give_back_unused(&|_| false).await });
    while fake.vault.leases.lock().await.current.contains_key(REST) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(held);
    assert!(reading.await.unwrap());
    giving.await.unwrap();
    // The next one that stops it finds whatever was lent meanwhile.
    fake.vault.give_back_unused(&|_| false).await;
    assert_eq!(fake.revoked(), ["lease-1", "lease-2"]);
}
