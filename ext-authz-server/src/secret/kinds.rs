//! The list of stores: from what configuration says to what does it.

use std::sync::Arc;

use super::aws::{Parameters, SecretsManager};
use super::azure::Azure;
use super::directory::Directory;
use super::gcp::Gcp;
use super::kubernetes::Kubernetes;
use super::onepassword::OnePassword;
use super::vault::Vault;
use super::{SecretStore, Secrets};
use crate::config::Store;
use crate::outbound::Outbound;

/// The store that this part of a configuration describes. `local` holds what the store itself needs to get in, and
/// `outbound` is its only way to the network.
#[must_use]
pub fn of(name: &str, configured: &Store, local: &Arc<Secrets>, outbound: &Outbound) -> Arc<dyn SecretStore> {
    match configured {
        Store::Directory(own) => Arc::new(Directory::new(own)),
        Store::Vault(own) => Arc::new(Vault::new(name, own, local, outbound)),
        Store::Kubernetes(own) => Arc::new(Kubernetes::new(name, own, local, outbound)),
        Store::Gcp(own) => Arc::new(Gcp::new(name, own, local, outbound)),
        Store::Azure(own) => Arc::new(Azure::new(name, own, local, outbound)),
        Store::OnePassword(own) => Arc::new(OnePassword::new(name, own, local, outbound)),
        Store::AwsSecretsManager(own) => Arc::new(SecretsManager::new(name, own, local)),
        Store::AwsSsm(own) => Arc::new(Parameters::new(name, own, local)),
    }
}
