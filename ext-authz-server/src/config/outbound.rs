//! The `outbound` section: what Keyward's server itself may ask.

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Checker;
use crate::perimeter::address::Allowance;

/// Where stores, token endpoints, issuers and probes may be, besides the public Internet and loopback addresses that this
/// file names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboundConfig {
    /// `host`, `host:port`, `*.host` or a network such as `10.1.0.0/16`. Metadata endpoints and link-local addresses cannot
    /// be allowed.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub allow: Vec<String>,
}

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn outbound(&mut self, outbound: &OutboundConfig) {
        self.distinct("outbound.allow", &outbound.allow);
        for (index, entry) in outbound.allow.iter().enumerate() {
            if let Err((_, error)) = Allowance::parse(std::slice::from_ref(entry)) {
                let message = format!("`{entry}`: {error}");
                self.add(format!("outbound.allow[{index}]"), message, "write a host, `host:port` or `address/bits`");
            }
        }
    }
}
