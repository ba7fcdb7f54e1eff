//! Who asks: the access token of the request, verified.

mod claims;
pub mod jwks;
mod jwt;
mod key;
mod principal;
#[cfg(test)]
pub(crate) mod tests;

pub use claims::LoggedIn;
pub use jwt::TokenError;
pub(crate) use key::KeySet;
pub use key::KeySetError;
pub use principal::{Actor, Confirmation, KeyParts, Principal, PrincipalKind, TokenFacts};

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use keyward_contract::reason::Reason;

use crate::config::{IdentityConfig, Issuer};
use crate::outbound::Outbound;
use jwks::{JwksError, Keys};
use jwt::Unverified;

/// Every issuer whose tokens are accepted, with its keys.
#[derive(Debug)]
pub struct Identity {
    issuers: Vec<Verifier>,
}

/// One issuer and its keys.
#[derive(Debug)]
struct Verifier {
    issuer: Issuer,
    keys: Keys,
}

/// Why no principal could be had. Holds nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no token.
    #[error("the request carries no access token")]
    Missing,
    /// The header is not one bearer token.
    #[error("the authorization header is not one bearer token: {0}")]
    Header(&'static str),
    /// The token was refused.
    #[error("the access token was refused: {0}")]
    Token(#[from] TokenError),
    /// The issuer's keys cannot be had.
    #[error("the keys of issuer `{issuer}` cannot be had: {cause}")]
    Keys {
        /// The issuer's name.
        issuer: String,
        /// What went wrong.
        cause: String,
    },
}

// === impl Identity ===

impl Identity {
    /// Reads the key files of all issuers; keys at a URL are fetched by [`Identity::refresh`] or at the first token. Keys
    /// that `previous` holds for an unchanged URL are kept.
    ///
    /// # Errors
    /// A key file that cannot be read or holds no usable key.
    pub fn new(
        config: &IdentityConfig,
        previous: Option<&Identity>,
        outbound: &Outbound,
    ) -> Result<Identity, JwksError> {
        let verifier = |issuer: &Issuer| {
            let previous = previous.and_then(|previous| previous.named(&issuer.name)).map(|verifier| &verifier.keys);
            let keys = Keys::new(&issuer.jwks, &issuer.algorithms, previous, outbound)?;
            Ok(Verifier { issuer: issuer.clone(), keys })
        };
        Ok(Identity { issuers: config.issuers.iter().map(verifier).collect::<Result<_, _>>()? })
    }

    /// Who asks, from the value of the `authorization` header.
    ///
    /// # Errors
    /// Every token that is not beyond doubt.
    pub async fn verify(&self, authorization: Option<&str>) -> Result<Principal, IdentityError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs());
        self.verify_at(authorization, now).await
    }

    /// As [`Identity::verify`], at a given time in seconds since 1970.
    ///
    /// # Errors
    /// As [`Identity::verify`].
    pub async fn verify_at(&self, authorization: Option<&str>, unix_secs: u64) -> Result<Principal, IdentityError> {
        let token = bearer(authorization.ok_or(IdentityError::Missing)?)?;
        let longest = self.issuers.iter().map(|verifier| verifier.issuer.max_token_bytes).max().unwrap_or(0);
        let unverified = Unverified::read(token, longest)?;
        let claims = unverified.claims()?;
        let issuer = claims.get("iss").and_then(|iss| iss.as_str()).ok_or(TokenError::Claim("iss"))?;
        let verifier = self.issuers.iter().find(|verifier| verifier.issuer.issuer == issuer);
        let Verifier { issuer, keys } = verifier.ok_or(TokenError::Issuer)?;
        if token.len() > issuer.max_token_bytes {
            return Err(TokenError::TooLong.into());
        }
        if !issuer.algorithms.contains(&unverified.algorithm) {
            return Err(TokenError::Algorithm.into());
        }
        let keys = keys
            .lookup(unverified.kid.as_deref(), unverified.algorithm)
            .await
            .map_err(|cause| IdentityError::Keys { issuer: issuer.name.clone(), cause })?;
        unverified.verify(&keys)?;
        Ok(claims::principal(issuer, &claims, unix_secs)?)
    }

    /// Whose an id token is (OpenID Connect Core, 3.1.3.7) of this issuer for Keyward's own client there, answering the
    /// login with this nonce.
    ///
    /// # Errors
    /// Every id token that is not beyond doubt.
    pub async fn verify_login(
        &self,
        issuer: &str,
        id_token: &str,
        client_id: &str,
        nonce: &str,
    ) -> Result<LoggedIn, IdentityError> {
        let Verifier { issuer, keys } = self.named(issuer).ok_or(TokenError::Issuer)?;
        let unverified = Unverified::read(id_token, issuer.max_token_bytes)?;
        if !issuer.algorithms.contains(&unverified.algorithm) {
            return Err(TokenError::Algorithm.into());
        }
        let keys = keys
            .lookup(unverified.kid.as_deref(), unverified.algorithm)
            .await
            .map_err(|cause| IdentityError::Keys { issuer: issuer.name.clone(), cause })?;
        unverified.verify(&keys)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs());
        Ok(claims::login(issuer, &unverified.claims()?, (client_id, nonce), now)?)
    }

    /// The principal of claims that nobody signed, for `keyward explain` only. The token's issuer must be a known one.
    ///
    /// # Errors
    /// Claims that a token of the issuer would be refused for.
    pub fn assume(&self, claims_json: &[u8], unix_secs: u64) -> Result<Principal, IdentityError> {
        use keyward_contract::json;
        let Ok(json::Value::Object(claims)) = json::parse(claims_json, &json::Limits::default()) else {
            return Err(TokenError::Claims.into());
        };
        let issuer = claims.get("iss").and_then(|iss| iss.as_str()).ok_or(TokenError::Claim("iss"))?;
        let verifier = self.issuers.iter().find(|verifier| verifier.issuer.issuer == issuer);
        Ok(claims::principal(&verifier.ok_or(TokenError::Issuer)?.issuer, &claims, unix_secs)?)
    }

    /// Fetches the keys that are due. Bounded in time; failures are logged and kept as the state of the issuer.
    pub async fn refresh(&self) {
        for verifier in &self.issuers {
            verifier.keys.refresh().await;
        }
    }

    /// What keeps tokens from being verified now, one sentence an issuer; empty when all have keys.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problem = |verifier: &Verifier| {
            verifier.keys.problem().map(|cause| format!("the keys of issuer `{}`: {cause}", verifier.issuer.name))
        };
        self.issuers.iter().filter_map(problem).collect()
    }

    /// The key files, to be watched.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.issuers.iter().filter_map(|verifier| verifier.keys.file())
    }

    fn named(&self, name: &str) -> Option<&Verifier> {
        self.issuers.iter().find(|verifier| verifier.issuer.name == name)
    }
}

/// The token of `Bearer token` (RFC 6750, 2.1), the scheme in any case. A repeated header arrives joined by a comma, which
/// no token holds.
fn bearer(authorization: &str) -> Result<&str, IdentityError> {
    let (scheme, token) = authorization.split_once(' ').ok_or(IdentityError::Header("there is no token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        // RFC 6750, 3.1: another method is no attempt at this one, so there is no error to name.
        return Err(IdentityError::Missing);
    }
    let token = token.trim_start_matches(' ');
    if token.is_empty() {
        return Err(IdentityError::Header("there is no token"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.contains(',') {
        return Err(IdentityError::Header("there is more than one value"));
    }
    if !token.bytes().all(allowed) {
        return Err(IdentityError::Header("it holds characters that no token holds"));
    }
    Ok(token)
}

// === impl IdentityError ===

impl IdentityError {
    /// What the agent is told.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            IdentityError::Missing => Reason::Unauthenticated,
            IdentityError::Header(_) | IdentityError::Token(_) => Reason::InvalidToken,
            IdentityError::Keys { .. } => Reason::DecisionUnavailable,
        }
    }
}
