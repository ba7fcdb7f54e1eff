//! Taking a grant back, here and at its provider, for whoever may: the command line and the operator API.

use std::fmt;

use super::{GrantError, GrantKey};
use crate::audit::record::GrantRecord;
use crate::config::Provider;
use crate::connect::revoke_at_provider;
use crate::snapshot::Snapshot;
use crate::state::State;

/// A grant that was taken back.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Which.
    pub grant: GrantRecord,
    /// What the provider knows of it.
    pub told: Told,
}

/// What a provider knows of a grant that was deleted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has revoked it, too (RFC 7009).
    Revoked,
    /// It has no way to be told.
    NoWay,
    /// It could not be told, and why.
    Failed(String),
    /// There was nothing to tell: the person's own key.
    OwnKey,
}

/// Deletes a grant and tells the replicas, then the provider. `None` where there is none.
///
/// # Errors
/// The store does not answer; the grant may still be there and in use.
pub async fn revoke(key: &GrantKey, state: &State, snapshot: &Snapshot) -> Result<Option<Revoked>, GrantError> {
    let Some((grant, _)) = state.grants.load(key).await? else { return Ok(None) };
    // Here first: whatever the provider says, it is not used any more.
    state.grants.delete(key, None).await?;
    let told = match snapshot.config.providers.get(&key.provider) {
        Some(Provider::Oauth(own)) => match revoke_at_provider(own, &grant.secret, &snapshot.sources).await {
            Ok(true) => Told::Revoked,
            Ok(false) => Told::NoWay,
            Err(error) => Told::Failed(error.to_string()),
        },
        _ => Told::OwnKey,
    };
    let GrantKey { tenant, principal, provider } = key.clone();
    Ok(Some(Revoked { grant: GrantRecord { tenant, principal, provider, scopes: grant.scopes }, told }))
}

// === impl Told ===

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Told::Revoked => "the provider has revoked it, too",
            Told::NoWay => "the provider has no way to be told",
            Told::Failed(_) => "the provider still knows it",
            Told::OwnKey => "a key that a person entered stays valid at the provider",
        })
    }
}
