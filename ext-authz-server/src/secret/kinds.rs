//! The list of stores: from what configuration says to what does it.

use std::sync::Arc;

use super::aws::{Parameters, SecretsManager};
use super::directory::Directory;
use super::{SecretStore, Secrets};
use crate::config::Store;
use crate::outbound::Outbound;

/// The store that this part of a configuration describes. `local` holds what the store itself needs to get in, and
/// `outbound` is its only way to the network.
#[must_use]
pub fn of(name: &str, configured: &Store, local: &Arc<Secrets>, _outbound: &Outbound) -> Arc<dyn SecretStore> {
    match configured {
        Store::Directory(own) => Arc::new(Directory::new(own)),
        Store::AwsSecretsManager(own) => Arc::new(SecretsManager::new(name, own, local)),
        Store::AwsSsm(own) => Arc::new(Parameters::new(name, own, local)),
    }
}
