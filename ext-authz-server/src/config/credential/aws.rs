//! `type: aws`.

pub(crate) mod check;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::SecretSource;

/// A request signed with AWS's SigV4. What the client sent under `authorization`, `x-amz-date`, `x-amz-security-token`,
/// `x-amz-content-sha256` and the query's `X-Amz-*` is removed.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsCredential {
    /// The regions to sign for, 1 to 32. With several, the host name chooses: `SERVICE.REGION.amazonaws.com`.
    #[schemars(length(min = 1, max = 32))]
    pub regions: Vec<String>,
    /// The signing names of the services to sign for, 1 to 64, for example `s3`. With several, the host name chooses.
    #[schemars(length(min = 1, max = 64))]
    pub services: Vec<String>,
    /// Where the signature goes, default `headers`.
    #[serde(default)]
    pub signature: AwsSignature,
    /// How long a signature in the query is good, in seconds, 1 to 604800, default 60.
    #[serde(default = "default_presigned_secs")]
    #[schemars(range(min = 1, max = 604_800))]
    pub presigned_secs: u64,
    /// Whether the body is signed, default `signed`. S3 alone takes `unsigned`, and only over TLS.
    #[serde(default)]
    pub payload: AwsPayload,
    /// Where the keys come from.
    pub source: AwsSource,
}

/// Where a signature goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AwsSignature {
    /// `authorization` and its companions.
    #[default]
    Headers,
    /// The query: a presigned URL.
    Query,
}

/// What the signature says about the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AwsPayload {
    /// Its SHA-256.
    #[default]
    Signed,
    /// `UNSIGNED-PAYLOAD`.
    Unsigned,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AwsSource {
    /// STS `AssumeRole`, with the server's own identity.
    Role(Box<AwsRole>),
    /// STS `AssumeRoleWithWebIdentity`, with a token out of a store.
    WebIdentity(Box<AwsWebIdentity>),
    /// Keys out of a store.
    Static(AwsKeys),
}

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsRole {
    /// The role of tenants that `tenants` does not name, for example `arn:aws:iam::111122223333:role/agents-{tenant}`. Absent:
    /// only the tenants that are named have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub role_arn: Option<String>,
    /// Roles and external ids by tenant.
    #[serde(default)]
    pub tenants: BTreeMap<String, AwsTenant>,
    /// The external id that the role's trust policy demands of Keyward. There is no default.
    pub external_id: AwsExternalId,
    /// What the session is called and may do.
    #[serde(default)]
    pub session: AwsSession,
    /// Roles to go through first, in order, at most 4. A session behind another role lasts an hour at most.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub via: Vec<AwsHop>,
    /// Who asks STS, default `server`.
    #[serde(default)]
    pub identity: AwsIdentity,
    /// Which STS is asked.
    #[serde(default)]
    pub sts: AwsEndpoint,
}

/// What one tenant has of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsTenant {
    /// Its role.
    pub role_arn: String,
    /// Its external id, where `external_id` is `listed`: 16 to 1224 characters. Tenants with one and the same are denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub external_id: Option<SecretSource>,
}

/// Where external ids come from. No client can supply one.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum AwsExternalId {
    /// HMAC-SHA-256 of the tenant under this key. `keyward aws external-id` shows it, for the trust policy.
    Derived {
        /// At least 32 bytes.
        key: SecretSource,
    },
    /// Each tenant's own, under `tenants`.
    Listed,
    /// None: for roles of one's own account only.
    None,
}

/// A role on the way to another one.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsHop {
    /// The role.
    pub role_arn: String,
    /// Its external id, if its trust policy demands one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub external_id: Option<SecretSource>,
}

/// Who asks STS, or a store.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AwsIdentity {
    /// The server's own, as AWS's SDKs find it: environment, profile, web identity (IRSA), container (Pod Identity), IMDSv2.
    #[default]
    Server,
    /// Keys from the environment or a file.
    Static(AwsKeys),
}

/// Keys.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsKeys {
    /// Where the key's id is.
    pub access_key_id: SecretSource,
    /// Where the secret is.
    pub secret_access_key: SecretSource,
    /// Where the session token is, with temporary keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub session_token: Option<SecretSource>,
}

/// A role to assume with a token of another issuer.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsWebIdentity {
    /// The role, for example `arn:aws:iam::111122223333:role/agents-{tenant}`.
    pub role_arn: String,
    /// Where the token is; read anew for each session.
    pub token: SecretSource,
    /// What the session is called and may do. Tags and the source identity are the token's, so none may stand here.
    #[serde(default)]
    pub session: AwsSession,
    /// Which STS is asked.
    #[serde(default)]
    pub sts: AwsEndpoint,
}

/// What a session is called and may do. In every text stand `{tenant}`, `{environment}`, `{server}`, `{user}`, `{agent}`,
/// `{issuer}`, `{subject}` (user or agent), `{claim:NAME}` and `{request}` (the decision's id) for the caller's own. Two
/// of them have something between them that no value holds: `+` or `,` in names, `/` in policies; a tag holds one. What
/// IAM does not take denies.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSession {
    /// The session's name, which CloudTrail shows, 2 to 64 characters, default `{user}+{agent}`; `{user}` for a person
    /// without an agent, `+{agent}` for an agent that acts for itself. In values all but letters, digits and `_.@-` becomes
    /// `=` and two hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// The source identity, which stays through further roles, 2 to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub source_identity: Option<String>,
    /// Session tags, at most 50; keys of 1 to 128 characters, values of up to 256.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The keys of tags that stay through further roles.
    #[serde(default)]
    pub transitive_tags: Vec<String>,
    /// A policy that the session cannot exceed, as IAM writes policies; at most 2048 characters. Values become percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<serde_json::Value>,
    /// Managed policies that the session cannot exceed, at most 10.
    #[serde(default)]
    #[schemars(length(max = 10))]
    pub policy_arns: Vec<String>,
    /// How long a session lasts, in seconds, 900 to 43200, default 3600; at most the role's `MaxSessionDuration`. Behind
    /// another role it is 3600 at most, whatever stands here.
    #[serde(default = "default_duration_secs")]
    #[schemars(range(min = 900, max = 43200))]
    pub duration_secs: u32,
}

/// Which endpoint of AWS is asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsEndpoint {
    /// The region, default the first of `regions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub region: Option<String>,
    /// The URL of a private endpoint, default the region's public one. `http` on loopback only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub endpoint: Option<String>,
}

impl Default for AwsSession {
    fn default() -> AwsSession {
        AwsSession {
            name: None,
            source_identity: None,
            tags: BTreeMap::new(),
            transitive_tags: Vec::new(),
            policy: None,
            policy_arns: Vec::new(),
            duration_secs: default_duration_secs(),
        }
    }
}

fn default_presigned_secs() -> u64 {
    60
}

fn default_duration_secs() -> u32 {
    3600
}
