//! What a client is answered when Keyward answers instead of the upstream; the one place that writes those bodies.

use std::borrow::Cow;

use super::message::{Id, IdText};
use super::revision::Revision;
use crate::json::{self, JsonError};
use crate::reason::Reason;

/// Why a request was refused before any decision, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The request's id, where one could be read.
    pub id: Option<IdText>,
    /// What exactly was wrong, for the client and the operator. It names headers and members, never their values.
    pub detail: Cow<'static, str>,
    /// The revision that was asked for, where it is not supported; as the client wrote it.
    pub requested: Option<String>,
    /// The revisions that the client can ask for instead.
    supported: &'static [&'static str],
    /// Whether there is no JSON-RPC message to answer, so that the body is plain.
    pub is_plain: bool,
    /// The value of an `Allow` header.
    allow: Option<&'static str>,
}

/// What an error body says besides its reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorFacts<'a> {
    /// The decision under which the operator finds the cause.
    pub decision_id: Option<&'a str>,
    /// The revision of configuration and policy that decided.
    pub policy_revision: Option<&'a str>,
    /// What exactly was wrong, appended to the reason's message. Only for faults in the request's form.
    pub detail: Option<&'a str>,
    /// The MCP revision that the client asked for; adds `requested` and `supported`.
    pub requested: Option<&'a str>,
    /// The MCP revisions that the client can ask for instead.
    pub supported: &'a [&'a str],
    /// Where a person connects an account.
    pub connect_url: Option<&'a str>,
}

/// A JSON-RPC error: `{"jsonrpc":"2.0","id":1,"error":{"code":..,"message":..,"data":{"reason":..,"decision_id":..,
/// "policy_revision":..}}}`. The id is `null` where none could be read.
#[must_use]
pub fn error_body(reason: Reason, id: Option<&IdText>, facts: &ErrorFacts<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_error(reason, id, facts, &mut out);
    out
}

/// A JSON array with one JSON-RPC error per request of a batch.
#[must_use]
pub fn batch_body<'i>(errors: impl IntoIterator<Item = (Reason, &'i IdText)>, facts: &ErrorFacts<'_>) -> Vec<u8> {
    let mut out = vec![b'['];
    for (position, (reason, id)) in errors.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_error(reason, Some(id), facts, &mut out);
    }
    out.push(b']');
    out
}

/// The error where there is no JSON-RPC request to answer: `{"error":{"reason":..,"message":..,"decision_id":..}}`.
#[must_use]
pub fn plain_body(reason: Reason, facts: &ErrorFacts<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"error\":{");
    member("reason", reason.code(), &mut out);
    out.push(b',');
    write_message(reason, facts, &mut out);
    write_facts(facts, &mut out);
    out.extend_from_slice(b"}}");
    out
}

// === impl Refusal ===

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.is_plain { self.reason.plain_status() } else { self.reason.http_status() }
    }

    /// The headers of the answer, all lower case.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, &'static str)> {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(self.allow.map(|methods| ("allow", methods)));
        headers
    }

    /// The body of the answer. A refusal is found in the audit under its decision id, like a decision.
    #[must_use]
    pub fn body(&self, decision_id: Option<&str>) -> Vec<u8> {
        let facts = ErrorFacts {
            decision_id,
            policy_revision: None,
            detail: Some(&self.detail),
            requested: self.requested.as_deref(),
            supported: self.supported,
            connect_url: None,
        };
        if self.is_plain { plain_body(self.reason, &facts) } else { error_body(self.reason, self.id.as_ref(), &facts) }
    }

    pub(super) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Refusal {
        let detail = detail.into();
        Refusal { reason, id: None, detail, requested: None, supported: &[], is_plain: false, allow: None }
    }

    pub(super) fn json(error: JsonError) -> Refusal {
        let reason = match error {
            JsonError::TooLarge { .. } | JsonError::TooDeep { .. } => Reason::RequestTooLarge,
            _ => Reason::InvalidJson,
        };
        Refusal::new(reason, error.to_string())
    }

    /// `supported`: all revisions, or those of the client's kind.
    pub(super) fn unsupported_revision(requested: &str, supported: &'static [&'static str]) -> Refusal {
        // A longer name cannot be a revision; the answer need not grow with it.
        let requested = requested.chars().take(64).collect();
        Refusal {
            requested: Some(requested),
            supported,
            ..Refusal::new(
                Reason::UnsupportedRevision,
                "`MCP-Protocol-Version` names a revision that is not spoken here",
            )
        }
    }

    pub(super) fn method_not_allowed(revision: Revision) -> Refusal {
        Refusal {
            is_plain: true,
            allow: Some(revision.http_methods()),
            ..Refusal::new(Reason::MethodNotAllowed, "this revision does not use this HTTP method")
        }
    }

    pub(super) fn with_id(self, id: Option<Id<'_>>) -> Refusal {
        Refusal { id: id.map(|id| id.to_text()), ..self }
    }

    pub(super) fn into_plain(self) -> Refusal {
        Refusal { is_plain: true, ..self }
    }
}

// === writing ===

fn write_error(reason: Reason, id: Option<&IdText>, facts: &ErrorFacts<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.map_or("null", IdText::as_json).as_bytes());
    out.extend_from_slice(b",\"error\":{\"code\":");
    out.extend_from_slice(reason.json_rpc().to_string().as_bytes());
    out.push(b',');
    write_message(reason, facts, out);
    out.extend_from_slice(b",\"data\":{");
    member("reason", reason.code(), out);
    write_facts(facts, out);
    if let Some(requested) = facts.requested {
        out.push(b',');
        member("requested", requested, out);
        out.extend_from_slice(b",\"supported\":[");
        for (position, name) in facts.supported.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            json::write_string(name, out);
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}}}");
}

fn write_message(reason: Reason, facts: &ErrorFacts<'_>, out: &mut Vec<u8>) {
    match facts.detail {
        Some(detail) => member("message", &format!("{}: {detail}", reason.message()), out),
        None => member("message", reason.message(), out),
    }
}

pub(super) fn write_facts(facts: &ErrorFacts<'_>, out: &mut Vec<u8>) {
    let facts = [
        ("decision_id", facts.decision_id),
        ("policy_revision", facts.policy_revision),
        ("connect_url", facts.connect_url),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            out.push(b',');
            member(name, value, out);
        }
    }
}

fn member(name: &str, value: &str, out: &mut Vec<u8>) {
    json::write_string(name, out);
    out.push(b':');
    json::write_string(value, out);
}
