//! Reading and checking one DPoP proof (RFC 9449 section 4.3): a JWT that the client signs for a single request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_contract::json::{self, Limits, Object, Value};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::claims;
use super::jwt::base64url;
use super::key::KeySet;
use crate::config::{Algorithm, Dpop};
use crate::resource::Address;

/// The longest proof, in bytes: a key and a signature of RSA with 8192 bits fit.
const MAX_PROOF_BYTES: usize = 8192;
/// The deepest nesting: a proof is flat but for its key.
const MAX_DEPTH: usize = 8;
/// The longest `jti`, in bytes.
const MAX_ID_BYTES: usize = 256;
/// How far ahead the client's clock may be, in seconds.
const MAX_AHEAD_SECS: u64 = 10;

/// What a proof must be for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The HTTP method of the request.
    pub(super) method: &'a str,
    /// The resource that was called.
    pub(super) address: &'a Address,
    /// The path of the request.
    pub(super) path: &'a str,
    /// The access token.
    pub(super) token: &'a str,
    /// The thumbprint of the key to which it is bound.
    pub(super) jkt: &'a str,
    /// The terms.
    pub(super) terms: &'a Dpop,
    /// Now.
    pub(super) unix_secs: u64,
}

/// A proof that holds, apart from its nonce and whether it was used before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// Its id, unique for its key.
    pub(super) id: String,
    /// The nonce in it.
    pub(super) nonce: Option<String>,
    /// Until when it could be used again, in seconds since 1970.
    pub(super) ends_unix_secs: u64,
}

/// Why a proof was refused. Holds nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProofError {
    /// There is none.
    #[error("the token came without a proof")]
    Missing,
    /// More than one, too long, or not three parts of base64url.
    #[error("there is not exactly one signed proof of at most {MAX_PROOF_BYTES} bytes")]
    Form,
    /// The header is not a strict JSON object, or demands an extension.
    #[error("its header is malformed or demands an extension")]
    Header,
    /// `typ` is another one.
    #[error("its type is not `dpop+jwt`")]
    Type,
    /// An algorithm that is symmetric, `none` or not configured.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// The key cannot be used, or is not a public one.
    #[error("its key cannot be used")]
    Key,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or malformed.
    #[error("claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// It is for another method.
    #[error("it is for another method")]
    Method,
    /// It is for another address.
    #[error("it is for another address")]
    Target,
    /// It is for another token.
    #[error("it is for another token")]
    Token,
    /// Another key than the token's signed it.
    #[error("it is by another key than the token is bound to")]
    Binding,
    /// It is too old.
    #[error("it is too old")]
    Old,
    /// It is from the future.
    #[error("it is from the future")]
    Future,
}

/// Whether this is one proof for this request, by the key to which the token is bound.
pub(super) fn check(text: &str, wanted: &Wanted<'_>) -> Result<Proof, ProofError> {
    if text.len() > MAX_PROOF_BYTES {
        return Err(ProofError::Form);
    }
    // A repeated header arrives joined by a comma, which no part holds.
    let parts: Vec<&str> = text.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { return Err(ProofError::Form) };
    let (Some(header_bytes), Some(payload_bytes), Some(_)) =
        (base64url(header), base64url(payload), base64url(signature))
    else {
        return Err(ProofError::Form);
    };
    let header_object = object(&header_bytes).ok_or(ProofError::Header)?;
    let (algorithm, jwk) = read_header(&header_object, &wanted.terms.algorithms)?;
    let keys = json!({"keys": [jwk]}).to_string();
    let keys = KeySet::parse(keys.as_bytes(), &[algorithm]).map_err(|_| ProofError::Key)?;
    let [key] = keys.select(None, algorithm)[..] else { return Err(ProofError::Key) };
    let signed = text.get(..header.len() + 1 + payload.len()).ok_or(ProofError::Form)?;
    match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm.library()) {
        Ok(true) => {}
        _ => return Err(ProofError::Signature),
    }
    let own_jkt = thumbprint(&jwk).ok_or(ProofError::Key)?;
    if !same(&own_jkt, wanted.jkt) {
        return Err(ProofError::Binding);
    }
    let claims = object(&payload_bytes).ok_or(ProofError::Claim("*"))?;
    check_claims(&claims, wanted)
}

fn check_claims(claims: &Object<'_>, wanted: &Wanted<'_>) -> Result<Proof, ProofError> {
    let text = |name: &'static str| claims.get(name).and_then(Value::as_str).ok_or(ProofError::Claim(name));
    if text("htm")? != wanted.method {
        return Err(ProofError::Method);
    }
    if !wanted.address.is_target(text("htu")?, wanted.path) {
        return Err(ProofError::Target);
    }
    if !same(text("ath")?, &URL_SAFE_NO_PAD.encode(Sha256::digest(wanted.token.as_bytes()))) {
        return Err(ProofError::Token);
    }
    let issued = claims::date(claims, "iat").ok().flatten().ok_or(ProofError::Claim("iat"))?;
    if issued > wanted.unix_secs.saturating_add(MAX_AHEAD_SECS) {
        return Err(ProofError::Future);
    }
    let ends_unix_secs = issued.saturating_add(wanted.terms.max_age_secs);
    if ends_unix_secs < wanted.unix_secs {
        return Err(ProofError::Old);
    }
    let id = text("jti")?;
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(ProofError::Claim("jti"));
    }
    let nonce = match claims.get("nonce") {
        None => None,
        Some(nonce) => Some(nonce.as_str().ok_or(ProofError::Claim("nonce"))?.to_owned()),
    };
    Ok(Proof { id: id.to_owned(), nonce, ends_unix_secs })
}

/// The algorithm, and the public key that the proof brings.
fn read_header(header: &Object<'_>, accepted: &[Algorithm]) -> Result<(Algorithm, serde_json::Value), ProofError> {
    if ["crit", "b64", "enc", "zip"].iter().any(|name| header.get(name).is_some()) {
        return Err(ProofError::Header);
    }
    match header.get("typ").and_then(Value::as_str) {
        Some(typ) if typ.eq_ignore_ascii_case("dpop+jwt") => {}
        _ => return Err(ProofError::Type),
    }
    let name = header.get("alg").and_then(Value::as_str).ok_or(ProofError::Header)?;
    let algorithm = Algorithm::from_name(name).filter(|algorithm| accepted.contains(algorithm));
    let algorithm = algorithm.ok_or(ProofError::Algorithm)?;
    let jwk = header.get("jwk").filter(|jwk| jwk.as_object().is_some()).ok_or(ProofError::Key)?;
    Ok((algorithm, claims::owned(jwk)))
}

/// The thumbprint of a key with SHA-256 (RFC 7638, RFC 8037): its required members in the order of their names.
fn thumbprint(jwk: &serde_json::Value) -> Option<String> {
    let names: &[&str] = match jwk.get("kty")?.as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "RSA" => &["e", "kty", "n"],
        "OKP" => &["crv", "kty", "x"],
        _ => return None,
    };
    let mut members = Vec::with_capacity(names.len());
    for name in names {
        members.push(format!("\"{name}\":{}", serde_json::Value::from(jwk.get(*name)?.as_str()?)));
    }
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(",")))))
}

fn object(bytes: &[u8]) -> Option<Object<'_>> {
    match json::parse(bytes, &Limits { max_bytes: bytes.len(), max_depth: MAX_DEPTH }) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests;
