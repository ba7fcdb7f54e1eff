//! The `connect` section: the pages on which people connect accounts, and how they prove who they are there.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Checker;
use super::{ClientAuthenticationMethod, Provider, SecretSource};
use crate::identity::jwks::check_url;

/// The connect pages.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Where browsers reach `listen.connect`: an `https` address (`http` on loopback only) without a path. The redirect
    /// addresses to register are `PUBLIC_URL/callback/login` and `PUBLIC_URL/callback/provider`.
    pub public_url: String,
    /// How people log in, by the `name` of the identity issuer that vouches for them. A person of another issuer cannot
    /// connect.
    pub login: BTreeMap<String, Login>,
}

/// Keyward's client at an identity issuer (OpenID Connect, authorization code with PKCE).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The client id.
    pub client_id: String,
    /// How Keyward proves to be that client, default `client_secret_basic`.
    #[serde(default)]
    pub client_authentication: ClientAuthenticationMethod,
    /// The client's secret; for the two methods that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub client_secret: Option<SecretSource>,
    /// The authorization endpoint. Default: as the issuer's metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub authorization_endpoint: Option<String>,
    /// The token endpoint. Default: as the issuer's metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_endpoint: Option<String>,
    /// The scopes to ask for, default `openid`; `openid` must be among them.
    #[serde(default = "default_scopes")]
    #[schemars(length(min = 1, max = 32))]
    pub scopes: Vec<String>,
}

// === impl Connect ===

impl Connect {
    /// Adds what must not stand here.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        let is_bare = self.public_url.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?', '#', '@']));
        if !is_bare || check_url(&self.public_url).is_err() {
            let message = format!("`{}` is not an https address without a path", self.public_url);
            checker.add("connect.public_url", message, "write for example `https://connect.example`");
        }
        if checker.config().database.is_none() {
            checker.add("connect", "there is no `database` to keep grants in", "add the section `database`");
        }
        if checker.config().listen.connect.is_none() {
            checker.add("connect", "there is no `listen.connect`", "say where the pages are served");
        }
        if self.login.is_empty() {
            checker.add("connect.login", "nobody can log in", "add an entry for an identity issuer");
        }
        for (name, login) in &self.login {
            let key = format!("connect.login.{name}");
            if !checker.config().identity.issuers.iter().any(|issuer| issuer.name == *name) {
                let message = format!("there is no identity issuer `{name}`");
                checker.add(&key, message, "write the `name` of an entry of `identity.issuers`");
            }
            login.check(&key, checker);
        }
    }
}

impl Login {
    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        client(checker, key, &self.client_id, self.client_authentication, self.client_secret.as_ref());
        endpoint(checker, &format!("{key}.authorization_endpoint"), self.authorization_endpoint.as_deref());
        endpoint(checker, &format!("{key}.token_endpoint"), self.token_endpoint.as_deref());
        scopes(checker, &format!("{key}.scopes"), &self.scopes);
        if !self.scopes.iter().any(|scope| scope == "openid") {
            checker.add(format!("{key}.scopes"), "`openid` is not among them", "add it: it brings the id token");
        }
    }
}

// === impl Provider ===

impl Provider {
    /// Adds what must not stand here; `key` is the place of the provider.
    pub(super) fn check(&self, key: &str, checker: &mut Checker<'_>) {
        match self {
            Provider::Oauth(own) => {
                client(checker, key, &own.client_id, own.client_authentication, own.client_secret.as_ref());
                endpoint(checker, &format!("{key}.issuer"), own.issuer.as_deref());
                for (name, url) in [
                    ("authorization_endpoint", &own.authorization_endpoint),
                    ("token_endpoint", &own.token_endpoint),
                    ("revocation_endpoint", &own.revocation_endpoint),
                ] {
                    endpoint(checker, &format!("{key}.{name}"), url.as_deref());
                }
                if own.issuer.is_none() && (own.authorization_endpoint.is_none() || own.token_endpoint.is_none()) {
                    let message = "neither `issuer` nor both endpoints are named";
                    checker.add(key, message, "name the issuer, or the authorization and the token endpoint");
                }
                scopes(checker, &format!("{key}.scopes"), &own.scopes);
                for name in own.authorization_parameters.keys() {
                    if OWN_PARAMETERS.contains(&name.as_str()) {
                        let key = format!("{key}.authorization_parameters.{name}");
                        checker.add(key, "Keyward sets this parameter itself", "remove it");
                    }
                }
            }
            Provider::ApiKey(own) => {
                endpoint(checker, &format!("{key}.help_url"), own.help_url.as_deref());
                checker.range(format!("{key}.max_ttl_days"), own.max_ttl_days, 1..=366);
            }
        }
    }
}

/// What an authorization request says by itself.
const OWN_PARAMETERS: [&str; 9] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "response_mode",
    "response_type",
    "state",
];

fn client(
    checker: &mut Checker<'_>,
    key: &str,
    client_id: &str,
    method: ClientAuthenticationMethod,
    secret: Option<&SecretSource>,
) {
    checker.text(format!("{key}.client_id"), client_id);
    let place = format!("{key}.client_secret");
    match (method, secret) {
        (ClientAuthenticationMethod::None, Some(_)) => {
            checker.add(place, "a public client has no secret", "remove it, or choose another `client_authentication`");
        }
        (ClientAuthenticationMethod::None, None) => {}
        (_, None) => checker.add(place, "the client's secret is missing", "say where it is"),
        (_, Some(source)) => checker.secret(&place, source),
    }
}

fn endpoint(checker: &mut Checker<'_>, key: &str, url: Option<&str>) {
    if let Some(Err(cause)) = url.map(check_url) {
        checker.add(key, format!("the address cannot be used: {cause}"), "write an https address, or http on loopback");
    }
}

fn scopes(checker: &mut Checker<'_>, key: &str, scopes: &[String]) {
    checker.distinct(key, scopes);
    for (index, scope) in scopes.iter().enumerate() {
        // RFC 6749, 3.3.
        let is_token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(is_token) {
            checker.add(format!("{key}[{index}]"), format!("`{scope}` is not a scope"), "write one scope an entry");
        }
    }
}

fn default_scopes() -> Vec<String> {
    vec!["openid".to_owned()]
}
