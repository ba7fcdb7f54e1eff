//! `type: aws_secrets_manager` and `type: aws_ssm`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caching, Kind};
use crate::config::check::Checker;
use crate::config::credential::aws::check::{endpoint, identity_secrets};
use crate::config::{AwsEndpoint, AwsIdentity, SecretSource};

/// AWS Secrets Manager. `NAME://secret-id` is the current version; `?stage=AWSPENDING`, `?stage=AWSPREVIOUS` or
/// `?version=ID` choose another one. The id is a name or an ARN.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSecretsManagerStore {
    /// The region.
    pub region: String,
    /// The URL of a private endpoint, default the region's public one. `http` on loopback only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub endpoint: Option<String>,
    /// Who asks, default `server`.
    #[serde(default)]
    pub identity: AwsIdentity,
    /// How long values are used.
    #[serde(default)]
    pub caching: Caching,
}

/// The Parameter Store of AWS Systems Manager. `NAME:///path/to/parameter` is the latest version; `?version=NUMBER` or
/// `?label=LABEL` choose another one. Secure strings are decrypted.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSsmStore {
    /// The region.
    pub region: String,
    /// The URL of a private endpoint, default the region's public one. `http` on loopback only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub endpoint: Option<String>,
    /// Who asks, default `server`.
    #[serde(default)]
    pub identity: AwsIdentity,
    /// How long values are used.
    #[serde(default)]
    pub caching: Caching,
}

impl Kind for AwsSecretsManagerStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        identity_secrets(&self.identity)
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        check(key, &self.region, self.endpoint.as_ref(), self.caching, checker);
    }
}

impl Kind for AwsSsmStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        identity_secrets(&self.identity)
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        check(key, &self.region, self.endpoint.as_ref(), self.caching, checker);
    }
}

fn check(key: &str, region: &str, url: Option<&String>, caching: Caching, checker: &mut Checker<'_>) {
    endpoint(key, &AwsEndpoint { region: Some(region.to_owned()), endpoint: url.cloned() }, checker);
    caching.check(key, checker);
}
