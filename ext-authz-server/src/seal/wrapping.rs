//! Which key-encryption keys wrap which data keys: the operator's, or those of a tenant that has its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Scope, WrapKey};

/// Key-encryption keys, the newest first. A data key of a tenant that has keys of its own is never wrapped under one of
/// all tenants again.
#[derive(Clone, Default)]
pub struct Wrapping {
    all: Vec<Arc<dyn WrapKey>>,
    tenants: HashMap<String, Vec<Arc<dyn WrapKey>>>,
}

// === impl Wrapping ===

impl From<Vec<Arc<dyn WrapKey>>> for Wrapping {
    fn from(all: Vec<Arc<dyn WrapKey>>) -> Wrapping {
        Wrapping { all, tenants: HashMap::new() }
    }
}

impl Wrapping {
    /// The same with these keys for one tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: &str, keys: Vec<Arc<dyn WrapKey>>) -> Wrapping {
        self.tenants.insert(Scope::Tenant(tenant).name(), keys);
        self
    }

    /// Whether some scope has no key.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.all.is_empty() || self.tenants.values().any(Vec::is_empty)
    }

    /// The key that wraps in this scope.
    pub(super) fn newest(&self, scope: &str) -> Option<&Arc<dyn WrapKey>> {
        self.tenants.get(scope).unwrap_or(&self.all).first()
    }

    /// The key of this id that opens in this scope: a tenant's own, or one from before it had its own.
    pub(super) fn find(&self, scope: &str, id: &str) -> Option<&Arc<dyn WrapKey>> {
        let own = self.tenants.get(scope).into_iter().flatten();
        own.chain(&self.all).find(|key| key.id() == id)
    }
}
