//! The `stores` section: where secrets are kept, besides the environment and files.

mod aws;
mod azure;
mod directory;
mod gcp;
mod kubernetes;
mod onepassword;
mod vault;

pub use aws::{AwsSecretsManagerStore, AwsSsmStore};
pub use azure::{AzureAuth, AzureStore};
pub use directory::DirectoryStore;
pub use gcp::{GcpAuth, GcpStore};
pub use kubernetes::KubernetesStore;
pub use onepassword::OnePasswordStore;
pub use vault::{VaultAuth, VaultStore};

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;
use super::check::Checker;

/// One store; its name is the scheme of references to it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Store {
    /// A folder of secret files.
    Directory(DirectoryStore),
    /// HashiCorp Vault or OpenBao.
    Vault(VaultStore),
    /// Secrets of a Kubernetes cluster.
    Kubernetes(KubernetesStore),
    /// Google Cloud's Secret Manager.
    Gcp(GcpStore),
    /// Azure Key Vault.
    Azure(AzureStore),
    /// A 1Password Connect server.
    #[serde(rename = "onepassword")]
    OnePassword(OnePasswordStore),
    /// AWS Secrets Manager.
    AwsSecretsManager(AwsSecretsManagerStore),
    /// The Parameter Store of AWS Systems Manager.
    AwsSsm(AwsSsmStore),
}

/// What configuration can say of any store.
pub(crate) trait Kind {
    /// The secrets that it needs itself, each under its key below the store. They come from the environment or from files.
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        Vec::new()
    }

    /// Adds what must not stand here; `key` is the place of the store.
    fn check(&self, key: &str, checker: &mut Checker<'_>);

    /// Makes relative paths relative to the folder of the configuration.
    fn resolve_paths(&mut self, _base: &std::path::Path) {}
}

/// How long values of a remote store are used: part of every such store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caching {
    /// How often a value in use is looked at again, in seconds, 1 to 86400, default 60.
    #[serde(default = "default_refresh_secs")]
    #[schemars(range(min = 1, max = 86400))]
    pub refresh_secs: u64,
    /// How old a value in use may become while the store cannot be had, counted from when it was had, in seconds, 0 to 86400,
    /// default 300. After that, requests are denied. Less than `refresh_secs` bridges nothing.
    #[serde(default = "default_max_stale_secs")]
    #[schemars(range(min = 0, max = 86400))]
    pub max_stale_secs: u64,
}

/// Checks the address of a store, or of what gives tokens for it.
fn check_address(key: &str, name: &str, address: &str, checker: &mut Checker<'_>) {
    if let Err(cause) = crate::identity::jwks::check_url(address) {
        let message = format!("the address cannot be used: {cause}");
        checker.add(format!("{key}.{name}"), message, "write `https://host:port`; `http` is for loopback only");
    }
}

/// Checks the address of a cloud's metadata server, which has no TLS.
fn check_metadata_address(key: &str, address: &str, checker: &mut Checker<'_>) {
    let is_known = crate::outbound::METADATA_SERVERS.iter().any(|known| address.trim_end_matches('/') == *known);
    if !is_known && crate::identity::jwks::check_url(address).is_err() {
        let message = "the address is that of no metadata server";
        checker.add(key, message, "leave it out: the default is the cloud's own");
    }
}

/// The token that Kubernetes puts into each pod.
fn service_account_token() -> SecretSource {
    SecretSource {
        reference: "file:///var/run/secrets/kubernetes.io/serviceaccount/token".to_owned(),
        json_key: None,
        trim_newline: false,
    }
}

// === impl Store ===

impl Store {
    /// What can be said of any store.
    pub(crate) fn kind(&self) -> &dyn Kind {
        match self {
            Store::Directory(own) => own,
            Store::Vault(own) => own,
            Store::Kubernetes(own) => own,
            Store::Gcp(own) => own,
            Store::Azure(own) => own,
            Store::OnePassword(own) => own,
            Store::AwsSecretsManager(own) => own,
            Store::AwsSsm(own) => own,
        }
    }

    /// The same, to be changed.
    pub(crate) fn kind_mut(&mut self) -> &mut dyn Kind {
        match self {
            Store::Directory(own) => own,
            Store::Vault(own) => own,
            Store::Kubernetes(own) => own,
            Store::Gcp(own) => own,
            Store::Azure(own) => own,
            Store::OnePassword(own) => own,
            Store::AwsSecretsManager(own) => own,
            Store::AwsSsm(own) => own,
        }
    }
}

// === impl Caching ===

impl Caching {
    /// Adds what is out of range.
    pub(crate) fn check(&self, key: &str, checker: &mut Checker<'_>) {
        checker.range(format!("{key}.caching.refresh_secs"), self.refresh_secs, 1..=86400);
        checker.range(format!("{key}.caching.max_stale_secs"), self.max_stale_secs, 0..=86400);
    }
}

impl Default for Caching {
    fn default() -> Caching {
        Caching { refresh_secs: default_refresh_secs(), max_stale_secs: default_max_stale_secs() }
    }
}

fn default_refresh_secs() -> u64 {
    60
}

fn default_max_stale_secs() -> u64 {
    300
}
