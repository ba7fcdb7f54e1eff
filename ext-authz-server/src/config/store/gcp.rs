//! `type: gcp`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caching, Kind, check_address};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// Google Cloud's Secret Manager: `NAME://projects/P/secrets/S/versions/V`, where `V` is a number, an alias or `latest`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpStore {
    /// Default `https://secretmanager.googleapis.com`; for regional secrets that of the region.
    #[serde(default = "address")]
    pub address: String,
    /// Where tokens come from. Default: the metadata server.
    #[serde(default)]
    pub auth: GcpAuth,
    /// Where a service account is impersonated, default `https://iamcredentials.googleapis.com`.
    #[serde(default = "impersonation_address")]
    pub impersonation_address: String,
    /// How long values are used.
    #[serde(default)]
    pub caching: Caching,
}

/// Where tokens for Google Cloud come from.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum GcpAuth {
    /// The metadata server of the machine or the pod.
    Metadata {
        /// Default `http://metadata.google.internal`.
        #[serde(default = "metadata_address")]
        address: String,
        /// The service account, default `default`.
        #[serde(default = "default_account")]
        service_account: String,
    },
    /// A service account's key.
    ServiceAccount {
        /// The JSON key file.
        key: SecretSource,
    },
    /// A token of another issuer (workload identity federation).
    Federation {
        /// The provider: `//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/P/providers/R`.
        audience: String,
        /// Default `https://sts.googleapis.com/v1/token`.
        #[serde(default = "token_url")]
        token_url: String,
        /// The other issuer's token.
        subject_token: SecretSource,
        /// Its type, default `urn:ietf:params:oauth:token-type:jwt`.
        #[serde(default = "subject_token_type")]
        subject_token_type: String,
        /// The e-mail address of a service account to act as. Default: none, the federated principal itself has access.
        service_account: Option<String>,
    },
}

impl Default for GcpAuth {
    fn default() -> GcpAuth {
        GcpAuth::Metadata { address: metadata_address(), service_account: default_account() }
    }
}

impl Kind for GcpStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match &self.auth {
            GcpAuth::Metadata { .. } => Vec::new(),
            GcpAuth::ServiceAccount { key } => vec![("auth.key", key)],
            GcpAuth::Federation { subject_token, .. } => vec![("auth.subject_token", subject_token)],
        }
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        check_address(key, "address", &self.address, checker);
        check_address(key, "impersonation_address", &self.impersonation_address, checker);
        match &self.auth {
            GcpAuth::Metadata { address, service_account } => {
                super::check_metadata_address(&format!("{key}.auth.address"), address, checker);
                checker.text(format!("{key}.auth.service_account"), service_account);
            }
            GcpAuth::ServiceAccount { .. } => {}
            GcpAuth::Federation { audience, token_url, .. } => {
                checker.text(format!("{key}.auth.audience"), audience);
                check_address(key, "auth.token_url", token_url, checker);
            }
        }
        self.caching.check(key, checker);
    }
}

fn address() -> String {
    "https://secretmanager.googleapis.com".to_owned()
}

fn impersonation_address() -> String {
    "https://iamcredentials.googleapis.com".to_owned()
}

fn metadata_address() -> String {
    "http://metadata.google.internal".to_owned()
}

fn default_account() -> String {
    "default".to_owned()
}

fn token_url() -> String {
    "https://sts.googleapis.com/v1/token".to_owned()
}

fn subject_token_type() -> String {
    "urn:ietf:params:oauth:token-type:jwt".to_owned()
}
