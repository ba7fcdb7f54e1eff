//! Tokens that say nothing by themselves are looked up where they were made (RFC 7662).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_contract::json::{self, Limits, Value};
use serde_json::Value as Owned;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::jwt::TokenError;
use crate::config::{Introspection, IntrospectionMethod, Issuer};
use crate::credential::query::encode;
use crate::outbound::{Answer, Ask};
use crate::sources::Sources;

/// Look-ups under way at once; more are refused.
const MAX_UNDER_WAY: usize = 32;
/// For how long a token that was not active is not looked up again.
const INACTIVE_FOR: Duration = Duration::from_secs(5);
/// The most tokens of which that is remembered.
const MAX_INACTIVE: usize = 4096;
/// The deepest nesting of an answer.
const MAX_DEPTH: usize = 16;

/// Looks tokens up, and remembers for a moment which were none.
pub(super) struct Introspector {
    under_way: Semaphore,
    inactive: Mutex<HashMap<[u8; 32], Instant>>,
}

/// Why a look-up gave no claims. Holds nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntrospectionError {
    /// The issuer says that the token is not active, or says so of something that is no access token.
    #[error("the issuer says that it is not an active access token")]
    Inactive,
    /// The issuer could not be asked, or its answer cannot be understood.
    #[error("the introspection endpoint of issuer `{issuer}`: {cause}")]
    Unavailable {
        /// The issuer's name.
        issuer: String,
        /// What went wrong.
        cause: String,
    },
}

// === impl Introspector ===

impl Default for Introspector {
    fn default() -> Introspector {
        Introspector { under_way: Semaphore::new(MAX_UNDER_WAY), inactive: Mutex::default() }
    }
}

impl std::fmt::Debug for Introspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Introspector").finish_non_exhaustive()
    }
}

impl Introspector {
    /// What the issuer says of a token: claims as a JWT of it would hold them, as JSON. `digest` is the token's.
    pub(super) async fn look_up(
        &self,
        issuer: &Issuer,
        terms: &Introspection,
        (token, digest): (&str, [u8; 32]),
        sources: &Sources,
    ) -> Result<Vec<u8>, IntrospectionError> {
        if self.is_inactive(&digest) {
            return Err(IntrospectionError::Inactive);
        }
        let unavailable = |cause: String| IntrospectionError::Unavailable { issuer: issuer.name.clone(), cause };
        let Ok(_permit) = self.under_way.try_acquire() else {
            return Err(unavailable(format!("{MAX_UNDER_WAY} tokens are being looked up already")));
        };
        let secret = sources.secrets.resolve(&terms.client_secret).await;
        let secret = secret.map_err(|error| unavailable(error.to_string()))?;
        let secret = std::str::from_utf8(secret.expose());
        let secret = secret.map_err(|_| unavailable("the client's secret is not UTF-8".to_owned()))?;
        let answer = sources.outbound.send(ask(terms, secret, token)).await;
        let answer = answer.map_err(|error| unavailable(error.to_string()))?;
        match claims(issuer, &answer) {
            Ok(Some(claims)) => Ok(claims),
            Ok(None) => {
                self.note_inactive(digest);
                Err(IntrospectionError::Inactive)
            }
            Err(cause) => Err(unavailable(cause)),
        }
    }

    fn is_inactive(&self, digest: &[u8; 32]) -> bool {
        let inactive = self.inactive.lock().unwrap_or_else(PoisonError::into_inner);
        inactive.get(digest).is_some_and(|until| *until > Instant::now())
    }

    fn note_inactive(&self, digest: [u8; 32]) {
        let now = Instant::now();
        let mut inactive = self.inactive.lock().unwrap_or_else(PoisonError::into_inner);
        if inactive.len() >= MAX_INACTIVE {
            inactive.retain(|_, until| *until > now);
        }
        if inactive.len() < MAX_INACTIVE {
            inactive.insert(digest, now + INACTIVE_FOR);
        }
    }
}

/// The request (RFC 7662, 2.1).
fn ask(terms: &Introspection, secret: &str, token: &str) -> Ask {
    let fields = [("token", token), ("token_type_hint", "access_token")];
    match terms.authentication {
        IntrospectionMethod::ClientSecretBasic => {
            let (id, secret) = (encode(terms.client_id.as_bytes()), encode(secret.as_bytes()));
            let pair = Zeroizing::new(format!("{}:{}", id.as_str(), secret.as_str()));
            let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            Ask::form(&terms.endpoint, &fields).header("authorization", &basic)
        }
        IntrospectionMethod::ClientSecretPost => {
            let [token, hint] = fields;
            let own = [("client_id", terms.client_id.as_str()), ("client_secret", secret)];
            Ask::form(&terms.endpoint, &[token, hint, own[0], own[1]])
        }
    }
}

/// The claims in an answer (RFC 7662, 2.2); none where the token is not an active access token.
fn claims(issuer: &Issuer, answer: &Answer) -> Result<Option<Vec<u8>>, String> {
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    read(issuer, answer.body())
}

fn read(issuer: &Issuer, body: &[u8]) -> Result<Option<Vec<u8>>, String> {
    // As strictly as claims: what two readers could read differently is no answer.
    let Ok(Value::Object(found)) = json::parse(body, &Limits { max_bytes: body.len(), max_depth: MAX_DEPTH }) else {
        return Err("the answer is not a strict JSON object".to_owned());
    };
    match found.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(None),
        _ => return Err("the answer does not say whether the token is active".to_owned()),
    }
    // Some servers look refresh tokens up at the same place, and call them active, too.
    let kind = found.get("token_type").and_then(Value::as_str).unwrap_or_default();
    if !["bearer", "dpop"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        return Ok(None);
    }
    let mut claims: serde_json::Map<String, Owned> =
        found.iter().map(|(name, value)| (name.to_owned(), super::claims::owned(value))).collect();
    for own in ["active", "token_type"] {
        claims.remove(own);
    }
    claims.entry("iss").or_insert_with(|| issuer.issuer.clone().into());
    // A token that a client has for itself has no resource owner; in a JWT its subject is the client (RFC 9068, 2.2).
    if !claims.contains_key("sub")
        && !claims.contains_key("username")
        && let Some(client) = claims.get("client_id").cloned()
    {
        claims.insert("sub".to_owned(), client);
    }
    Ok(Some(Owned::Object(claims).to_string().into_bytes()))
}

// === impl IntrospectionError ===

impl From<IntrospectionError> for super::IdentityError {
    fn from(error: IntrospectionError) -> super::IdentityError {
        match error {
            IntrospectionError::Inactive => TokenError::Inactive.into(),
            IntrospectionError::Unavailable { issuer, cause } => super::IdentityError::Introspection { issuer, cause },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::JwksSource;
    use crate::identity::tests::issuer;

    fn read_claims(answer: &Owned) -> Result<Option<Owned>, String> {
        let found = read(&issuer(JwksSource::default()), answer.to_string().as_bytes())?;
        Ok(found.map(|claims| serde_json::from_slice(&claims).unwrap()))
    }

    #[test]
    fn an_answer_becomes_the_claims_that_a_jwt_would_hold() {
        let answer = json!({
            "active": true, "token_type": "Bearer", "client_id": "bot", "sub": "alice", "aud": "https://mcp.example/mcp",
            "exp": 1_785_240_600, "scope": "read write", "cnf": {"jkt": "x"},
        });
        let claims = read_claims(&answer).unwrap().unwrap();
        assert_eq!(claims["iss"], "https://issuer.example");
        assert_eq!(
            (&claims["sub"], &claims["scope"], &claims["cnf"]["jkt"]),
            (&json!("alice"), &json!("read write"), &json!("x"))
        );
        assert!(claims.get("active").is_none() && claims.get("token_type").is_none());
        let own = json!({"active": true, "token_type": "DPoP", "client_id": "bot"});
        assert_eq!(read_claims(&own).unwrap().unwrap()["sub"], "bot");
        let hidden = json!({"active": true, "token_type": "bearer", "client_id": "bot", "username": "alice"});
        assert!(read_claims(&hidden).unwrap().unwrap().get("sub").is_none(), "a person's token is not the client's");
        let other = json!({"active": true, "token_type": "bearer", "iss": "https://another.example"});
        assert_eq!(read_claims(&other).unwrap().unwrap()["iss"], "https://another.example", "and refused for it later");
    }

    #[test]
    fn what_is_not_active_or_no_access_token_is_refused_and_what_is_not_understood_unavailable() {
        for none in [
            json!({"active": false}),
            json!({"active": false, "token_type": "Bearer", "sub": "alice"}),
            json!({"active": true, "sub": "alice"}),
            json!({"active": true, "token_type": "refresh_token", "sub": "alice"}),
            json!({"active": true, "token_type": ["Bearer"], "sub": "alice"}),
        ] {
            assert_eq!(read_claims(&none), Ok(None), "{none}");
        }
        for bad in [json!({}), json!({"active": "true", "token_type": "Bearer"}), json!([]), json!({"active": 1})] {
            assert!(read_claims(&bad).is_err(), "{bad}");
        }
        let twice = br#"{"active": false, "active": true, "token_type": "Bearer"}"#;
        assert!(read(&issuer(JwksSource::default()), twice).is_err());
    }

    #[test]
    fn what_was_not_active_is_remembered_within_bounds() {
        let introspector = Introspector::default();
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            digest
        };
        for n in 0..=MAX_INACTIVE {
            introspector.note_inactive(digest(n));
        }
        assert!(introspector.is_inactive(&digest(0)));
        assert!(!introspector.is_inactive(&digest(MAX_INACTIVE)), "more are looked up again instead");
        assert_eq!(introspector.inactive.lock().unwrap().len(), MAX_INACTIVE);
    }
}
