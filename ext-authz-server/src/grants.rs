//! What people have given: one grant for each tenant, principal and provider, and the trait of the store that keeps them.
//!
//! Who refreshes a rotating token has a [`Turn`] at its grant, so that no two replicas send it. What comes of it is stored
//! by compare-and-swap on the version: a person may have connected anew meanwhile, or taken the grant back.

mod revoke;
mod turn;

pub use revoke::{Revoked, Told, revoke};
pub use turn::{Turn, Turns};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::plan::Pending;
use crate::secret::SecretBytes;

/// The longest tenant, principal key or provider name, in bytes.
pub const MAX_PART_BYTES: usize = 2048;

/// Whose grant, and at which provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantKey {
    /// The tenant of the principal.
    pub tenant: String,
    /// [`Principal::key`](crate::identity::Principal::key).
    pub principal: String,
    /// The name in `providers:` of keyward.yaml.
    pub provider: String,
}

/// What a person gave. No `Debug`: it holds a secret.
#[derive(Clone)]
pub struct Grant {
    /// The refresh token (RFC 6749 section 1.5), or the person's own key at a provider of type `api_key`.
    pub secret: Arc<SecretBytes>,
    /// The scopes that were granted, a subset of those that were asked for.
    pub scopes: Vec<String>,
    /// The account at the provider, as the provider names it; for people, never for decisions.
    pub account: Option<String>,
    /// When the person gave it.
    pub given: SystemTime,
    /// When it ends, where that is known. [`Grants::load`] does not return a grant that has ended.
    pub expires: Option<SystemTime>,
}

/// A version of a stored grant; it grows by one with each replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub i64);

/// What came of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new grant is stored under this version.
    Stored(Version),
    /// Another one was stored since: nothing was changed. Load again.
    Lost,
}

/// A grant without its secret, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantCard {
    /// Whose, and where.
    pub key: GrantKey,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The account at the provider.
    pub account: Option<String>,
    /// When the person gave it.
    pub given: SystemTime,
    /// When it was last replaced: given, or refreshed.
    pub changed: SystemTime,
    /// When it ends, where that is known.
    pub expires: Option<SystemTime>,
}

/// Why the store cannot answer. Never a reason to go on without a grant: it denies, and does not ask the person again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grants: {0}")]
pub struct GrantError(pub String);

/// A store of grants.
pub trait Grants: Send + Sync {
    /// The grant as of now and its version; `None` where there is none or it has ended.
    ///
    /// # Errors
    /// The store cannot be reached, or what it holds cannot be opened.
    fn load<'a>(&'a self, key: &'a GrantKey) -> Pending<'a, Result<Option<(Grant, Version)>, GrantError>>;

    /// Stores `grant` if the stored version is still `expected`; `None` means that there must be none that is valid.
    ///
    /// # Errors
    /// The store cannot be reached. Whether the grant was stored is then unknown.
    fn replace<'a>(
        &'a self,
        key: &'a GrantKey,
        expected: Option<Version>,
        grant: &'a Grant,
    ) -> Pending<'a, Result<Replaced, GrantError>>;

    /// Removes the grant if its version is still `version` (after `invalid_grant`), or whatever its version is where that
    /// is `None` (a person or an operator revokes). Returns whether there was one.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn delete<'a>(&'a self, key: &'a GrantKey, version: Option<Version>) -> Pending<'a, Result<bool, GrantError>>;

    /// All grants that have not ended, of one tenant or of all, in order.
    ///
    /// # Errors
    /// The store cannot be reached, or what it holds cannot be opened.
    fn list<'a>(&'a self, tenant: Option<&'a str>) -> Pending<'a, Result<Vec<GrantCard>, GrantError>>;

    /// The turns of this process.
    fn turns(&self) -> &Turns;

    /// Asks for the right to use up the secret of a grant, for `duration`; false while another replica has it. Who has it
    /// and asks again has it for longer. It is part of a [`Turn`].
    ///
    /// # Errors
    /// The store cannot be reached.
    fn lease<'a>(&'a self, key: &'a GrantKey, duration: Duration) -> Pending<'a, Result<bool, GrantError>>;

    /// Gives the right back, where this replica has it.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn release<'a>(&'a self, key: &'a GrantKey) -> Pending<'a, Result<(), GrantError>>;
}

// === impl GrantKey ===

impl GrantKey {
    /// The key of these parts.
    #[must_use]
    pub fn new(tenant: &str, principal: &str, provider: &str) -> GrantKey {
        GrantKey { tenant: tenant.to_owned(), principal: principal.to_owned(), provider: provider.to_owned() }
    }

    /// The parts as one text that no other parts can spell, for seals and invalidations.
    #[must_use]
    pub fn row(&self) -> String {
        let parts = [&self.tenant, &self.principal, &self.provider];
        parts.map(|part| format!("{}:{part}", part.len())).join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_have_one_row() {
        let rows = [("a", "b", "c"), ("a", "b/1:c", ""), ("a/1:b", "c", ""), ("", "a", "b/1:c"), ("a", "", "b/1:c")]
            .map(|(tenant, principal, provider)| GrantKey::new(tenant, principal, provider).row());
        for (position, row) in rows.iter().enumerate() {
            assert!(!rows[..position].contains(row), "{row}");
        }
    }
}
