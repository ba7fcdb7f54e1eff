//! The `servers` section: upstreams and the destinations that lead to them.

use schemars::JsonSchema;
use serde::Deserialize;

/// One upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// What the upstream speaks.
    pub mode: ServerMode,
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
