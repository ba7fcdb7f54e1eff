//! After the start, a look at whether each tenant's role of AWS can be had: trust, external id and `MaxSessionDuration`
//! show when a role is assumed, and no caller should be the first to learn of them.
//!
//! It runs beside serving. What is wrong is a line in the log with what to do, and nothing else: the calls of other tenants
//! go on, so the server is ready all the same. `keyward doctor` looks at the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::caller::Caller;
use crate::config::{Binding, Credential as Configured};
use crate::credential::aws::Aws;
use crate::engine::Engine;
use crate::freshness::{MintError, MintErrorKind};
use crate::identity::Principal;
use crate::snapshot::Snapshot;

/// How long one tenant may take.
const TENANT_TIMEOUT: Duration = Duration::from_secs(12);
/// How long all of them may take; those that are left then are not looked at.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(120);

/// Looks once at every tenant that the configuration names, one after the other. Bindings that do not serve are left out:
/// nothing is done with their roles.
pub async fn look(engine: Arc<Engine>, snapshot: Arc<Snapshot>) {
    let began = Instant::now();
    for binding in snapshot.config.bindings.iter().filter(|own| own.environment == snapshot.config.environment) {
        for aws in binding.credentials.iter().filter_map(of) {
            for tenant in aws.tenants(&snapshot.config.identity) {
                if began.elapsed() > TOTAL_TIMEOUT {
                    tracing::warn!(
                        "not every tenant's role of AWS was looked at in time; `keyward aws check` looks at one"
                    );
                    return;
                }
                if engine.plan().catalogue().serves_now(&binding.id) {
                    let late =
                        |_| Err(MintError::transient("no answer in time; check that STS can be reached from here"));
                    let seen = tokio::time::timeout(TENANT_TIMEOUT, probe(&snapshot, binding, &aws, &tenant)).await;
                    say(&binding.id, &tenant, seen.unwrap_or_else(late));
                }
            }
        }
    }
}

/// The credential of AWS that this is, if it is one.
pub(crate) fn of(credential: &Configured) -> Option<Arc<Aws>> {
    match credential {
        Configured::Aws(own) => Some(Arc::new(Aws::new(own.clone()))),
        _ => None,
    }
}

/// Tries to have the role of a tenant, as far as that is possible while nobody calls.
///
/// # Errors
/// What is wrong and what to do; that a caller is needed.
pub(crate) async fn probe(
    snapshot: &Snapshot,
    binding: &Binding,
    aws: &Arc<Aws>,
    tenant: &str,
) -> Result<String, MintError> {
    let issuer = match snapshot.config.identity.issuers.as_slice() {
        [only] => only.name.clone(),
        _ => String::new(),
    };
    let place = Caller {
        server: binding.servers.first().cloned().unwrap_or_default(),
        principal: Arc::new(Principal { tenant: tenant.to_owned(), issuer, ..Principal::nobody() }),
        ..Caller::none(&snapshot.config.environment)
    };
    aws.probe_place(&place, &snapshot.sources).await
}

fn say(binding: &str, tenant: &str, seen: Result<String, MintError>) {
    match seen {
        Ok(seen) => tracing::info!(binding, tenant, seen, "the role of a tenant can be had"),
        Err(MintError { kind: MintErrorKind::NeedsCaller, cause }) => {
            tracing::debug!(binding, tenant, cause, "whether the role of a tenant can be had depends on the caller");
        }
        Err(MintError { cause, .. }) => tracing::warn!(binding, tenant, cause, "the role of a tenant cannot be had"),
    }
}
