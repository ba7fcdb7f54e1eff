//! Proofs that hold, and every way in which one does not.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value as Owned, json};

use super::*;
use crate::credential::oauth::dpop::DpopKey;

const NOW: u64 = 1_785_240_000;
const TOKEN: &str = "the-access-token";

/// A client with a key on P-256.
struct Client(EcdsaKeyPair);

impl Client {
    fn new() -> Client {
        Client(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Owned {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    }

    fn jkt(&self) -> String {
        thumbprint(&self.jwk()).unwrap()
    }

    fn sign(&self, header: &Owned, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn header(&self) -> Owned {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()})
    }

    fn proof(&self, changes: Owned) -> String {
        self.sign(&self.header(), &changed(claims(), changes).to_string())
    }
}

fn claims() -> Owned {
    let ath = URL_SAFE_NO_PAD.encode(Sha256::digest(TOKEN));
    json!({"jti": "one", "htm": "POST", "htu": "https://mcp.example/mcp", "iat": NOW, "ath": ath})
}

fn changed(mut object: Owned, changes: Owned) -> Owned {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Owned::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

fn checked(jkt: &str, text: &str) -> Result<Proof, ProofError> {
    let algorithms = vec![Algorithm::ES256, Algorithm::EdDSA];
    let terms = Dpop { required: true, nonce: false, algorithms, max_age_secs: 60 };
    let address = Address::parse("https://mcp.example/mcp").unwrap();
    let (method, path, unix_secs) = ("POST", "/mcp", NOW);
    check(text, &Wanted { method, address: &address, path, token: TOKEN, jkt, terms: &terms, unix_secs })
}

#[test]
fn a_good_proof_holds() {
    let client = Client::new();
    let proof = checked(&client.jkt(), &client.proof(json!({}))).unwrap();
    assert_eq!(proof, Proof { id: "one".into(), nonce: None, ends_unix_secs: NOW + 60 });
    for good in [
        json!({"nonce": "n"}),
        json!({"iat": NOW - 60}),
        json!({"iat": NOW + 10}),
        json!({"htu": "HTTPS://MCP.example:443/mcp"}),
        json!({"htu": "https://mcp.example./mcp"}),
        json!({"htu": "https://mcp.example/mcp?x=1#y"}),
        json!({"other": {"a": 1}}),
    ] {
        checked(&client.jkt(), &client.proof(good.clone())).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
}

#[test]
fn what_keyward_makes_for_others_it_takes_itself() {
    let key = DpopKey::generate().ok().unwrap();
    let proof = key.proof("POST", "https://mcp.example/mcp", Some("n"), Some(TOKEN)).ok().unwrap();
    let header: Owned =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(proof.split('.').next().unwrap()).unwrap()).unwrap();
    let jkt = thumbprint(&header["jwk"]).unwrap();
    let now = crate::database::unix_ms(std::time::SystemTime::now()) / 1000;
    let terms = Dpop { required: true, nonce: false, algorithms: vec![Algorithm::ES256], max_age_secs: 60 };
    let address = Address::parse("https://mcp.example/mcp").unwrap();
    let unix_secs = u64::try_from(now).unwrap();
    let (method, path) = ("POST", "/mcp");
    let wanted = Wanted { method, address: &address, path, token: TOKEN, jkt: &jkt, terms: &terms, unix_secs };
    assert_eq!(check(&proof, &wanted).unwrap().nonce.as_deref(), Some("n"));
}

#[test]
fn a_proof_with_ed25519_holds() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())});
    let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk}).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims().to_string()));
    let proof = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()).as_ref()));
    checked(&thumbprint(&jwk).unwrap(), &proof).unwrap();
}

#[test]
fn claims_that_are_for_something_else_are_refused() {
    let client = Client::new();
    for (changes, expected) in [
        (json!({"htm": "GET"}), ProofError::Method),
        (json!({"htm": "post"}), ProofError::Method),
        (json!({"htm": null}), ProofError::Claim("htm")),
        (json!({"htu": null}), ProofError::Claim("htu")),
        (json!({"htu": ["https://mcp.example/mcp"]}), ProofError::Claim("htu")),
        (json!({"htu": "https://mcp.example/mcp/"}), ProofError::Target),
        (json!({"htu": "https://mcp.example/"}), ProofError::Target),
        (json!({"htu": "https://mcp.example"}), ProofError::Target),
        (json!({"htu": "http://mcp.example/mcp"}), ProofError::Target),
        (json!({"htu": "https://mcp.example:8443/mcp"}), ProofError::Target),
        (json!({"htu": "https://mcp.example.evil/mcp"}), ProofError::Target),
        (json!({"htu": "https://a@mcp.example/mcp"}), ProofError::Target),
        (json!({"htu": "/mcp"}), ProofError::Target),
        (json!({"ath": null}), ProofError::Claim("ath")),
        (json!({"ath": URL_SAFE_NO_PAD.encode(Sha256::digest("another"))}), ProofError::Token),
        (json!({"ath": TOKEN}), ProofError::Token),
        (json!({"iat": null}), ProofError::Claim("iat")),
        (json!({"iat": "now"}), ProofError::Claim("iat")),
        (json!({"iat": NOW - 61}), ProofError::Old),
        (json!({"iat": NOW + 11}), ProofError::Future),
        (json!({"jti": null}), ProofError::Claim("jti")),
        (json!({"jti": ""}), ProofError::Claim("jti")),
        (json!({"jti": 7}), ProofError::Claim("jti")),
        (json!({"jti": "x".repeat(257)}), ProofError::Claim("jti")),
        (json!({"nonce": 7}), ProofError::Claim("nonce")),
    ] {
        assert_eq!(checked(&client.jkt(), &client.proof(changes.clone())), Err(expected), "{changes}");
    }
    let twice = claims().to_string().replacen('{', r#"{"htm":"GET","#, 1);
    assert_eq!(checked(&client.jkt(), &client.sign(&client.header(), &twice)), Err(ProofError::Claim("*")));
}

#[test]
fn headers_that_prove_nothing_are_refused() {
    let client = Client::new();
    let with_private = changed(client.jwk(), json!({"d": "AAAA"}));
    for (changes, expected) in [
        (json!({"typ": "JWT"}), ProofError::Type),
        (json!({"typ": null}), ProofError::Type),
        (json!({"alg": "none"}), ProofError::Algorithm),
        (json!({"alg": "HS256"}), ProofError::Algorithm),
        (json!({"alg": "RS256"}), ProofError::Algorithm),
        (json!({"alg": "EdDSA"}), ProofError::Key),
        (json!({"alg": null}), ProofError::Header),
        (json!({"crit": ["exp"]}), ProofError::Header),
        (json!({"b64": false}), ProofError::Header),
        (json!({"jwk": null}), ProofError::Key),
        (json!({"jwk": "x"}), ProofError::Key),
        (json!({"jwk": {"kty": "oct", "k": "AAAA"}}), ProofError::Key),
        (json!({"jwk": with_private}), ProofError::Key),
        (json!({"jwk": changed(client.jwk(), json!({"crv": "P-521"}))}), ProofError::Key),
        (json!({"jwk": changed(client.jwk(), json!({"use": "enc"}))}), ProofError::Key),
        (json!({"jwk": Client::new().jwk()}), ProofError::Signature),
    ] {
        let proof = client.sign(&changed(client.header(), changes.clone()), &claims().to_string());
        assert_eq!(checked(&client.jkt(), &proof), Err(expected), "{changes}");
    }
}

#[test]
fn only_one_proof_by_the_bound_key_is_read() {
    let (client, other) = (Client::new(), Client::new());
    let proof = client.proof(json!({}));
    assert_eq!(checked(&other.jkt(), &proof), Err(ProofError::Binding));
    let [header, payload, signature] = proof.split('.').collect::<Vec<_>>()[..] else { panic!("{proof}") };
    let moved = URL_SAFE_NO_PAD.encode(changed(claims(), json!({"htm": "GET"})).to_string());
    for (text, expected) in [
        (format!("{header}.{moved}.{signature}"), ProofError::Signature),
        (format!("{header}.{payload}."), ProofError::Signature),
        (format!("{proof},{proof}"), ProofError::Form),
        (format!("{header}.{payload}"), ProofError::Form),
        (format!("{proof}.x"), ProofError::Form),
        (format!(" {proof}"), ProofError::Form),
        (format!("{proof}="), ProofError::Form),
        (String::new(), ProofError::Form),
        ("x".repeat(MAX_PROOF_BYTES + 1), ProofError::Form),
    ] {
        assert_eq!(checked(&client.jkt(), &text), Err(expected), "{text}");
    }
}

/// RFC 7638, 3.1, and RFC 8037, A.3.
#[test]
fn thumbprints_are_those_of_the_specifications() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
             tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR\
             L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnq\
             DKgw";
    let rsa = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    assert_eq!(thumbprint(&rsa).as_deref(), Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
    let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    assert_eq!(thumbprint(&okp).as_deref(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    assert_eq!(thumbprint(&json!({"kty": "oct", "k": "AAAA"})), None);
    assert_eq!(thumbprint(&json!({"kty": "EC", "crv": "P-256", "x": "AAAA"})), None);
}
