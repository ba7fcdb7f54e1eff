//! The `revocation` section: how long a server may go on without knowing what is revoked.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Checker;

/// Tenants, people, agents, workloads, bindings, tokens and keys that are revoked with `keyward revoke` or over the operator API. The
/// log of it lies in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// How long what is known serves while the database cannot be read, in milliseconds, 1000 to 60000, default 5000. Then every
    /// call is denied with `decision_unavailable`.
    #[serde(default = "default_max_stale_ms")]
    #[schemars(range(min = 1000, max = 60000))]
    pub max_stale_ms: u64,
}

// === impl Revocation ===

impl Revocation {
    /// Adds what must not stand here.
    pub(super) fn check(self, checker: &mut Checker<'_>) {
        if checker.config().database.is_none() {
            checker.add("revocation", "there is nowhere to keep it", "add the section `database`");
        }
        checker.range("revocation.max_stale_ms", self.max_stale_ms, 1000..=60000);
    }

    /// How long what is known serves.
    #[must_use]
    pub fn max_stale(self) -> Duration {
        Duration::from_millis(self.max_stale_ms)
    }
}

fn default_max_stale_ms() -> u64 {
    5000
}
