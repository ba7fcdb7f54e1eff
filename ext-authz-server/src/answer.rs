//! The CheckResponse: what the upstream's request becomes, or what the client is told.
//!
//! A denial says a reason code, its fixed message, the decision id and the policy revision, and nothing else.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::rpc::Status;
use keyward_contract::check::{BODY_HEADER, GUARD_HEADER, SCRUB_HEADER, SESSION_HEADER};
use keyward_contract::mcp::elicitation::{asking_body, asking_plain_body};
use keyward_contract::mcp::{ErrorFacts, IdText, Refusal, batch_body, error_body, plain_body};
use keyward_contract::reason::Reason;
use keyward_contract::revocation::{SUBJECTS_HEADER, Tag};
use keyward_contract::session::SESSION_ID_HEADER;

use crate::connect::Invited;
use crate::credential::{Injection, SlotName};
use crate::session::Passage;

/// gRPC `PERMISSION_DENIED`.
const PERMISSION_DENIED: i32 = 7;
/// gRPC `UNAUTHENTICATED`.
const UNAUTHENTICATED: i32 = 16;

/// What kind of answer the client can read.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shape {
    /// One JSON-RPC request; the id where one could be read.
    Rpc(Option<IdText>),
    /// A batch: one entry per element, `None` for notifications and responses.
    Batch(Vec<Option<IdText>>),
    /// Plain HTTP, notifications, streams.
    #[default]
    Plain,
}

/// All that a denial's answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Why.
    pub reason: Reason,
    /// Each batch element's own reason, in order; empty where one reason holds for all.
    pub elements: &'a [Reason],
    /// What the client can read.
    pub shape: &'a Shape,
    /// The answer that the contract prescribes, where it does.
    pub prescribed: Option<&'a Refusal>,
    /// What a person is asked to do first, where that is the reason.
    pub invited: Option<&'a Invited>,
    /// Headers of the denial's own, by lower-case name; they replace the usual ones.
    pub headers: &'a [(&'static str, String)],
    /// The decision.
    pub decision_id: &'a str,
    /// The revision that served.
    pub policy_revision: &'a str,
}

/// The answer that lets the request go.
///
/// `guard` says what the filter looks for in the answer, `subjects` at whose revocation it ends it. `from_filter` is false for callers that are not Keyward's filter:
/// Envoy would forward the values to scrub as headers.
#[must_use]
pub fn allowed(
    injection: &Injection,
    session: &Passage,
    upstream_authority: Option<&str>,
    guard: Option<&str>,
    subjects: &[Tag],
    from_filter: bool,
) -> CheckResponse {
    let mut headers = Vec::with_capacity(injection.slots().len() + 8);
    if let Some(authority) = upstream_authority {
        headers.push(overwrite(":authority", authority));
    }
    let mut query_parameters_to_set = Vec::new();
    for slot in injection.slots() {
        match &slot.name {
            SlotName::Header(name) => headers.push(overwrite(name, &slot.value)),
            SlotName::Query(_) if injection.target().is_some() => {}
            SlotName::Query(name) => {
                query_parameters_to_set.push(QueryParameter { key: name.clone(), value: slot.value.to_string() });
            }
        }
    }
    if let Some(target) = injection.target() {
        headers.push(overwrite(":path", target));
    }
    // No credential can have this place: configuration refuses its name.
    headers.extend(session.upstream_id().map(|id| overwrite(SESSION_ID_HEADER, id)));
    if from_filter {
        let raw = |key: &str, raw: &[u8]| HeaderValueOption {
            header: Some(HeaderValue { key: key.to_owned(), value: String::new(), raw_value: raw.to_vec() }),
            ..header_option()
        };
        headers.extend(injection.body().map(|body| raw(BODY_HEADER, body)));
        headers.extend(guard.map(|guard| overwrite(GUARD_HEADER, guard)));
        let directive = session.directive().map(|directive| directive.to_text());
        headers.extend(directive.map(|text| raw(SESSION_HEADER, text.as_bytes())));
        if !subjects.is_empty() {
            headers.push(raw(SUBJECTS_HEADER, subjects.as_flattened()));
        }
        headers.extend(injection.scrub().map(|value| raw(SCRUB_HEADER, value)));
    }
    let (mut headers_to_remove, query_parameters_to_remove) = injection.removals();
    if session.removes() {
        headers_to_remove.push(SESSION_ID_HEADER.to_owned());
    }
    CheckResponse {
        status: Some(Status { code: 0, ..Status::default() }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers,
            headers_to_remove,
            query_parameters_to_set,
            query_parameters_to_remove,
            ..OkHttpResponse::default()
        })),
        ..CheckResponse::default()
    }
}

/// The answer that ends the request.
#[must_use]
pub fn denied(refused: &Refused<'_>) -> CheckResponse {
    let (status, body) = match refused.prescribed {
        Some(prescribed) => (prescribed.http_status(), prescribed.body(Some(refused.decision_id))),
        None => body(refused),
    };
    let mut headers = vec![overwrite("content-type", "application/json"), overwrite("cache-control", "no-store")];
    let own = |name: &str| refused.headers.iter().any(|(own, _)| *own == name);
    if status == 401 && !own("www-authenticate") {
        let challenge = match refused.reason {
            Reason::InvalidToken => r#"Bearer realm="keyward", error="invalid_token""#,
            _ => r#"Bearer realm="keyward""#,
        };
        headers.push(overwrite("www-authenticate", challenge));
    }
    headers.extend(refused.headers.iter().map(|(name, value)| overwrite(name, value)));
    for (name, value) in refused.prescribed.iter().flat_map(|prescribed| prescribed.headers()) {
        if !name.eq_ignore_ascii_case("content-type") {
            headers.push(overwrite(name, value));
        }
    }
    let code = if status == 401 { UNAUTHENTICATED } else { PERMISSION_DENIED };
    CheckResponse {
        status: Some(Status { code, ..Status::default() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status) }),
            headers,
            body: String::from_utf8(body).unwrap_or_default(),
        })),
        ..CheckResponse::default()
    }
}

fn body(refused: &Refused<'_>) -> (u16, Vec<u8>) {
    let facts = ErrorFacts {
        decision_id: Some(refused.decision_id),
        policy_revision: Some(refused.policy_revision).filter(|revision| !revision.is_empty()),
        ..ErrorFacts::default()
    };
    if let Some(invited) = refused.invited {
        let invitation = invited.invitation();
        match refused.shape {
            Shape::Rpc(id) => {
                let body = asking_body(invited.asking(), refused.reason, id.as_ref(), &invitation, &facts);
                return (refused.reason.http_status(), body);
            }
            Shape::Plain => {
                return (refused.reason.plain_status(), asking_plain_body(refused.reason, &invitation, &facts));
            }
            // Each element of a batch is told the address.
            Shape::Batch(_) => {}
        }
    }
    let url = refused.invited.map(|invited| invited.invitation().url);
    let facts = ErrorFacts { connect_url: url, ..facts };
    match refused.shape {
        Shape::Rpc(id) => (refused.reason.http_status(), error_body(refused.reason, id.as_ref(), &facts)),
        Shape::Batch(ids) if ids.iter().any(Option::is_some) => {
            let reason = |n: usize| refused.elements.get(n).copied().unwrap_or(refused.reason);
            let errors = ids.iter().enumerate().filter_map(|(n, id)| Some((reason(n), id.as_ref()?)));
            (refused.reason.http_status(), batch_body(errors, &facts))
        }
        Shape::Batch(_) | Shape::Plain => (refused.reason.plain_status(), plain_body(refused.reason, &facts)),
    }
}

fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), ..header_option() }
}

fn header_option() -> HeaderValueOption {
    HeaderValueOption {
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}
