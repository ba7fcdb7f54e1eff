//! `keyward.yaml`: its types, how it is read, and what is wrong with it.
//!
//! The types say what a file can hold, [`load`](crate::config::load) reads one with positions, and
//! [`check`](crate::config::check) finds everything that is well-formed but must not run. Nothing insecure has a
//! default: no issuer, no binding host, a public plaintext port are all errors.

mod api;
mod binding;
pub(crate) mod check;
mod connect;
pub(crate) mod credential;
mod database;
mod definition;
mod identity;
mod lifecycle;
mod listen;
mod load;
mod node;
mod outbound;
mod position;
mod problem;
mod provider;
mod reference;
mod resource;
mod revocation;
mod server;
mod sessions;
mod shape;
pub(crate) mod store;
mod suggestion;
mod tenants;
mod throttles;

pub use api::{Api, Assignment, Role};
pub use binding::{Binding, BindingMode, Principals, Probe, ProbeMethod, Risk, SecretSource};
pub use connect::{Connect, Login};
pub use credential::{
    Assertion, AwsCredential, AwsEndpoint, AwsExternalId, AwsHop, AwsIdentity, AwsKeys, AwsPayload, AwsRole,
    AwsSession, AwsSignature, AwsSource, AwsTenant, AwsWebIdentity, AzureIdentity, BasicCredential,
    ClientAuthentication, ClientCertificateCredential, Credential, GatewayProofCredential, GithubApp, GoogleKey,
    GoogleMetadata, HeaderCredential, HmacAlgorithm, HmacCredential, Impersonation, KeyEncoding, OauthClient,
    OauthCredential, OauthGrant, PlaceholderCredential, QueryCredential, QueryOrder, ResourceServer, SignatureEncoding,
    SignedPlace, SigningAlgorithm, Surface, TOKEN, TimestampFormat, TokenFrom, TokenKind, TokenSource, UpstreamScheme,
};
pub use database::Database;
pub use identity::{Algorithm, IdentityConfig, Introspection, IntrospectionMethod, Issuer, JwksSource, TokenType};
pub use lifecycle::Lifecycle;
pub use listen::{Listen, ListenAddress, Tls};
pub(crate) use load::read;
pub use load::{Loaded, load, parse};
pub use outbound::OutboundConfig;
pub use problem::{ConfigError, Problem};
pub use provider::{ApiKeyProvider, ClientAuthenticationMethod, OauthProvider, Provider};
pub use reference::reference;
pub use resource::{Dpop, Replay, Resource, Scopes};
pub use revocation::Revocation;
pub use server::{
    Destination, LeakAction, LeakGuard, MethodClass, PerimeterClass, PerimeterConfig, Server, ServerMode,
};
pub use sessions::Sessions;
pub use store::{
    AwsSecretsManagerStore, AwsSsmStore, AzureAuth, AzureStore, Caching, DirectoryStore, GcpAuth, GcpStore,
    KubernetesStore, OnePasswordStore, Store, VaultAuth, VaultStore,
};
pub use tenants::{EVERY_TENANT, Tenant};
pub use throttles::{ThrottlePer, ThrottleRule, ThrottleScope, Throttles, WhenFull, WhenUnavailable};

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// The whole of `keyward.yaml`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The name of the environment, for example `production`: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`. Bindings
    /// of another environment are never used. It is in every audit record.
    pub environment: String,
    /// Where the server listens.
    #[serde(default)]
    pub listen: Listen,
    /// Whose access tokens are accepted.
    pub identity: IdentityConfig,
    /// Where the policy is.
    pub policy: PolicyConfig,
    /// Where the audit trail goes.
    pub audit: AuditConfig,
    /// Where secrets are kept, by name: 1 to 64 characters of a-z, 0-9 and `-`, not `env` or `file`. The name is the scheme of
    /// references. Default: none besides the environment and files.
    #[serde(default)]
    pub stores: BTreeMap<String, Store>,
    /// What Keyward's server may ask although it is not public. Default: loopback addresses that this file names.
    #[serde(default)]
    pub outbound: OutboundConfig,
    /// Where Keyward keeps grants, its own secrets and what replicas share. Default: nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Database")]
    pub database: Option<Database>,
    /// How bindings come into use and go out of it. Default: each one serves as long as it stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Lifecycle")]
    pub lifecycle: Option<Lifecycle>,
    /// The sessions of MCP servers. Default: their ids are sealed for their callers, for 8 hours at most.
    #[serde(default)]
    pub sessions: Sessions,
    /// How the end of somebody's access is heard of. Default: nothing can be revoked but bindings and grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Revocation")]
    pub revocation: Option<Revocation>,
    /// The pages on which people connect accounts. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Connect")]
    pub connect: Option<Connect>,
    /// Who may look at and change what is kept, over `listen.api`. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Api")]
    pub api: Option<Api>,
    /// Where people connect accounts, by name: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`. Default: none.
    #[serde(default)]
    pub providers: BTreeMap<String, Provider>,
    /// Where the perimeter runs. Default: only what is private lies inside, and nothing public is reached.
    #[serde(default)]
    pub perimeter: PerimeterConfig,
    /// The upstreams, by name: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`.
    pub servers: BTreeMap<String, Server>,
    /// Who may call, by the tenant that their token names. Default: every tenant that an issuer names.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Tenant>")]
    pub tenants: Option<BTreeMap<String, Tenant>>,
    /// How many messages may come. Default: as many as the server can decide on.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Throttles")]
    pub throttles: Option<Throttles>,
    /// The credentials and where they may go. Default: none, so that every request is denied.
    #[serde(default)]
    pub bindings: Vec<Binding>,
}

/// The policy and the bounds of one evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// The directory that holds `*.rego` (except `*_test.rego`) and `data.json`. The package is `keyward`, the rule
    /// `decision`. Relative to the configuration file.
    pub directory: PathBuf,
    /// The longest that one evaluation may take, in milliseconds, 1 to 1000, default 50. A longer one denies.
    #[serde(default = "default_evaluation_timeout_ms")]
    #[schemars(range(min = 1, max = 1000))]
    pub evaluation_timeout_ms: u64,
    /// The most instructions that one evaluation may execute, 1000 to 100000000, default 1000000. More denies.
    #[serde(default = "default_max_instructions")]
    #[schemars(range(min = 1000, max = 100_000_000))]
    pub max_instructions: usize,
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// The file to append to, one JSON record a line, relative to the configuration file; `-` for standard output.
    pub file: PathBuf,
    /// The key under which values are fingerprinted in the audit trail: at least 16 bytes.
    pub hmac_key: SecretSource,
    /// How many records may wait to be written, 1 to 1000000, default 4096. A full queue denies with `overloaded`.
    #[serde(default = "default_queue_records")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue_records: usize,
}

/// The published JSON Schema of `keyward.yaml`; `docs/keyward.schema.json` is this document.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("$id".into(), "urn:keyward:configuration:1".into());
    schema.insert("title".into(), "keyward.yaml".into());
    schema.to_value()
}

/// A key without a value is an empty section, which is refused; it must not read as absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

fn default_evaluation_timeout_ms() -> u64 {
    50
}

fn default_max_instructions() -> usize {
    1_000_000
}

fn default_queue_records() -> usize {
    4096
}
