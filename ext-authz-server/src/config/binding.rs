//! The `bindings` section: which credential, for whom, to which hosts, in which place of the request.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::Credential;
use crate::seal::KMS_SCHEME;
use crate::secret::{GRANT_SCHEME, LOCAL_SCHEMES};

/// One credential, or several that belong together, and where they may go.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The name in policies and audit records: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`; unique.
    pub id: String,
    /// Whose credential it is.
    pub mode: BindingMode,
    /// Who answers for it, for people and for the policy.
    pub owner: String,
    /// How much harm can be done with it, for the policy. Absent: nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Risk")]
    pub risk: Option<Risk>,
    /// The environment it is for; another environment's bindings are never used.
    pub environment: String,
    /// The tenants it is for, by their names in `tenants`, or `*` alone for each of them. Required where there are `tenants`;
    /// another tenant's bindings are never used.
    #[serde(default, deserialize_with = "listed", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 4096))]
    pub tenants: Option<Vec<String>>,
    /// The names of the server entries it serves.
    #[schemars(length(min = 1, max = 256))]
    pub servers: Vec<String>,
    /// The tools it is for, 1 to 256: names, or patterns in which each `*` stands for any text. It then serves calls of these
    /// tools, what a client needs around them, and nothing else. Absent: every tool, and every other message.
    #[serde(default, deserialize_with = "listed", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 256))]
    pub tools: Option<Vec<String>>,
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
    /// A request that shows whether a new value of the credentials is good. Until it is, the value before stays in use.
    /// Absent: a new value is used at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Probe")]
    pub probe: Option<Probe>,
    /// How old the stored secrets of this binding may become before it is said, in days, 1 to 3650: in the log, as a metric and by
    /// `keyward doctor`. They go on serving. Absent: any age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1, max = 3650))]
    pub max_age_days: Option<u64>,
    /// For `passthrough`: the client's own headers that may pass. Never one that identifies the client to Keyward.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub headers: Vec<String>,
    /// What tells this definition from any other: SHA-256 over the entry as it is written, up to the order of keys.
    #[serde(skip)]
    #[schemars(skip)]
    pub definition: String,
}

/// Whose credential a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindingMode {
    /// One credential for the service. It serves everybody whom `principals` lets.
    ServiceAccount,
    /// The user's own. It serves people only, and needs `principals.users` or credentials that are the caller's own: a
    /// reference with `{user}`, a `grant://`, an OAuth grant with a `provider` or with the caller's token.
    User,
    /// The agent's own. It serves only callers with an agent, and needs `principals.agents` or a reference with `{agent}`.
    Agent,
    /// No credential; an explicit choice.
    None,
    /// The client's own headers, those listed under `headers`; no credential.
    Passthrough,
}

/// How much harm can be done with a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
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

/// A request with the new credentials and nothing else, sent by Keyward's server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Where to send it: `https` (`http` on loopback only), at a host of `hosts`.
    pub url: String,
    /// `GET` or `HEAD`, default `GET`.
    #[serde(default)]
    pub method: ProbeMethod,
    /// The statuses that mean yes, default 200 and 204.
    #[serde(default = "default_statuses")]
    #[schemars(length(min = 1, max = 16))]
    pub statuses: Vec<u16>,
    /// How often to look for a new value, in seconds, 1 to 3600, default 10.
    #[serde(default = "default_probe_refresh_secs")]
    #[schemars(range(min = 1, max = 3600))]
    pub refresh_secs: u64,
    /// How long the value before stays in use while the new one is not accepted or cannot be had, counted from the last look
    /// that went well, in seconds, 0 to 604800, default 86400.
    #[serde(default = "default_probe_max_stale_secs")]
    #[schemars(range(min = 0, max = 604_800))]
    pub max_stale_secs: u64,
}

/// The method of a probe: one that changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeMethod {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
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

// === impl SecretSource ===

impl SecretSource {
    /// Whether it lies on this machine and needs no store.
    #[must_use]
    pub fn is_local(&self) -> bool {
        LOCAL_SCHEMES.iter().any(|scheme| self.below(scheme).is_some())
    }

    /// The entry of `providers` whose grant it is, where it is a person's own.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.below(GRANT_SCHEME)
    }

    /// The ARN of a key of AWS KMS, where it names one: such a key wraps others, and nobody reads it.
    #[must_use]
    pub fn kms_key(&self) -> Option<&str> {
        self.below(KMS_SCHEME)
    }

    /// What follows `SCHEME://`.
    fn below(&self, scheme: &str) -> Option<&str> {
        self.reference.strip_prefix(scheme)?.strip_prefix("://")
    }
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

// === impl Risk ===

impl Risk {
    /// The name in `keyward.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
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

/// A key without a value is a list without entries, which is refused; it must not read as absent.
fn listed<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<String>>, D::Error> {
    Vec::deserialize(value).map(Some)
}

fn default_statuses() -> Vec<u16> {
    vec![200, 204]
}

fn default_probe_refresh_secs() -> u64 {
    10
}

fn default_probe_max_stale_secs() -> u64 {
    86400
}
