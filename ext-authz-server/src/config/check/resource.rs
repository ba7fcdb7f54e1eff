//! What must not stand in the `resource` section of a server entry, nor in what belongs to it under `identity`.

use std::collections::BTreeMap;

use super::Checker;
use crate::config::{Introspection, Issuer, Resource};
use crate::identity::jwks::check_url;
use crate::resource::Address;

/// The most scopes of one list.
const MAX_SCOPES: usize = 32;
/// The most methods and the most tools that name scopes.
const MAX_NAMES: usize = 256;

/// Whether this is a scope-token (RFC 6749, 3.3).
pub(crate) fn is_scope(text: &str) -> bool {
    let allowed = |byte: u8| byte == b'!' || (b'#'..=b'[').contains(&byte) || (b']'..=b'~').contains(&byte);
    (1..=256).contains(&text.len()) && text.bytes().all(allowed)
}

// === impl Checker ===

impl Checker<'_> {
    /// All resources together, and what of `identity` only matters to them.
    pub(super) fn resources(&mut self) {
        let config = self.config;
        let resources = || config.servers.iter().filter_map(|(name, server)| Some((name, server.resource.as_ref()?)));
        let (mut addresses, mut audiences) = (BTreeMap::new(), BTreeMap::new());
        for (name, resource) in resources() {
            let key = format!("servers.{name}.resource");
            self.resource(&key, resource);
            if let Ok(address) = Address::parse(&resource.url)
                && let Some(other) = addresses.insert(address.metadata_url(), name)
            {
                let message = format!("it is the address of `{other}`, too");
                self.add(format!("{key}.url"), message, "give each server entry an address of its own");
            }
            for audience in [&resource.url].into_iter().chain(&resource.audiences) {
                if let Some(other) = audiences.insert(audience, name)
                    && other != name
                {
                    let message = format!("`{audience}` means `{other}`, too");
                    let remedy = "a token for one server must not serve at another: name each audience once";
                    self.add(format!("{key}.audiences"), message, remedy);
                }
            }
        }
        let identity = &config.identity;
        self.range("identity.replay.max_entries", identity.replay.max_entries, 1000..=10_000_000);
        if let Some(source) = &identity.dpop_nonce_key {
            self.own_secret("identity.dpop_nonce_key", source);
        } else if config.database.is_some() && resources().any(|(_, resource)| resource.wants_nonce()) {
            let message = "replicas that share a database must know each other's nonces";
            self.add("identity.dpop_nonce_key", message, "name a key of at least 32 bytes, the same for all replicas");
        }
        let open = identity.issuers.iter().filter(|issuer| issuer.introspection.is_some()).count();
        if open > 1 && config.servers.values().any(|server| server.resource.is_none()) {
            let message = "an opaque token does not say which of several issuers made it";
            let remedy = "give each server entry a `resource` that names one of them";
            self.add("identity.issuers", message, remedy);
        }
    }

    fn resource(&mut self, key: &str, resource: &Resource) {
        if let Err(cause) = Address::parse(&resource.url) {
            let message = format!("the address cannot be used: {cause}");
            self.add(format!("{key}.url"), message, "write an address like `https://mcp.example/mcp`");
        }
        for (index, audience) in resource.audiences.iter().enumerate() {
            self.text(format!("{key}.audiences[{index}]"), audience);
        }
        self.distinct(&format!("{key}.audiences"), &resource.audiences);
        self.most(format!("{key}.audiences"), resource.audiences.len(), 16);
        self.most(format!("{key}.issuers"), resource.issuers.len(), 64);
        self.distinct(&format!("{key}.issuers"), &resource.issuers);
        let known = &self.config.identity.issuers;
        for (index, name) in resource.issuers.iter().enumerate() {
            if !known.iter().any(|issuer| issuer.name == *name) {
                let message = format!("there is no issuer `{name}`");
                self.add(format!("{key}.issuers[{index}]"), message, "name an entry of `identity.issuers`");
            }
        }
        let serves = |issuer: &&Issuer| resource.issuers.is_empty() || resource.issuers.contains(&issuer.name);
        if known.iter().filter(serves).filter(|issuer| issuer.introspection.is_some()).count() > 1 {
            let message = "an opaque token does not say which of several issuers made it";
            self.add(format!("{key}.issuers"), message, "name one issuer with `introspection`");
        }
        let scopes = &resource.scopes;
        self.scopes(&format!("{key}.scopes.required"), &scopes.required, MAX_SCOPES);
        self.scopes(&format!("{key}.scopes.others"), &scopes.others, 128);
        for (what, named) in [("methods", &scopes.methods), ("tools", &scopes.tools)] {
            self.most(format!("{key}.scopes.{what}"), named.len(), MAX_NAMES);
            for (name, list) in named {
                self.text(format!("{key}.scopes.{what}"), name);
                self.scopes(&format!("{key}.scopes.{what}.{name}"), list, MAX_SCOPES);
            }
        }
        if let Some(dpop) = &resource.dpop {
            let algorithms = format!("{key}.dpop.algorithms");
            self.not_empty(&algorithms, &dpop.algorithms, 9, "name the algorithms of proofs");
            self.distinct(&algorithms, &dpop.algorithms);
            self.range(format!("{key}.dpop.max_age_secs"), dpop.max_age_secs, 5..=600);
            if dpop.required && resource.certificate_required {
                let message = "a token is bound to a key or to a certificate, not to both";
                self.add(format!("{key}.certificate_required"), message, "require one of them");
            }
        }
        if let Some(page) = &resource.documentation
            && check_url(page).is_err()
        {
            self.add(format!("{key}.documentation"), "it is not an https address", "write an https address");
        }
    }

    fn scopes(&mut self, key: &str, scopes: &[String], most: usize) {
        self.most(key, scopes.len(), most);
        self.distinct(key, scopes);
        for (index, scope) in scopes.iter().enumerate().filter(|(_, scope)| !is_scope(scope)) {
            let message = format!("`{scope}` is not a scope (RFC 6749, 3.3)");
            self.add(format!("{key}[{index}]"), message, "use visible ASCII characters but `\"` and `\\`");
        }
    }

    fn most(&mut self, key: impl Into<String>, len: usize, most: usize) {
        if len > most {
            self.add(key, format!("more than {most} entries"), "leave some out");
        }
    }

    /// What of an issuer has to do with proofs, lifetimes and opaque tokens.
    pub(super) fn issuer_terms(&mut self, key: &str, issuer: &Issuer) {
        if let Some(secs) = issuer.max_lifetime_secs {
            self.range(format!("{key}.max_lifetime_secs"), secs, 10..=31_536_000);
        }
        if let Some(introspection) = &issuer.introspection {
            self.introspection(&format!("{key}.introspection"), introspection);
        }
        let connect = self.config.connect.as_ref();
        if issuer.bootstrap && connect.is_some_and(|connect| connect.login.contains_key(&issuer.name)) {
            let message = "people log in there to connect accounts, which a bootstrap token must not lead to";
            self.add(format!("{key}.bootstrap"), message, "log people in at another issuer");
        }
    }

    fn introspection(&mut self, key: &str, introspection: &Introspection) {
        if let Err(cause) = check_url(&introspection.endpoint) {
            // Not shown: it may hold a password.
            let message = format!("the address cannot be used: {cause}");
            self.add(format!("{key}.endpoint"), message, "write an https address, or http on loopback");
        }
        self.text(format!("{key}.client_id"), &introspection.client_id);
        self.own_secret(&format!("{key}.client_secret"), &introspection.client_secret);
        self.range(format!("{key}.cache_secs"), introspection.cache_secs, 0..=300);
    }
}
