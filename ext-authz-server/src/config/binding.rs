//! The `bindings` section: which credential, for whom, to which hosts, in which place of the request.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Credential;

/// One credential, or several that belong together, and where they may go.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The name in policies and audit records: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`; unique.
    pub id: String,
    /// Whose credential it is.
    pub mode: BindingMode,
    /// Who answers for it, for the audit trail.
    pub owner: String,
    /// The environment it is for; another environment's bindings are never used.
    pub environment: String,
    /// The names of the server entries it serves.
    #[schemars(length(min = 1, max = 256))]
    pub servers: Vec<String>,
    /// Who may use it. Absent: everybody whom the policy allowed.
    #[serde(default)]
    pub principals: Principals,
    /// Where the credentials may go, `host` (any port), `host:port` or `*.host`: checked against the authority that the
    /// upstream gets, at injection. Required where there are credentials.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What to put on the request, in order. Required for `service_account`, `user` and `agent`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub credentials: Vec<Credential>,
    /// For `passthrough`: the client's own headers that may pass. Never one that identifies the client to Keyward.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub headers: Vec<String>,
}

/// Whose credential a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindingMode {
    /// One credential for the service.
    ServiceAccount,
    /// The user's own.
    User,
    /// The agent's own.
    Agent,
    /// No credential; an explicit choice.
    None,
    /// The client's own headers, those listed under `headers`.
    Passthrough,
}

/// Who may use a binding: one match in any of the lists is enough. All empty: everybody whom the policy allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Principals {
    /// Subjects of human users.
    #[serde(default)]
    pub users: Vec<String>,
    /// Client ids of agents.
    #[serde(default)]
    pub agents: Vec<String>,
    /// Roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Where a secret is and how to take it out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// `env://NAME`, `file:///absolute/path`, `file://path/relative/to/the/configuration`, or `STORE://…` for an entry of
    /// `stores`. `{tenant}`, `{environment}`, `{server}`, `{user}`, `{agent}` and `{issuer}` stand for the caller's own,
    /// percent-encoded.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The secret is the string in this field of a JSON object. Absent: the secret is the whole content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub json_key: Option<String>,
    /// Whether to take one line feed (or carriage return and line feed) off the end, default false: exact bytes.
    #[serde(default)]
    pub trim_newline: bool,
}

// === impl BindingMode ===

impl BindingMode {
    /// The name in `keyward.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BindingMode::ServiceAccount => "service_account",
            BindingMode::User => "user",
            BindingMode::Agent => "agent",
            BindingMode::None => "none",
            BindingMode::Passthrough => "passthrough",
        }
    }
}

// === impl Principals ===

impl Principals {
    /// Whether the list names nobody, which means everybody.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.users.is_empty() && self.agents.is_empty() && self.roles.is_empty()
    }
}
