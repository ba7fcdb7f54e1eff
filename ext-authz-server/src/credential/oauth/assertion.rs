//! Signed JWTs that this server makes: as a client (RFC 7523, 2.2), as a grant (2.1), and for the services that have
//! their own form of one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::TokenError;

/// How long an assertion may be used.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// A private key to sign with. No `Debug`: it is a secret.
pub struct SigningKey {
    key: EncodingKey,
    header: Header,
}

// === impl SigningKey ===

impl SigningKey {
    /// Reads a PEM: PKCS #8, or PKCS #1 for RSA. Without an algorithm the key decides: RS256, ES256 or EdDSA.
    ///
    /// # Errors
    /// It is no private key, or none for that algorithm.
    pub fn read(pem: &[u8], algorithm: Option<Algorithm>, key_id: Option<&str>) -> Result<SigningKey, TokenError> {
        let found = match algorithm {
            Some(algorithm) => key_for(pem, algorithm).map(|key| (algorithm, key)),
            None => [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
                .into_iter()
                .find_map(|algorithm| Some((algorithm, key_for(pem, algorithm)?))),
        };
        let (algorithm, key) = found.ok_or_else(|| unusable("it is no private key as PEM of the right kind"))?;
        let mut header = Header::new(algorithm);
        header.kid = key_id.map(str::to_owned);
        let read = SigningKey { key, header };
        // A key of another curve or too short a one shows only when it signs.
        read.sign("JWT", &Claims::new(SystemTime::now(), LIFETIME))?;
        Ok(read)
    }

    /// Names the certificate of the key in every header (`x5t#S256`, RFC 7515, 4.1.8), as Microsoft Entra demands.
    ///
    /// # Errors
    /// It is no certificate as PEM.
    pub fn with_certificate(mut self, pem: &[u8]) -> Result<SigningKey, TokenError> {
        let der = first_certificate(pem).ok_or_else(|| TokenError::Unusable {
            what: "the client's certificate",
            cause: "it is no certificate as PEM".to_owned(),
        })?;
        self.header.x5t_s256 = Some(URL_SAFE_NO_PAD.encode(Sha256::digest(der)));
        Ok(self)
    }

    /// A JWT with these claims; `typ` is that of its header.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, typ: &str, claims: &Claims) -> Result<Zeroizing<String>, TokenError> {
        let header = Header { typ: Some(typ.to_owned()), ..self.header.clone() };
        encode(&header, &claims.0, &self.key).map(Zeroizing::new).map_err(|error| unusable(&error.to_string()))
    }
}

/// What a JWT says.
pub struct Claims(Map<String, Value>);

// === impl Claims ===

impl Claims {
    /// Valid from now for so long, with an id that is used once. `iat` lies a little back: clocks differ.
    #[must_use]
    pub fn new(now: SystemTime, lifetime: Duration) -> Claims {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = Claims(Map::new());
        claims.set("iat", now.saturating_sub(5));
        claims.set("exp", now + lifetime.as_secs());
        claims.set("jti", unique());
        claims
    }

    /// Sets one.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets one where there is something to say.
    pub fn set_optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Leaves one out.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// 128 random bits, base64url.
#[must_use]
pub fn unique() -> String {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Without randomness the time keeps two of them apart; the signature does not depend on it.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        bytes = nanos.to_be_bytes();
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key_for(pem: &[u8], algorithm: Algorithm) -> Option<EncodingKey> {
    match algorithm {
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => EncodingKey::from_rsa_pem(pem).ok(),
        Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => EncodingKey::from_rsa_pem(pem).ok(),
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem).ok(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem).ok(),
        _ => None,
    }
}

fn first_certificate(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

fn unusable(cause: &str) -> TokenError {
    TokenError::Unusable { what: "the signing key", cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

    /// A fresh PKCS #8 key as PEM, and its public half.
    fn pem(algorithm: Algorithm) -> (String, DecodingKey) {
        use aws_lc_rs::encoding::AsDer;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
        let armoured =
            |der: &[u8]| format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        let read = |pem: String, key: EncodingKey, algorithm| {
            let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap();
            (pem, DecodingKey::from_jwk(&jwk).unwrap())
        };
        match algorithm {
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                let pem = armoured(pair.to_pkcs8v1().unwrap().as_ref());
                let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
                read(pem, key, algorithm)
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let pem = armoured(pair.to_pkcs8v1().unwrap().as_ref());
                (pem, DecodingKey::from_ed_der(pair.public_key().as_ref()))
            }
            _ => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                let pem = armoured(AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref());
                let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
                read(pem, key, algorithm)
            }
        }
    }

    fn validation(algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["https://as.example/token"]);
        validation
    }

    #[test]
    fn every_algorithm_signs_what_its_public_key_verifies() {
        for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
            let (pem, public) = pem(algorithm);
            let named = SigningKey::read(pem.as_bytes(), Some(algorithm), Some("k1")).ok().unwrap();
            let mut claims = Claims::new(SystemTime::now(), LIFETIME);
            claims.set("aud", "https://as.example/token");
            let token = named.sign("JWT", &claims).ok().unwrap();
            let header = decode_header(token.as_str()).unwrap();
            assert_eq!((header.alg, header.kid.as_deref()), (algorithm, Some("k1")));
            let read = decode::<Value>(token.as_str(), &public, &validation(algorithm)).unwrap().claims;
            assert!(read["exp"].as_u64().unwrap() - read["iat"].as_u64().unwrap() <= 65, "{read}");
            assert_eq!(read["jti"].as_str().map(str::len), Some(22));
        }
    }

    #[test]
    fn the_key_decides_where_no_algorithm_is_named() {
        for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            let (pem, _) = pem(algorithm);
            let token = SigningKey::read(pem.as_bytes(), None, None).ok().unwrap();
            let token = token.sign("JWT", &Claims::new(SystemTime::now(), LIFETIME)).ok().unwrap();
            assert_eq!(decode_header(token.as_str()).unwrap().alg, algorithm);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let (rsa, _) = pem(Algorithm::RS256);
        for (pem, algorithm) in [
            ("not a pem with marked-value", None),
            ("-----BEGIN PRIVATE KEY-----\nbWFya2VkLXZhbHVl\n-----END PRIVATE KEY-----", None),
            (rsa.as_str(), Some(Algorithm::ES256)),
            (rsa.as_str(), Some(Algorithm::HS256)),
        ] {
            let error = SigningKey::read(pem.as_bytes(), algorithm, None).err().unwrap().to_string();
            assert!(!error.contains("marked"), "{error}");
        }
    }

    #[test]
    fn no_two_assertions_are_the_same() {
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| unique()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn the_certificate_is_named_by_its_digest() {
        let (key, _) = pem(Algorithm::RS256);
        let certificate = "-----BEGIN CERTIFICATE-----\nAQID\nBAUG\n-----END CERTIFICATE-----\n";
        let read = SigningKey::read(key.as_bytes(), None, None).ok().unwrap();
        let named = read.with_certificate(certificate.as_bytes()).ok().unwrap();
        let token = named.sign("JWT", &Claims::new(SystemTime::now(), LIFETIME)).ok().unwrap();
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest([1, 2, 3, 4, 5, 6]));
        assert_eq!(decode_header(token.as_str()).unwrap().x5t_s256, Some(digest));
        assert!(SigningKey::read(key.as_bytes(), None, None).ok().unwrap().with_certificate(b"none").is_err());
    }
}
