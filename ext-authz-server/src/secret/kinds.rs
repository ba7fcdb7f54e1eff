//! The list of stores: from what configuration says to what does it.

use std::sync::Arc;

use super::directory::Directory;
use super::{SecretStore, Secrets};
use crate::config::Store;
use crate::outbound::Outbound;

/// The store that this part of a configuration describes. `local` holds what the store itself needs to get in, and
/// `outbound` is its only way to the network.
#[must_use]
pub fn of(_name: &str, configured: &Store, _local: &Arc<Secrets>, _outbound: &Outbound) -> Arc<dyn SecretStore> {
    match configured {
        Store::Directory(own) => Arc::new(Directory::new(own)),
    }
}
