//! A secret in place of a text that the client writes: in the path, in query values, in bodies, in tool arguments.
//!
//! Only values are replaced, never names or keys, and what is put there is escaped as the place demands. Whatever cannot be
//! read for certain (a compressed body, a multipart one) is refused, and so is a placeholder that is left anywhere.
//!
//! Whatever stands around a placeholder, the upstream reads the whole secret in one run: only so is it found in the answer.

mod escape;
mod json;

use std::sync::Arc;

use keyward_contract::json::{Limits, Value, parse, write_string};
use zeroize::Zeroizing;

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, header, query};
use crate::caller::Caller;
use crate::config::{PlaceholderCredential, Surface};
use crate::freshness::Key;
use crate::sources::Sources;

/// Headers that describe the exact bytes of a body.
const DIGESTS: [&str; 4] = ["content-md5", "digest", "content-digest", "repr-digest"];

/// The most places of one request in which a secret is put.
const MAX_PLACES: usize = 64;
/// The most bytes that a target or a body may have with the secret in it: no answer to Envoy holds more.
const MAX_CHANGED_BYTES: usize = 4 * 1024 * 1024;

/// A placeholder and its secret.
#[derive(Clone, Debug)]
pub struct Placeholder(pub PlaceholderCredential);

impl Credential for Placeholder {
    fn kind(&self) -> &'static str {
        "placeholder"
    }

    fn places(&self) -> Vec<SlotName> {
        Vec::new()
    }

    fn references(&self) -> Vec<String> {
        vec![self.0.secret.reference.clone()]
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        header::fetch(self.0.secret.clone(), caller, sources)
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let secret = header::text(material)?;
        if secret.chars().any(char::is_control) {
            return Err(CredentialError::Control);
        }
        self.replace_in_target(secret, outgoing)?;
        self.replace_in_body(secret, outgoing)?;
        self.check_rest(outgoing)
    }

    fn placeholders(&self) -> Vec<&str> {
        vec![&self.0.placeholder]
    }
}

// === impl Placeholder ===

impl Placeholder {
    fn serves(&self, surface: Surface) -> bool {
        self.0.surfaces.contains(&surface)
    }

    fn replace_in_target(&self, secret: &str, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let placeholder = self.0.placeholder.as_str();
        if !outgoing.target().contains(placeholder) {
            return Ok(());
        }
        let encoded = query::encode(secret.as_bytes());
        let mut target = if self.serves(Surface::Path) {
            replaced(outgoing.path(), placeholder, &encoded, escape::is_open_encoded)?
        } else {
            Zeroizing::new(outgoing.path().to_owned())
        };
        if let Some(query) = outgoing.query() {
            target.push('?');
            if self.serves(Surface::Query) {
                target.push_str(&in_values(query, placeholder, &encoded)?);
            } else {
                target.push_str(query);
            }
        }
        outgoing.set_target(&target);
        Ok(())
    }

    fn replace_in_body(&self, secret: &str, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let placeholder = self.0.placeholder.as_str();
        let of_interest = self.serves(Surface::Body) || self.serves(Surface::Arguments);
        if !of_interest || outgoing.body().is_empty() {
            return Ok(());
        }
        if outgoing.header("content-encoding").is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity"))
        {
            return Err(unfit("the body is compressed, so that nobody can tell what stands in it"));
        }
        let content_type = outgoing.header("content-type").unwrap_or_default().to_ascii_lowercase();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.starts_with("multipart/") {
            return Err(unfit("the body has several parts, in which nothing is replaced"));
        }
        if !contains(outgoing.body(), placeholder) {
            return Ok(());
        }
        if let Some(name) = DIGESTS.into_iter().find(|name| outgoing.header(name).is_some()) {
            return Err(unfit(&format!("the header `{name}` describes the body before anything is replaced in it")));
        }
        if !is_utf8(&content_type) {
            return Err(unfit("the body may be read in another character set than UTF-8, or as two content types say"));
        }
        let mut changed = if media_type == "application/json" || media_type.ends_with("+json") {
            self.in_json(secret, outgoing.body())?
        } else if media_type == "application/x-www-form-urlencoded" && self.serves(Surface::Body) {
            let text = std::str::from_utf8(outgoing.body()).map_err(|_| CredentialError::NotUtf8)?;
            Zeroizing::new(in_values(text, placeholder, &query::encode(secret.as_bytes()))?.as_bytes().to_vec())
        } else {
            return Err(unfit("nothing is replaced in a body of this content type"));
        };
        outgoing.set_body(std::mem::take(&mut *changed));
        Ok(())
    }

    fn in_json(&self, secret: &str, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let limits = Limits { max_bytes: body.len(), ..Limits::default() };
        let value = parse(body, &limits).map_err(|error| unfit(&format!("the body is no strict JSON: {error}")))?;
        let mut quoted = Zeroizing::new(Vec::with_capacity(secret.len() * 6 + 2));
        write_string(secret, &mut quoted);
        let escaped = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        let is_rpc = is_rpc(&value) || value.as_array().is_some_and(|batch| batch.iter().any(is_rpc));
        let selects = |path: &[json::Step]| {
            if is_rpc {
                self.serves(Surface::Arguments) && is_argument(&value, path)
            } else {
                self.serves(Surface::Body)
            }
        };
        let from = self.0.placeholder.as_bytes();
        let changed = json::replace(body, from, escaped, room(body, from, escaped)?, selects);
        let limits = Limits { max_bytes: changed.len(), ..Limits::default() };
        let after = parse(&changed, &limits).map_err(|_| unfit("with the secret the body would be no strict JSON"))?;
        self.check_json(&value, &after, secret)?;
        Ok(changed)
    }

    /// Checks that `after` is `before` with the secret in place of placeholders, and nothing else.
    fn check_json(&self, before: &Value<'_>, after: &Value<'_>, secret: &str) -> Result<(), CredentialError> {
        let other = || unfit("a placeholder is written with escapes, so that with the secret it is another document");
        match (before, after) {
            (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
                before.iter().zip(after).try_for_each(|(before, after)| self.check_json(before, after, secret))
            }
            (Value::Object(before), Value::Object(after)) if before.len() == after.len() => {
                before.iter().zip(after.iter()).try_for_each(|((name, before), (same, after))| {
                    if name == same { self.check_json(before, after, secret) } else { Err(other()) }
                })
            }
            (before, after) if before == after => Ok(()),
            (Value::String(before), Value::String(after)) => {
                let expected = replaced(before, &self.0.placeholder, secret, escape::is_open)?;
                if expected.as_str() == after { Ok(()) } else { Err(other()) }
            }
            _ => Err(other()),
        }
    }

    /// Refuses a placeholder that was not replaced: it stands where this credential has no business.
    fn check_rest(&self, outgoing: &Outgoing<'_>) -> Result<(), CredentialError> {
        let placeholder = self.0.placeholder.as_str();
        let place = if outgoing.target().contains(placeholder) {
            "the path or the query"
        } else if outgoing.headers().any(|(name, value)| name.contains(placeholder) || value.contains(placeholder)) {
            "a header"
        } else if contains(outgoing.body(), placeholder) {
            "the body"
        } else {
            return Ok(());
        };
        Err(unfit(&format!("the placeholder is left in {place}, where it is not replaced")))
    }
}

fn unfit(cause: &str) -> CredentialError {
    CredentialError::Request(cause.to_owned())
}

fn contains(text: &[u8], placeholder: &str) -> bool {
    text.windows(placeholder.len()).any(|window| window == placeholder.as_bytes())
}

fn is_rpc(value: &Value<'_>) -> bool {
    value.pointer("/jsonrpc").is_some()
}

/// Whether a path leads into the arguments of a tool call, alone or in a batch.
fn is_argument(root: &Value<'_>, path: &[json::Step]) -> bool {
    let (message, path) = match path.split_first() {
        Some((json::Step::Element(number), rest)) => (root.as_array().and_then(|batch| batch.get(*number)), rest),
        _ => (Some(root), path),
    };
    let is_call = message.and_then(|message| message.pointer("/method")).and_then(Value::as_str) == Some("tools/call");
    let leads = matches!(path, [json::Step::Member(one), json::Step::Member(two), _, ..] if one == "params" && two == "arguments");
    is_call && leads
}

/// Whether this is one content type, in lower case, that names no character set but UTF-8. In another one the secret is
/// another text.
fn is_utf8(content_type: &str) -> bool {
    let mut named = content_type.split(';').skip(1).filter(|parameter| parameter.contains("charset"));
    !content_type.contains(',')
        && named.all(|parameter| {
            let set = parameter.trim().strip_prefix("charset=").map(|set| set.trim_matches('"'));
            matches!(set, Some("utf-8" | "utf8"))
        })
}

/// As long as `text` can get with `to` in place of `from`: a buffer of that size never moves, so that no copy of the secret
/// stays behind. An agent writes as many placeholders as it likes, so that is bounded.
fn room(text: &[u8], from: &[u8], to: &[u8]) -> Result<usize, CredentialError> {
    let (mut places, mut at) = (0, 0);
    while let Some(rest @ [_, ..]) = text.get(at..) {
        let is_there = rest.starts_with(from);
        places += usize::from(is_there);
        at += if is_there { from.len() } else { 1 };
    }
    let room = text.len() + places * to.len();
    if places > MAX_PLACES || room > MAX_CHANGED_BYTES {
        return Err(unfit(&format!(
            "the placeholder stands there {places} times; at most {MAX_PLACES} are replaced, in 4 MiB"
        )));
    }
    Ok(room)
}

/// Replaces in what stands behind the first `=` of each pair.
fn in_values(pairs: &str, placeholder: &str, encoded: &str) -> Result<Zeroizing<String>, CredentialError> {
    let room = room(pairs.as_bytes(), placeholder.as_bytes(), encoded.as_bytes())?;
    let mut out = Zeroizing::new(String::with_capacity(room));
    for (number, pair) in pairs.split('&').enumerate() {
        if number > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) => {
                out.push_str(name);
                out.push('=');
                out.push_str(&replaced(value, placeholder, encoded, escape::is_open_encoded)?);
            }
            None => out.push_str(pair),
        }
    }
    Ok(out)
}

/// `text` with `with` in place of every placeholder. What stands before one must not be open: it would take in a part of
/// the secret.
fn replaced(
    text: &str,
    placeholder: &str,
    with: &str,
    is_open: fn(&str) -> bool,
) -> Result<Zeroizing<String>, CredentialError> {
    let room = room(text.as_bytes(), placeholder.as_bytes(), with.as_bytes())?;
    let mut out = Zeroizing::new(String::with_capacity(room));
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(placeholder) {
        out.push_str(before);
        if is_open(&out) {
            return Err(unfit("the placeholder stands behind the beginning of an escape or of a character"));
        }
        out.push_str(with);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests;
