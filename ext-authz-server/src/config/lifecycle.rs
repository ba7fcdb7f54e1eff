//! The `lifecycle` section: who has to agree before a binding serves.

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Checker;

/// Bindings that people approve, activate, disable and revoke with `keyward bindings`. Where each of them stands lies in the
/// database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// How many different people have to approve a binding before it can be activated, 0 to 2, default 0: a binding serves
    /// until it is disabled or revoked. An approval covers the binding exactly as it was written then.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    pub approvals: usize,
    /// How long what is known serves while the database cannot be read, in seconds, 5 to 3600, default 60. Then every
    /// binding is denied.
    #[serde(default = "default_max_stale_secs")]
    #[schemars(range(min = 5, max = 3600))]
    pub max_stale_secs: u64,
}

// === impl Lifecycle ===

impl Lifecycle {
    /// Adds what must not stand here.
    pub(super) fn check(self, checker: &mut Checker<'_>) {
        if checker.config().database.is_none() {
            checker.add("lifecycle", "there is nowhere to keep it", "add the section `database`");
        }
        checker.range("lifecycle.approvals", self.approvals, 0..=2);
        checker.range("lifecycle.max_stale_secs", self.max_stale_secs, 5..=3600);
    }
}

fn default_max_stale_secs() -> u64 {
    60
}
