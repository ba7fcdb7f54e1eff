//! Proof for an upstream that a request came through Keyward, for whom, and with which body.
//!
//! Signing keys are derived from a seed for each period of time, so that replicas agree and keys change by themselves. The
//! keys of the period before and of the one after are published beside the current one: whoever keeps the key set for
//! five minutes never meets an unknown key.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, Turn};
use crate::caller::Caller;
use crate::config::{GatewayProofCredential, SecretSource};
use crate::freshness::{Key, MintError};
use crate::request::mint_decision_id;
use crate::sources::Sources;

/// How far `iat` lies in the past, for upstreams whose clock is late.
const LEEWAY_SECS: u64 = 30;
/// The shortest seed, in bytes.
const MIN_SEED_BYTES: usize = 32;
/// What sets these keys apart from others of the same seed.
const LABEL: &[u8] = b"keyward gateway proof, version 1";

/// The field of the material with the claims about the caller, and the one with the signing key's seed.
const CALLER: &str = "caller";
const SEED: &str = "seed";

/// A proof.
#[derive(Clone, Debug)]
pub struct GatewayProof(pub GatewayProofCredential);

/// The public half of one signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The thumbprint (RFC 7638, RFC 8037).
    pub id: String,
    x: String,
}

impl Credential for GatewayProof {
    fn kind(&self) -> &'static str {
        "gateway_proof"
    }

    fn places(&self) -> Vec<SlotName> {
        vec![SlotName::Header(self.0.header.clone())]
    }

    fn references(&self) -> Vec<String> {
        self.0.seeds.iter().map(|seed| seed.reference.clone()).collect()
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        Box::pin(async move {
            let seed = self.0.seeds.first().ok_or_else(|| MintError::rejected("there is no seed".to_owned()))?;
            let seed = sources.secrets.get(seed, &caller).await?;
            let principal = &caller.principal;
            let claims = json!({
                "sub": principal.key, "subject": principal.subject, "issuer": principal.issuer,
                "agent": principal.agent, "tenant": principal.tenant, "environment": caller.environment,
                "server": caller.server, "decision_id": caller.decision_id,
            });
            Ok(Material::new().stored(SEED, &seed).plain(CALLER, claims.to_string()))
        })
    }

    /// It covers the body, so nothing may change that afterwards.
    fn turn(&self) -> Turn {
        Turn::Sign
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let proof = self.prove(material, outgoing, SystemTime::now())?;
        outgoing.scrub(proof.as_bytes());
        outgoing.set_header(&self.0.header, &proof)
    }

    fn published_keys(self: Arc<Self>, sources: Arc<Sources>, now: SystemTime) -> super::Publishing {
        Box::pin(async move {
            let mut keys = Vec::new();
            for seed in &self.0.seeds {
                let seed = self.seed(seed, &sources).await?;
                let period = self.period(now);
                for period in [period.saturating_sub(1), period, period + 1] {
                    keys.push(
                        public(&key_pair(seed.value.expose(), period).map_err(|error| error.to_string())?).to_jwk(),
                    );
                }
            }
            Ok(keys)
        })
    }
}

// === impl GatewayProof ===

impl GatewayProof {
    async fn seed(&self, seed: &SecretSource, sources: &Sources) -> Result<crate::secret::Secret, String> {
        sources.secrets.get(seed, &Caller::none("")).await.map_err(|error| error.to_string())
    }

    fn period(&self, now: SystemTime) -> u64 {
        now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / self.0.rotation_secs.max(1)
    }

    fn prove(&self, material: &Material, outgoing: &Outgoing<'_>, now: SystemTime) -> Result<String, CredentialError> {
        let seed = material.get(SEED).ok_or(CredentialError::Missing("seed"))?;
        let pair = key_pair(seed, self.period(now))?;
        let caller: Value = serde_json::from_slice(material.get(CALLER).unwrap_or_default()).unwrap_or_default();
        let now_secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let audience = self.0.audience.clone().unwrap_or_else(|| origin(outgoing.scheme(), outgoing.authority()));
        let mut claims = json!({
            "iss": self.0.issuer, "aud": audience, "jti": mint_decision_id(),
            "iat": now_secs.saturating_sub(LEEWAY_SECS), "exp": now_secs + self.0.ttl_secs,
            "htm": outgoing.method(),
            "htp": outgoing.path(),
            "body_sha256": URL_SAFE_NO_PAD.encode(Sha256::digest(outgoing.body())),
        });
        if let (Some(claims), Value::Object(caller)) = (claims.as_object_mut(), caller) {
            claims.extend(caller.into_iter().filter(|(_, value)| !value.is_null() && value != ""));
        }
        let header = json!({"alg": "EdDSA", "typ": "keyward-proof+jwt", "kid": public(&pair).id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()).as_ref())))
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// The key as one of a JWK Set (RFC 7517, RFC 8037).
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": self.x, "kid": self.id, "use": "sig", "alg": "EdDSA"})
    }
}

fn public(pair: &Ed25519KeyPair) -> PublicKey {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    // The members in the order of RFC 7638, without white space.
    let id = URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)));
    PublicKey { id, x }
}

/// The signing key of one period (HKDF, RFC 5869).
fn key_pair(seed: &[u8], period: u64) -> Result<Ed25519KeyPair, CredentialError> {
    if seed.len() < MIN_SEED_BYTES {
        return Err(CredentialError::Unfit(format!("the seed is shorter than {MIN_SEED_BYTES} bytes")));
    }
    let unfit = |_| CredentialError::Unfit("no signing key can be made of the seed".to_owned());
    let mut derived = zeroize::Zeroizing::new([0_u8; 32]);
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL).extract(seed);
    let info = period.to_be_bytes();
    let info = [info.as_slice()];
    let expanded = secret.expand(&info, hkdf::HKDF_SHA256).map_err(unfit)?;
    expanded.fill(derived.as_mut_slice()).map_err(unfit)?;
    Ed25519KeyPair::from_seed_unchecked(derived.as_slice())
        .map_err(|_| CredentialError::Unfit("no signing key can be made of the seed".to_owned()))
}

/// Scheme and authority in lower case, without the port that the scheme implies (RFC 6454).
fn origin(scheme: &str, authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let implied = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}", authority.strip_suffix(implied).unwrap_or(&authority))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn proof() -> GatewayProof {
        GatewayProof(GatewayProofCredential {
            header: "x-gateway-proof".into(),
            issuer: "https://keyward.example".into(),
            audience: None,
            ttl_secs: 300,
            rotation_secs: 7200,
            seeds: Vec::new(),
        })
    }

    fn decoded(proof: &str) -> (Value, Value) {
        let part = |number| URL_SAFE_NO_PAD.decode(proof.split('.').nth(number).unwrap()).unwrap();
        (serde_json::from_slice(&part(0)).unwrap(), serde_json::from_slice(&part(1)).unwrap())
    }

    #[test]
    fn a_proof_says_what_it_is_for_and_verifies_against_the_published_key() {
        let seed = b"a seed of thirty-two bytes or more";
        let material = Material::new().secret(SEED, seed.to_vec()).plain(CALLER, r#"{"sub":"k","agent":null}"#);
        let outgoing = Outgoing::plain("POST", "https", "API.example:443", "/a?b=c", b"body");
        let now = UNIX_EPOCH + Duration::from_secs(7200 * 1000 + 7199);
        let text = proof().prove(&material, &outgoing, now).unwrap();
        let (header, claims) = decoded(&text);
        assert_eq!(claims["aud"], "https://api.example");
        assert_eq!((&claims["htm"], &claims["htp"]), (&json!("POST"), &json!("/a")));
        assert_eq!(claims["iat"].as_u64(), Some(7200 * 1000 + 7199 - 30));
        assert_eq!(claims["exp"].as_u64(), Some(7200 * 1000 + 7199 + 300));
        assert_eq!(claims["sub"], "k");
        assert!(claims.get("agent").is_none());
        assert_eq!(claims["body_sha256"], URL_SAFE_NO_PAD.encode(Sha256::digest(b"body")));
        let pair = key_pair(seed, 1000).unwrap();
        assert_eq!(header["kid"], public(&pair).id);
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let key =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, pair.public_key().as_ref());
        assert!(key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok());
        // The next period has another key, and the same seed makes the same ones elsewhere.
        assert_ne!(public(&key_pair(seed, 1001).unwrap()), public(&pair));
        assert_eq!(public(&key_pair(seed, 1000).unwrap()), public(&pair));
        assert!(key_pair(b"short", 1).is_err());
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // Appendix A.1 and A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = public(&Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
        assert_eq!(key.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.id, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn an_origin_has_no_implied_port() {
        for (scheme, authority, expected) in [
            ("https", "a.example:443", "https://a.example"),
            ("https", "A.example:8443", "https://a.example:8443"),
            ("http", "a.example:80", "http://a.example"),
            ("http", "[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(origin(scheme, authority), expected);
        }
    }
}
