//! What makes a server entry an OAuth 2.1 protected resource: its address, its scopes, and which proofs it wants.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Algorithm;

/// A protected resource (RFC 9728). With this section a token must name it in `aud`, and clients find its metadata.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The address to which clients connect, byte for byte: `https` (`http` on loopback only), without query and fragment.
    /// A token for this server holds it in `aud` (RFC 8707).
    pub url: String,
    /// Other values of `aud` that mean this resource, for issuers that cannot name an address. Default: none. No two server
    /// entries share one.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub audiences: Vec<String>,
    /// The names of the issuers whose tokens are for this server. Default: all but bootstrap issuers. Their `issuer` is what
    /// clients find as `authorization_servers`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub issuers: Vec<String>,
    /// The scopes that a caller needs. Default: none.
    #[serde(default)]
    pub scopes: Scopes,
    /// Tokens that are bound to a key (DPoP, RFC 9449). Absent: such tokens are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Dpop")]
    pub dpop: Option<Dpop>,
    /// Whether every token must be bound to the client's certificate (RFC 8705), default false. A token that is bound needs
    /// its certificate in any case.
    #[serde(default)]
    pub certificate_required: bool,
    /// A page for people who write clients, `https`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub documentation: Option<String>,
}

/// Which scopes a caller needs (RFC 6749 section 3.3). All that apply to an operation are needed together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scopes {
    /// For everything. Default: none.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub required: Vec<String>,
    /// For a method, by its name: an MCP method such as `tools/call`, or an HTTP method for `mode: http`. Default: none.
    #[serde(default)]
    pub methods: BTreeMap<String, Vec<String>>,
    /// For calls of a tool, by its name; `*` stands for any text. Default: none.
    #[serde(default)]
    pub tools: BTreeMap<String, Vec<String>>,
    /// Scopes that only the policy asks for, so that clients find them in the metadata, too. Default: none.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub others: Vec<String>,
}

/// How proofs of possession are checked (RFC 9449).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dpop {
    /// Whether every token must be bound to a key, default false.
    #[serde(default)]
    pub required: bool,
    /// Whether a proof must hold a nonce that Keyward gave (RFC 9449 section 9), default false.
    #[serde(default)]
    pub nonce: bool,
    /// The algorithms of proofs, default `ES256`, `ES384`, `EdDSA`, `PS256` and `RS256`.
    #[serde(default = "default_algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// How old a proof may be, in seconds, 5 to 600, default 60.
    #[serde(default = "default_max_age_secs")]
    #[schemars(range(min = 5, max = 600))]
    pub max_age_secs: u64,
}

/// What was used once is remembered, so that it is not used twice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// How many proofs and one-time tokens are remembered at once, 1000 to 10000000, default 100000. While there are more,
    /// requests with new ones are denied.
    #[schemars(range(min = 1000, max = 10_000_000))]
    pub max_entries: usize,
}

// === impl Resource ===

impl Resource {
    /// Whether proofs with a nonce are wanted.
    #[must_use]
    pub fn wants_nonce(&self) -> bool {
        self.dpop.as_ref().is_some_and(|dpop| dpop.nonce)
    }
}

// === impl Scopes ===

impl Scopes {
    /// Every scope, without repetition, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let lists = [&self.required].into_iter().chain(self.methods.values()).chain(self.tools.values());
        for scope in lists.chain([&self.others]).flatten() {
            if !all.contains(scope) {
                all.push(scope.clone());
            }
        }
        all
    }
}

// === impl Replay ===

impl Default for Replay {
    fn default() -> Replay {
        Replay { max_entries: 100_000 }
    }
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256]
}

fn default_max_age_secs() -> u64 {
    60
}
