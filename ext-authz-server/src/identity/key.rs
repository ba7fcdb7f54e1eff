//! A set of public keys, each with the algorithms it may verify.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;

use crate::config::Algorithm;

/// The most keys in one set.
pub(super) const MAX_KEYS: usize = 100;
/// Sizes of RSA moduli that are accepted, in bytes (RFC 7518, 3.3 demands 2048 bits).
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The usable keys of a JWK Set.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

/// One usable key.
pub(super) struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Why a text gives no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a JWK Set.
    #[error("it is not a JWK Set (RFC 7517, 5): {0}")]
    Malformed(String),
    /// More than [`MAX_KEYS`].
    #[error("it holds more than {MAX_KEYS} keys")]
    TooMany,
    /// Nothing in it can verify a token of this issuer.
    #[error("it holds no key for the configured algorithms; left out were: {0}")]
    NoneUsable(String),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

// === impl KeySet ===

impl KeySet {
    /// Reads a JWK Set and keeps what can verify one of `algorithms`. Other keys in it do no harm.
    pub(crate) fn parse(json: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, KeySetError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|error| KeySetError::Malformed(error.to_string()))?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for (index, value) in document.keys.into_iter().enumerate() {
            match Key::new(value, algorithms) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(format!("key {index} ({why})")),
            }
        }
        if keys.is_empty() {
            let left_out = if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") };
            return Err(KeySetError::NoneUsable(left_out));
        }
        if !left_out.is_empty() {
            tracing::debug!(left_out = left_out.join(", "), "keys that cannot verify tokens");
        }
        Ok(KeySet(keys))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys that may verify a token: those with its key id, or, for a token without one, the only key for its algorithm.
    pub(super) fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<&Key> {
        let fitting = self.0.iter().filter(|key| key.algorithms.contains(&algorithm));
        match kid {
            Some(kid) => fitting.filter(|key| key.kid.as_deref() == Some(kid)).collect(),
            None => {
                let all: Vec<&Key> = fitting.collect();
                if all.len() == 1 { all } else { Vec::new() }
            }
        }
    }
}

// === impl Key ===

impl Key {
    /// Refuses keys that are not for verifying signatures, weak ones, symmetric and private ones.
    fn new(value: serde_json::Value, configured: &[Algorithm]) -> Result<Key, &'static str> {
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            if value.get(private).is_some() {
                return Err("it is not a public key");
            }
        }
        let named = match value.get("alg") {
            None => None,
            Some(serde_json::Value::String(alg)) => {
                Some(Algorithm::from_name(alg).ok_or("its algorithm is not known")?)
            }
            Some(_) => return Err("its algorithm is not a string"),
        };
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| "it is malformed")?;
        match &jwk.common.public_key_use {
            None | Some(PublicKeyUse::Signature) => {}
            Some(_) => return Err("it is not for signatures"),
        }
        if jwk.common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
            return Err("it is not for verifying");
        }
        let possible = possible(&jwk.algorithm)?;
        let algorithms: Vec<Algorithm> = possible
            .iter()
            .filter(|algorithm| named.is_none_or(|named| named == **algorithm) && configured.contains(algorithm))
            .copied()
            .collect();
        if algorithms.is_empty() {
            return Err("its algorithm is not configured");
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| "it is malformed")?;
        Ok(Key { kid: jwk.common.key_id, algorithms, key })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

/// What a key of this type can verify.
fn possible(parameters: &AlgorithmParameters) -> Result<&'static [Algorithm], &'static str> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let decoded = super::jwt::base64url(&rsa.n).ok_or("it is malformed")?;
            let modulus = decoded.iter().skip_while(|byte| **byte == 0).count();
            if !RSA_MODULUS_BYTES.contains(&modulus) {
                return Err("its modulus is not from 2048 to 8192 bits");
            }
            Ok(&[RS256, RS384, RS512, PS256, PS384, PS512])
        }
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => Ok(&[ES256]),
            EllipticCurve::P384 => Ok(&[ES384]),
            _ => Err("its curve is not supported"),
        },
        AlgorithmParameters::OctetKeyPair(okp) => match okp.curve {
            EllipticCurve::Ed25519 => Ok(&[EdDSA]),
            _ => Err("its curve is not supported"),
        },
        _ => Err("its type is not supported"),
    }
}

// === impl Algorithm ===

impl Algorithm {
    /// The algorithm with this name (RFC 7518, 3.1); there are no names for `none` and the HMAC family.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Some(match name {
            "ES256" => Algorithm::ES256,
            "ES384" => Algorithm::ES384,
            "EdDSA" => Algorithm::EdDSA,
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "PS256" => Algorithm::PS256,
            "PS384" => Algorithm::PS384,
            "PS512" => Algorithm::PS512,
            _ => return None,
        })
    }

    /// The name (RFC 7518, 3.1; RFC 8037, 3.1).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::EdDSA => "EdDSA",
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::PS256 => "PS256",
            Algorithm::PS384 => "PS384",
            Algorithm::PS512 => "PS512",
        }
    }

    pub(super) fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
            Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
            Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
            Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        }
    }
}
