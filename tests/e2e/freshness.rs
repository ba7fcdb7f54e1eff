//! Minted credentials stay fresh: a burst makes one mint, a renewal makes nobody wait, what an upstream refuses is replaced,
//! and an authorization server that is away denies once its token has ended, not before.

mod replicas;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyward_tests::client::{Answer, Request};
use keyward_tests::stack::{Builder, Stack};
use serde_json::json;

use crate::{expect, leak, scripted};

/// An authorization server that counts, and an API that takes its tokens.
struct Servers {
    minted: AtomicUsize,
    life_secs: AtomicU64,
    away: AtomicBool,
    /// Tokens up to this number are refused by the API.
    refused: AtomicUsize,
    received: Mutex<Vec<String>>,
}

// === impl Servers ===

impl Servers {
    /// Starts both: the authorization server and the API.
    async fn start(life_secs: u64) -> (Arc<Servers>, SocketAddr, SocketAddr) {
        let servers = Arc::new(Servers {
            minted: AtomicUsize::new(0),
            life_secs: AtomicU64::new(life_secs),
            away: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            received: Mutex::default(),
        });
        let (one, two) = (servers.clone(), servers.clone());
        let authority = scripted::start(move |_| one.token()).await;
        let api = scripted::start(move |request| two.answer(request)).await;
        (servers, authority, api)
    }

    fn token(&self) -> Vec<u8> {
        if self.away.load(Ordering::SeqCst) {
            return scripted::response("503 Service Unavailable", "", b"");
        }
        // Slow, so that a burst meets it under way.
        std::thread::sleep(Duration::from_millis(200));
        let number = self.minted.fetch_add(1, Ordering::SeqCst) + 1;
        let life = self.life_secs.load(Ordering::SeqCst);
        let body = json!({"access_token": name(number), "token_type": "Bearer", "expires_in": life});
        scripted::response("200 OK", "content-type: application/json\r\n", body.to_string().as_bytes())
    }

    fn answer(&self, request: &str) -> Vec<u8> {
        let token = scripted::header(request, "authorization").trim_start_matches("Bearer ").to_owned();
        let number: usize = token.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        self.received.lock().unwrap().push(token);
        let good = number > self.refused.load(Ordering::SeqCst);
        scripted::response(if good { "200 OK" } else { "401 Unauthorized" }, "content-type: text/plain\r\n", b"done")
    }

    fn minted(&self) -> usize {
        self.minted.load(Ordering::SeqCst)
    }

    fn last(&self) -> String {
        self.received.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn name(number: usize) -> String {
    format!("access-token-f3a91c-{number}")
}

fn stack(name: &str, authority: SocketAddr, api: SocketAddr) -> Builder {
    scripted::route(Stack::builder(name).policy(leak::POLICY), api, "http")
        .variable("CLIENT_SECRET", "client-secret-of-keyward-4be2")
        // A busy machine makes a call wait; what is tested is how many mints there are.
        .envoy(|envoy| envoy.plugin.push(("timeout_ms".to_owned(), json!(5000))))
        .config(|config| {
            config["bindings"][0]["credentials"] = json!([{
                "type": "oauth",
                "grant": "client_credentials",
                "token_endpoint": format!("http://{authority}/token"),
                "client": {"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}},
                "scopes": ["orders.read"],
            }]);
        })
}

fn call() -> Request {
    Request::post("/scripted", &json!({}))
}

async fn burst(stack: &Stack, calls: usize) -> Vec<Answer> {
    burst_at(stack.agents, &stack.token, calls).await
}

async fn burst_at(agents: SocketAddr, token: &str, calls: usize) -> Vec<Answer> {
    let calls: Vec<_> = (0..calls)
        .map(|_| {
            let token = token.to_owned();
            tokio::spawn(async move { call().bearer(&token).send(agents).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_first_calls_makes_one_mint() {
    let (servers, authority, api) = Servers::start(3600).await;
    let stack = stack("freshness-burst", authority, api).start().await.unwrap();
    let answers = burst(&stack, 200).await;
    let refused: Vec<String> = answers.iter().filter(|answer| answer.status != 200).map(Answer::text).collect();
    assert!(refused.is_empty(), "{} of 200: {:?}", refused.len(), refused.first());
    assert_eq!(servers.minted(), 1);
    expect::nothing_written(&stack, &[&name(1), "client-secret-of-keyward-4be2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_ahead_and_no_call_waits_or_fails() {
    // Used for 8 of its 16 seconds, renewed in the background before that: 0.8 s at least for a mint of 0.2 s.
    let (servers, authority, api) = Servers::start(16).await;
    let stack = stack("freshness-ahead", authority, api).start().await.unwrap();
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    let (started, mut calls) = (Instant::now(), 1);
    while servers.last() != name(3) {
        assert_eq!(stack.send(call()).await.unwrap().status, 200);
        calls += 1;
        assert!(started.elapsed() < Duration::from_secs(60), "only {} mints", servers.minted());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first call had nothing to go on with; of all others none came while there was no token.
    let metrics = stack.server.metrics().await.unwrap();
    assert!(metrics.lines().any(|line| line == "keyward_mint_waits 1"), "{calls} calls: {metrics}");
    assert_eq!(servers.minted(), 3, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_and_an_api_that_refuses_all_does_not_cause_a_mint_a_call() {
    let (servers, authority, api) = Servers::start(3600).await;
    let stack = stack("freshness-refused", authority, api).start().await.unwrap();
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    servers.refused.store(1, Ordering::SeqCst);
    assert_eq!(stack.send(call()).await.unwrap().status, 401);
    let started = Instant::now();
    while stack.send(call()).await.unwrap().status != 200 {
        assert!(started.elapsed() < Duration::from_secs(10), "the token was not replaced");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((servers.minted(), servers.last()), (2, name(2)));
    servers.refused.store(usize::MAX, Ordering::SeqCst);
    for _ in 0..50 {
        assert_eq!(stack.send(call()).await.unwrap().status, 401);
    }
    assert!(servers.minted() <= 3, "{} mints", servers.minted());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_server_that_is_away_is_bridged_as_long_as_the_token_is_good() {
    let (servers, authority, api) = Servers::start(10).await;
    let stack = stack("freshness-away", authority, api).start().await.unwrap();
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    servers.away.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let denied = loop {
        let answer = stack.send(call()).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "an ended token is still in use");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // Five seconds of ten, less what the first call took.
    assert!(started.elapsed() > Duration::from_secs(3), "denied after {:?}", started.elapsed());
    assert_eq!(denied.status, 503, "{}", denied.text());
    let received = servers.received.lock().unwrap().len();
    for _ in 0..20 {
        assert_eq!(stack.send(call()).await.unwrap().status, 503);
    }
    assert_eq!(servers.received.lock().unwrap().len(), received, "a denied call reached the API");
    // Back again: the next attempt after the pause succeeds by itself.
    servers.away.store(false, Ordering::SeqCst);
    let started = Instant::now();
    while stack.send(call()).await.unwrap().status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
