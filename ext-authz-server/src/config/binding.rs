//! The `bindings` section: which credential, for whom, to which hosts, in which place of the request.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

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

/// One credential and its place on the request.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Credential {
    /// A header; what the client sent under that name is replaced.
    Header {
        /// The header's name, lower case.
        name: String,
        /// The value, with exactly one `{secret}`. Default `{secret}`.
        #[schemars(default = "default_template")]
        template: String,
        /// Where the secret is.
        secret: SecretSource,
    },
    /// A query parameter; what the client sent under that name is replaced.
    Query {
        /// The parameter's name.
        name: String,
        /// The value, with exactly one `{secret}`. Default `{secret}`.
        #[schemars(default = "default_template")]
        template: String,
        /// Where the secret is.
        secret: SecretSource,
    },
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The user name, without a colon.
        username: String,
        /// Where the password is.
        secret: SecretSource,
    },
}

/// Where a secret is and how to take it out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// `env://NAME`, `file:///absolute/path` or `file://path/relative/to/the/configuration`.
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

/// A credential as the file spells it, before its type decides which fields must be there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialForm {
    r#type: CredentialType,
    name: Option<String>,
    username: Option<String>,
    template: Option<String>,
    secret: SecretSource,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CredentialType {
    Header,
    Query,
    Basic,
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

// === impl Credential ===

impl Credential {
    /// Where the secret is.
    #[must_use]
    pub fn secret(&self) -> &SecretSource {
        match self {
            Credential::Header { secret, .. } | Credential::Query { secret, .. } | Credential::Basic { secret, .. } => {
                secret
            }
        }
    }
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let CredentialForm { r#type, name, username, template, secret } = CredentialForm::deserialize(deserializer)?;
        let foreign = |field: &str| de::Error::custom(format!("a credential of this type has no `{field}`: remove it"));
        let missing = |field: &'static str| de::Error::missing_field(field);
        match r#type {
            CredentialType::Basic if name.is_some() => Err(foreign("name")),
            CredentialType::Basic if template.is_some() => Err(foreign("template")),
            CredentialType::Basic => {
                Ok(Credential::Basic { username: username.ok_or_else(|| missing("username"))?, secret })
            }
            _ if username.is_some() => Err(foreign("username")),
            CredentialType::Header => Ok(Credential::Header {
                name: name.ok_or_else(|| missing("name"))?,
                template: template.unwrap_or_else(default_template),
                secret,
            }),
            CredentialType::Query => Ok(Credential::Query {
                name: name.ok_or_else(|| missing("name"))?,
                template: template.unwrap_or_else(default_template),
                secret,
            }),
        }
    }
}

fn default_template() -> String {
    "{secret}".into()
}
