//! Asking the person behind an agent to open an address, in the way of each revision (URL-mode elicitation), and taking
//! the client's answer out of its next request.

use super::message::{IdText, Request};
use super::names::META_CAPABILITIES;
use super::refusal::{ErrorFacts, error_body, plain_body, write_facts};
use super::revision::Revision;
use crate::json::{self, Object, Value};
use crate::reason::Reason;

/// The error code of 2025-11-25 that asks for a URL-mode elicitation.
pub const URL_ELICITATION_REQUIRED: i32 = -32042;
/// The name of Keyward's own input request in 2026-07-28.
pub const INPUT_REQUEST: &str = "keyward_connect";
/// How a request state begins that Keyward made.
pub const STATE_PREFIX: &str = "keyward1.";

/// How a client can be asked to open an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asking {
    /// By an error that says the address in its text; every client can show that.
    #[default]
    Plainly,
    /// By error -32042 with a list of elicitations.
    ByError,
    /// By a result that asks for input, which the client sends with its next attempt.
    ByResult,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Invitation<'a> {
    /// Unique among all invitations.
    pub id: &'a str,
    /// The address to open.
    pub url: &'a str,
    /// Why, for the person.
    pub message: &'a str,
    /// What the client sends back with its next attempt; for [`Asking::ByResult`].
    pub state: &'a str,
}

/// What the person, or the client in its place, answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Opened the address.
    Accepted,
    /// Does not want to.
    Declined,
    /// Made no choice, or there is no answer.
    None,
}

// === asking ===

/// How the client of this request can be asked.
#[must_use]
pub fn asking(request: &Request<'_>, revision: Revision) -> Asking {
    match revision {
        Revision::R2025_03_26 | Revision::R2025_06_18 => Asking::Plainly,
        Revision::R2025_11_25 => Asking::ByError,
        Revision::R2026_07_28 => {
            let takes_input = ["tools/call", "prompts/get", "resources/read"].contains(&request.method.as_ref());
            let meta = request.params.as_ref().and_then(|params| params.pointer("/_meta")).and_then(Value::as_object);
            let capabilities = meta.and_then(|meta| meta.get(META_CAPABILITIES));
            let can_open = capabilities.and_then(|all| all.pointer("/elicitation/url")).and_then(Value::as_object);
            if takes_input && can_open.is_some() { Asking::ByResult } else { Asking::Plainly }
        }
    }
}

/// The body that asks; `facts` tell an error's decision. Every form of it is an answer to the request with this id.
#[must_use]
pub fn asking_body(
    asking: Asking,
    reason: Reason,
    id: Option<&IdText>,
    invitation: &Invitation<'_>,
    facts: &ErrorFacts<'_>,
) -> Vec<u8> {
    match (asking, id) {
        (Asking::ByError, Some(id)) => elicitation_error(reason, id, invitation, facts),
        (Asking::ByResult, Some(id)) => input_required(id, invitation),
        _ => {
            let detail = format!("open {}", invitation.url);
            error_body(reason, id, &ErrorFacts { detail: Some(&detail), connect_url: Some(invitation.url), ..*facts })
        }
    }
}

/// The body that asks where there is no JSON-RPC request to answer.
#[must_use]
pub fn asking_plain_body(reason: Reason, invitation: &Invitation<'_>, facts: &ErrorFacts<'_>) -> Vec<u8> {
    let detail = format!("open {}", invitation.url);
    plain_body(reason, &ErrorFacts { detail: Some(&detail), connect_url: Some(invitation.url), ..*facts })
}

fn elicitation_error(reason: Reason, id: &IdText, invitation: &Invitation<'_>, facts: &ErrorFacts<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_json().as_bytes());
    out.extend_from_slice(b",\"error\":{\"code\":");
    out.extend_from_slice(URL_ELICITATION_REQUIRED.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    json::write_string(reason.message(), &mut out);
    out.extend_from_slice(b",\"data\":{\"elicitations\":[{\"mode\":\"url\",\"elicitationId\":");
    json::write_string(invitation.id, &mut out);
    write_address(invitation, &mut out);
    out.extend_from_slice(b"}],\"reason\":");
    json::write_string(reason.code(), &mut out);
    write_facts(facts, &mut out);
    out.extend_from_slice(b"}}}");
    out
}

fn input_required(id: &IdText, invitation: &Invitation<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_json().as_bytes());
    out.extend_from_slice(b",\"result\":{\"resultType\":\"input_required\",\"inputRequests\":{");
    json::write_string(INPUT_REQUEST, &mut out);
    out.extend_from_slice(b":{\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\"");
    write_address(invitation, &mut out);
    out.extend_from_slice(b"}}},\"requestState\":");
    json::write_string(invitation.state, &mut out);
    out.extend_from_slice(b"}}");
    out
}

fn write_address(invitation: &Invitation<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"url\":");
    json::write_string(invitation.url, out);
    out.extend_from_slice(b",\"message\":");
    json::write_string(invitation.message, out);
}

// === the next attempt ===

/// The request state of these parameters, where it is one that Keyward made.
#[must_use]
pub fn own_state<'m>(params: &'m Object<'_>) -> Option<&'m str> {
    params.get("requestState")?.as_str().filter(|state| state.starts_with(STATE_PREFIX))
}

/// What the client says that the person answered to Keyward's input request.
#[must_use]
pub fn reply(params: &Object<'_>) -> Reply {
    let responses = params.get("inputResponses").and_then(Value::as_object);
    let own = responses.and_then(|all| all.get(INPUT_REQUEST)).and_then(Value::as_object);
    match own.and_then(|own| own.get("action")).and_then(Value::as_str) {
        Some("accept") => Reply::Accepted,
        Some("decline") => Reply::Declined,
        _ => Reply::None,
    }
}

/// What of a request belongs to the upstream's own conversation with the client: its request state and the responses that
/// go with it, as JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The upstream's request state.
    pub state: Option<String>,
    /// The client's responses to the upstream's input requests, an object.
    pub responses: Option<String>,
}

impl Carried {
    /// What these parameters carry for the upstream.
    #[must_use]
    pub fn of(params: &Object<'_>) -> Carried {
        let written = |value: &Value<'_>| {
            let mut out = Vec::new();
            value.write(&mut out);
            String::from_utf8(out).ok()
        };
        let state = params.get("requestState").and_then(Value::as_str).map(str::to_owned);
        Carried { state, responses: params.get("inputResponses").and_then(written) }
    }

    /// The request as the upstream is to see it: `body` with this state and these responses in place of Keyward's own.
    /// `None` where `body` is no request that [`read`](super::read) accepts.
    #[must_use]
    pub fn restore(&self, body: &[u8]) -> Option<Vec<u8>> {
        let limits = json::Limits { max_bytes: body.len(), ..json::Limits::default() };
        let Ok(Value::Object(message)) = json::parse(body, &limits) else { return None };
        let mut out = Vec::with_capacity(body.len());
        write_members(&message, &mut out, |name, value, out| match value {
            Value::Object(params) if name == "params" => {
                self.write_params(params, out);
                true
            }
            _ => false,
        });
        Some(out)
    }

    fn write_params(&self, params: &Object<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        let mut name_of = |name: &str, out: &mut Vec<u8>| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            json::write_string(name, out);
            out.push(b':');
        };
        for (name, value) in params.iter().filter(|(name, _)| !["requestState", "inputResponses"].contains(name)) {
            name_of(name, out);
            value.write(out);
        }
        if let Some(state) = &self.state {
            name_of("requestState", out);
            json::write_string(state, out);
        }
        if let Some(responses) = &self.responses {
            name_of("inputResponses", out);
            out.extend_from_slice(responses.as_bytes());
        }
        out.push(b'}');
    }
}

/// Writes an object; `own` writes a member's value itself and says so, or leaves it as it is.
fn write_members(object: &Object<'_>, out: &mut Vec<u8>, own: impl Fn(&str, &Value<'_>, &mut Vec<u8>) -> bool) {
    out.push(b'{');
    for (position, (name, value)) in object.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        json::write_string(name, out);
        out.push(b':');
        if !own(name, value, out) {
            value.write(out);
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Body, HttpView, Message, read};

    const INVITATION: Invitation<'static> =
        Invitation { id: "e1", url: "https://k.example/connect/t", message: "Connect \"it\"", state: "keyward1.s" };

    fn id() -> IdText {
        match json::parse(br#"{"jsonrpc":"2.0","id":"a\"b","method":"x"}"#, &json::Limits::default()) {
            Ok(Value::Object(object)) => match Message::read(object, Revision::R2025_11_25) {
                Ok(Message::Request(request)) => request.id.to_text(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn request(revision: Revision, method: &str, capabilities: &str) -> Asking {
        let meta = format!(
            r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{revision}","io.modelcontextprotocol/clientCapabilities":{capabilities}}}"#
        );
        let meta = if revision.is_stateless() { meta } else { r#""_meta":{}"#.to_owned() };
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"n","uri":"n",{meta}}}}}"#);
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", revision.as_str()),
            ("mcp-method", method),
            ("mcp-name", "n"),
        ];
        let headers = &headers[..if revision.is_stateless() { 5 } else { 3 }];
        let view = HttpView { method: "POST", headers: &headers, body: body.as_bytes() };
        let call = read(&view, &json::Limits::default()).unwrap();
        let Body::Single(Message::Request(request)) = &call.body else { panic!("{call:?}") };
        asking(request, call.revision)
    }

    #[test]
    fn a_client_is_asked_in_the_way_of_its_revision_and_capabilities() {
        let can = r#"{"elicitation":{"url":{}}}"#;
        assert_eq!(request(Revision::R2025_06_18, "tools/call", can), Asking::Plainly);
        assert_eq!(request(Revision::R2025_11_25, "tools/call", can), Asking::ByError);
        for method in ["tools/call", "prompts/get", "resources/read"] {
            assert_eq!(request(Revision::R2026_07_28, method, can), Asking::ByResult);
        }
        assert_eq!(request(Revision::R2026_07_28, "tools/list", can), Asking::Plainly);
        for cannot in ["{}", r#"{"elicitation":{}}"#, r#"{"elicitation":{"form":{}}}"#, r#"{"elicitation":{"url":1}}"#]
        {
            assert_eq!(request(Revision::R2026_07_28, "tools/call", cannot), Asking::Plainly);
        }
    }

    #[test]
    fn every_form_is_json_that_names_the_address_and_the_request() {
        let facts = ErrorFacts { decision_id: Some("d"), ..ErrorFacts::default() };
        let body = |asking| asking_body(asking, Reason::ConsentRequired, Some(&id()), &INVITATION, &facts);
        let read = |body: &[u8]| {
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(json::parse(body, &json::Limits::default()).is_ok(), "{text}");
            text
        };
        let error = read(&body(Asking::ByError));
        assert!(error.starts_with(r#"{"jsonrpc":"2.0","id":"a\"b","error":{"code":-32042,"#), "{error}");
        assert!(
            error.contains(
                r#""data":{"elicitations":[{"mode":"url","elicitationId":"e1","url":"https://k.example/connect/t","message":"Connect \"it\""}],"reason":"consent_required","decision_id":"d"}"#
            ),
            "{error}"
        );
        let result = read(&body(Asking::ByResult));
        assert!(result.contains(r#""resultType":"input_required""#), "{result}");
        assert!(
            result.contains(
                r#""keyward_connect":{"method":"elicitation/create","params":{"mode":"url","url":"https://k.example/connect/t","message":"Connect \"it\""}}"#
            ),
            "{result}"
        );
        assert!(result.ends_with(r#""requestState":"keyward1.s"}}"#), "{result}");
        let plain = read(&body(Asking::Plainly));
        assert!(plain.contains(r#""code":-32012"#) && plain.contains(r#""connect_url":"https://k.example/connect/t""#));
        let http = read(&asking_plain_body(Reason::ConsentRequired, &INVITATION, &facts));
        assert!(http.contains("open https://k.example/connect/t"), "{http}");
    }

    #[test]
    fn the_upstream_gets_its_own_state_back_and_none_of_ours() {
        let before = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","arguments":{"a":1.50},"requestState":"up\"stream","inputResponses":{"x":{"action":"accept"}}}}"#;
        let params = |body: &[u8]| -> Carried {
            let Ok(Value::Object(object)) = json::parse(body, &json::Limits::default()) else { panic!() };
            Carried::of(object.get("params").unwrap().as_object().unwrap())
        };
        let carried = params(before);
        assert_eq!(carried.state.as_deref(), Some("up\"stream"));
        let retry = br#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"requestState":"keyward1.s","name":"n","arguments":{"a":1.50},"inputResponses":{"keyward_connect":{"action":"accept"}}}}"#;
        let restored = String::from_utf8(carried.restore(retry).unwrap()).unwrap();
        assert_eq!(
            restored,
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"n","arguments":{"a":1.50},"requestState":"up\"stream","inputResponses":{"x":{"action":"accept"}}}}"#
        );
        let without = Carried::default().restore(retry).unwrap();
        let without = String::from_utf8(without).unwrap();
        assert!(!without.contains("requestState") && !without.contains("inputResponses"), "{without}");
        assert!(Carried::default().restore(b"[]").is_none());
    }

    #[test]
    fn a_reply_is_read_only_under_our_name() {
        let reply = |text: &str| {
            let Ok(Value::Object(object)) = json::parse(text.as_bytes(), &json::Limits::default()) else { panic!() };
            (super::reply(&object), own_state(&object).map(str::to_owned))
        };
        assert_eq!(reply(r#"{"inputResponses":{"keyward_connect":{"action":"accept"}}}"#), (Reply::Accepted, None));
        assert_eq!(reply(r#"{"inputResponses":{"keyward_connect":{"action":"decline"}}}"#), (Reply::Declined, None));
        assert_eq!(reply(r#"{"inputResponses":{"other":{"action":"accept"}}}"#), (Reply::None, None));
        assert_eq!(reply(r#"{"requestState":"upstream's"}"#), (Reply::None, None));
        assert_eq!(reply(r#"{"requestState":"keyward1.x"}"#), (Reply::None, Some("keyward1.x".into())));
    }
}
