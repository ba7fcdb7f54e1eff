//! Access tokens for a refresh token (RFC 6749, 6), a service's own or the user's.
//!
//! Where the server rotates refresh tokens, the next one is stored before the access token is used, also if nobody waits
//! for that any more: a token that got lost would end the grant, and so would one that is sent twice. Hence the [`Turn`]s.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::error::TokenError;
use super::request::TokenRequest;
use super::response::{Expected, Tokens};
use super::{Asking, Issued, Minting};
use crate::freshness::MintError;
use crate::grants::{Grant, GrantKey, Grants, Replaced, Turn, Version};
use crate::hex::hex;
use crate::secret::SecretBytes;

/// How often a grant is begun anew because it was replaced meanwhile.
const MAX_TURNS: usize = 3;
/// How often storing is tried, and how long is waited between: the next refresh token exists nowhere else.
const STORE_TRIES: u32 = 3;
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// The same mint, which goes on when it is given up: the server may have used up the refresh token, and the next one
/// exists nowhere else until it is stored.
pub(super) fn to_the_end(minting: Minting) -> Minting {
    Box::pin(async move {
        let going_on = tokio::spawn(minting);
        going_on.await.unwrap_or_else(|_| Err(MintError::transient("the refresh ended early")))
    })
}

/// With the refresh token of the user, or of the service.
pub(super) async fn refresh_token(asking: &Asking<'_>) -> Result<Issued, MintError> {
    match &asking.own.provider {
        Some(provider) => users(provider, asking).await,
        None => services(asking).await,
    }
}

async fn users(provider: &str, asking: &Asking<'_>) -> Result<Issued, MintError> {
    let principal = &asking.caller.principal;
    if principal.subject.is_empty() {
        return Err(MintError::needs_caller(format!("it is the user's own, at `{provider}`")));
    }
    let Some(grants) = asking.sources.grants() else {
        return Err(MintError::rejected("there is no store of grants: configure `database`"));
    };
    let key = GrantKey::new(asking.caller.tenant(), &principal.key, provider);
    let _turn = Turn::take(&grants, &key).await.map_err(MintError::transient)?;
    for _ in 0..MAX_TURNS {
        let loaded = grants.load(&key).await.map_err(MintError::transient)?;
        let Some((grant, version)) = loaded else {
            return Err(TokenError::Consent(format!("there is no grant at `{provider}`")).into());
        };
        match asking.ask_typed(request(asking, &grant.secret)?, expected(asking)).await? {
            Ok(issued) => {
                if kept(&*grants, &key, Some(version), &grant, &issued.tokens).await? {
                    return Ok(issued);
                }
            }
            Err(error) if error.code() == Some("invalid_grant") => {
                // It may have been replaced since: by the person, or by a replica that took longer than its turn.
                let now = grants.load(&key).await.map_err(MintError::transient)?;
                if now.is_some_and(|(_, newer)| newer != version) {
                    continue;
                }
                grants.delete(&key, Some(version)).await.map_err(MintError::transient)?;
                let cause = format!("`{provider}` does not take the grant any more: {error}");
                return Err(TokenError::Consent(cause).into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(MintError::transient("the grant changed again and again while it was being used"))
}

async fn services(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let seed = asking.secret(asking.own.refresh_token.as_ref(), "the refresh token").await?.value;
    let Some(grants) = asking.sources.grants() else {
        if asking.sources.has_database() {
            // The first token may have been used up, and a server that sees it twice ends all that came of it.
            return Err(MintError::transient("the database is not open, in which the newest refresh token lies"));
        }
        let issued = asking.ask(request(asking, &seed)?, expected(asking)).await?;
        if next(&issued.tokens, &seed).is_some() {
            let cause = "the server rotates refresh tokens, and the next one cannot be kept: configure `database`, \
                         then put a new refresh token where the old one was";
            return Err(MintError::rejected(cause));
        }
        return Ok(issued);
    };
    // Its own line for each first token: whoever puts a new one there begins a new line.
    let line = Sha256::new().chain_update(seed.expose()).chain_update(asking.client_id()).finalize();
    let line = hex(line.iter().take(16));
    let key = GrantKey::new("", "service", &line);
    let _turn = Turn::take(&grants, &key).await.map_err(MintError::transient)?;
    for _ in 0..MAX_TURNS {
        let loaded = grants.load(&key).await.map_err(MintError::transient)?;
        let secret = loaded.as_ref().map_or(&seed, |(grant, _)| &grant.secret);
        match asking.ask_typed(request(asking, secret)?, expected(asking)).await? {
            Ok(issued) => {
                let (before, version) = match &loaded {
                    Some((grant, version)) => (grant.clone(), Some(*version)),
                    None => (first(&seed, asking), None),
                };
                if kept(&*grants, &key, version, &before, &issued.tokens).await? {
                    return Ok(issued);
                }
            }
            Err(error) if error.code() == Some("invalid_grant") => {
                let now = grants.load(&key).await.map_err(MintError::transient)?;
                if now.map(|(_, version)| version) != loaded.map(|(_, version)| version) {
                    continue;
                }
                let cause = format!("{error}; put a new refresh token where the old one was");
                return Err(MintError::rejected(cause));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(MintError::transient("the refresh token changed again and again while it was being used"))
}

fn request(asking: &Asking<'_>, refresh_token: &SecretBytes) -> Result<TokenRequest, MintError> {
    let text = std::str::from_utf8(refresh_token.expose())
        .map_err(|_| TokenError::Unusable { what: "the refresh token", cause: "it is not UTF-8".to_owned() })?;
    let mut request = TokenRequest::new("refresh_token");
    request.secret("refresh_token", text);
    asking.target(&mut request, &asking.own.scopes);
    Ok(request)
}

/// What a service begins with.
fn first(seed: &Arc<SecretBytes>, asking: &Asking<'_>) -> Grant {
    let scopes = asking.own.scopes.clone();
    Grant { secret: seed.clone(), scopes, account: None, given: SystemTime::now(), expires: None }
}

fn expected(asking: &Asking<'_>) -> Expected {
    Expected { issued: None, bound: asking.own.dpop }
}

/// The next refresh token, where it is another one.
fn next<'a>(tokens: &'a Tokens, used: &SecretBytes) -> Option<&'a str> {
    tokens.refresh_token.as_ref().map(|token| token.as_str()).filter(|token| token.as_bytes() != used.expose())
}

/// Stores the next refresh token. `false`: the grant was replaced meanwhile.
async fn kept(
    grants: &dyn Grants,
    key: &GrantKey,
    expected: Option<Version>,
    before: &Grant,
    tokens: &Tokens,
) -> Result<bool, MintError> {
    let Some(next) = next(tokens, &before.secret) else { return Ok(true) };
    let grant = Grant { secret: Arc::new(SecretBytes::new(next.as_bytes().to_vec())), ..before.clone() };
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match grants.replace(key, expected, &grant).await {
            Ok(Replaced::Stored(_)) => return Ok(true),
            Ok(Replaced::Lost) => {
                // An earlier try may have been stored although no answer came.
                let now = grants.load(key).await.map_err(MintError::transient)?;
                return Ok(now.is_some_and(|(now, _)| now.secret.ct_eq(&grant.secret)));
            }
            Err(error) => error,
        };
        if tries == STORE_TRIES {
            return Err(MintError::transient(format!("the next refresh token could not be stored: {error}")));
        }
        tokio::time::sleep(STORE_PAUSE).await;
    }
}
