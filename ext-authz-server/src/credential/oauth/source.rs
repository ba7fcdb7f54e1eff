//! Tokens that were made elsewhere: the caller's own, one out of a store, one that the platform makes for this workload.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::error::TokenError;
use super::{Asking, azure, google, response};
use crate::config::{TokenFrom, TokenKind, TokenSource};
use crate::freshness::MintError;

/// A token by somebody else. No `Debug`: it is a secret.
pub(super) struct Token {
    /// The token.
    pub(super) value: Zeroizing<String>,
    /// Its `token_type` identifier (RFC 8693, 3).
    pub(super) kind: &'static str,
    /// When it ends, where that is known.
    pub(super) expires: Option<SystemTime>,
}

/// What stands where configuration says nothing: the caller's own token.
pub(super) const CALLERS: TokenSource =
    TokenSource { from: TokenFrom::Caller, secret: None, kind: None, audience: None };

/// The token.
///
/// # Errors
/// There is none, or it is not for the audience that it must be for.
pub(super) async fn token(source: &TokenSource, asking: &Asking<'_>) -> Result<Token, MintError> {
    match source.from {
        TokenFrom::Caller => callers(source, source.audience.as_slice(), asking),
        TokenFrom::Secret => {
            let value = asking.text(source.secret.as_ref(), "the token").await?;
            response::check_token(&value)?;
            Ok(Token { value, kind: kind(source), expires: None })
        }
        TokenFrom::GoogleMetadata => {
            let audience = source.audience.as_deref().unwrap_or_default();
            let (value, expires) = google::metadata_id_token(audience, asking).await?;
            Ok(Token { value, kind: kind(source), expires })
        }
        TokenFrom::AzureManagedIdentity => {
            let resource = source.audience.as_deref().unwrap_or_default();
            let tokens = azure::managed_identity(resource, asking).await?;
            let expires = Some(SystemTime::now() + tokens.good_for);
            Ok(Token { value: tokens.access_token, kind: kind(source), expires })
        }
    }
}

/// The caller's own token, where it is for one of these audiences; none named: for any.
///
/// # Errors
/// There is no caller, or the token is for somebody else.
pub(super) fn callers<A: AsRef<str>>(
    source: &TokenSource,
    audiences: &[A],
    asking: &Asking<'_>,
) -> Result<Token, MintError> {
    let Some(token) = &asking.caller.token else {
        return Err(MintError::needs_caller("it is made of the caller's own token"));
    };
    let text = std::str::from_utf8(token.expose()).map_err(|_| TokenError::Caller("it is not text"))?;
    let principal = &asking.caller.principal;
    let aud = principal.claims.get("aud");
    let is_for = |audience: &str| match aud {
        Some(serde_json::Value::String(own)) => own == audience,
        Some(serde_json::Value::Array(list)) => list.iter().any(|own| own.as_str() == Some(audience)),
        _ => false,
    };
    if !audiences.is_empty() && !audiences.iter().any(|audience| is_for(audience.as_ref())) {
        return Err(TokenError::Caller("its audience is not the one it must have to be exchanged").into());
    }
    let expires = UNIX_EPOCH + Duration::from_secs(principal.expires_unix_secs);
    Ok(Token { value: Zeroizing::new(text.to_owned()), kind: kind(source), expires: Some(expires) })
}

fn kind(source: &TokenSource) -> &'static str {
    let unsaid = if source.from == TokenFrom::Caller { TokenKind::AccessToken } else { TokenKind::Jwt };
    match source.kind.unwrap_or(unsaid) {
        TokenKind::AccessToken => response::ACCESS_TOKEN,
        TokenKind::IdToken => "urn:ietf:params:oauth:token-type:id_token",
        TokenKind::Jwt => "urn:ietf:params:oauth:token-type:jwt",
    }
}
