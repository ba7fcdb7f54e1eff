//! Which revision governs a message, and whether headers, `_meta` and body agree as that revision demands.

use super::headers::{self, Headers, mismatch};
use super::message::Message;
use super::names::{self, META_CAPABILITIES, META_VERSION};
use super::refusal::Refusal;
use super::revision::Revision;
use crate::json::{Object, Value};
use crate::reason::Reason;

/// The revision that governs a message, out of the header and what `_meta` claims. It reads the message before its form
/// is known, so that a client of an unknown revision, whose messages may have another form, learns which are supported.
pub(super) fn revision(message: &Object<'_>, declared: Option<&str>) -> Result<Revision, Refusal> {
    let params = message.get("params").and_then(Value::as_object);
    let meta = params.and_then(|params| params.get("_meta")?.as_object());
    let claimed = match meta.and_then(|meta| meta.get(META_VERSION)) {
        Some(Value::String(version)) => Some(version.as_ref()),
        Some(_) => return Err(invalid_meta(META_VERSION)),
        None => None,
    };
    let declared = match (declared, claimed) {
        (Some(declared), Some(claimed)) if declared != claimed => {
            return Err(mismatch("`MCP-Protocol-Version` is not the version in `params._meta`"));
        }
        (None, Some(_)) => {
            return Err(mismatch("`MCP-Protocol-Version` is missing, but `params._meta` names a version"));
        }
        // Only the revisions without sessions name themselves in `_meta`, so only to one of those can such a client turn;
        // the list has to agree with the upstream's answer to `server/discover`.
        (Some(declared), Some(_)) => {
            Revision::parse(declared).ok_or_else(|| Refusal::unsupported_revision(declared, &Revision::STATELESS))?
        }
        (Some(declared), None) => headers::supported(declared)?,
        (None, None) => Revision::default(),
    };
    if message.get("method").and_then(Value::as_str) != Some("initialize") {
        return Ok(declared);
    }
    match declared.is_stateless() {
        true if claimed.is_none() => Err(mismatch("`MCP-Protocol-Version` names a revision without `initialize`")),
        true => Ok(declared),
        false => Ok(params.and_then(proposed).unwrap_or(declared)),
    }
}

/// Whether the message keeps the rules of its revision.
pub(super) fn check(message: &Message<'_>, revision: Revision, headers: &dyn Headers) -> Result<(), Refusal> {
    if !revision.is_stateless() {
        return match message.method().filter(|method| names::is_handshake(method)) {
            Some(method) => headers::check_handshake(headers, method),
            None => headers::refuse_mirrors(headers),
        };
    }
    match message {
        Message::Response(_) => Err(Refusal::new(Reason::InvalidRequest, "this revision has no client responses")),
        // The revision requires no mirrored headers of notifications; those that are there have to be true.
        Message::Notification(notification) => {
            headers::check_method(headers, &notification.method, false)?;
            headers::check_name(headers, None)?;
            headers::check_params(headers)
        }
        Message::Request(request) => {
            check_meta(message)?;
            headers::check_method(headers, &request.method, true)?;
            let mirrored = names::target(&request.method).filter(|target| target.mirrored);
            let target = mirrored.and_then(|target| Some((target.member, message.operation().target?)));
            headers::check_name(headers, target)?;
            headers::check_params(headers)
        }
    }
}

fn check_meta(message: &Message<'_>) -> Result<(), Refusal> {
    let meta = message
        .params()
        .and_then(|params| params.get("_meta")?.as_object())
        .ok_or_else(|| Refusal::new(Reason::InvalidParams, "`params._meta` is missing"))?;
    if meta.get(META_VERSION).and_then(Value::as_str).is_none() {
        return Err(invalid_meta(META_VERSION));
    }
    if meta.get(META_CAPABILITIES).and_then(Value::as_object).is_none() {
        return Err(invalid_meta(META_CAPABILITIES));
    }
    Ok(())
}

fn invalid_meta(key: &str) -> Refusal {
    Refusal::new(Reason::InvalidParams, format!("`{key}` in `params._meta` is missing or of the wrong type"))
}

/// The revision that an `initialize` proposes, if it is one that has this handshake.
fn proposed(params: &Object<'_>) -> Option<Revision> {
    let version = params.get("protocolVersion")?.as_str()?;
    Revision::parse(version).filter(|revision| !revision.is_stateless())
}
