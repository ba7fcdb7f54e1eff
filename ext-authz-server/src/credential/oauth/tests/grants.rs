//! Refresh tokens: rotated, kept before they are used, and never lost to a race.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::database::{Database, DatabaseGrants};
use crate::freshness::MintErrorKind;
use crate::grants::{Grant, GrantCard, GrantError, GrantKey, Grants, Replaced, Turns, Version};
use crate::plan::Pending;
use crate::seal::{LocalKey, Sealer};

/// Grants in memory.
#[derive(Default)]
struct Memory {
    rows: Mutex<BTreeMap<GrantKey, (Grant, i64)>>,
    /// How many replacements fail without being stored.
    failing: AtomicUsize,
    /// How long a replacement takes, in milliseconds.
    slow_ms: AtomicUsize,
    /// Whether the next replacement is stored and its answer lost.
    deaf: AtomicBool,
    turns: Turns,
}

// === impl Memory ===

impl Memory {
    fn with(key: &GrantKey, secret: &str) -> Arc<Memory> {
        let memory = Memory::default();
        memory.rows.lock().unwrap().insert(key.clone(), (grant(secret), 1));
        Arc::new(memory)
    }

    fn secret(&self, key: &GrantKey) -> Option<String> {
        let rows = self.rows.lock().unwrap();
        rows.get(key).map(|(grant, _)| String::from_utf8(grant.secret.expose().to_vec()).unwrap())
    }
}

impl Grants for Memory {
    fn load<'a>(&'a self, key: &'a GrantKey) -> Pending<'a, Result<Option<(Grant, Version)>, GrantError>> {
        Box::pin(async move {
            let rows = self.rows.lock().unwrap();
            Ok(rows.get(key).map(|(grant, version)| (grant.clone(), Version(*version))))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a GrantKey,
        expected: Option<Version>,
        grant: &'a Grant,
    ) -> Pending<'a, Result<Replaced, GrantError>> {
        Box::pin(async move {
            let slow_ms = self.slow_ms.load(Ordering::Relaxed) as u64;
            tokio::time::sleep(Duration::from_millis(slow_ms)).await;
            if self.failing.load(Ordering::Relaxed) > 0 {
                self.failing.fetch_sub(1, Ordering::Relaxed);
                return Err(GrantError("out of reach".to_owned()));
            }
            let mut rows = self.rows.lock().unwrap();
            let now = rows.get(key).map(|(_, version)| Version(*version));
            if now != expected {
                return Ok(Replaced::Lost);
            }
            let next = now.map_or(1, |Version(version)| version + 1);
            rows.insert(key.clone(), (grant.clone(), next));
            if self.deaf.swap(false, Ordering::Relaxed) {
                return Err(GrantError("the answer got lost".to_owned()));
            }
            Ok(Replaced::Stored(Version(next)))
        })
    }

    fn delete<'a>(&'a self, key: &'a GrantKey, version: Option<Version>) -> Pending<'a, Result<bool, GrantError>> {
        Box::pin(async move {
            let mut rows = self.rows.lock().unwrap();
            let fits = rows.get(key).is_some_and(|(_, own)| version.is_none_or(|version| version.0 == *own));
            Ok(fits && rows.remove(key).is_some())
        })
    }

    fn list<'a>(&'a self, _tenant: Option<&'a str>) -> Pending<'a, Result<Vec<GrantCard>, GrantError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn lease<'a>(&'a self, _key: &'a GrantKey, _duration: Duration) -> Pending<'a, Result<bool, GrantError>> {
        Box::pin(async { Ok(true) })
    }

    fn release<'a>(&'a self, _key: &'a GrantKey) -> Pending<'a, Result<(), GrantError>> {
        Box::pin(async { Ok(()) })
    }
}

fn grant(secret: &str) -> Grant {
    Grant {
        secret: Arc::new(SecretBytes::new(secret.as_bytes().to_vec())),
        scopes: Vec::new(),
        account: None,
        given: SystemTime::now(),
        expires: None,
    }
}

/// An authorization server that rotates refresh tokens and ends the grant when an old one comes back.
struct Rotating {
    server: Server,
    live: Arc<Mutex<Option<String>>>,
}

impl Rotating {
    async fn start(first: &str) -> Rotating {
        Rotating::slow(first, Duration::ZERO).await
    }

    /// One that thinks for a while about what it is asked.
    async fn slow(first: &str, pause: Duration) -> Rotating {
        let live = Arc::new(Mutex::new(Some(first.to_owned())));
        let (state, count) = (Arc::clone(&live), AtomicUsize::new(1));
        let server = Server::start(move |asked| {
            let mut live = state.lock().unwrap();
            std::thread::sleep(pause);
            if asked.field("refresh_token") != *live {
                *live = None;
                return (400, json!({"error": "invalid_grant"}));
            }
            let number = count.fetch_add(1, Ordering::Relaxed);
            let mut answer = token(&format!("the-access-token-{number}"));
            let next = format!("the-refresh-token-{number}");
            answer["refresh_token"] = json!(next);
            *live = Some(next);
            (200, answer)
        })
        .await;
        Rotating { server, live }
    }

    fn live(&self) -> Option<String> {
        self.live.lock().unwrap().clone()
    }

    fn credential(&self, more: Value) -> Arc<Oauth> {
        let mut configured = json!({
            "grant": "refresh_token", "token_endpoint": format!("{}/token", self.server.url),
            "client": {"id": "keyward", "authentication": "none"},
        });
        configured.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        oauth(configured)
    }
}

fn with_grants(scratch: &Scratch, grants: &Arc<Memory>) -> Arc<Sources> {
    let secrets = Arc::new(Secrets::standard(scratch.path()));
    Arc::new(Sources::new(secrets).with_grants(Arc::clone(grants) as Arc<dyn Grants>))
}

/// A replica on the database in this folder.
async fn replica(scratch: &Scratch) -> Arc<Sources> {
    let url = format!("sqlite://{}", scratch.path().join("keyward.db").display());
    let database = Database::open(&url, 4).await.unwrap();
    let key = LocalKey::parse(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let sealer = Arc::new(Sealer::new(database.clone(), vec![Arc::new(key)]).unwrap());
    let grants = Arc::new(DatabaseGrants::new(database, sealer).unwrap());
    Arc::new(Sources::new(Arc::new(Secrets::standard(scratch.path()))).with_grants(grants))
}

fn key_of(caller: &Caller, provider: &str) -> GrantKey {
    GrantKey::new(caller.tenant(), &caller.principal.key, provider)
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_refresh_at_once_exactly_one_refresh_token_lives() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    let key = key_of(&alice, "concurrent");
    let server = Rotating::start("the-first-refresh-token").await;
    let grants = Memory::with(&key, "the-first-refresh-token");
    let sources = with_grants(&scratch, &grants);
    let mut mints = tokio::task::JoinSet::new();
    for number in 0..24 {
        // Different scopes: different tokens of one grant, which the cache does not bring together.
        let credential = server.credential(json!({"provider": "concurrent", "scopes": [format!("s{number}")]}));
        let (alice, sources) = (alice.clone(), sources.clone());
        mints.spawn(async move { mint(&credential, &alice, &sources).await.map(drop) });
    }
    for result in mints.join_all().await {
        assert_eq!(result, Ok(()));
    }
    assert_eq!(server.live(), Some("the-refresh-token-24".to_owned()));
    assert_eq!(grants.secret(&key), server.live());
    assert_eq!(server.server.asked().len(), 24, "no attempt was in vain");
}

#[tokio::test]
async fn the_next_token_is_stored_before_the_access_token_is_used() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    let key = key_of(&alice, "failing");
    let server = Rotating::start("the-first-refresh-token").await;
    let grants = Memory::with(&key, "the-first-refresh-token");
    let (sources, credential) = (with_grants(&scratch, &grants), server.credential(json!({"provider": "failing"})));
    grants.failing.store(2, Ordering::Relaxed);
    mint(&credential, &alice, &sources).await.unwrap();
    assert_eq!(grants.secret(&key), server.live(), "a passing outage is waited for");
    grants.deaf.store(true, Ordering::Relaxed);
    mint(&credential, &alice, &sources).await.unwrap();
    assert_eq!(grants.secret(&key), server.live(), "what was stored without an answer is found");
    grants.failing.store(100, Ordering::Relaxed);
    let error = mint(&credential, &alice, &sources).await.err().unwrap();
    assert_eq!(error.kind, MintErrorKind::Transient);
    assert!(error.cause.contains("could not be stored"), "{error}");
}

#[tokio::test]
async fn a_mint_that_is_given_up_still_stores_the_next_token() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    let key = key_of(&alice, "slow");
    let server = Rotating::start("the-first-refresh-token").await;
    let grants = Memory::with(&key, "the-first-refresh-token");
    let (sources, credential) = (with_grants(&scratch, &grants), server.credential(json!({"provider": "slow"})));
    grants.slow_ms.store(500, Ordering::Relaxed);
    let limit = Duration::from_millis(250);
    assert!(tokio::time::timeout(limit, mint(&credential, &alice, &sources)).await.is_err());
    // The next one waits for it.
    mint(&credential, &alice, &sources).await.unwrap();
    assert_eq!(server.live().as_deref(), Some("the-refresh-token-2"));
    assert_eq!(grants.secret(&key), server.live());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_is_given_up_before_the_answer_still_stores_the_next_token() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    let key = key_of(&alice, "unheard");
    let server = Rotating::slow("the-first-refresh-token", Duration::from_millis(500)).await;
    let grants = Memory::with(&key, "the-first-refresh-token");
    let (sources, credential) = (with_grants(&scratch, &grants), server.credential(json!({"provider": "unheard"})));
    // Given up as soon as the request is there, half a second before its answer.
    let is_asked = async {
        while server.server.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        () = is_asked => {}
        minted = mint(&credential, &alice, &sources) => unreachable!("{:?}", minted.map(drop)),
    }
    // Whoever ends, ends after it.
    sources.close().await;
    assert_eq!(grants.secret(&key).as_deref(), Some("the-refresh-token-1"));
    assert_eq!(grants.secret(&key), server.live());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_take_turns_at_a_persons_grant_and_at_a_services() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    scratch.write("seed", "the-first-refresh-token");
    let replicas = [replica(&scratch).await, replica(&scratch).await];
    let key = key_of(&alice, "replicas");
    let given = grant("the-first-refresh-token");
    let stored = replicas[0].grants().unwrap().replace(&key, None, &given).await;
    assert!(matches!(stored, Ok(Replaced::Stored(_))), "{stored:?}");
    for source in [json!({"provider": "replicas"}), json!({"refresh_token": {"ref": "file://seed"}})] {
        let server = Rotating::slow("the-first-refresh-token", Duration::from_millis(50)).await;
        let mut mints = tokio::task::JoinSet::new();
        for number in 0..8 {
            let mut more = source.clone();
            more["scopes"] = json!([format!("s{number}")]);
            let (credential, sources) = (server.credential(more), replicas[number % 2].clone());
            let alice = alice.clone();
            mints.spawn(async move { mint(&credential, &alice, &sources).await.map(drop) });
        }
        for result in mints.join_all().await {
            assert_eq!(result, Ok(()), "{source}");
        }
        assert_eq!(server.live().as_deref(), Some("the-refresh-token-8"), "{source}");
        assert_eq!(server.server.asked().len(), 8, "no attempt was in vain: {source}");
    }
    let (loaded, _) = replicas[1].grants().unwrap().load(&key).await.unwrap().unwrap();
    assert_eq!(loaded.secret.expose(), b"the-refresh-token-8");
}

#[tokio::test]
async fn a_grant_that_ended_is_removed_and_asked_for_again() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    let key = key_of(&alice, "revoked");
    let server = Rotating::start("another-refresh-token").await;
    let grants = Memory::with(&key, "the-revoked-refresh-token");
    let (sources, credential) = (with_grants(&scratch, &grants), server.credential(json!({"provider": "revoked"})));
    for _ in 0..2 {
        let error = mint(&credential, &alice, &sources).await.err().unwrap();
        assert_eq!(error.kind, MintErrorKind::Consent);
        assert!(error.cause.contains("connect again") && !error.cause.contains("the-revoked"), "{error}");
        assert_eq!(grants.secret(&key), None);
    }
    assert_eq!(server.server.asked().len(), 1, "without a grant nobody is asked");
    let nobody = Arc::new(Caller::none("test"));
    assert_eq!(mint(&credential, &nobody, &sources).await.err().unwrap().kind, MintErrorKind::NeedsCaller);
}

#[tokio::test]
async fn the_loser_of_a_race_goes_on_with_what_the_winner_stored() {
    let (alice, scratch) = (caller("alice", "x"), Scratch::new());
    let key = key_of(&alice, "race");
    // The other replica used the first token a moment ago: ours is refused while its next one is being stored.
    let grants = Memory::with(&key, "the-first-refresh-token");
    let (other, row) = (Arc::clone(&grants), key.clone());
    let server = Server::start(move |asked| match asked.field("refresh_token").as_deref() {
        Some("the-second-refresh-token") => (200, token("the-access-token-2")),
        _ => {
            let mut rows = other.rows.lock().unwrap();
            rows.insert(row.clone(), (grant("the-second-refresh-token"), 2));
            (400, json!({"error": "invalid_grant"}))
        }
    })
    .await;
    let credential = oauth(json!({
        "grant": "refresh_token", "token_endpoint": server.url, "provider": "race",
        "client": {"id": "keyward", "authentication": "none"},
    }));
    let material = mint(&credential, &alice, &with_grants(&scratch, &grants)).await.unwrap();
    assert_eq!(material.text(ACCESS_TOKEN), Some("the-access-token-2"));
    assert_eq!(grants.secret(&key).as_deref(), Some("the-second-refresh-token"));
}

#[tokio::test]
async fn a_service_begins_with_its_own_token_and_goes_on_with_the_stored_one() {
    let (nobody, scratch) = (Arc::new(Caller::none("test")), Scratch::new());
    scratch.write("seed", "the-seed-of-the-service");
    let server = Rotating::start("the-seed-of-the-service").await;
    let grants = Arc::new(Memory::default());
    let credential = server.credential(json!({"refresh_token": {"ref": "file://seed"}}));
    for _ in 0..3 {
        mint(&credential, &nobody, &with_grants(&scratch, &grants)).await.unwrap();
    }
    assert_eq!(server.live().as_deref(), Some("the-refresh-token-3"));
    // A new seed begins a new line.
    *server.live.lock().unwrap() = Some("another-seed-of-the-service".to_owned());
    scratch.write("seed", "another-seed-of-the-service");
    mint(&credential, &nobody, &with_grants(&scratch, &grants)).await.unwrap();
    assert_eq!(server.live().as_deref(), Some("the-refresh-token-4"));
    assert_eq!(grants.rows.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn without_a_store_a_rotating_server_is_refused_and_another_one_served() {
    let (nobody, scratch) = (Arc::new(Caller::none("test")), Scratch::new());
    scratch.write("seed", "the-seed-of-the-service");
    let rotating = Rotating::start("the-seed-of-the-service").await;
    let credential = rotating.credential(json!({"refresh_token": {"ref": "file://seed"}}));
    let error = mint(&credential, &nobody, &sources(&scratch)).await.err().unwrap();
    assert!(error.kind == MintErrorKind::Rejected && error.cause.contains("database"), "{error}");
    let steady = Server::start(|_| (200, token("the-access-token-1"))).await;
    let credential = oauth(json!({
        "grant": "refresh_token", "token_endpoint": steady.url, "refresh_token": {"ref": "file://seed"},
        "client": {"id": "keyward", "authentication": "none"},
    }));
    let material = mint(&credential, &nobody, &sources(&scratch)).await.unwrap();
    assert_eq!(fields(&material), ["access_token", "sent_refresh_token"]);
}

#[tokio::test]
async fn a_first_token_is_not_sent_while_the_newest_one_lies_in_a_database_that_is_not_open() {
    let (nobody, scratch) = (Arc::new(Caller::none("test")), Scratch::new());
    scratch.write("seed", "the-seed-of-the-service");
    let server = Rotating::start("the-seed-of-the-service").await;
    let credential = server.credential(json!({"refresh_token": {"ref": "file://seed"}}));
    mint(&credential, &nobody, &with_grants(&scratch, &Arc::default())).await.unwrap();
    // As a command looks that could not open the database.
    let closed = Arc::new(Sources::new(Arc::new(Secrets::standard(scratch.path()))).with_database(true));
    let error = mint(&credential, &nobody, &closed).await.err().unwrap();
    assert!(error.kind == MintErrorKind::Transient && error.cause.contains("not open"), "{error}");
    assert_eq!(server.live().as_deref(), Some("the-refresh-token-1"), "the server saw a token twice");
}
