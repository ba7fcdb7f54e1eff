//! `type: azure`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caching, Kind, check_address};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// Azure Key Vault: `NAME://secret` is the newest version of a secret, `NAME://secret/version` one version.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AzureStore {
    /// The vault, `https://NAME.vault.azure.net`.
    pub address: String,
    /// What tokens are for, default `https://vault.azure.net`; another one in sovereign clouds. The vault's challenge must
    /// name it, and the vault's host must be below it.
    #[serde(default = "resource")]
    pub resource: String,
    /// Where tokens come from. Default: the managed identity that the system assigned.
    #[serde(default)]
    pub auth: AzureAuth,
    /// How long values are used.
    #[serde(default)]
    pub caching: Caching,
}

/// Where tokens for Azure come from.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum AzureAuth {
    /// The managed identity of the machine, from its metadata service.
    ManagedIdentity {
        /// Default `http://169.254.169.254`.
        #[serde(default = "metadata_address")]
        address: String,
        /// The client id of an identity that a user assigned. Default: the one that the system assigned.
        client_id: Option<String>,
    },
    /// An app registration's client secret.
    ClientSecret {
        /// Default `https://login.microsoftonline.com`.
        #[serde(default = "login_address")]
        login_address: String,
        /// The tenant's id.
        tenant_id: String,
        /// The app registration's id.
        client_id: String,
        /// Its secret.
        client_secret: SecretSource,
    },
    /// A token of another issuer (workload identity federation).
    Federation {
        /// Default `https://login.microsoftonline.com`.
        #[serde(default = "login_address")]
        login_address: String,
        /// The tenant's id.
        tenant_id: String,
        /// The id of the app registration or of the managed identity.
        client_id: String,
        /// The other issuer's token, for example `file:///var/run/secrets/azure/tokens/azure-identity-token`.
        assertion: SecretSource,
    },
}

impl Default for AzureAuth {
    fn default() -> AzureAuth {
        AzureAuth::ManagedIdentity { address: metadata_address(), client_id: None }
    }
}

impl Kind for AzureStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match &self.auth {
            AzureAuth::ManagedIdentity { .. } => Vec::new(),
            AzureAuth::ClientSecret { client_secret, .. } => vec![("auth.client_secret", client_secret)],
            AzureAuth::Federation { assertion, .. } => vec![("auth.assertion", assertion)],
        }
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        check_address(key, "address", &self.address, checker);
        check_address(key, "resource", &self.resource, checker);
        match &self.auth {
            AzureAuth::ManagedIdentity { address, .. } => {
                super::check_metadata_address(&format!("{key}.auth.address"), address, checker);
            }
            AzureAuth::ClientSecret { login_address, tenant_id, client_id, .. }
            | AzureAuth::Federation { login_address, tenant_id, client_id, .. } => {
                check_address(key, "auth.login_address", login_address, checker);
                for (name, id) in [("tenant_id", tenant_id), ("client_id", client_id)] {
                    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
                    if id.is_empty() || !id.bytes().all(is_id) {
                        checker.add(
                            format!("{key}.auth.{name}"),
                            format!("`{id}` is not an id"),
                            "write the id as Entra shows it",
                        );
                    }
                }
            }
        }
        self.caching.check(key, checker);
    }
}

fn resource() -> String {
    "https://vault.azure.net".to_owned()
}

fn metadata_address() -> String {
    "http://169.254.169.254".to_owned()
}

fn login_address() -> String {
    "https://login.microsoftonline.com".to_owned()
}
