//! Whether a credential could be had for a tenant, step by step, each with its remedy: for `keyward aws check`, the doctor
//! and the look after a start. Roles are really assumed; what comes of it is thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::role::RoleError;
use super::session::MAX_CHAINED_SECS;
use super::{Aws, Source};
use crate::caller::{Caller, PlaceholderError};
use crate::config::credential::Kind as _;
use crate::config::{AwsSource, IdentityConfig};
use crate::freshness::MintError;
use crate::identity::Principal;
use crate::sources::Sources;

/// Who stands in for the callers of a tenant, and for the id of a decision, while there are none.
const STAND_IN: &str = "keyward-check";

/// One step and what came of it.
pub struct Finding {
    /// What was tried.
    pub step: &'static str,
    /// What was seen, or what is wrong and what to do.
    pub result: Result<String, MintError>,
}

// === impl Finding ===

impl Finding {
    /// Both in one text.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub(super) fn told(self) -> Result<String, MintError> {
        let Finding { step, result } = self;
        match result {
            Ok(seen) => Ok(format!("{step}: {seen}")),
            Err(error) => Err(MintError { cause: format!("{step}: {}", error.cause), ..error }),
        }
    }
}

// === impl Aws ===

impl Aws {
    /// The tenants that configuration alone knows: those with a role of their own, and the one of all callers where no claim
    /// names tenants.
    pub(crate) fn tenants(&self, identity: &IdentityConfig) -> BTreeSet<String> {
        let only = match identity.issuers.as_slice() {
            [only] if only.tenant_claim.is_none() => Some(&only.name),
            _ => None,
        };
        match &self.configured.source {
            AwsSource::Role(own) => {
                own.tenants.keys().chain(only.filter(|_| own.role_arn.is_some())).cloned().collect()
            }
            AwsSource::WebIdentity(_) => only.into_iter().cloned().collect(),
            AwsSource::Static(_) => BTreeSet::new(),
        }
    }

    /// Tries everything while nobody calls, and says what was seen. `place` has what all callers of a tenant have in common;
    /// somebody made up stands in for who calls.
    ///
    /// # Errors
    /// The first step that fails; that a caller is needed, where a secret or the session is made of what only one has.
    pub(crate) async fn probe_place(
        self: &Arc<Self>,
        place: &Caller,
        sources: &Arc<Sources>,
    ) -> Result<String, MintError> {
        for (_, source) in self.configured.secrets() {
            // Nobody made up has a secret of their own.
            if let Err(error @ PlaceholderError::Absent(_)) = place.fill(&source.reference) {
                return Err(MintError::needs_caller(error));
            }
        }
        let principal =
            Principal { subject: STAND_IN.to_owned(), agent: Some(STAND_IN.to_owned()), ..(*place.principal).clone() };
        let caller = Caller { principal: Arc::new(principal), decision_id: STAND_IN.to_owned(), ..place.clone() };
        let lacking = match &self.source {
            Ok(Source::Role(own)) => own.wanted(&caller).err(),
            Ok(Source::WebIdentity(own)) => own.wanted(&caller).err(),
            Ok(Source::Static(_)) | Err(_) => None,
        };
        if let Some(error) = lacking.filter(RoleError::lacks_a_property) {
            return Err(MintError::needs_caller(error));
        }
        let findings = self.probe(&Arc::new(caller), sources).await.into_iter().map(Finding::told);
        Ok(findings.collect::<Result<Vec<String>, MintError>>()?.join(", "))
    }

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::credential::aws::scripted::{Sts, keys, refusal};
    use crate::freshness::MintErrorKind;
    use crate::scratch::Scratch;
    use crate::secret::Secrets;

    const ROLE: &str = "arn:aws:iam::111122223333:role/agents-{tenant}";

    fn aws(source: Value) -> Arc<Aws> {
        let configured = json!({"regions": ["eu-central-1"], "services": ["s3"], "source": source});
        Arc::new(Aws::new(serde_json::from_value(configured).unwrap()))
    }

    /// A role that is assumed at this STS.
    fn role(sts: &Sts, session: Value) -> Value {
        json!({
            "type": "role", "role_arn": ROLE, "external_id": {"type": "none"}, "session": session,
            "identity": {
                "type": "static", "access_key_id": {"ref": "file://id"}, "secret_access_key": {"ref": "file://key"},
            },
            "sts": {"endpoint": sts.url},
        })
    }

    /// What is seen for the tenant `acme`.
    async fn seen(source: Value) -> Result<String, MintError> {
        let dir = Scratch::new();
        dir.write("id", "AKIDEXAMPLE");
        dir.write("key", "an-example-secret-key");
        let sources = Arc::new(Sources::new(Arc::new(Secrets::standard(dir.path()))));
        let principal = Principal { tenant: "acme".into(), ..Principal::nobody() };
        let place = Caller { principal: Arc::new(principal), ..Caller::none("test") };
        aws(source).probe_place(&place, &sources).await
    }

    #[test]
    fn tenants_are_known_by_their_roles_or_where_all_callers_are_of_one() {
        let issuer = |name: &str, tenant_claim: Option<&str>| {
            json!({
                "name": name, "issuer": format!("https://{name}.example"), "audiences": ["https://mcp.example"],
                "algorithms": ["ES256"], "jwks": {"file": "jwks.json"}, "tenant_claim": tenant_claim,
            })
        };
        let tenants = |source: &Value, issuers: Value| -> Vec<String> {
            let identity = serde_json::from_value(json!({ "issuers": issuers })).unwrap();
            aws(source.clone()).tenants(&identity).into_iter().collect()
        };
        let one = json!([issuer("corporate", None)]);
        let of_claim = json!([issuer("corporate", Some("org"))]);
        let two = json!([issuer("corporate", None), issuer("other", None)]);
        let own = json!({"acme": {"role_arn": "arn:aws:iam::111122223333:role/a"}});
        let named = json!({"type": "role", "tenants": own, "external_id": {"type": "none"}});
        let mut all = named.clone();
        all["role_arn"] = json!(ROLE);
        assert_eq!(tenants(&named, one.clone()), ["acme"]);
        assert_eq!(tenants(&all, one.clone()), ["acme", "corporate"]);
        assert_eq!(tenants(&all, of_claim.clone()), ["acme"]);
        assert_eq!(tenants(&all, two), ["acme"]);
        let token = json!({"type": "web_identity", "role_arn": ROLE, "token": {"ref": "file://token"}});
        assert_eq!(tenants(&token, one.clone()), ["corporate"]);
        assert!(tenants(&token, of_claim).is_empty());
        let id = json!({"ref": "file://id"});
        assert!(tenants(&json!({"type": "static", "access_key_id": id, "secret_access_key": id}), one).is_empty());
    }

    #[tokio::test]
    async fn somebody_made_up_stands_in_for_the_callers_of_a_tenant() {
        let sts = Sts::start(vec![keys()]).await;
        let session = json!({"name": "{user}+{agent}", "tags": {"tenant": "{tenant}", "request": "{request}"}});
        let seen = seen(role(&sts, session)).await.unwrap();
        assert!(seen.starts_with("identity: arn:aws:iam::111122223333:user/keyward, external id: "), "{seen}");
        assert!(seen.contains(", keys: keys for "), "{seen}");
        let asked = sts.asked();
        assert_eq!(asked.len(), 1);
        for part in ["role%2Fagents-acme&", "RoleSessionName=keyward-check%2Bkeyward-check&", "2.Value=acme"] {
            assert!(asked[0].contains(part), "{part}: {}", asked[0]);
        }
    }

    #[tokio::test]
    async fn what_only_a_caller_has_is_not_made_up() {
        let sts = Sts::start(vec![keys()]).await;
        let of_claim = role(&sts, json!({"tags": {"team": "{claim:team}"}}));
        let mut own_secret = role(&sts, json!({}));
        own_secret["external_id"] = json!({"type": "derived", "key": {"ref": "file://{user}"}});
        for (source, missing) in [(of_claim, "claim:team"), (own_secret, "user")] {
            let error = seen(source).await.unwrap_err();
            assert_eq!(error.kind, MintErrorKind::NeedsCaller, "{error}");
            assert!(error.cause.contains(missing), "{error}");
        }
        assert!(sts.asked().is_empty());
    }

    #[tokio::test]
    async fn a_session_longer_than_the_role_allows_is_found_before_anybody_calls() {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        let sts = Sts::start(vec![refusal(400, "ValidationError", message)]).await;
        let error = seen(role(&sts, json!({"duration_secs": 43200}))).await.unwrap_err();
        assert_eq!(error.kind, MintErrorKind::Rejected, "{error}");
        assert!(
            error.cause.starts_with("keys: AssumeRole of `arn:aws:iam::111122223333:role/agents-acme`: "),
            "{error}"
        );
        assert!(
            error.cause.ends_with("raise the role's MaxSessionDuration (`aws iam update-role --max-session-duration`)")
        );
        assert!(sts.asked()[0].contains("DurationSeconds=43200"), "{:?}", sts.asked());
    }
}
