//! The HTTP headers of an MCP request: which revision they declare and what they mirror from the body.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::hash::Hash;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::refusal::Refusal;
use super::revision::Revision;
use crate::reason::Reason;

/// How the names of headers begin that mirror one argument of a tool call.
const PARAM_PREFIX: &str = "mcp-param-";

/// The headers of a request. Names are lower case; a header that occurs more than once reads as its values joined with
/// a comma, as Envoy joins them.
pub trait Headers {
    /// The value of the header.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;

    /// Shows every header, until told to stop by `false`.
    fn visit(&self, visitor: &mut dyn FnMut(&str, &str) -> bool);
}

/// The revision that the headers declare, if any.
pub(super) fn declared(headers: &dyn Headers) -> Result<Option<Revision>, Refusal> {
    declared_text(headers).map(|name| supported(&name)).transpose()
}

/// The value of `MCP-Protocol-Version`.
pub(super) fn declared_text(headers: &dyn Headers) -> Option<Cow<'_, str>> {
    headers.get("mcp-protocol-version").map(trim)
}

/// The revision of this name.
pub(super) fn supported(name: &str) -> Result<Revision, Refusal> {
    Revision::parse(name).ok_or_else(|| Refusal::unsupported_revision(name, &Revision::SUPPORTED))
}

/// A body is JSON, in UTF-8, not compressed.
pub(super) fn check_content(headers: &dyn Headers) -> Result<(), Refusal> {
    let content_type = headers.get("content-type").unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    // RFC 9110 allows no blanks around the equals sign, and RFC 8187 a `charset*`; some reader may know both.
    let is_utf8 = parts.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let names_charset = name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("charset"));
        !names_charset || (name.len() == 7 && value.trim_matches('"').eq_ignore_ascii_case("utf-8"))
    });
    if !is_json || !is_utf8 {
        return Err(Refusal::new(Reason::InvalidRequest, "`Content-Type` is not `application/json` in UTF-8"));
    }
    match headers.get("content-encoding") {
        Some(encoding) if !encoding.trim().eq_ignore_ascii_case("identity") => {
            Err(Refusal::new(Reason::InvalidRequest, "`Content-Encoding` is not supported for requests"))
        }
        _ => Ok(()),
    }
}

/// Headers that mirror the body mean something only where the revision obliges servers to compare them.
pub(super) fn refuse_mirrors(headers: &dyn Headers) -> Result<(), Refusal> {
    refuse_mirrors_but(headers, "")
}

/// In the handshake of the earlier revisions a true `Mcp-Method` passes: a client that mirrors does so before it knows
/// which revision it gets.
pub(super) fn check_handshake(headers: &dyn Headers, method: &str) -> Result<(), Refusal> {
    refuse_mirrors_but(headers, "mcp-method")?;
    check_method(headers, method, false)
}

fn refuse_mirrors_but(headers: &dyn Headers, exception: &str) -> Result<(), Refusal> {
    let mut mirrors = false;
    headers.visit(&mut |name, _| {
        let is_mirror = matches!(name, "mcp-method" | "mcp-name") || name.starts_with(PARAM_PREFIX);
        mirrors = is_mirror && name != exception;
        !mirrors
    });
    if mirrors { Err(mismatch("a header mirrors the body, which this revision does not check")) } else { Ok(()) }
}

/// `Mcp-Method` names the method of the body.
pub(super) fn check_method(headers: &dyn Headers, method: &str, required: bool) -> Result<(), Refusal> {
    match headers.get("mcp-method").map(trim) {
        Some(mirrored) if mirrored == method => Ok(()),
        Some(_) => Err(mismatch("`Mcp-Method` is not the `method` of the body")),
        None if required => Err(mismatch("`Mcp-Method` is missing")),
        None => Ok(()),
    }
}

/// `Mcp-Name` names what the body acts on, which is the value of `params.{member}`; without it, the header only has to
/// be well-formed.
pub(super) fn check_name(headers: &dyn Headers, target: Option<(&'static str, &str)>) -> Result<(), Refusal> {
    let Some(value) = headers.get("mcp-name").map(trim) else {
        return if target.is_some() { Err(mismatch("`Mcp-Name` is missing")) } else { Ok(()) };
    };
    let Some(mirrored) = decode(&value) else {
        return Err(mismatch("`Mcp-Name` is malformed"));
    };
    match target {
        Some((member, named)) if mirrored != named => Err(mismatch(format!("`Mcp-Name` is not `params.{member}`"))),
        _ => Ok(()),
    }
}

/// Every `Mcp-Param-*` is well-formed. Whether it equals an argument only a server with the tool's schema can tell, so
/// nothing here or later trusts one.
pub(super) fn check_params(headers: &dyn Headers) -> Result<(), Refusal> {
    let mut well_formed = true;
    headers.visit(&mut |name, value| {
        if name.starts_with(PARAM_PREFIX) {
            well_formed = decode(value.trim_matches([' ', '\t'])).is_some();
        }
        well_formed
    });
    if well_formed { Ok(()) } else { Err(mismatch("an `Mcp-Param-*` header is malformed")) }
}

/// What `Mcp-Name` or an `Mcp-Param-*` mirrors of the body; as it stands where it is malformed. None for every other header.
/// The name is lower case.
#[must_use]
pub fn mirrored<'h>(name: &str, value: &'h str) -> Option<Cow<'h, str>> {
    let is_mirror = name == "mcp-name" || name.starts_with(PARAM_PREFIX);
    is_mirror.then(|| decode(value.trim_matches([' ', '\t'])).unwrap_or(Cow::Borrowed(value)))
}

/// The value that a header mirrors: plain ASCII as it is, everything else as `=?base64?…?=`.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    const PREFIX: &str = "=?base64?";
    const SUFFIX: &str = "?=";
    if value.starts_with(PREFIX) && value.ends_with(SUFFIX) {
        let encoded = value.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        return String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned);
    }
    value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')).then_some(Cow::Borrowed(value))
}

fn trim(value: Cow<'_, str>) -> Cow<'_, str> {
    const WHITE_SPACE: [char; 2] = [' ', '\t'];
    match value {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(WHITE_SPACE)),
        Cow::Owned(text) => Cow::Owned(text.trim_matches(WHITE_SPACE).to_owned()),
    }
}

pub(super) fn mismatch(detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::HeaderMismatch, detail)
}

// === impl Headers ===

impl<K: AsRef<str>, V: AsRef<str>> Headers for &[(K, V)] {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        joined(self, name)
    }

    fn visit(&self, visitor: &mut dyn FnMut(&str, &str) -> bool) {
        visit_all(self.iter().map(|(name, value)| (name.as_ref(), value.as_ref())), visitor);
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Headers for Vec<(K, V)> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        joined(self, name)
    }

    fn visit(&self, visitor: &mut dyn FnMut(&str, &str) -> bool) {
        visit_all(self.iter().map(|(name, value)| (name.as_ref(), value.as_ref())), visitor);
    }
}

impl<K: Borrow<str> + Eq + Hash, V: AsRef<str>> Headers for HashMap<K, V> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        HashMap::get(self, name).map(|value| Cow::Borrowed(value.as_ref()))
    }

    fn visit(&self, visitor: &mut dyn FnMut(&str, &str) -> bool) {
        visit_all(self.iter().map(|(name, value)| (name.borrow(), value.as_ref())), visitor);
    }
}

/// The header's values, joined with commas where there are several.
fn joined<'h, K: AsRef<str>, V: AsRef<str>>(headers: &'h [(K, V)], name: &str) -> Option<Cow<'h, str>> {
    let values = headers.iter().filter(|(key, _)| key.as_ref() == name).map(|(_, value)| value.as_ref());
    values.fold(None, |all: Option<Cow<'h, str>>, value| match all {
        None => Some(Cow::Borrowed(value)),
        Some(mut all) => {
            let text = all.to_mut();
            text.push(',');
            text.push_str(value);
            Some(all)
        }
    })
}

fn visit_all<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>, visitor: &mut dyn FnMut(&str, &str) -> bool) {
    for (name, value) in headers {
        if !visitor(name, value) {
            return;
        }
    }
}
