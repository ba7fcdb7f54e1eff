//! One JSON-RPC message and what in it a policy decides about.

use std::borrow::Cow;

use super::names::{self, Target};
use super::refusal::Refusal;
use super::revision::Revision;
use crate::json::{self, Object, Value};
use crate::reason::Reason;

/// A message that a client can send.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// It expects an answer with its id.
    Request(Request<'a>),
    /// It expects no answer.
    Notification(Notification<'a>),
    /// The answer to a request of the server; up to 2025-11-25 only.
    Response(Response<'a>),
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// The id under which the answer is awaited.
    pub id: Id<'a>,
    /// The method.
    pub method: Cow<'a, str>,
    /// The parameters, an object always.
    pub params: Option<Value<'a>>,
}

/// A notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification<'a> {
    /// The method.
    pub method: Cow<'a, str>,
    /// The parameters, an object always.
    pub params: Option<Value<'a>>,
}

/// A client's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response<'a> {
    /// The id of the server's request.
    pub id: Id<'a>,
    /// The result, or the error; an object always.
    pub outcome: Result<Value<'a>, Value<'a>>,
}

/// A request's id. Two ids are equal where they are the same string or the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id<'a>(Repr<'a>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr<'a> {
    /// An integer that fits an `i64` or a `u64`, as written.
    Number(&'a str),
    String(Cow<'a, str>),
}

/// A request's id as JSON text, to be echoed in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdText(String);

/// What a policy decides about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operation<'m> {
    /// What sort of thing is asked.
    pub kind: OperationKind,
    /// The method; empty where there is none (responses, streams, sessions).
    pub method: &'m str,
    /// The tool, prompt or task by name, or the resource by URI. Present always for the methods that act on one; for
    /// `completion/complete` the prompt or resource that `ref` names, if it names one.
    pub target: Option<&'m str>,
    /// `params.arguments`, an object always.
    pub arguments: Option<&'m Value<'m>>,
    /// `params`, an object always; the result or the error for a response.
    pub params: Option<&'m Value<'m>>,
}

/// The sorts of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// A request.
    Request,
    /// A notification.
    Notification,
    /// A client's answer to the server.
    Response,
    /// The opening of the server's stream.
    StreamOpen,
    /// The end of a session.
    SessionEnd,
}

// === impl Message ===

impl<'a> Message<'a> {
    /// The method; none for a response.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Message::Request(request) => Some(&request.method),
            Message::Notification(notification) => Some(&notification.method),
            Message::Response(_) => None,
        }
    }

    /// The parameters; none for a response.
    #[must_use]
    pub fn params(&self) -> Option<&Object<'a>> {
        match self {
            Message::Request(Request { params, .. }) | Message::Notification(Notification { params, .. }) => {
                params.as_ref().and_then(Value::as_object)
            }
            Message::Response(_) => None,
        }
    }

    /// The id to answer under; only a request has one.
    #[must_use]
    pub fn request_id(&self) -> Option<&Id<'a>> {
        match self {
            Message::Request(request) => Some(&request.id),
            Message::Notification(_) | Message::Response(_) => None,
        }
    }

    /// What a policy decides about.
    #[must_use]
    pub fn operation(&self) -> Operation<'_> {
        let (kind, params) = match self {
            Message::Request(request) => (OperationKind::Request, request.params.as_ref()),
            Message::Notification(notification) => (OperationKind::Notification, notification.params.as_ref()),
            Message::Response(Response { outcome: Ok(value) | Err(value), .. }) => {
                return Operation { params: Some(value), ..Operation::bodiless(OperationKind::Response) };
            }
        };
        let method = self.method().unwrap_or_default();
        let object = params.and_then(Value::as_object);
        let target = match names::target(method) {
            Some(target) => object.and_then(|params| params.get(target.member)?.as_str()),
            None if method == "completion/complete" => object.and_then(completed),
            None => None,
        };
        Operation { kind, method, target, arguments: object.and_then(|params| params.get("arguments")), params }
    }

    /// Reads one message. Of its revision only the methods that it lacks matter here.
    pub(super) fn read(object: Object<'a>, revision: Revision) -> Result<Message<'a>, Refusal> {
        let (mut version, mut id, mut method, mut params, mut result, mut error) = (None, None, None, None, None, None);
        for (name, value) in object {
            let slot = match name.as_ref() {
                "jsonrpc" => &mut version,
                "id" => &mut id,
                "method" => &mut method,
                "params" => &mut params,
                "result" => &mut result,
                "error" => &mut error,
                _ => return Err(invalid("the message has a member that JSON-RPC does not define")),
            };
            *slot = Some(value);
        }
        if version.as_ref().and_then(Value::as_str) != Some("2.0") {
            return Err(invalid("`jsonrpc` is not \"2.0\""));
        }
        let id = match id {
            Some(value) => Some(Id::read(value).ok_or_else(|| invalid("`id` is neither a string nor an integer"))?),
            None => None,
        };
        match (method, id, result, error) {
            (Some(Value::String(method)), id, None, None) => read_method(method, id, params, revision),
            (None, Some(id), Some(result @ Value::Object(_)), None) if params.is_none() => {
                Ok(Message::Response(Response { id, outcome: Ok(result) }))
            }
            (None, Some(id), None, Some(Value::Object(error))) if params.is_none() => {
                let code = error.get("code").and_then(Value::as_number).is_some_and(json::Number::is_integer);
                let message = error.get("message").and_then(Value::as_str).is_some();
                if !code || !message {
                    return Err(invalid("`error` lacks its code or its message"));
                }
                Ok(Message::Response(Response { id, outcome: Err(Value::Object(error)) }))
            }
            _ => Err(invalid("the message is neither a request nor a notification nor a response")),
        }
    }

    /// Whether both are requests, or both responses, with the same id.
    pub(super) fn has_id_of(&self, other: &Message<'_>) -> bool {
        match (self, other) {
            (Message::Request(one), Message::Request(other)) => one.id.same(&other.id),
            (Message::Response(one), Message::Response(other)) => one.id.same(&other.id),
            _ => false,
        }
    }
}

/// The prompt by name, or the resource template by URI, whose argument is to be completed.
fn completed<'m>(params: &'m Object<'_>) -> Option<&'m str> {
    let reference = params.get("ref")?.as_object()?;
    let member = match reference.get("type")?.as_str()? {
        "ref/prompt" => "name",
        "ref/resource" => "uri",
        _ => return None,
    };
    reference.get(member)?.as_str()
}

fn read_method<'a>(
    method: Cow<'a, str>,
    id: Option<Id<'a>>,
    params: Option<Value<'a>>,
    revision: Revision,
) -> Result<Message<'a>, Refusal> {
    let target = names::target(&method);
    let is_required = target.is_some() && !(revision.is_stateless() && names::is_gone(&method));
    match &params {
        Some(Value::Object(members)) => check_params(target, is_required, members)?,
        Some(_) => return Err(invalid("`params` is not an object")),
        None if is_required => return Err(invalid_params("`params` is missing")),
        None => {}
    }
    match id {
        Some(_) if names::is_notification(&method) => Err(invalid("a notification has no `id`")),
        None if names::is_request(&method) => Err(invalid("this method is a request and needs an `id`")),
        Some(id) => Ok(Message::Request(Request { id, method, params })),
        None => Ok(Message::Notification(Notification { method, params })),
    }
}

/// Whatever a policy reads from `params` has the form that the policy expects, and stands under one name only.
fn check_params(target: Option<Target>, is_required: bool, members: &Object<'_>) -> Result<(), Refusal> {
    let reference = members.get("ref").and_then(Value::as_object);
    let mut names = members.iter().chain(reference.into_iter().flat_map(Object::iter)).map(|(name, _)| name);
    if names.any(names::is_disguised) {
        return Err(invalid_params("`params` has a known member in another case"));
    }
    if members.get("_meta").is_some_and(|meta| meta.as_object().is_none()) {
        return Err(invalid_params("`params._meta` is not an object"));
    }
    if members.get("arguments").is_some_and(|arguments| arguments.as_object().is_none()) {
        return Err(invalid_params("`params.arguments` is not an object"));
    }
    let Some(Target { member, .. }) = target else {
        return Ok(());
    };
    match members.get(member) {
        Some(Value::String(_)) => Ok(()),
        None if !is_required => Ok(()),
        _ => Err(Refusal::new(Reason::InvalidParams, format!("`params.{member}` is missing or not a string"))),
    }
}

fn invalid(detail: &'static str) -> Refusal {
    Refusal::new(Reason::InvalidRequest, detail)
}

fn invalid_params(detail: &'static str) -> Refusal {
    Refusal::new(Reason::InvalidParams, detail)
}

// === impl Id ===

impl<'a> Id<'a> {
    /// The id as JSON text.
    #[must_use]
    pub fn to_text(&self) -> IdText {
        match &self.0 {
            Repr::Number(raw) => IdText((*raw).to_owned()),
            Repr::String(text) => {
                let mut out = Vec::with_capacity(text.len() + 2);
                json::write_string(text, &mut out);
                IdText(String::from_utf8(out).unwrap_or_else(|_| "null".to_owned()))
            }
        }
    }

    /// The id, if the value can be one: a string or an integer.
    pub(super) fn read(value: Value<'a>) -> Option<Id<'a>> {
        match value {
            Value::String(text) => Some(Id(Repr::String(text))),
            Value::Number(number) if number.is_integer() => Some(Id(Repr::Number(number.as_str()))),
            _ => None,
        }
    }

    /// Zero can be written with a sign; no other integer can be written in two ways.
    fn same(&self, other: &Id<'_>) -> bool {
        match (&self.0, &other.0) {
            (Repr::Number("0" | "-0"), Repr::Number("0" | "-0")) => true,
            (Repr::Number(one), Repr::Number(other)) => one == other,
            (Repr::String(one), Repr::String(other)) => one == other,
            _ => false,
        }
    }
}

// === impl IdText ===

impl IdText {
    /// The JSON text, for example `1` or `"a"`.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

// === impl Operation ===

impl Operation<'_> {
    /// An operation without method and parameters.
    #[must_use]
    pub fn bodiless(kind: OperationKind) -> Self {
        Operation { kind, method: "", target: None, arguments: None, params: None }
    }
}

// === impl OperationKind ===

impl OperationKind {
    /// The name in the policy's input and in the audit record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OperationKind::Request => "request",
            OperationKind::Notification => "notification",
            OperationKind::Response => "response",
            OperationKind::StreamOpen => "stream_open",
            OperationKind::SessionEnd => "session_end",
        }
    }
}
