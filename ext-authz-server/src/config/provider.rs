//! The `providers` section: where people connect their accounts, and with which client.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;

/// Somewhere a person has an account that an agent may use on the person's behalf.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Provider {
    /// An OAuth 2 authorization server: the person consents there (authorization code with PKCE, RFC 7636).
    Oauth(Box<OauthProvider>),
    /// A service that hands out keys or personal access tokens: the person enters one on Keyward's page.
    ApiKey(ApiKeyProvider),
}

/// An OAuth 2 authorization server and Keyward's client there.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthProvider {
    /// What a person reads on the page. Default: the name of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub title: Option<String>,
    /// The issuer, an `https` address (`http` on loopback only). Endpoints that are not configured are read from its
    /// metadata (RFC 8414, OpenID Connect Discovery).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub issuer: Option<String>,
    /// The authorization endpoint. Default: as the issuer's metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub authorization_endpoint: Option<String>,
    /// The token endpoint. Default: as the issuer's metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009). Default: as the issuer's metadata says, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub revocation_endpoint: Option<String>,
    /// Keyward's client id there.
    pub client_id: String,
    /// How Keyward proves to be that client, default `client_secret_basic`.
    #[serde(default)]
    pub client_authentication: ClientAuthenticationMethod,
    /// The client's secret; for the two methods that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub client_secret: Option<SecretSource>,
    /// The scopes to ask for. Nothing beyond them is stored or used.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub scopes: Vec<String>,
    /// Further parameters of the authorization request, for example `access_type: offline`.
    #[serde(default)]
    pub authorization_parameters: BTreeMap<String, String>,
}

/// How a client proves who it is at a token endpoint (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthenticationMethod {
    /// HTTP Basic.
    #[default]
    ClientSecretBasic,
    /// In the body.
    ClientSecretPost,
    /// A public client: PKCE only.
    None,
}

/// A service whose keys people enter themselves.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyProvider {
    /// What a person reads on the page. Default: the name of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub title: Option<String>,
    /// Where a person makes such a key, an `https` address; shown as a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub help_url: Option<String>,
    /// The longest that a key is kept, in days, 1 to 366, default 90. The person chooses a time up to this.
    #[serde(default = "default_max_ttl_days")]
    #[schemars(range(min = 1, max = 366))]
    pub max_ttl_days: u64,
}

// === impl Provider ===

impl Provider {
    /// What a person reads; `name` is that of the entry.
    #[must_use]
    pub fn title<'a>(&'a self, name: &'a str) -> &'a str {
        let title = match self {
            Provider::Oauth(provider) => provider.title.as_deref(),
            Provider::ApiKey(provider) => provider.title.as_deref(),
        };
        title.unwrap_or(name)
    }
}

fn default_max_ttl_days() -> u64 {
    90
}
