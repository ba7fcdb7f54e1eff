//! Proof of the gateway: verified with the keys that Keyward publishes, over what the upstream received.

use std::collections::BTreeSet;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_tests::client;
use keyward_tests::stack::{SUBJECT, Stack};
use serde_json::{Value, json};

use super::{body_of, post, upstream};
use crate::scripted;

const FIRST_SEED: &str = "the first seed, of thirty-two bytes or more";
const SECOND_SEED: &str = "the second seed, of thirty-two bytes or more";
/// How long a key is used, by default.
const ROTATION_SECS: u64 = 604_800;

/// The public key of who signs with this seed in this period (HKDF, RFC 5869), worked out apart from the server: a set of the
/// right size with the wrong periods in it must be found.
fn signer(seed: &str, period: u64) -> String {
    let secret = Salt::new(HKDF_SHA256, b"keyward gateway proof, version 1").extract(seed.as_bytes());
    let (info, mut derived) = (period.to_be_bytes(), [0; 32]);
    secret.expand(&[info.as_slice()], HKDF_SHA256).unwrap().fill(&mut derived).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&derived).unwrap();
    URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())
}

/// The published keys.
async fn keys(stack: &Stack) -> Vec<Value> {
    let text = client::get(stack.server.admin, "/.well-known/jwks.json").await.unwrap();
    let set: Value = serde_json::from_str(&text).unwrap();
    set["keys"].as_array().unwrap().clone()
}

/// The header and the claims of a proof that one of these keys signed.
fn verified(proof: &str, keys: &[Value]) -> (Value, Value) {
    let (signed, signature) = proof.rsplit_once('.').unwrap();
    let part = |number| -> Value {
        let part = URL_SAFE_NO_PAD.decode(signed.split('.').nth(number).unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    let header = part(0);
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let x = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ED25519, x).verify(signed.as_bytes(), &signature).unwrap();
    (header, part(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_says_for_whom_and_with_which_body() {
    let seeds = json!([{"ref": "file://secrets/seed-one"}, {"ref": "file://secrets/seed-two"}]);
    let credential = json!({"type": "gateway_proof", "issuer": "https://keyward.example", "seeds": seeds});
    let (builder, received) = upstream("signing-proof", json!([credential])).await;
    let mut stack =
        builder.file("secrets/seed-one", FIRST_SEED).file("secrets/seed-two", SECOND_SEED).start().await.unwrap();
    let published = keys(&stack).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // Of each seed the key in use, the one before and the one after: whoever signed or will sign a period away is known.
    let period = now / ROTATION_SECS;
    let signers = [FIRST_SEED, SECOND_SEED].map(|seed| [period - 1, period, period + 1].map(|at| signer(seed, at)));
    let known: BTreeSet<&str> = published.iter().map(|key| key["x"].as_str().unwrap()).collect();
    assert_eq!(known, signers.iter().flatten().map(String::as_str).collect());
    assert_eq!(published.len(), 6);
    let send = async |stack: &Stack| {
        let request = post("/pay?a=1", "text/plain", "a body").header("x-gateway-proof", "forged");
        assert_eq!(stack.send(request).await.unwrap().text(), "done");
        let (_, request) = received.last();
        assert_eq!(body_of(&request), "a body");
        scripted::header(&request, "x-gateway-proof").to_owned()
    };
    let (first, second) = (send(&stack).await, send(&stack).await);
    let (header, claims) = verified(&first, &published);
    let used = published.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert_eq!(used["x"], signer(FIRST_SEED, period), "another period's key signs");
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("keyward-proof+jwt")));
    assert_eq!(claims["iss"], "https://keyward.example");
    assert_eq!(claims["aud"], format!("http://{}", scripted::AUTHORITY));
    assert_eq!((&claims["subject"], &claims["issuer"]), (&json!(SUBJECT), &json!("demo")));
    assert_eq!((&claims["htm"], &claims["htp"]), (&json!("POST"), &json!("/scripted/pay")));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"a body");
    assert_eq!(claims["body_sha256"], URL_SAFE_NO_PAD.encode(digest.as_ref()));
    let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert_eq!(expires - issued, 330);
    assert!((now - 35..=now).contains(&issued), "{issued} {now}");
    assert_ne!(claims["jti"], verified(&second, &published).1["jti"]);

    // The second seed takes over; its keys were published before.
    stack
        .change_config(|config| {
            let credential = &mut config["bindings"][1]["credentials"][0];
            credential["seeds"] = json!([{"ref": "file://secrets/seed-two"}]);
        })
        .unwrap();
    stack.server.audit_record(|record| record["event"] == "config_reloaded").await.unwrap();
    let (later, _) = verified(&send(&stack).await, &published);
    assert_ne!(later["kid"], header["kid"]);
    assert_eq!(keys(&stack).await.len(), 3);
}
