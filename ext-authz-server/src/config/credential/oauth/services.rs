//! What is particular to the token services of clouds and of GitHub.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::SecretSource;

/// The key of a Google service account.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoogleKey {
    /// The JSON file that Google gave, whole.
    pub key: SecretSource,
    /// The user of the domain to act for (domain-wide delegation), with placeholders such as `{user}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub subject: Option<String>,
}

/// Another Google service account to act as (IAM Credentials API).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Impersonation {
    /// Its e-mail address.
    pub account: String,
    /// For an ID token instead of an access token: whom it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub audience: Option<String>,
    /// Where the API is. Default `https://iamcredentials.googleapis.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api: Option<String>,
}

/// Google's metadata server.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoogleMetadata {
    /// Its address. Default `http://169.254.169.254`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub url: Option<String>,
    /// Which of the machine's service accounts. Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub account: Option<String>,
}

/// An identity that Azure manages.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AzureIdentity {
    /// The address of the metadata service. Default `http://169.254.169.254`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub url: Option<String>,
    /// The client id of a user-assigned identity. Default: the machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub client_id: Option<String>,
}

/// A GitHub App and one of its installations.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GithubApp {
    /// The app's client id, or its number.
    pub id: String,
    /// The installation's number.
    #[schemars(range(min = 1))]
    pub installation: u64,
    /// The app's private key, as PEM.
    pub key: SecretSource,
    /// Where the API is. Default `https://api.github.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api: Option<String>,
    /// The repositories to which the token is limited, by name. Empty: all of the installation.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub repositories: Vec<String>,
    /// The permissions to which the token is limited, for example `contents: read`. Empty: all of the installation.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
}
