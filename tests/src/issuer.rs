//! A token issuer for tests and the demo: keys made on the spot, a JWKS document, and tokens of every kind, also such
//! as no honest issuer would sign.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The issuer's name in tokens, unless changed.
pub const ISSUER: &str = "https://issuer.example";
/// The audience in tokens, unless changed.
pub const AUDIENCE: &str = "https://mcp.example/mcp";

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256, key id `es256`.
    Es256,
    /// RSA PKCS #1 v1.5 with 2048 bits, key id `rs256`.
    Rs256,
    /// Ed25519, key id `eddsa`.
    EdDsa,
    /// No signature at all: `alg` is `none`.
    None,
    /// HMAC keyed with the bytes of the issuer's public key as PEM: the classic confusion.
    Hs256WithPublicKey,
}

/// An issuer with one key of each algorithm.
pub struct Issuer {
    ecdsa: EcdsaKeyPair,
    rsa: rsa::KeyPair,
    ed25519: Ed25519KeyPair,
    random: SystemRandom,
}

/// A token in the making. Its defaults are honest: audience and issuer as above, valid for ten minutes, ES256.
#[derive(Clone, Debug)]
pub struct Token {
    /// The claims; any can be set, changed or removed.
    pub claims: Value,
    /// The header's fields beside `alg` and `kid`.
    pub header: Value,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// The key id it names; none: that of the algorithm.
    pub key_id: Option<String>,
    /// Whether one bit of the signature is turned over.
    pub broken_signature: bool,
}

// === impl Token ===

impl Token {
    /// A token for this subject, acting through the agent `demo-agent`, with these roles.
    #[must_use]
    pub fn new(subject: &str, roles: &[&str]) -> Self {
        let now = unix_secs();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "client_id": "demo-agent", "roles": roles,
            "iat": now, "nbf": now, "exp": now + 600, "jti": format!("{subject}-{now}"),
        });
        let header = json!({"typ": "at+jwt"});
        Self { claims, header, algorithm: Algorithm::Es256, key_id: None, broken_signature: false }
    }

    /// Sets a claim; `null` removes it.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(claims) = self.claims.as_object_mut() {
            match value.into() {
                Value::Null => drop(claims.remove(name)),
                value => drop(claims.insert(name.to_owned(), value)),
            }
        }
        self
    }

    /// Moves its lifetime: from now plus `from_secs` until now plus `until_secs`.
    #[must_use]
    pub fn lifetime(self, from_secs: i64, until_secs: i64) -> Self {
        let now = unix_secs();
        self.claim("iat", now + from_secs).claim("nbf", now + from_secs).claim("exp", now + until_secs)
    }

    /// Signs in another way.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Names another key.
    #[must_use]
    pub fn key_id(mut self, key_id: &str) -> Self {
        self.key_id = Some(key_id.to_owned());
        self
    }

    /// Breaks the signature.
    #[must_use]
    pub fn broken_signature(mut self) -> Self {
        self.broken_signature = true;
        self
    }
}

// === impl Issuer ===

impl Issuer {
    /// Makes the keys.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn new() -> Result<Self> {
        let unspecified = |_| anyhow!("a signing key could not be made");
        Ok(Self {
            ecdsa: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).map_err(unspecified)?,
            rsa: rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(unspecified)?,
            ed25519: Ed25519KeyPair::generate().map_err(unspecified)?,
            random: SystemRandom::new(),
        })
    }

    /// The JWKS document with its public keys.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let point = self.ecdsa.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32.min(point.len().saturating_sub(1)));
        // PKCS #1 DER of a 2048-bit key: two headers and a zero byte, 256 bytes of modulus, the exponent 65537.
        let modulus = self.rsa.public_key().as_ref().get(9..265).unwrap_or_default();
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "es256", "x": encode(x), "y": encode(y)},
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rs256",
             "n": encode(modulus), "e": encode(&[1, 0, 1])},
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "eddsa",
             "x": encode(self.ed25519.public_key().as_ref())},
        ]})
    }

    /// Signs a token.
    ///
    /// # Errors
    /// Where the crypto library refuses.
    pub fn sign(&self, token: &Token) -> Result<String> {
        let (alg, kid) = match token.algorithm {
            Algorithm::Es256 => ("ES256", "es256"),
            Algorithm::Rs256 => ("RS256", "rs256"),
            Algorithm::EdDsa => ("EdDSA", "eddsa"),
            Algorithm::None => ("none", "es256"),
            Algorithm::Hs256WithPublicKey => ("HS256", "es256"),
        };
        let mut header = token.header.clone();
        if let Some(header) = header.as_object_mut() {
            header.insert("alg".to_owned(), json!(alg));
            header.insert("kid".to_owned(), json!(token.key_id.as_deref().unwrap_or(kid)));
        }
        let text = format!("{}.{}", encode(header.to_string().as_bytes()), encode(token.claims.to_string().as_bytes()));
        let mut signed = self.signature(token.algorithm, text.as_bytes())?;
        if let (true, Some(byte)) = (token.broken_signature, signed.last_mut()) {
            *byte ^= 1;
        }
        Ok(format!("{text}.{}", encode(&signed)))
    }

    fn signature(&self, algorithm: Algorithm, text: &[u8]) -> Result<Vec<u8>> {
        let unspecified = |_| anyhow!("a token could not be signed");
        Ok(match algorithm {
            Algorithm::Es256 => self.ecdsa.sign(&self.random, text).map_err(unspecified)?.as_ref().to_vec(),
            Algorithm::Rs256 => {
                let mut signed = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&signature::RSA_PKCS1_SHA256, &self.random, text, &mut signed).map_err(unspecified)?;
                signed
            }
            Algorithm::EdDsa => self.ed25519.sign(text).as_ref().to_vec(),
            Algorithm::None => Vec::new(),
            Algorithm::Hs256WithPublicKey => {
                let der: PublicKeyX509Der<'_> = self.ecdsa.public_key().as_der().map_err(unspecified)?;
                let pem = format!(
                    "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                    STANDARD.encode(der.as_ref())
                );
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pem.as_bytes()), text).as_ref().to_vec()
            }
        })
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unix_secs() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::UnparsedPublicKey;

    fn decode(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn tokens_verify_under_the_published_keys() {
        let issuer = Issuer::new().unwrap();
        let jwks = issuer.jwks();
        let key = |at: usize, field: &str| decode(jwks["keys"][at][field].as_str().unwrap());
        let point = [vec![4], key(0, "x"), key(0, "y")].concat();
        let rsa = signature::RsaPublicKeyComponents { n: key(1, "n"), e: key(1, "e") };
        for algorithm in [Algorithm::Es256, Algorithm::Rs256, Algorithm::EdDsa] {
            let token = issuer.sign(&Token::new("alice", &["demo-user"]).algorithm(algorithm)).unwrap();
            let (text, signed) = token.rsplit_once('.').unwrap();
            let (text, signed) = (text.as_bytes(), decode(signed));
            match algorithm {
                Algorithm::Es256 => {
                    UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &point).verify(text, &signed)
                }
                Algorithm::Rs256 => rsa.verify(&signature::RSA_PKCS1_2048_8192_SHA256, text, &signed),
                _ => UnparsedPublicKey::new(&signature::ED25519, key(2, "x")).verify(text, &signed),
            }
            .unwrap();
        }
    }

    #[test]
    fn hostile_tokens_are_what_they_claim() {
        let issuer = Issuer::new().unwrap();
        let none = issuer.sign(&Token::new("alice", &[]).algorithm(Algorithm::None)).unwrap();
        assert!(none.ends_with('.'));
        let header = decode(none.split('.').next().unwrap());
        assert_eq!(serde_json::from_slice::<Value>(&header).unwrap()["alg"], "none");
        let removed = Token::new("alice", &[]).claim("aud", Value::Null);
        assert!(removed.claims.get("aud").is_none());
    }
}
