//! `type: gateway_proof`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Kind;
use crate::config::SecretSource;
use crate::config::check::{Checker, names};

/// A signed statement that the request came through Keyward and for whom: a JWT (RFC 7519) with EdDSA (RFC 8037), whose
/// keys Keyward publishes at `/.well-known/jwks.json` of the admin listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayProofCredential {
    /// The header, default `x-gateway-proof`.
    #[serde(default = "default_header")]
    pub header: String,
    /// `iss`: this deployment.
    pub issuer: String,
    /// `aud`. Absent: the upstream's origin, such as `https://api.example` or `http://api.example:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub audience: Option<String>,
    /// How long a proof is good, in seconds, 60 to 3600, default 300.
    #[serde(default = "default_ttl_secs")]
    #[schemars(range(min = 60, max = 3600))]
    pub ttl_secs: u64,
    /// How long a signing key is used before the next one, in seconds, 7200 to 31536000, default 604800. The keys before
    /// and after the one in use are published, too.
    #[serde(default = "default_rotation_secs")]
    #[schemars(range(min = 7200, max = 31_536_000))]
    pub rotation_secs: u64,
    /// Where the seeds are from which the signing keys are derived, at least 32 bytes each. The first one signs; keys of
    /// all are published. To replace a seed, add the new one behind it, and later take the old one away.
    #[schemars(length(min = 1, max = 4))]
    pub seeds: Vec<SecretSource>,
}

impl Kind for GatewayProofCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        const KEYS: [&str; 4] = ["seeds[0]", "seeds[1]", "seeds[2]", "seeds[3]"];
        KEYS.into_iter().zip(&self.seeds).collect()
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        if let Some(problem) = names::header_problem(&self.header) {
            let message = format!("`{}`: {problem}", self.header);
            checker.add(format!("{key}.header"), message, "name an end-to-end header");
        }
        for (name, text) in [("issuer", Some(&self.issuer)), ("audience", self.audience.as_ref())] {
            if text.is_some_and(|text| text.is_empty() || text.len() > 512 || text.chars().any(char::is_control)) {
                checker.add(format!("{key}.{name}"), "empty, too long or with control characters", "write a URL");
            }
        }
        checker.range(format!("{key}.ttl_secs"), self.ttl_secs, 60..=3600);
        checker.range(format!("{key}.rotation_secs"), self.rotation_secs, 7200..=31_536_000);
        checker.not_empty(format!("{key}.seeds"), &self.seeds, 4, "name where the seed is");
        if self.seeds.iter().any(|seed| crate::caller::is_template(&seed.reference)) {
            checker.add(format!("{key}.seeds"), "a seed is the same for everybody", "take the placeholder out");
        }
    }
}

fn default_header() -> String {
    "x-gateway-proof".into()
}

fn default_ttl_secs() -> u64 {
    300
}

fn default_rotation_secs() -> u64 {
    604_800
}
