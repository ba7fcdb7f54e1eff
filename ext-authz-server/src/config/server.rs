//! The `servers` section: upstreams and the destinations that lead to them.

use std::collections::BTreeMap;

use keyward_contract::patterns::{Action, Guard, rule};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Resource;

/// One upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// What the upstream speaks.
    pub mode: ServerMode,
    /// The environment it is for. Requests for an entry of another environment are denied. Absent: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub environment: Option<String>,
    /// The requests that belong to it. What no destination names is denied. An exact host beats a wildcard, a port beats
    /// any port, then the longest path prefix, then the order here.
    #[schemars(length(min = 1, max = 256))]
    pub destinations: Vec<Destination>,
    /// What the upstream gets as its host, `host` or `host:port`. Absent: the request's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub upstream_authority: Option<String>,
    /// The Envoy cluster to which the route must lead. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cluster: Option<String>,
    /// Where the upstream is. Absent: `enterprise` for `mode: mcp`, either for `mode: http`. Metadata endpoints and
    /// link-local addresses are refused everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PerimeterClass")]
    pub perimeter: Option<PerimeterClass>,
    /// What makes it an OAuth 2.1 protected resource. Absent: a token needs one of its issuer's `audiences`, no scope and no
    /// proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Resource")]
    pub resource: Option<Resource>,
    /// What happens to text that looks like a credential. Absent: nothing.
    #[serde(default)]
    pub leak_guard: LeakGuard,
    /// The largest request body, in bytes, 1024 to 3145728, default 1048576.
    #[serde(default = "default_max_body_bytes")]
    #[schemars(range(min = 1024, max = 3_145_728))]
    pub max_body_bytes: usize,
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerMode {
    /// The Model Context Protocol: each message is parsed and decided.
    Mcp,
    /// Plain HTTP: destination, method and path decide.
    Http,
}

/// What happens to text that has the shape of a credential nobody told Keyward of; docs/security.md lists the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakGuard {
    /// In path, query and body of requests, and in headers that mirror the body (`Mcp-Name`, `Mcp-Param-*`), default
    /// `off`. `block` and what cannot be masked is denied with `secret_in_request`.
    #[serde(default)]
    pub arguments: LeakAction,
    /// In answers, default `off`. `block` withholds the answer, or ends it where it has begun.
    #[serde(default)]
    pub responses: LeakAction,
    /// Other actions for single rules, by name; in both directions, unless a direction is `off`.
    #[serde(default)]
    pub rules: BTreeMap<String, LeakAction>,
}

/// What happens to what looks like a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeakAction {
    /// Nothing; it is not looked for.
    #[default]
    Off,
    /// It passes, and is recorded.
    Log,
    /// It is overwritten, and recorded.
    Mask,
    /// It does not pass.
    Block,
}

/// Where an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PerimeterClass {
    /// Inside: a private address, a name that only exists inside, or one of `perimeter.enterprise_hosts`.
    Enterprise,
    /// On the public Internet: not private, and one of `perimeter.public_hosts`.
    Public,
}

/// Where the perimeter runs. What is not listed is outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerimeterConfig {
    /// Hosts inside the perimeter whose name or address does not tell: `host`, `host:port`, `*.host` or a network such as
    /// `192.0.2.0/24`. They add to private addresses and to names that only exist inside, such as `x.internal`.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub enterprise_hosts: Vec<String>,
    /// Public hosts to which a server entry with `perimeter: public` may lead: `host`, `host:port` or `*.host`.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub public_hosts: Vec<String>,
}

/// One group of requests.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The host of the request's authority, lower case: a name, an IP address, or `*.example.com` for every name below
    /// `example.com`.
    pub host: String,
    /// The port, 1 to 65535. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", range(min = 1))]
    pub port: Option<u16>,
    /// The path and everything below it, canonical: no `.` or `..` segment, no `//`, no `%`. Default `/`.
    #[serde(default = "default_path")]
    pub path: String,
    /// The classes of methods. Absent: all three.
    #[serde(default = "all_methods")]
    #[schemars(length(min = 1, max = 3))]
    pub methods: Vec<MethodClass>,
}

/// A class of HTTP methods. Methods of no class, for example CONNECT, are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodClass {
    /// GET and HEAD.
    Read,
    /// POST, PUT and PATCH.
    Write,
    /// DELETE.
    Delete,
}

fn default_max_body_bytes() -> usize {
    1_048_576
}

fn default_path() -> String {
    "/".into()
}

fn all_methods() -> Vec<MethodClass> {
    vec![MethodClass::Read, MethodClass::Write, MethodClass::Delete]
}

// === impl ServerMode ===

impl ServerMode {
    /// The name in `keyward.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ServerMode::Mcp => "mcp",
            ServerMode::Http => "http",
        }
    }
}

// === impl LeakGuard ===

impl LeakGuard {
    /// What is looked for in requests, and in answers.
    #[must_use]
    pub fn guards(&self) -> (Guard, Guard) {
        let guard = |default: LeakAction| {
            let named: Vec<(usize, Action)> =
                self.rules.iter().filter_map(|(name, action)| Some((rule(name)?, action.action()))).collect();
            Guard::new(default.action(), if default == LeakAction::Off { &[] } else { &named })
        };
        (guard(self.arguments), guard(self.responses))
    }
}

impl LeakAction {
    fn action(self) -> Action {
        match self {
            LeakAction::Off => Action::Off,
            LeakAction::Log => Action::Log,
            LeakAction::Mask => Action::Mask,
            LeakAction::Block => Action::Block,
        }
    }
}
