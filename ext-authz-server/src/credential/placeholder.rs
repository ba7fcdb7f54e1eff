//! A secret in place of a text that the client writes: in the path, in query values, in bodies, in tool arguments.
//!
//! Only values are replaced, never names or keys, and what is put there is escaped as the place demands. Whatever cannot be
//! read for certain (a compressed body, a multipart one) is refused, and so is a placeholder that is left anywhere.

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
        self.replace_in_target(secret, outgoing);
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

    fn replace_in_target(&self, secret: &str, outgoing: &mut Outgoing<'_>) {
        let placeholder = self.0.placeholder.as_str();
        if !outgoing.target().contains(placeholder) {
            return;
        }
        let encoded = query::encode(secret.as_bytes());
        let mut target = Zeroizing::new(outgoing.path().to_owned());
        if self.serves(Surface::Path) {
            target = Zeroizing::new(target.replace(placeholder, &encoded));
        }
        if let Some(query) = outgoing.query() {
            target.push('?');
            if self.serves(Surface::Query) {
                target.push_str(&in_values(query, placeholder, &encoded));
            } else {
                target.push_str(query);
            }
        }
        outgoing.set_target(&target);
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
        let changed = if media_type == "application/json" || media_type.ends_with("+json") {
            self.in_json(secret, outgoing.body())?
        } else if media_type == "application/x-www-form-urlencoded" && self.serves(Surface::Body) {
            let text = std::str::from_utf8(outgoing.body()).map_err(|_| CredentialError::NotUtf8)?;
            in_values(text, placeholder, &query::encode(secret.as_bytes())).as_bytes().to_vec()
        } else {
            return Err(unfit("nothing is replaced in a body of this content type"));
        };
        outgoing.set_body(changed);
        Ok(())
    }

    fn in_json(&self, secret: &str, body: &[u8]) -> Result<Vec<u8>, CredentialError> {
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
        Ok(json::replace(body, self.0.placeholder.as_bytes(), escaped, selects))
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

/// Replaces in what stands behind the first `=` of each pair.
fn in_values(pairs: &str, placeholder: &str, encoded: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(pairs.len() + encoded.len() * 2));
    for (number, pair) in pairs.split('&').enumerate() {
        if number > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) => {
                out.push_str(name);
                out.push('=');
                out.push_str(&value.replace(placeholder, encoded));
            }
            None => out.push_str(pair),
        }
    }
    out
}

#[cfg(test)]
mod tests;
