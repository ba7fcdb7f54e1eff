//! What a policy sees of a request.

use std::collections::BTreeMap;

use super::Value;
use crate::binding::Candidate;
use crate::config::{MethodClass, Risk, ServerMode};
use crate::identity::{Actor, Principal};

/// Everything a policy may decide by. Borrowed; it becomes engine values without a detour over JSON text.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The MCP revision; absent for plain HTTP.
    pub revision: Option<&'a str>,
    /// The environment.
    pub environment: &'a str,
    /// The name of the server entry.
    pub server: &'a str,
    /// What the server entry speaks.
    pub mode: ServerMode,
    /// Who asks.
    pub principal: &'a Principal,
    /// What they ask for.
    pub operation: Operation<'a>,
    /// The HTTP request.
    pub http: Http<'a>,
    /// The bindings that could serve the request; absent where they are too many to show.
    pub bindings: Option<&'a [Candidate<'a>]>,
    /// The address of Envoy's peer, without the port.
    pub source_address: Option<&'a str>,
    /// Now, in seconds since 1970.
    pub unix_secs: u64,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Operation<'a> {
    /// The kind of message.
    pub kind: OperationKind,
    /// The MCP method, for example `tools/call`; for plain HTTP the HTTP method.
    pub method: &'a str,
    /// The tool, prompt, resource or task.
    pub target: Option<&'a str>,
    /// The arguments; absent where the message has none.
    pub arguments: Option<Value>,
    /// All parameters; absent where the message has none.
    pub params: Option<Value>,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// A JSON-RPC request.
    Request,
    /// A JSON-RPC notification.
    Notification,
    /// A JSON-RPC response of the client.
    Response,
    /// GET of an event stream.
    StreamOpen,
    /// DELETE of a session.
    SessionEnd,
    /// A plain HTTP request.
    Http,
}

/// The HTTP request around an operation.
#[derive(Clone, Copy, Debug)]
pub struct Http<'a> {
    /// The method.
    pub method: &'a str,
    /// The canonical path, without the query.
    pub path: &'a str,
    /// The authority of the request.
    pub authority: &'a str,
    /// The class of the method.
    pub class: MethodClass,
}

// === impl Input ===

impl Input<'_> {
    /// The document that a policy reads as `input`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let bindings = self.bindings.map(|all| all.iter().map(candidate).collect::<Vec<_>>());
        object([
            ("revision", optional(self.revision)),
            ("environment", self.environment.into()),
            ("server", object([("name", self.server.into()), ("mode", self.mode.as_str().into())])),
            ("principal", principal(self.principal)),
            ("operation", self.operation.to_value()),
            ("http", self.http.to_value()),
            ("bindings", bindings.map_or(Value::Null, Value::from)),
            ("source", object([("address", optional(self.source_address))])),
            ("time", object([("unix_secs", self.unix_secs.into()), ("rfc3339", rfc3339(self.unix_secs).into())])),
        ])
    }
}

// === impl Operation ===

impl Operation<'_> {
    fn to_value(&self) -> Value {
        object([
            ("kind", self.kind.as_str().into()),
            ("method", self.method.into()),
            ("target", optional(self.target)),
            ("arguments", self.arguments.clone().unwrap_or_else(Value::new_object)),
            ("params", self.params.clone().unwrap_or_else(Value::new_object)),
        ])
    }
}

// === impl OperationKind ===

impl OperationKind {
    /// The name that a policy sees.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OperationKind::Request => "request",
            OperationKind::Notification => "notification",
            OperationKind::Response => "response",
            OperationKind::StreamOpen => "stream_open",
            OperationKind::SessionEnd => "session_end",
            OperationKind::Http => "http",
        }
    }
}

// === impl Http ===

impl Http<'_> {
    fn to_value(self) -> Value {
        let class = match self.class {
            MethodClass::Read => "read",
            MethodClass::Write => "write",
            MethodClass::Delete => "delete",
        };
        object([
            ("method", self.method.into()),
            ("path", self.path.into()),
            ("authority", self.authority.into()),
            ("class", class.into()),
        ])
    }
}

fn principal(principal: &Principal) -> Value {
    let roles: Vec<Value> = principal.roles.iter().map(|role| role.as_str().into()).collect();
    object([
        ("key", principal.key.as_str().into()),
        ("issuer", principal.issuer.as_str().into()),
        ("subject", principal.subject.as_str().into()),
        ("tenant", principal.tenant.as_str().into()),
        ("agent", optional(principal.agent.as_deref())),
        ("kind", principal.kind.as_str().into()),
        ("roles", roles.into()),
        ("scopes", principal.scopes.iter().map(|scope| Value::from(scope.as_str())).collect::<Vec<_>>().into()),
        ("actors", principal.actors.iter().map(actor).collect::<Vec<_>>().into()),
        ("bootstrap", principal.token.bootstrap.into()),
        ("claims", claims(&principal.claims)),
    ])
}

fn actor(actor: &Actor) -> Value {
    object([("subject", actor.subject.as_str().into()), ("issuer", optional(actor.issuer.as_deref()))])
}

fn candidate(binding: &Candidate<'_>) -> Value {
    object([
        ("id", binding.id.into()),
        ("mode", binding.mode.name().into()),
        ("owner", binding.owner.into()),
        ("risk", optional(binding.risk.map(Risk::as_str))),
    ])
}

/// Claims as engine values. `From<serde_json::Value>` would take a copy first.
fn claims(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Object(members) => {
            let member = |(name, value): (&String, &serde_json::Value)| (Value::from(name.as_str()), claims(value));
            members.iter().map(member).collect::<BTreeMap<_, _>>().into()
        }
        serde_json::Value::Array(items) => items.iter().map(claims).collect::<Vec<_>>().into(),
        serde_json::Value::String(text) => text.as_str().into(),
        other => Value::from(other.clone()),
    }
}

fn optional(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::from)
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    members.into_iter().map(|(name, value)| (Value::from(name), value)).collect::<BTreeMap<_, _>>().into()
}

/// `2026-07-28T12:00:00Z`. The civil date is Howard Hinnant's `civil_from_days`.
fn rfc3339(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
