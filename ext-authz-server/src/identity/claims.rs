//! From the claims of a verified token to a principal.

use keyward_contract::json::{self, Limits, Object, Value};

use super::jwt::TokenError;
use super::principal::{Actor, Confirmation, METHOD_JWT, Principal, PrincipalKind, TokenFacts};
use crate::config::Issuer;

/// The most roles and audiences of one token.
const MAX_LIST: usize = 256;
/// The most links of a chain of delegation.
const MAX_ACTORS: usize = 8;
/// The longest subject, agent or role, in bytes.
const MAX_ID_BYTES: usize = 512;

/// Checks what a token claims and says who it speaks for. `claims` come from a token whose signature was verified.
pub(super) fn principal(issuer: &Issuer, claims: &Object<'_>, unix_secs: u64) -> Result<Principal, TokenError> {
    if claims.get("iss").and_then(Value::as_str) != Some(&issuer.issuer) {
        return Err(TokenError::Issuer);
    }
    let audiences = strings(claims.get("aud")).ok_or(TokenError::Claim("aud"))?;
    if !audiences.iter().any(|audience| issuer.audiences.iter().any(|own| own == audience)) {
        return Err(TokenError::Audience);
    }
    let skew = issuer.clock_skew_secs;
    let expires = date(claims, "exp")?.ok_or(TokenError::Claim("exp"))?;
    if unix_secs >= expires.saturating_add(skew) {
        return Err(TokenError::Expired);
    }
    if date(claims, "nbf")?.is_some_and(|not_before| unix_secs.saturating_add(skew) < not_before) {
        return Err(TokenError::NotYet);
    }
    let issued = date(claims, "iat")?;
    if let Some(most) = issuer.max_lifetime_secs
        && expires.saturating_sub(issued.ok_or(TokenError::Claim("iat"))?) > most
    {
        return Err(TokenError::Lifetime);
    }

    let subject = id(claims, &issuer.subject_claim, "sub")?.ok_or(TokenError::Claim("sub"))?;
    let actors = actors(claims)?;
    // Who acts for somebody is an agent, also where no client is named: never the person alone.
    let agent = match id(claims, &issuer.agent_claim, "client_id")? {
        None => actors.first().map(|actor| actor.subject.clone()),
        named => named,
    };
    let tenant = match &issuer.tenant_claim {
        Some(claim) => id(claims, claim, "tenant")?.ok_or(TokenError::Claim("tenant"))?,
        None => issuer.name.clone(),
    };
    let kind = if agent.as_deref() == Some(&subject) { PrincipalKind::Agent } else { PrincipalKind::User };
    let mut roles: Vec<String> = Vec::new();
    for role in words(find(claims, &issuer.roles_claim)).ok_or(TokenError::Claim("roles"))? {
        if !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    }
    Ok(Principal {
        key: Principal::key(METHOD_JWT, &issuer.name, kind, &subject, agent.as_deref()),
        kind,
        subject,
        issuer: issuer.name.clone(),
        tenant,
        agent,
        roles,
        scopes: scopes(claims)?,
        actors,
        token: TokenFacts {
            id: id(claims, "jti", "jti")?,
            issued_unix_secs: issued,
            audiences: audiences.into_iter().map(str::to_owned).collect(),
            confirmation: confirmation(claims)?,
            bootstrap: issuer.bootstrap,
        },
        claims: serde_json::Value::Object(claims.iter().map(|(name, value)| (name.to_owned(), owned(value))).collect()),
        expires_unix_secs: expires,
    })
}

/// Who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// The subject, unique at its issuer.
    pub subject: String,
    /// The organisation, where the id token names it.
    pub tenant: Option<String>,
}

/// Checks what an id token claims and says whose it is: for this client alone, with this nonce.
pub(super) fn login(
    issuer: &Issuer,
    claims: &Object<'_>,
    (client_id, nonce): (&str, &str),
    unix_secs: u64,
) -> Result<LoggedIn, TokenError> {
    let audiences = strings(claims.get("aud")).ok_or(TokenError::Claim("aud"))?;
    let authorized = claims.get("azp").map(|azp| azp.as_str() == Some(client_id));
    if !audiences.contains(&client_id) || authorized == Some(false) || (audiences.len() > 1 && authorized.is_none()) {
        return Err(TokenError::Audience);
    }
    if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
        return Err(TokenError::Claim("nonce"));
    }
    date(claims, "iat")?.ok_or(TokenError::Claim("iat"))?;
    let tenant = match &issuer.tenant_claim {
        Some(claim) => id(claims, claim, "tenant")?,
        None => None,
    };
    // The rest is that of every token; roles, agent and tenant need not be in an id token.
    let own =
        Issuer { audiences: vec![client_id.to_owned()], tenant_claim: None, max_lifetime_secs: None, ..issuer.clone() };
    Ok(LoggedIn { subject: principal(&own, claims, unix_secs)?.subject, tenant })
}

/// Reads claims that nobody signed: of an answer, or of a person who asks.
pub(super) fn read(json: &[u8]) -> Option<Object<'_>> {
    match json::parse(json, &Limits::default()) {
        Ok(Value::Object(claims)) => Some(claims),
        _ => None,
    }
}

/// The scopes, in `scope` (RFC 9068, 2.2.3) or in `scp`, as some issuers call it; without repetition.
fn scopes(claims: &Object<'_>) -> Result<Vec<String>, TokenError> {
    let mut scopes: Vec<String> = Vec::new();
    let name = if claims.get("scope").is_some() { "scope" } else { "scp" };
    for scope in words(claims.get(name)).ok_or(TokenError::Claim("scope"))? {
        if !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
    }
    Ok(scopes)
}

/// The chain of those who act (RFC 8693, 4.1), the current one first. One that cannot be read whole is no chain to rely on.
fn actors(claims: &Object<'_>) -> Result<Vec<Actor>, TokenError> {
    let mut actors = Vec::new();
    let mut next = claims.get("act");
    while let Some(act) = next {
        let act = act.as_object().filter(|_| actors.len() < MAX_ACTORS).ok_or(TokenError::Claim("act"))?;
        let subject = id(act, "sub", "act")?.ok_or(TokenError::Claim("act"))?;
        actors.push(Actor { subject, issuer: id(act, "iss", "act")? });
        next = act.get("act");
    }
    Ok(actors)
}

/// The key to which the token is bound (RFC 7800, 3.1). One way that is not known, or two at once, cannot be checked.
fn confirmation(claims: &Object<'_>) -> Result<Option<Confirmation>, TokenError> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let members = cnf.as_object().ok_or(TokenError::Confirmation)?;
    let mut members = members.iter();
    let (Some((name, value)), None) = (members.next(), members.next()) else { return Err(TokenError::Confirmation) };
    // SHA-256 in base64url without padding.
    let digest = value.as_str().filter(|digest| digest.len() == 43).ok_or(TokenError::Confirmation)?;
    match name {
        "jkt" => Ok(Some(Confirmation::Jkt(digest.to_owned()))),
        "x5t#S256" => Ok(Some(Confirmation::X5tS256(digest.to_owned()))),
        _ => Err(TokenError::Confirmation),
    }
}

/// A claim by name, or by JSON pointer where the name begins with `/`.
fn find<'c, 'a>(claims: &'c Object<'a>, name: &str) -> Option<&'c Value<'a>> {
    match name.strip_prefix('/') {
        None => claims.get(name),
        Some(path) => match path.split_once('/') {
            None => claims.get(path),
            Some((first, rest)) => claims.get(first)?.pointer(&format!("/{rest}")),
        },
    }
}

/// A claim that identifies someone. Absent is none; empty, overlong or not a string refuses the token.
fn id(claims: &Object<'_>, name: &str, shown: &'static str) -> Result<Option<String>, TokenError> {
    match find(claims, name).map(Value::as_str) {
        None => Ok(None),
        Some(Some(text))
            if (1..=MAX_ID_BYTES).contains(&text.len())
                && !text.trim().is_empty()
                && !text.chars().any(char::is_control) =>
        {
            Ok(Some(text.to_owned()))
        }
        Some(_) => Err(TokenError::Claim(shown)),
    }
}

/// A NumericDate (RFC 7519, 2) in whole seconds.
pub(super) fn date(claims: &Object<'_>, name: &'static str) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let number = value.as_number().ok_or(TokenError::Claim(name))?;
    if let Some(secs) = number.as_u64() {
        return Ok(Some(secs));
    }
    let secs = number.as_f64();
    // A float this small converts exactly enough; anything else is no date.
    if (0.0..9.0e15).contains(&secs) { Ok(Some(secs as u64)) } else { Err(TokenError::Claim(name)) }
}

/// One string or an array of strings.
fn strings<'c>(value: Option<&'c Value<'_>>) -> Option<Vec<&'c str>> {
    match value? {
        Value::Array(items) if items.len() <= MAX_LIST => items.iter().map(Value::as_str).collect(),
        Value::String(text) => Some(vec![text]),
        _ => None,
    }
}

/// An array of strings, or words in one string; absent is none.
fn words<'c>(value: Option<&'c Value<'_>>) -> Option<Vec<&'c str>> {
    let words: Vec<&str> = match value {
        None => Vec::new(),
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(list) => strings(Some(list))?,
    };
    let fits = words.len() <= MAX_LIST && words.iter().all(|word| (1..=MAX_ID_BYTES).contains(&word.len()));
    fits.then_some(words)
}

/// The same value with text of its own.
pub(super) fn owned(value: &Value<'_>) -> serde_json::Value {
    use serde_json::Value as Owned;
    match value {
        Value::Null => Owned::Null,
        Value::Bool(truth) => Owned::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => integer.into(),
            (_, Some(integer)) => integer.into(),
            _ => number.as_f64().into(),
        },
        Value::String(text) => Owned::String(text.clone().into_owned()),
        Value::Array(items) => Owned::Array(items.iter().map(owned).collect()),
        Value::Object(members) => {
            Owned::Object(members.iter().map(|(name, value)| (name.to_owned(), owned(value))).collect())
        }
    }
}
