//! Reading one JWT access token (RFC 7519, RFC 9068), in two steps: what it claims, then whether its signature says so.
//!
//! Every freedom that let two readers differ is refused: duplicate members, unknown critical extensions, unencoded
//! payloads, encryption, keys that travel in the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_contract::json::{self, Limits, Object, Value};

use super::key::KeySet;
use crate::config::Algorithm;

/// The deepest nesting of claims.
const MAX_DEPTH: usize = 16;
/// The longest key id, in bytes.
const MAX_KID_BYTES: usize = 256;

/// A token that is taken apart but not verified: nothing in it may be believed, only used to choose keys.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    signed: &'t str,
    signature: &'t str,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// Whether its `typ` is that of an access token and of nothing else (RFC 9068, 2.1).
    pub(super) is_access_token: bool,
    payload: Vec<u8>,
}

/// Why a token was refused. Holds nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than the issuer's limit.
    #[error("it is longer than the limit")]
    TooLong,
    /// Not three parts of base64url.
    #[error("it is not a signed token of three parts")]
    Form,
    /// Five parts.
    #[error("encrypted tokens are not accepted")]
    Encrypted,
    /// The header is not a strict JSON object with members of the right types.
    #[error("its header is malformed")]
    Header,
    /// An algorithm that is symmetric, unknown or `none`.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// `crit`, `b64`, `enc` or `zip`.
    #[error("its header demands an extension")]
    Extension,
    /// `typ` is neither `JWT` nor `at+jwt`.
    #[error("its type is not that of an access token")]
    Type,
    /// The payload is not a strict JSON object.
    #[error("its claims are malformed")]
    Claims,
    /// No issuer of that name.
    #[error("its issuer is not known")]
    Issuer,
    /// No key of that id for that algorithm.
    #[error("no key of the issuer has its key id and algorithm")]
    UnknownKey,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// `aud` holds none of the configured audiences.
    #[error("it is for another audience")]
    Audience,
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// It lives longer than the issuer's entry allows.
    #[error("it lives longer than `max_lifetime_secs`")]
    Lifetime,
    /// `cnf` names a key in a way that cannot be checked.
    #[error("it is bound in a way that is not known")]
    Confirmation,
    /// The issuer says so.
    #[error("the issuer says that it is not an active access token")]
    Inactive,
    /// `nbf` is to come.
    #[error("it is not valid yet")]
    NotYet,
    /// A claim that must be there is not, or has the wrong type.
    #[error("claim `{0}` is missing or malformed")]
    Claim(&'static str),
}

/// Decodes base64url without padding, exactly one text for each byte string.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

// === impl Unverified ===

impl<'t> Unverified<'t> {
    pub(super) fn read(token: &'t str, max_bytes: usize) -> Result<Unverified<'t>, TokenError> {
        if token.len() > max_bytes {
            return Err(TokenError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Form);
        };
        match parts.count() {
            0 => {}
            2 => return Err(TokenError::Encrypted),
            _ => return Err(TokenError::Form),
        }
        let signed = token.get(..header.len() + 1 + payload.len()).ok_or(TokenError::Form)?;
        let header = base64url(header).ok_or(TokenError::Form)?;
        let (algorithm, kid, is_access_token) = read_header(&header)?;
        let payload = base64url(payload).ok_or(TokenError::Form)?;
        Ok(Unverified { signed, signature, algorithm, kid, is_access_token, payload })
    }

    /// What the token claims.
    pub(super) fn claims(&self) -> Result<Object<'_>, TokenError> {
        match json::parse(&self.payload, &Limits { max_bytes: self.payload.len(), max_depth: MAX_DEPTH }) {
            Ok(Value::Object(claims)) => Ok(claims),
            _ => Err(TokenError::Claims),
        }
    }

    /// Whether one of the keys made the signature.
    pub(super) fn verify(&self, keys: &KeySet) -> Result<(), TokenError> {
        let keys = keys.select(self.kid.as_deref(), self.algorithm);
        if keys.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        let algorithm = self.algorithm.library();
        let verifies = |key: &jsonwebtoken::DecodingKey| {
            jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm).unwrap_or(false)
        };
        if keys.iter().any(|key| verifies(&key.key)) { Ok(()) } else { Err(TokenError::Signature) }
    }

    #[cfg(test)]
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Algorithm, key id and whether `typ` is `at+jwt`, of a JOSE header (RFC 7515, 4). `jku`, `jwk`, `x5u` and `x5c` are never looked at.
fn read_header(header: &[u8]) -> Result<(Algorithm, Option<String>, bool), TokenError> {
    let limits = Limits { max_bytes: header.len(), max_depth: MAX_DEPTH };
    let Ok(Value::Object(header)) = json::parse(header, &limits) else { return Err(TokenError::Header) };
    if ["crit", "b64", "enc", "zip"].iter().any(|name| header.get(name).is_some()) {
        return Err(TokenError::Extension);
    }
    let is_access_token = match header.get("typ").map(Value::as_str) {
        None => false,
        Some(Some(typ)) => {
            let plain = typ.len().checked_sub("application/".len()).and_then(|_| typ.split_once('/'));
            let name = match plain {
                Some((kind, name)) if kind.eq_ignore_ascii_case("application") => name,
                _ => typ,
            };
            if !name.eq_ignore_ascii_case("jwt") && !name.eq_ignore_ascii_case("at+jwt") {
                return Err(TokenError::Type);
            }
            name.eq_ignore_ascii_case("at+jwt")
        }
        Some(None) => return Err(TokenError::Header),
    };
    let kid = match header.get("kid").map(Value::as_str) {
        None => None,
        Some(Some(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.to_owned()),
        Some(_) => return Err(TokenError::Header),
    };
    let name = header.get("alg").and_then(Value::as_str).ok_or(TokenError::Header)?;
    Ok((Algorithm::from_name(name).ok_or(TokenError::Algorithm)?, kid, is_access_token))
}
