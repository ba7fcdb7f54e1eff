//! The borders between tenants and between environments: who may call in whose name, at which host, to which server.
//!
//! A tenant comes out of a token that was verified; the host of the request has to agree, the issuer has to be one that may
//! name this tenant, and the server has to be one of the tenant's. No header that a client could choose says any of that.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use keyward_contract::reason::Reason;

use crate::config::{Config, Tenant};
use crate::decision::{Denial, Incident, Stage};
use crate::identity::Principal;
use crate::perimeter::authority::{Authority, AuthorityError, HostPattern};

/// The rule that is counted where a tenant has too many decisions under way.
const MAX_CONCURRENT: &str = "tenants.max_concurrent";

/// The borders of a configuration.
#[derive(Clone, Default)]
pub struct Tenancy {
    environment: String,
    /// Server entries of other environments, with theirs.
    elsewhere: BTreeMap<String, String>,
    /// Absent: whatever the token says is a tenant, and none has a limit.
    tenants: Option<Arc<BTreeMap<String, Territory>>>,
    under_way: Arc<UnderWay>,
}

/// How many decisions are under way for each tenant; none that is not listed.
#[derive(Default)]
struct UnderWay(Mutex<HashMap<String, usize>>);

/// What is one tenant's.
struct Territory {
    hosts: Vec<HostPattern>,
    issuers: Vec<String>,
    servers: Vec<String>,
    scopes: BTreeMap<String, Vec<String>>,
    max_concurrent: usize,
}

/// A place among the decisions of a tenant, until it is dropped.
pub struct Place {
    under_way: Arc<UnderWay>,
    tenant: String,
}

// === impl Tenancy ===

impl Tenancy {
    /// The borders of this configuration. Its hosts were checked.
    #[must_use]
    pub fn new(config: &Config) -> Tenancy {
        let issuers = &config.identity.issuers;
        let most = (config.listen.max_concurrent_checks / 2).max(1);
        let territory = |tenant: &Tenant| Territory {
            hosts: tenant.hosts.iter().filter_map(|host| HostPattern::parse(host, None).ok()).collect(),
            issuers: match (tenant.issuers.as_slice(), issuers.as_slice()) {
                ([], [only]) => vec![only.name.clone()],
                (named, _) => named.to_vec(),
            },
            servers: tenant.servers.clone(),
            scopes: tenant.scopes.clone(),
            max_concurrent: tenant.max_concurrent.unwrap_or(most),
        };
        let elsewhere = config.servers.iter().filter_map(|(name, server)| {
            let environment = server.environment.as_ref().filter(|own| **own != config.environment)?;
            Some((name.clone(), environment.clone()))
        });
        Tenancy {
            environment: config.environment.clone(),
            elsewhere: elsewhere.collect(),
            tenants: config
                .tenants
                .as_ref()
                .map(|tenants| Arc::new(tenants.iter().map(|(name, own)| (name.clone(), territory(own))).collect())),
            under_way: Arc::default(),
        }
    }

    /// The same borders, which go on counting what is under way where others end.
    #[must_use]
    pub fn continuing(self, others: &Tenancy) -> Tenancy {
        Tenancy { under_way: others.under_way.clone(), ..self }
    }

    /// Whether tenants are listed.
    #[must_use]
    pub fn has_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// Whether this principal's tenant is listed, its issuer may name it, and it may come to this host.
    ///
    /// # Errors
    /// What does not agree.
    pub fn recognise(
        &self,
        principal: &Principal,
        authority: Result<&Authority, AuthorityError>,
    ) -> Result<(), Denial> {
        let Some(tenants) = &self.tenants else { return Ok(()) };
        let refused = |cause: String| {
            Err(Denial::new(Stage::Identity, Reason::InvalidToken, cause).with_incident(Incident::CrossTenant))
        };
        let tenant = &principal.tenant;
        let Some(own) = tenants.get(tenant) else {
            return refused(format!("cross_tenant: tenant `{tenant}` is not listed"));
        };
        if own.issuers.iter().all(|issuer| *issuer != principal.issuer) {
            return refused(format!("cross_tenant: issuer `{}` may not name tenant `{tenant}`", principal.issuer));
        }
        let is_at = |territory: &Territory| {
            let Ok(authority) = authority else { return false };
            territory.hosts.iter().any(|host| host.matches(authority).is_some())
        };
        if is_at(own) {
            return Ok(());
        }
        let shown = || authority.map_or_else(|error| error.to_string(), |authority| format!("`{authority}`"));
        if let Some((other, _)) = tenants.iter().find(|(_, territory)| is_at(territory)) {
            return refused(format!("cross_tenant: a token of tenant `{tenant}` at {} of tenant `{other}`", shown()));
        }
        if !own.hosts.is_empty() {
            return refused(format!("cross_tenant: {} is no host of tenant `{tenant}`", shown()));
        }
        Ok(())
    }

    /// Whether this server entry is of this environment, one of the tenant's, and the token has the scopes for it.
    ///
    /// # Errors
    /// What is not so.
    pub fn admit(&self, principal: &Principal, server: &str) -> Result<(), Denial> {
        let refused = |reason, cause: String| Denial::new(Stage::Perimeter, reason, cause);
        if let Some(environment) = self.elsewhere.get(server) {
            let cause = format!(
                "cross_environment: server `{server}` is of environment `{environment}`, this is `{}`",
                self.environment
            );
            return Err(refused(Reason::DestinationDenied, cause).with_incident(Incident::CrossEnvironment));
        }
        let Some(tenants) = &self.tenants else { return Ok(()) };
        let tenant = &principal.tenant;
        let own = tenants.get(tenant).filter(|own| own.servers.iter().any(|name| name == server));
        let Some(own) = own else {
            let cause = format!("cross_tenant: server `{server}` is none of tenant `{tenant}`");
            return Err(refused(Reason::DestinationDenied, cause).with_incident(Incident::CrossTenant));
        };
        let needed = own.scopes.get(server).map(Vec::as_slice).unwrap_or_default();
        let missing: Vec<&str> =
            needed.iter().filter(|scope| !principal.scopes.contains(scope)).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let cause = format!("tenant `{tenant}` needs scope `{}` for server `{server}`", missing.join("`, `"));
        // RFC 6750, 3: the scope that is needed, all of it.
        let challenge = format!(r#"Bearer realm="keyward", error="insufficient_scope", scope="{}""#, needed.join(" "));
        Err(refused(Reason::InsufficientScope, cause).with_header("www-authenticate", challenge))
    }

    /// A place among the decisions of this principal's tenant; `None` where tenants have no bound.
    ///
    /// # Errors
    /// There are too many of this tenant already.
    pub fn enter(&self, principal: &Principal) -> Result<Option<Place>, Denial> {
        let Some(own) = self.tenants.as_ref().and_then(|tenants| tenants.get(&principal.tenant)) else {
            return Ok(None);
        };
        let mut counts = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(principal.tenant.clone()).or_default();
        if *count >= own.max_concurrent {
            let cause = format!("tenant `{}` has {count} decisions under way already", principal.tenant);
            let incident = Incident::Throttled(MAX_CONCURRENT.into(), "limit");
            return Err(Denial::new(Stage::Throttle, Reason::Overloaded, cause).with_incident(incident));
        }
        *count += 1;
        Ok(Some(Place { under_way: self.under_way.clone(), tenant: principal.tenant.clone() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
version: 1
environment: production
identity:
  issuers:
    - {name: main, issuer: https://main, audiences: [a], algorithms: [ES256], jwks: {file: a}, tenant_claim: org}
    - {name: partner, issuer: https://partner, audiences: [a], algorithms: [ES256], jwks: {file: a}, tenant_claim: org}
policy: {directory: policies}
audit: {file: audit.jsonl, hmac_key: {ref: 'env://KEY'}}
tenants:
  acme: {issuers: [main], hosts: [acme.example, '*.acme.example'], servers: [crm], max_concurrent: 2}
  zeta: {issuers: [main, partner], hosts: ['zeta.example:443'], servers: [crm, tickets], scopes: {tickets: [read, use]}}
  open: {issuers: [partner], servers: [crm]}
servers:
  crm: {mode: mcp, destinations: [{host: '*.example'}]}
  tickets: {mode: mcp, destinations: [{host: tickets.test}], environment: production}
  trial: {mode: mcp, destinations: [{host: trial.test}], environment: staging}
";

    fn tenancy() -> Tenancy {
        Tenancy::new(&crate::config::parse(std::path::Path::new("keyward.yaml"), CONFIG).unwrap())
    }

    fn of(tenant: &str, issuer: &str) -> Principal {
        Principal { tenant: tenant.into(), issuer: issuer.into(), ..Principal::nobody() }
    }

    #[test]
    fn claim_issuer_and_host_have_to_agree() {
        let cases = [
            ("acme", "main", "acme.example:443", None),
            ("acme", "main", "a.acme.example:8443", None),
            ("zeta", "partner", "zeta.example:443", None),
            ("open", "partner", "shared.example:443", None),
            ("open", "partner", "zeta.example:8443", None),
            (
                "acme",
                "main",
                "zeta.example:443",
                Some("a token of tenant `acme` at `zeta.example:443` of tenant `zeta`"),
            ),
            ("acme", "main", "shared.example:443", Some("`shared.example:443` is no host of tenant `acme`")),
            ("acme", "main", "acme.example.evil.test:443", Some("is no host of tenant `acme`")),
            ("zeta", "main", "zeta.example:8443", Some("is no host of tenant `zeta`")),
            ("open", "partner", "acme.example:443", Some("of tenant `acme`")),
            ("open", "partner", "b.acme.example:443", Some("of tenant `acme`")),
            ("acme", "partner", "acme.example:443", Some("issuer `partner` may not name tenant `acme`")),
            ("open", "main", "shared.example:443", Some("issuer `main` may not name tenant `open`")),
            ("other", "main", "acme.example:443", Some("tenant `other` is not listed")),
            ("", "main", "acme.example:443", Some("tenant `` is not listed")),
            ("ACME", "main", "acme.example:443", Some("tenant `ACME` is not listed")),
            ("acme", "main", "acme@acme.example", Some("is no host of tenant `acme`")),
        ];
        for (tenant, issuer, authority, refused) in cases {
            let authority_read = Authority::parse(authority);
            let authority_read = authority_read.as_ref().map_err(|error| *error);
            let denial = tenancy().recognise(&of(tenant, issuer), authority_read).err();
            let cause = denial.as_ref().map(|denial| denial.cause.as_str());
            match refused {
                None => assert_eq!(cause, None, "{tenant} {issuer} {authority}"),
                Some(part) => {
                    assert!(
                        cause.is_some_and(|cause| cause.contains(part)),
                        "{tenant} {issuer} {authority}: {cause:?}"
                    );
                    let denial = denial.unwrap();
                    assert_eq!(denial.reason, Reason::InvalidToken);
                    assert_eq!(denial.incident, Some(Incident::CrossTenant));
                }
            }
        }
    }

    #[test]
    fn a_server_is_open_to_its_tenants_with_the_scopes_and_in_its_environment_only() {
        let scoped = |scopes: &[&str]| Principal {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..of("zeta", "main")
        };
        assert_eq!(tenancy().admit(&of("acme", "main"), "crm"), Ok(()));
        assert_eq!(tenancy().admit(&scoped(&["use", "other", "read"]), "tickets"), Ok(()));
        let cases = [
            (of("acme", "main"), "tickets", Reason::DestinationDenied, Some(Incident::CrossTenant)),
            (of("nobody", "main"), "crm", Reason::DestinationDenied, Some(Incident::CrossTenant)),
            (of("zeta", "main"), "trial", Reason::DestinationDenied, Some(Incident::CrossEnvironment)),
            (scoped(&[]), "tickets", Reason::InsufficientScope, None),
            (scoped(&["read"]), "tickets", Reason::InsufficientScope, None),
        ];
        for (principal, server, reason, incident) in cases {
            let denial = tenancy().admit(&principal, server).unwrap_err();
            assert_eq!((denial.reason, &denial.incident), (reason, &incident), "{server} {}", denial.cause);
            if reason == Reason::InsufficientScope {
                let challenge = r#"Bearer realm="keyward", error="insufficient_scope", scope="read use""#;
                assert_eq!(denial.headers, [("www-authenticate", challenge.to_owned())]);
            }
        }
    }

    #[test]
    fn one_tenant_takes_no_more_places_than_its_own() {
        let tenancy = tenancy();
        let (one, two) = (tenancy.enter(&of("acme", "main")).unwrap(), tenancy.enter(&of("acme", "main")).unwrap());
        let full = tenancy.enter(&of("acme", "main")).err().unwrap();
        assert_eq!(full.reason, Reason::Overloaded);
        assert!(tenancy.enter(&of("zeta", "main")).is_ok(), "others have theirs");
        drop(one);
        let after = self::tenancy().continuing(&tenancy);
        let three = after.enter(&of("acme", "main")).unwrap();
        assert!(after.enter(&of("acme", "main")).is_err(), "a reload forgets nobody who is under way");
        drop((two, three));
        assert!(tenancy.under_way.0.lock().unwrap().is_empty());
    }

    #[test]
    fn without_the_section_every_tenant_is_one() {
        let text = CONFIG.replace("tenant_claim: org", "agent_claim: azp");
        let start = text.find("tenants:").unwrap();
        let end = text.find("servers:\n").unwrap();
        let text = format!("{}{}", &text[..start], &text[end..]);
        let tenancy = Tenancy::new(&crate::config::parse(std::path::Path::new("keyward.yaml"), &text).unwrap());
        let authority = Authority::parse("x.example").unwrap();
        assert_eq!(tenancy.recognise(&of("whoever", "main"), Ok(&authority)), Ok(()));
        assert_eq!(tenancy.admit(&of("whoever", "main"), "crm"), Ok(()));
        assert!(tenancy.enter(&of("whoever", "main")).unwrap().is_none());
    }
}
