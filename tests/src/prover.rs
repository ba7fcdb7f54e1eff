//! A client that proves that it holds a key (DPoP, RFC 9449), and one that does it wrong in every way a test wants.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key on P-256.
pub struct Prover {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// A proof in the making. Its defaults are honest.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The claims; any can be set, changed or removed.
    pub claims: Value,
    /// The header's fields.
    pub header: Value,
}

// === impl Prover ===

impl Prover {
    /// Makes a key.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn new() -> Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Ok(Self { key: key.map_err(|_| anyhow!("a key could not be made"))?, random: SystemRandom::new() })
    }

    /// The public key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32.min(point.len().saturating_sub(1)));
        json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
    }

    /// The thumbprint of the key (RFC 7638), as `cnf.jkt` holds it.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // The members that count, in the order of their names: `json!` keeps none.
        let jwk = self.jwk();
        let member = |name: &str| format!("\"{name}\":{}", jwk.get(name).unwrap_or(&Value::Null));
        let text = format!("{{{}}}", ["crv", "kty", "x", "y"].map(member).join(","));
        sha256(text.as_bytes())
    }

    /// A proof for one request with this token.
    #[must_use]
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>) -> Proof {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut id = [0; 16];
        // Without randomness two proofs of one moment are alike, which a test would notice.
        let _ = aws_lc_rs::rand::fill(&mut id);
        let mut claims = json!({"jti": encode(&id), "htm": method, "htu": url, "iat": since.as_secs()});
        if let (Some(token), Some(claims)) = (token, claims.as_object_mut()) {
            claims.insert("ath".to_owned(), json!(sha256(token.as_bytes())));
        }
        Proof { claims, header: json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}) }
    }

    /// Signs a proof.
    ///
    /// # Errors
    /// Where the crypto library refuses.
    pub fn sign(&self, proof: &Proof) -> Result<String> {
        let parts = [&proof.header, &proof.claims].map(|part| encode(part.to_string().as_bytes()));
        let text = parts.join(".");
        let signed =
            self.key.sign(&self.random, text.as_bytes()).map_err(|_| anyhow!("a proof could not be signed"))?;
        Ok(format!("{text}.{}", encode(signed.as_ref())))
    }
}

// === impl Proof ===

impl Proof {
    /// Sets a claim; `null` removes it.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.claims, name, value.into());
        self
    }

    /// Sets a field of the header; `null` removes it.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.header, name, value.into());
        self
    }
}

/// SHA-256 in base64url, as `ath` and `x5t#S256` hold it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    encode(digest(&SHA256, bytes).as_ref())
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        match value {
            Value::Null => drop(object.remove(name)),
            value => drop(object.insert(name.to_owned(), value)),
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_can_be_changed_in_every_part() {
        let prover = Prover::new().unwrap();
        assert_eq!(prover.thumbprint().len(), 43);
        let proof = prover.proof("GET", "https://a.example/", Some("t")).claim("htm", Value::Null).field("typ", "JWT");
        assert!(proof.claims.get("htm").is_none());
        assert_eq!((&proof.header["typ"], &proof.claims["ath"]), (&json!("JWT"), &json!(sha256(b"t"))));
        assert_eq!(prover.sign(&proof).unwrap().split('.').count(), 3);
    }
}
