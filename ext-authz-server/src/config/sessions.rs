//! The `sessions` section: how the ids of MCP sessions are sealed, and how long sessions are.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;
use super::check::Checker;
use crate::caller::is_template;
use crate::session::Rules;

/// What becomes of the `Mcp-Session-Id` of MCP servers, in the revisions that have sessions. docs/sessions.md says more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Whether a client sees a sealed id, worth something only to its own principal at its own server entry, in place of the
    /// upstream's, default true. Set it to false only behind Envoy's own `ext_authz`, which cannot seal.
    #[serde(default = "default_seal")]
    pub seal: bool,
    /// The keys of sealed ids, each of at least 32 bytes, for example of `openssl rand -base64 32`; replicas share them. The
    /// first one seals, those after it open what they sealed. Default: one made of `audit.hmac_key`.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub keys: Vec<SecretSource>,
    /// How long a session is, however much it is used, in seconds, 1 to 2592000, default 28800.
    #[serde(default = "default_max_lifetime_secs")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_lifetime_secs: u64,
    /// How long a session is unused before it ends, in seconds, 1 to 2592000, default 1800, at most `max_lifetime_secs`.
    /// Replicas count together where they share a database, else each for itself.
    #[serde(default = "default_idle_secs")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub idle_secs: u64,
}

// === impl Sessions ===

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            seal: default_seal(),
            keys: Vec::new(),
            max_lifetime_secs: default_max_lifetime_secs(),
            idle_secs: default_idle_secs(),
        }
    }
}

impl Sessions {
    /// What holds for a decision.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let (max_lifetime, idle) = (Duration::from_secs(self.max_lifetime_secs), Duration::from_secs(self.idle_secs));
        Rules { seal: self.seal, max_lifetime, idle }
    }

    /// Adds what must not stand here.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.range("sessions.max_lifetime_secs", self.max_lifetime_secs, 1..=2_592_000);
        checker.range("sessions.idle_secs", self.idle_secs, 1..=2_592_000);
        if self.idle_secs > self.max_lifetime_secs {
            let message = "longer than `sessions.max_lifetime_secs`, so that it never counts";
            checker.add("sessions.idle_secs", message, "choose a shorter time, or a longer `max_lifetime_secs`");
        }
        if self.keys.len() > 8 {
            checker.add("sessions.keys", "more than 8 entries", "remove the oldest");
        }
        if !self.seal && !self.keys.is_empty() {
            checker.add("sessions.keys", "nothing is sealed with `seal: false`", "remove the keys, or `seal`");
        }
        checker.distinct("sessions.keys", &self.keys);
        for (index, source) in self.keys.iter().enumerate() {
            let key = format!("sessions.keys[{index}]");
            checker.secret(&key, source);
            if is_template(&source.reference) {
                let remedy = "name one key for all; each caller's own is made of it";
                checker.add(format!("{key}.ref"), "it differs between callers", remedy);
            }
        }
    }
}

fn default_seal() -> bool {
    true
}

fn default_max_lifetime_secs() -> u64 {
    28_800
}

fn default_idle_secs() -> u64 {
    1_800
}
