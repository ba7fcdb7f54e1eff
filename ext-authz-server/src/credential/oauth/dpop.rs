//! Proofs of possession (RFC 9449): one for the token endpoint, and one for each upstream request with the bound token.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::assertion::Claims;
use super::error::TokenError;

/// The header that carries a proof.
pub const HEADER: &str = "dpop";
/// The header that carries the nonce that the next proof has to hold.
pub const NONCE_HEADER: &str = "dpop-nonce";
/// The longest nonce that is taken over, in bytes.
const MAX_NONCE_BYTES: usize = 512;

/// A key on P-256 that a token is bound to. No `Debug`: it is a secret.
pub struct DpopKey {
    /// PKCS #8, so that it can lie beside its token.
    pkcs8: Zeroizing<Vec<u8>>,
    key: EncodingKey,
    public: Jwk,
}

// === impl DpopKey ===

impl DpopKey {
    /// A new key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<DpopKey, TokenError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| unusable("it was not made"))?;
        let document = pair.to_pkcs8v1().map_err(|_| unusable("it was not made"))?;
        DpopKey::from_pkcs8(document.as_ref())
    }

    /// The key that [`DpopKey::pkcs8`] gave.
    ///
    /// # Errors
    /// It is no such key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<DpopKey, TokenError> {
        let key = EncodingKey::from_ec_der(pkcs8);
        let public = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|error| unusable(&error.to_string()))?;
        Ok(DpopKey { pkcs8: Zeroizing::new(pkcs8.to_vec()), key, public })
    }

    /// A key from a PEM (PKCS #8).
    ///
    /// # Errors
    /// It is no private key on P-256.
    pub fn from_pem(pem: &[u8]) -> Result<DpopKey, TokenError> {
        let key = EncodingKey::from_ec_pem(pem).map_err(|error| unusable(&error.to_string()))?;
        DpopKey::from_pkcs8(key.as_bytes())
    }

    /// The key as PKCS #8.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// A proof for one request (RFC 9449, 4.2). `url` may have a query, which is left out; with an access token the proof
    /// is for that token only.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn proof(
        &self,
        method: &str,
        url: &str,
        nonce: Option<&str>,
        access_token: Option<&str>,
    ) -> Result<Zeroizing<String>, TokenError> {
        let mut claims = Claims::new(SystemTime::now(), Duration::from_secs(60));
        claims.remove("exp");
        claims.set("htm", method);
        claims.set("htu", url.split(['?', '#']).next().unwrap_or_default());
        claims.set_optional("nonce", nonce);
        if let Some(token) = access_token {
            claims.set("ath", URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes())));
        }
        let mut jwk = self.public.clone();
        jwk.common = jsonwebtoken::jwk::CommonParameters::default();
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("dpop+jwt".to_owned());
        header.jwk = Some(jwk);
        encode(&header, claims.as_map(), &self.key).map(Zeroizing::new).map_err(|error| unusable(&error.to_string()))
    }
}

/// A nonce that a server sent, where it is one (RFC 9449, 8.1).
#[must_use]
pub fn nonce(value: &str) -> Option<&str> {
    let is_nonce = !value.is_empty() && value.len() <= MAX_NONCE_BYTES && value.bytes().all(|b| b.is_ascii_graphic());
    is_nonce.then_some(value)
}

fn unusable(cause: &str) -> TokenError {
    TokenError::Unusable { what: "the key of the proof of possession", cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
    use serde_json::Value;

    #[test]
    fn a_proof_names_the_request_and_the_token_and_verifies_with_its_own_key() {
        let made = DpopKey::generate().ok().unwrap();
        let key = DpopKey::from_pkcs8(made.pkcs8()).ok().unwrap();
        let proof = key.proof("POST", "https://api.example/mcp?x=1", Some("n-1"), Some("the-token")).ok().unwrap();
        let header = decode_header(proof.as_str()).unwrap();
        assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
        let jwk = header.jwk.unwrap();
        let text = serde_json::to_value(&jwk).unwrap();
        assert!(text.get("d").is_none() && text["kty"] == "EC" && text["crv"] == "P-256", "{text}");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_required_spec_claims::<&str>(&[]);
        let public = DecodingKey::from_jwk(&jwk).unwrap();
        let claims = decode::<Value>(proof.as_str(), &public, &validation).unwrap().claims;
        assert_eq!(claims["htm"], "POST");
        assert_eq!(claims["htu"], "https://api.example/mcp");
        assert_eq!(claims["nonce"], "n-1");
        assert_eq!(claims["ath"], URL_SAFE_NO_PAD.encode(Sha256::digest(b"the-token")));
        assert!(claims["jti"].is_string() && claims["iat"].is_u64());
    }

    #[test]
    fn a_nonce_is_short_and_visible() {
        assert_eq!(nonce("eyJ7S_zG.eyJH0-Z.HX4w-7v"), Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"));
        for bad in ["", "with space", "\u{7f}", &"x".repeat(513)] {
            assert_eq!(nonce(bad), None);
        }
    }
}
