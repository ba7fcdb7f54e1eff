//! Tokens that are bound to a key: what holds it may call, once with each proof, and what only holds the token may not.

use keyward_contract::reason::Reason;
use keyward_tests::client::{Answer, Request};
use keyward_tests::prover::{Proof, Prover, sha256};
use keyward_tests::stack::Builder;
use serde_json::{Value, json};

use super::{World, call, parameter};
use crate::expect;

fn dpop(more: Value) -> Value {
    let mut section = json!({"dpop": {"algorithms": ["ES256"]}});
    for (name, value) in more.as_object().unwrap() {
        section["dpop"][name] = value.clone();
    }
    section
}

/// A token for the first resource that is bound to the prover's key.
fn bound(world: &World, prover: &Prover) -> String {
    world.signed(&world.token(&world.mcp, "").claim("cnf", json!({"jkt": prover.thumbprint()})))
}

fn with_proof(token: &str, proof: &str) -> Request {
    call().header("authorization", format!("DPoP {token}")).header("dpop", proof)
}

/// An honest proof for a call with this token.
fn honest(world: &World, prover: &Prover, token: &str) -> Proof {
    prover.proof("POST", &world.mcp, Some(token))
}

async fn refused(world: &World, answer: &Answer, reason: Reason, error: &str) {
    expect::denied(&world.stack, answer, reason, 1).await;
    let challenge = answer.header("www-authenticate");
    assert_eq!(parameter(challenge, "error"), error, "{challenge}");
    assert!(parameter(challenge, "resource_metadata").ends_with("/mcp"), "{challenge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_the_key_calls_once_with_each_proof() {
    let world = World::start("resource-dpop", dpop(json!({})), |builder| builder).await;
    let prover = Prover::new().unwrap();
    let token = bound(&world, &prover);
    let missing = world.send(call()).await;
    let challenge = missing.header("www-authenticate");
    assert!(challenge.starts_with("Bearer ") && challenge.ends_with("DPoP algs=\"ES256\""), "{challenge}");

    let proof = prover.sign(&honest(&world, &prover, &token)).unwrap();
    expect::allowed(&world.stack, &world.send(with_proof(&token, &proof)).await).await;
    let last = world.stack.upstream.last().await.unwrap().to_string();
    assert!(!last.contains(&proof) && !last.contains(&token), "proof or token reached the upstream: {last}");
    world.stack.upstream.reset().await.unwrap();

    // The same proof again, and for the same bytes of another request.
    for _ in 0..2 {
        let answer = world.send(with_proof(&token, &proof)).await;
        refused(&world, &answer, Reason::InvalidProof, "invalid_dpop_proof").await;
        assert!(answer.header("www-authenticate").starts_with("DPoP "), "{:?}", answer.headers);
    }
    assert_eq!(world.events("replay_refused").await, 2);
    let event = world.stack.server.audit_record(|record| record["event"] == "replay_refused").await.unwrap();
    assert!(event["detail"].as_str().unwrap().contains("used before"), "{event}");

    // Twenty at once with one proof: one is served.
    let proof = prover.sign(&honest(&world, &prover, &token)).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        calls.spawn(with_proof(&token, &proof).send(world.stack.agents));
    }
    let answers: Vec<u16> = calls.join_all().await.into_iter().map(|answer| answer.unwrap().status.as_u16()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert_eq!(world.stack.upstream.count().await.unwrap(), 1);
    expect::nothing_written(&world.stack, &[&token, &proof]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_prove_it_is_refused() {
    let world = World::start("resource-dpop-refused", dpop(json!({})), |builder| builder).await;
    let (prover, thief) = (Prover::new().unwrap(), Prover::new().unwrap());
    let token = bound(&world, &prover);
    let now = honest(&world, &prover, &token).claims["iat"].as_u64().unwrap();
    let change = |name: &str, value: Value| honest(&world, &prover, &token).claim(name, value);
    let field = |name: &str, value: Value| honest(&world, &prover, &token).field(name, value);
    for proof in [
        change("htm", json!("GET")),
        change("htu", json!(world.scripted)),
        change("htu", json!(world.mcp.replace("http:", "https:"))),
        change("htu", json!(format!("{}/below", world.mcp))),
        change("ath", Value::Null),
        change("ath", json!(sha256(b"another token"))),
        change("iat", json!(now - 120)),
        change("iat", json!(now + 120)),
        change("jti", Value::Null),
        field("typ", json!("JWT")),
        field("alg", json!("none")),
        field("alg", json!("HS256")),
        field("jwk", thief.jwk()),
        field("jwk", Value::Null),
    ] {
        let answer = world.send(with_proof(&token, &prover.sign(&proof).unwrap())).await;
        refused(&world, &answer, Reason::InvalidProof, "invalid_dpop_proof").await;
    }
    // By the thief's own key, twice, and not at all.
    let stolen = thief.sign(&honest(&world, &thief, &token)).unwrap();
    let good = prover.sign(&honest(&world, &prover, &token)).unwrap();
    for request in [
        with_proof(&token, &stolen),
        with_proof(&token, &good).header("dpop", &good),
        with_proof(&token, ""),
        call().header("authorization", format!("DPoP {token}")),
    ] {
        refused(&world, &world.send(request).await, Reason::InvalidProof, "invalid_dpop_proof").await;
    }
    // Without the scheme that says so, and with it for a token that is bound to nothing.
    let plain = world.signed(&world.token(&world.mcp, ""));
    let other = world.signed(&world.token(&world.mcp, "").claim("cnf", json!({"jwk": prover.jwk()})));
    let both = json!({"jkt": prover.thumbprint(), "x5t#S256": sha256(b"certificate")});
    let both = world.signed(&world.token(&world.mcp, "").claim("cnf", both));
    for request in [
        call().bearer(&token),
        call().bearer(&token).header("dpop", &good),
        with_proof(&plain, &prover.sign(&honest(&world, &prover, &plain)).unwrap()),
        call().bearer(&other),
        with_proof(&both, &prover.sign(&honest(&world, &prover, &both)).unwrap()),
    ] {
        refused(&world, &world.send(request).await, Reason::InvalidToken, "invalid_token").await;
    }
    assert!(world.events("proof_refused").await >= 20);
    // Nothing of that used the good proof up.
    expect::allowed(&world.stack, &world.send(with_proof(&token, &good)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_key_is_required_nothing_else_serves_and_where_none_is_taken_it_does_not() {
    let world = World::start("resource-dpop-required", dpop(json!({"required": true})), |builder| builder).await;
    let prover = Prover::new().unwrap();
    let plain = world.signed(&world.token(&world.mcp, ""));
    refused(&world, &world.call(&plain).await, Reason::InvalidToken, "invalid_token").await;
    let challenge = world.send(call()).await;
    assert!(challenge.header("www-authenticate").starts_with("DPoP "), "{:?}", challenge.headers);
    // The second resource takes no proofs: a bound token serves in no way there.
    let token = world.signed(&world.token(&world.scripted, "").claim("cnf", json!({"jkt": prover.thumbprint()})));
    let proof = prover.sign(&prover.proof("POST", &world.scripted, Some(&token))).unwrap();
    let mut request = with_proof(&token, &proof);
    "/scripted".clone_into(&mut request.path);
    assert_eq!(world.send(request).await.status, 401);
    assert_eq!(world.call_scripted(&token).await.status, 401);
    world.untouched().await;
    let token = bound(&world, &prover);
    let proof = prover.sign(&honest(&world, &prover, &token)).unwrap();
    expect::allowed(&world.stack, &world.send(with_proof(&token, &proof)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_holds_a_nonce_that_keyward_gave() {
    let key = |builder: Builder| {
        let builder = builder.variable("NONCE_KEY", "a key for nonces of at least 32 bytes");
        builder.config(|config| config["identity"]["dpop_nonce_key"] = json!({"ref": "env://NONCE_KEY"}))
    };
    let mut world = World::start("resource-dpop-nonce", dpop(json!({"nonce": true})), key).await;
    let prover = Prover::new().unwrap();
    let token = bound(&world, &prover);
    let signed =
        |world: &World, nonce: Value| prover.sign(&honest(world, &prover, &token).claim("nonce", nonce)).unwrap();
    let mut nonce = String::new();
    for wrong in [Value::Null, json!("made up"), json!("AAAAAAAAAAA")] {
        let answer = world.send(with_proof(&token, &signed(&world, wrong))).await;
        refused(&world, &answer, Reason::UseDpopNonce, "use_dpop_nonce").await;
        answer.header("dpop-nonce").clone_into(&mut nonce);
        assert!(!nonce.is_empty(), "{:?}", answer.headers);
    }
    // Whoever has no nonce yet is no attacker.
    assert_eq!(world.events("proof_refused").await, 0);
    // Another process under the same key knows it, too.
    world.stack.restart_server().unwrap();
    expect::allowed(&world.stack, &world.send(with_proof(&token, &signed(&world, json!(nonce)))).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_remembered_is_not_accepted() {
    let database = |builder: Builder| {
        builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").config(|config| {
            config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
            config["identity"]["replay"] = json!({"max_entries": 1000});
        })
    };
    let mut world = World::start("resource-dpop-database", dpop(json!({})), database).await;
    let prover = Prover::new().unwrap();
    let token = bound(&world, &prover);
    let proof = prover.sign(&honest(&world, &prover, &token)).unwrap();
    expect::allowed(&world.stack, &world.send(with_proof(&token, &proof)).await).await;
    world.stack.upstream.reset().await.unwrap();
    // What was used is known to whoever shares the database, this server after a restart among them.
    world.stack.restart_server().unwrap();
    refused(&world, &world.send(with_proof(&token, &proof)).await, Reason::InvalidProof, "invalid_dpop_proof").await;

    // A database full of what was used, and one without a place for it.
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                INSERT INTO used (id, expires_ms) SELECT 'x' || i, 9999999999999 FROM n";
    world.stack.change_database(fill).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        world.stack.upstream.reset().await.unwrap();
        let proof = prover.sign(&honest(&world, &prover, &token)).unwrap();
        let answer = world.send(with_proof(&token, &proof)).await;
        if answer.response().unwrap()["error"]["data"]["reason"] == "decision_unavailable" {
            expect::denied(&world.stack, &answer, Reason::DecisionUnavailable, 1).await;
            break;
        }
        assert!(std::time::Instant::now() < until, "a full store is not noticed: {}", answer.text());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    world.stack.change_database("DROP TABLE used").unwrap();
    let proof = prover.sign(&honest(&world, &prover, &token)).unwrap();
    let answer = world.send(with_proof(&token, &proof)).await;
    expect::denied(&world.stack, &answer, Reason::DecisionUnavailable, 1).await;
}
