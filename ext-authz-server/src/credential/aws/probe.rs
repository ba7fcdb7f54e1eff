//! Whether a credential could be had for a tenant, step by step, each with its remedy: for `keyward aws check` and the
//! doctor. Roles are really assumed; what comes of it is thrown away.

use std::sync::Arc;

use super::session::MAX_CHAINED_SECS;
use super::{Aws, Source};
use crate::caller::Caller;
use crate::freshness::MintError;
use crate::sources::Sources;

/// One step and what came of it.
pub struct Finding {
    /// What was tried.
    pub step: &'static str,
    /// What was seen, or what is wrong and what to do.
    pub result: Result<String, MintError>,
}

// === impl Aws ===

impl Aws {
    /// Tries everything for this caller; the first step that fails is the last.
    pub async fn probe(self: &Arc<Self>, caller: &Arc<Caller>, sources: &Arc<Sources>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Ok(Source::Role(role)) = &self.source {
            let identity = role.identity(caller, &sources.secrets).await;
            let temporary = identity.as_ref().is_ok_and(|(_, temporary)| *temporary);
            findings.push(Finding { step: "identity", result: identity.map(|(arn, _)| arn) });
            let external_id = role.external_id(caller, &sources.secrets).await;
            let shown = |id: Option<String>| match id {
                Some(_) => "the tenant has its own".to_owned(),
                None => "none: any caller of Keyward's account could be led to this role".to_owned(),
            };
            findings.push(Finding { step: "external id", result: external_id.map(shown) });
            if let Ok(wanted) = role.wanted(caller)
                && temporary
                && wanted.session.duration_secs > MAX_CHAINED_SECS
            {
                let seen = format!(
                    "Keyward's identity is a session itself, so sessions last {MAX_CHAINED_SECS} s, not {} s",
                    wanted.session.duration_secs
                );
                findings.push(Finding { step: "duration", result: Ok(seen) });
            }
        }
        if findings.iter().all(|finding| finding.result.is_ok()) {
            let minted = super::Credential::mint(self.clone(), caller.clone(), sources.clone()).await;
            let seen = minted.map(|material| match material.expires() {
                Some(end) => {
                    let left = end.duration_since(std::time::SystemTime::now()).unwrap_or_default();
                    format!("keys for {} s", left.as_secs())
                }
                None => "keys without an end".to_owned(),
            });
            findings.push(Finding { step: "keys", result: seen });
        }
        findings
    }

    /// The external id of a tenant, to be written into the trust policy of its role; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn external_id(&self, caller: &Caller, sources: &Sources) -> Result<Option<String>, MintError> {
        match &self.source {
            Ok(Source::Role(role)) => role.external_id(caller, &sources.secrets).await,
            Ok(_) => Ok(None),
            Err(error) => Err(MintError::rejected(error)),
        }
    }
}
