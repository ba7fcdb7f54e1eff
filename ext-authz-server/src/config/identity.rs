//! The `identity` section: issuers, their keys, and which claims mean what.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Replay, SecretSource};

/// Whose access tokens are accepted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// At least one: there is no anonymous access.
    #[schemars(length(min = 1, max = 64))]
    pub issuers: Vec<Issuer>,
    /// What is remembered of proofs and one-time tokens: in the `database` where there is one, else in memory.
    #[serde(default)]
    pub replay: Replay,
    /// The key of the nonces for proofs of possession, at least 32 bytes, the same for all replicas. Default: one that each
    /// process makes for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub dpop_nonce_key: Option<SecretSource>,
}

/// One issuer of JWT access tokens (RFC 7519, RFC 9068).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// A short name, part of every principal's key: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`. Never change it.
    pub name: String,
    /// What `iss` must be, byte for byte.
    pub issuer: String,
    /// `aud` must hold one of these, byte for byte.
    #[schemars(length(min = 1, max = 32))]
    pub audiences: Vec<String>,
    /// The signature algorithms that are accepted; asymmetric ones only.
    #[schemars(length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// The issuer's public keys (RFC 7517).
    pub jwks: JwksSource,
    /// The claim that names who acts, default `sub`. Never a display name or an e-mail address: both can change hands.
    /// Like the other two claims, a JSON pointer where it begins with `/`, for example `/realm_access/roles`.
    #[serde(default = "default_subject_claim")]
    pub subject_claim: String,
    /// The claim that names the agent's own client id, default `client_id`.
    #[serde(default = "default_agent_claim")]
    pub agent_claim: String,
    /// The claim that holds the roles, an array of strings or one string of words, default `roles`.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
    /// The claim that names the organisation (tenant) of who acts; a token without it is refused. Only where there is one
    /// issuer, or where `tenants` says which of them may name whom. Absent: the issuer's `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub tenant_claim: Option<String>,
    /// How far the issuer's clock may differ, in seconds, 0 to 300, default 30.
    #[serde(default = "default_clock_skew_secs")]
    #[schemars(range(min = 0, max = 300))]
    pub clock_skew_secs: u64,
    /// The longest token, in bytes, 256 to 65536, default 8192.
    #[serde(default = "default_max_token_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    pub max_token_bytes: usize,
    /// The longest that a token may live, from `iat` to `exp`, in seconds, 10 to 31536000; a token without `iat` is refused
    /// then. Absent: as long as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 10, max = 31_536_000))]
    pub max_lifetime_secs: Option<u64>,
    /// Which `typ` a token must have, default `any`.
    #[serde(default)]
    pub token_type: TokenType,
    /// Whether each token serves for one request only, by its `jti`, default false. A token without `jti` is refused then.
    #[serde(default)]
    pub one_time: bool,
    /// Whether tokens of this issuer only say who calls and never lead to a credential, default false: a workload's first
    /// token, with which it gets the one it works with.
    #[serde(default)]
    pub bootstrap: bool,
    /// How tokens that say nothing by themselves are looked up (RFC 7662). Absent: only JWTs are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Introspection")]
    pub introspection: Option<Introspection>,
}

/// Which `typ` an access token must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    /// `at+jwt`, `JWT` or none.
    #[default]
    Any,
    /// `at+jwt` only, as RFC 9068 section 4 demands: no id token passes for an access token.
    AtJwt,
}

/// An introspection endpoint and Keyward's client there (RFC 7662). The answer must name `exp`, `aud` and `token_type`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// The endpoint, `https` (or `http` on loopback).
    pub endpoint: String,
    /// The client id.
    pub client_id: String,
    /// The client's secret: `env://` or `file://`.
    pub client_secret: SecretSource,
    /// How the client proves who it is, default `client_secret_basic`.
    #[serde(default)]
    pub authentication: IntrospectionMethod,
    /// How long an answer is believed, in seconds, 0 to 300, default 30; never longer than the token lives.
    #[serde(default = "default_cache_secs")]
    #[schemars(range(min = 0, max = 300))]
    pub cache_secs: u64,
}

/// How Keyward proves who it is at an introspection endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectionMethod {
    /// Id and secret in the `authorization` header, each form-encoded (RFC 6749, 2.3.1).
    #[default]
    ClientSecretBasic,
    /// Id and secret in the form.
    ClientSecretPost,
}

/// Where the keys are: exactly one of `file` and `url`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["file"]}, {"required": ["url"]}]))]
pub struct JwksSource {
    /// A JWK Set file, relative to the configuration file; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PathBuf")]
    pub file: Option<PathBuf>,
    /// An `https` address of a JWK Set (`http` on loopback only); redirects are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub url: Option<String>,
    /// How often to fetch `url` again, in seconds, 10 to 86400, default 300. An unknown key id is looked up at once, but not
    /// more often than every 10 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 10, max = 86400))]
    pub refresh_secs: Option<u64>,
    /// How long keys stay in use while `url` cannot be fetched, in seconds, 60 to 604800, default 3600. After that, tokens
    /// of this issuer are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 60, max = 604_800))]
    pub max_stale_secs: Option<u64>,
}

/// A JWS signature algorithm (RFC 7518 section 3.1, RFC 8037). `none` and the HMAC family do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// ECDSA, P-256 and SHA-256.
    ES256,
    /// ECDSA, P-384 and SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// RSASSA-PKCS1-v1_5 and SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 and SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 and SHA-512.
    RS512,
    /// RSASSA-PSS and SHA-256.
    PS256,
    /// RSASSA-PSS and SHA-384.
    PS384,
    /// RSASSA-PSS and SHA-512.
    PS512,
}

// === impl JwksSource ===

impl JwksSource {
    /// How often to fetch `url`, in seconds.
    #[must_use]
    pub fn refresh_secs(&self) -> u64 {
        self.refresh_secs.unwrap_or(300)
    }

    /// How long keys stay in use during an outage, in seconds.
    #[must_use]
    pub fn max_stale_secs(&self) -> u64 {
        self.max_stale_secs.unwrap_or(3600)
    }
}

fn default_subject_claim() -> String {
    "sub".into()
}

fn default_agent_claim() -> String {
    "client_id".into()
}

fn default_roles_claim() -> String {
    "roles".into()
}

fn default_clock_skew_secs() -> u64 {
    30
}

fn default_cache_secs() -> u64 {
    30
}

fn default_max_token_bytes() -> usize {
    8192
}
