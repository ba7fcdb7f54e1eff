//! What must not stand in a section of issuers: `identity`, and `api.identity`.

use super::Checker;
use crate::config::{IdentityConfig, Issuer, JwksSource};
use crate::identity::jwks::check_url;

/// Claims that are never a stable id of who acts.
const DISPLAY_CLAIMS: [&str; 8] =
    ["name", "preferred_username", "nickname", "given_name", "family_name", "email", "upn", "unique_name"];

// === impl Checker ===

impl Checker<'_> {
    /// What must not stand in a section of issuers, under this key.
    pub(super) fn issuers(&mut self, section: &str, config: &IdentityConfig) {
        let issuers = &config.issuers;
        self.not_empty(format!("{section}.issuers"), issuers, 64, "add an issuer: there is no anonymous access");
        for (index, issuer) in issuers.iter().enumerate() {
            let key = format!("{section}.issuers[{index}]");
            self.issuer(&key, issuer);
            if issuers.len() > 1 && issuer.tenant_claim.is_some() && self.config.tenants.is_none() {
                let message = "one of several issuers could name the tenants of another";
                let remedy = "leave it out, so that each issuer is a tenant, or list `tenants` with their `issuers`";
                self.add(format!("{key}.tenant_claim"), message, remedy);
            }
            if issuers.iter().take(index).any(|earlier| earlier.name == issuer.name) {
                self.add(
                    format!("{key}.name"),
                    format!("issuer `{}` occurs twice", issuer.name),
                    "choose another name",
                );
            }
            if issuers.iter().take(index).any(|earlier| earlier.issuer == issuer.issuer) {
                let message = format!("`{}` belongs to another entry already", issuer.issuer);
                self.add(format!("{key}.issuer"), message, "keep one entry an issuer");
            }
        }
    }

    fn issuer(&mut self, key: &str, issuer: &Issuer) {
        self.name(format!("{key}.name"), &issuer.name);
        self.text(format!("{key}.issuer"), &issuer.issuer);
        let audiences = format!("{key}.audiences");
        self.not_empty(&audiences, &issuer.audiences, 32, "name this deployment as its tokens do in `aud`");
        for (index, audience) in issuer.audiences.iter().enumerate() {
            self.text(format!("{audiences}[{index}]"), audience);
        }
        self.distinct(&audiences, &issuer.audiences);
        let algorithms = format!("{key}.algorithms");
        self.not_empty(&algorithms, &issuer.algorithms, 9, "name the algorithms that the issuer signs with");
        self.distinct(&algorithms, &issuer.algorithms);
        self.jwks(&format!("{key}.jwks"), &issuer.jwks);
        let subject = format!("{key}.subject_claim");
        self.claim(&subject, &issuer.subject_claim);
        if DISPLAY_CLAIMS.contains(&issuer.subject_claim.as_str()) {
            let message = format!("`{}` is a display name and can change hands", issuer.subject_claim);
            self.add(&subject, message, "use `sub` or another stable id");
        }
        self.claim(&format!("{key}.agent_claim"), &issuer.agent_claim);
        self.claim(&format!("{key}.roles_claim"), &issuer.roles_claim);
        if let Some(claim) = &issuer.tenant_claim {
            self.claim(&format!("{key}.tenant_claim"), claim);
        }
        self.range(format!("{key}.clock_skew_secs"), issuer.clock_skew_secs, 0..=300);
        self.range(format!("{key}.max_token_bytes"), issuer.max_token_bytes, 256..=65536);
        self.issuer_terms(key, issuer);
    }

    fn claim(&mut self, key: &str, claim: &str) {
        self.text(key, claim);
        if ["iss", "aud", "exp", "nbf", "iat", "jti"].contains(&claim) {
            self.add(key, format!("`{claim}` means something else (RFC 7519, 4.1)"), "name another claim");
        }
    }

    fn jwks(&mut self, key: &str, jwks: &JwksSource) {
        match (&jwks.file, &jwks.url) {
            (Some(_), None) => {
                if jwks.refresh_secs.is_some() || jwks.max_stale_secs.is_some() {
                    self.add(key, "a file has no `refresh_secs` or `max_stale_secs`", "remove them: a file is watched");
                }
            }
            (None, Some(url)) => {
                if let Err(cause) = check_url(url) {
                    // Not shown: it may hold a password.
                    let message = format!("the address cannot be used: {cause}");
                    self.add(format!("{key}.url"), message, "write an https address, or http on loopback");
                }
                self.range(format!("{key}.refresh_secs"), jwks.refresh_secs(), 10..=86400);
                self.range(format!("{key}.max_stale_secs"), jwks.max_stale_secs(), 60..=604_800);
            }
            _ => self.add(key, "not exactly one of `file` and `url`", "write one of them"),
        }
    }
}
