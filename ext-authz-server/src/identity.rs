//! Who asks: the access token of the request, verified.

mod admission;
mod claims;
mod introspection;
pub mod jwks;
mod jwt;
mod key;
mod nonce;
mod principal;
mod proof;
mod replay;
#[cfg(test)]
pub(crate) mod tests;

pub use claims::LoggedIn;
pub use jwt::TokenError;
pub(crate) use key::KeySet;
pub use key::KeySetError;
pub use principal::{Actor, Confirmation, KeyParts, Principal, PrincipalKind, TokenFacts};

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyward_contract::reason::Reason;

use crate::config::{IdentityConfig, Issuer, SecretSource, TokenType};
use crate::outbound::Outbound;
use crate::resource::Resource;
use crate::sources::Sources;
use introspection::Introspector;
use jwks::{JwksError, Keys};
use jwt::Unverified;

/// Every issuer whose tokens are accepted, with its keys.
#[derive(Debug)]
pub struct Identity {
    issuers: Vec<Verifier>,
    nonce_key: Option<SecretSource>,
    max_replay_entries: usize,
    kept: Arc<Kept>,
}

/// What outlives a reload.
#[derive(Default)]
struct Kept {
    replay: replay::Replay,
    nonce_key: nonce::OwnKey,
    introspector: Introspector,
}

/// How a token is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Whoever has it may use it (RFC 6750).
    Bearer,
    /// With a proof of possession (RFC 9449).
    Dpop,
}

/// A token as it is presented. No `Debug`: it is a secret.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// How.
    pub scheme: Scheme,
    /// The token.
    pub token: &'a str,
}

/// One issuer and its keys.
#[derive(Debug)]
struct Verifier {
    issuer: Issuer,
    /// The same, for the audiences of resources, too.
    accepted: Issuer,
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
    /// The issuer cannot be asked about a token.
    #[error("the introspection endpoint of issuer `{issuer}`: {cause}")]
    Introspection {
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
            Ok(Verifier { issuer: issuer.clone(), accepted: issuer.clone(), keys })
        };
        Ok(Identity {
            issuers: config.issuers.iter().map(verifier).collect::<Result<_, _>>()?,
            nonce_key: config.dpop_nonce_key.clone(),
            max_replay_entries: config.replay.max_entries,
            kept: previous.map(|previous| previous.kept.clone()).unwrap_or_default(),
        })
    }

    /// The same, which recognises tokens for these resources, too; [`Identity::admit`] says which serves where.
    #[must_use]
    pub fn with_resources<'a>(mut self, resources: impl Iterator<Item = &'a crate::config::Resource>) -> Identity {
        for resource in resources {
            for Verifier { issuer, accepted, .. } in &mut self.issuers {
                if resource.issuers.is_empty() || resource.issuers.contains(&issuer.name) {
                    accepted.audiences.extend([&resource.url].into_iter().chain(&resource.audiences).cloned());
                }
            }
        }
        self
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
        let token = credentials(authorization)?.token;
        let longest = self.issuers.iter().map(|verifier| verifier.issuer.max_token_bytes).max().unwrap_or(0);
        let unverified = Unverified::read(token, longest)?;
        let claims = unverified.claims()?;
        let issuer = claims.get("iss").and_then(|iss| iss.as_str()).ok_or(TokenError::Claim("iss"))?;
        let verifier = self.issuers.iter().find(|verifier| verifier.issuer.issuer == issuer);
        let Verifier { accepted: issuer, keys, .. } = verifier.ok_or(TokenError::Issuer)?;
        if token.len() > issuer.max_token_bytes {
            return Err(TokenError::TooLong.into());
        }
        if issuer.token_type == TokenType::AtJwt && !unverified.is_access_token {
            return Err(TokenError::Type.into());
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

    /// Whose an opaque token is, as the issuer that looks such tokens up for this resource says, and how long that may be
    /// believed. `digest` is the SHA-256 of the token or of what holds it.
    ///
    /// # Errors
    /// Nobody looks it up, it is no active access token, or that cannot be told.
    pub async fn look_up(
        &self,
        token: &str,
        digest: [u8; 32],
        resource: Option<&Resource>,
        sources: &Sources,
    ) -> Result<(Principal, Duration), IdentityError> {
        let serves =
            |verifier: &&Verifier| resource.is_none_or(|resource| resource.issuers.contains(&verifier.issuer.name));
        let mut asked = self.issuers.iter().filter(serves).map(|verifier| &verifier.accepted);
        let found = asked.find_map(|issuer| Some((issuer, issuer.introspection.as_ref()?)));
        let (issuer, terms) = found.ok_or(TokenError::Form)?;
        if token.len() > issuer.max_token_bytes {
            return Err(TokenError::TooLong.into());
        }
        let json = self.kept.introspector.look_up(issuer, terms, (token, digest), sources).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs());
        let principal = claims::principal(issuer, &claims::read(&json).ok_or(TokenError::Claims)?, now)?;
        Ok((principal, Duration::from_secs(terms.cache_secs)))
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
        let Verifier { issuer, keys, .. } = self.named(issuer).ok_or(TokenError::Issuer)?;
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
        let claims = claims::read(claims_json).ok_or(TokenError::Claims)?;
        let issuer = claims.get("iss").and_then(|iss| iss.as_str()).ok_or(TokenError::Claim("iss"))?;
        let verifier = self.issuers.iter().find(|verifier| verifier.issuer.issuer == issuer);
        Ok(claims::principal(&verifier.ok_or(TokenError::Issuer)?.accepted, &claims, unix_secs)?)
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

/// Reads `Bearer TOKEN` (RFC 6750, 2.1) or `DPoP TOKEN` (RFC 9449, 7.1), the scheme in any case. A repeated header arrives
/// joined by a comma, which no token holds.
///
/// # Errors
/// There is no token, or not exactly one.
pub fn credentials(authorization: Option<&str>) -> Result<Credentials<'_>, IdentityError> {
    let authorization = authorization.ok_or(IdentityError::Missing)?;
    let (scheme, token) = authorization.split_once(' ').ok_or(IdentityError::Header("there is no token"))?;
    let scheme = match () {
        () if scheme.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
        () if scheme.eq_ignore_ascii_case("dpop") => Scheme::Dpop,
        // RFC 6750, 3.1: another method is no attempt at this one, so there is no error to name.
        () => return Err(IdentityError::Missing),
    };
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
    Ok(Credentials { scheme, token })
}

// === impl Credentials ===

impl Credentials<'_> {
    /// Whether the token says nothing by itself: it is not made of three parts.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.token.bytes().filter(|byte| *byte == b'.').count() != 2
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

// === impl IdentityError ===

impl IdentityError {
    /// What the agent is told.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            IdentityError::Missing => Reason::Unauthenticated,
            IdentityError::Header(_) | IdentityError::Token(_) => Reason::InvalidToken,
            IdentityError::Keys { .. } | IdentityError::Introspection { .. } => Reason::DecisionUnavailable,
        }
    }
}
