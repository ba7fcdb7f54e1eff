//! `type: oauth`: an access token that is had from an authorization server.

mod check;
mod services;

pub use services::{AzureIdentity, GithubApp, GoogleKey, GoogleMetadata, Impersonation};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Kind, names_user};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// What the template holds where the token goes.
pub const TOKEN: &str = "{token}";

/// An access token, minted when it is needed.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthCredential {
    /// How the token is had.
    pub grant: OauthGrant,
    /// The issuer of the token, `https` (or `http` on loopback): its metadata names the token endpoint (RFC 8414, then OpenID
    /// Connect Discovery). Give this or `token_endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub issuer: Option<String>,
    /// The token endpoint, `https` (or `http` on loopback).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_endpoint: Option<String>,
    /// Who asks, and how that is proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OauthClient")]
    pub client: Option<OauthClient>,
    /// The scopes to ask for.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub scopes: Vec<String>,
    /// The `audience` to ask for (RFC 8693, 2.1, and servers that want it in other grants).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub audience: Option<String>,
    /// The `resource` to ask for, an absolute URI (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub resource: Option<String>,
    /// For `refresh_token`: a service's own refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub refresh_token: Option<SecretSource>,
    /// For `refresh_token`: the entry of `providers` at which the user connected an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub provider: Option<String>,
    /// For `token_exchange`, `on_behalf_of` and `id_jag`: on whose behalf. Default: the caller's own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TokenSource")]
    pub subject: Option<TokenSource>,
    /// For `token_exchange`: who acts for the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TokenSource")]
    pub actor: Option<TokenSource>,
    /// For `jwt_bearer`: the assertion that is signed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Assertion")]
    pub assertion: Option<Assertion>,
    /// For `id_jag`: the authorization server of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ResourceServer")]
    pub resource_server: Option<ResourceServer>,
    /// For `google_service_account`: the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GoogleKey")]
    pub service_account: Option<GoogleKey>,
    /// For `token_exchange` at Google, `google_service_account` and `google_metadata`: the service account to act as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Impersonation")]
    pub impersonate: Option<Impersonation>,
    /// For `google_metadata`, and where a token is `from: google_metadata`: where the metadata server is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GoogleMetadata")]
    pub google_metadata: Option<GoogleMetadata>,
    /// For `azure_managed_identity`, and where a token is `from: azure_managed_identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AzureIdentity")]
    pub managed_identity: Option<AzureIdentity>,
    /// For `github_app`: the app and its installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GithubApp")]
    pub app: Option<GithubApp>,
    /// Whether to bind the token to a key and prove it with every request (DPoP, RFC 9449). Default false. A server that
    /// binds without being asked is not served.
    #[serde(default)]
    pub dpop: bool,
    /// For `dpop`: the scheme of the upstream's own address, which the proof names, `https` by default.
    #[serde(default)]
    pub upstream_scheme: UpstreamScheme,
    /// The header that carries the token, default `authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub header: Option<String>,
    /// The query parameter that carries the token, instead of a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub query: Option<String>,
    /// The value, with exactly one `{token}`. Default `Bearer {token}` in a header, `{token}` in a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub template: Option<String>,
}

/// How a token is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OauthGrant {
    /// The client's own (RFC 6749, 4.4).
    ClientCredentials,
    /// With a refresh token, a service's or the user's (RFC 6749, 6).
    RefreshToken,
    /// In exchange for another token (RFC 8693).
    TokenExchange,
    /// For an assertion that is signed here (RFC 7523, 2.1).
    JwtBearer,
    /// For the caller's token, as Microsoft Entra does it.
    OnBehalfOf,
    /// For an identity assertion by the user's own identity provider (ID-JAG), which is redeemed at the resource's
    /// authorization server.
    IdJag,
    /// For the JSON key of a Google service account.
    GoogleServiceAccount,
    /// For the service account of the machine, pod or function that runs here, on Google Cloud.
    GoogleMetadata,
    /// For the managed identity of the machine that runs here, on Azure.
    AzureManagedIdentity,
    /// For one installation of a GitHub App.
    GithubApp,
}

/// A client of an authorization server.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// The client id.
    pub id: String,
    /// How the client proves who it is. Default `client_secret_basic`.
    #[serde(default)]
    pub authentication: ClientAuthentication,
    /// For `client_secret_basic` and `client_secret_post`: the client's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub secret: Option<SecretSource>,
    /// For `private_key_jwt` and `tls_client_auth`: the private key, as PEM (PKCS #8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub key: Option<SecretSource>,
    /// For `private_key_jwt`: the key's id, as registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_id: Option<String>,
    /// For `private_key_jwt`: the algorithm. Default: RS256, ES256 or EdDSA, as the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SigningAlgorithm")]
    pub algorithm: Option<SigningAlgorithm>,
    /// For `private_key_jwt`: the `aud` of the assertion. Default: the issuer where it is configured, else the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub audience: Option<String>,
    /// For `tls_client_auth`: the certificate with its chain, as PEM. For `private_key_jwt`: the certificate to name in
    /// the assertion (`x5t#S256`), as Microsoft Entra wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub certificate: Option<SecretSource>,
    /// For `federated_token`: a token that another issuer made for this workload, sent as the client's assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TokenSource")]
    pub token: Option<TokenSource>,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// Id and secret in the `authorization` header, each form-encoded (RFC 6749, 2.3.1).
    #[default]
    ClientSecretBasic,
    /// Id and secret in the form.
    ClientSecretPost,
    /// A short-lived assertion that is signed here (RFC 7523, 2.2).
    PrivateKeyJwt,
    /// A certificate in the TLS handshake, by an authority or self-signed (RFC 8705).
    TlsClientAuth,
    /// A token that another issuer made for this workload (RFC 7523, 2.2).
    FederatedToken,
    /// Not at all: the client is public.
    None,
}

/// How an assertion is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// RSA PKCS #1 v1.5.
    RS256,
    /// RSA PSS.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// A token that is had from elsewhere.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSource {
    /// Where it comes from.
    pub from: TokenFrom,
    /// For `secret`: where the token is, for example a file that the platform renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub secret: Option<SecretSource>,
    /// What it is called (RFC 8693, 3). Default `access_token` for the caller's, else `jwt`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TokenKind")]
    pub kind: Option<TokenKind>,
    /// Of the caller's: the `aud` that it must have. Of the others: the audience that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub audience: Option<String>,
}

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenFrom {
    /// It is the caller's own.
    Caller,
    /// It lies in a store.
    Secret,
    /// Google's metadata server makes it: an ID token for `audience`.
    GoogleMetadata,
    /// Azure's metadata service makes it: an access token for `audience`.
    AzureManagedIdentity,
}

/// What a token is called (RFC 8693, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// An OAuth access token.
    AccessToken,
    /// An OpenID Connect ID token.
    IdToken,
    /// Some JWT.
    Jwt,
}

/// An assertion that is signed here (RFC 7523, 3).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// `iss`.
    pub issuer: String,
    /// `sub`, with placeholders such as `{user}`. Default: the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub subject: Option<String>,
    /// `aud`. Default: the issuer of the token where it is configured, else the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub audience: Option<String>,
    /// The private key, as PEM.
    pub key: SecretSource,
    /// The key's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_id: Option<String>,
    /// The algorithm. Default: RS256, ES256 or EdDSA, as the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SigningAlgorithm")]
    pub algorithm: Option<SigningAlgorithm>,
}

/// The authorization server that redeems an identity assertion, and the client there.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceServer {
    /// Its issuer: the audience of the assertion. Its metadata names the token endpoint.
    pub issuer: String,
    /// The token endpoint, instead of what the metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_endpoint: Option<String>,
    /// The client there.
    pub client: OauthClient,
    /// The scopes of the access token. `scopes` beside `grant` are those of the assertion.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub scopes: Vec<String>,
}

/// A scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamScheme {
    /// TLS.
    #[default]
    Https,
    /// No TLS.
    Http,
}

// === impl OauthCredential ===

impl Kind for OauthCredential {
    fn is_a_users(&self) -> bool {
        let of_caller = |token: Option<&TokenSource>| token.is_none_or(|token| token.from == TokenFrom::Caller);
        let takes_token = matches!(self.grant, OauthGrant::TokenExchange | OauthGrant::OnBehalfOf | OauthGrant::IdJag);
        self.provider.is_some() || (takes_token && of_caller(self.subject.as_ref())) || names_user(&self.secrets())
    }

    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        let mut found = vec![
            ("refresh_token", self.refresh_token.as_ref()),
            ("subject.secret", secret_of(self.subject.as_ref())),
            ("actor.secret", secret_of(self.actor.as_ref())),
            ("assertion.key", self.assertion.as_ref().map(|assertion| &assertion.key)),
            ("service_account.key", self.service_account.as_ref().map(|account| &account.key)),
            ("app.key", self.app.as_ref().map(|app| &app.key)),
        ];
        if let Some(client) = &self.client {
            found.extend([
                ("client.secret", client.secret.as_ref()),
                ("client.key", client.key.as_ref()),
                ("client.certificate", client.certificate.as_ref()),
                ("client.token.secret", secret_of(client.token.as_ref())),
            ]);
        }
        if let Some(ResourceServer { client, .. }) = &self.resource_server {
            found.extend([
                ("resource_server.client.secret", client.secret.as_ref()),
                ("resource_server.client.key", client.key.as_ref()),
                ("resource_server.client.certificate", client.certificate.as_ref()),
                ("resource_server.client.token.secret", secret_of(client.token.as_ref())),
            ]);
        }
        found.into_iter().filter_map(|(name, source)| Some((name, source?))).collect()
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        check::check(self, key, checker);
    }
}

impl OauthCredential {
    /// Every secret that it names.
    #[must_use]
    pub fn sources(&self) -> Vec<&SecretSource> {
        self.secrets().into_iter().map(|(_, source)| source).collect()
    }

    /// For whom an ID token is asked for, where Google makes one.
    #[must_use]
    pub fn id_token_audience(&self) -> Option<&str> {
        match &self.impersonate {
            Some(other) => other.audience.as_deref(),
            None => self.audience.as_deref(),
        }
    }
}

fn secret_of(token: Option<&TokenSource>) -> Option<&SecretSource> {
    token.and_then(|token| token.secret.as_ref())
}

// === impl OauthGrant ===

impl OauthGrant {
    /// The name in `keyward.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OauthGrant::ClientCredentials => "client_credentials",
            OauthGrant::RefreshToken => "refresh_token",
            OauthGrant::TokenExchange => "token_exchange",
            OauthGrant::JwtBearer => "jwt_bearer",
            OauthGrant::OnBehalfOf => "on_behalf_of",
            OauthGrant::IdJag => "id_jag",
            OauthGrant::GoogleServiceAccount => "google_service_account",
            OauthGrant::GoogleMetadata => "google_metadata",
            OauthGrant::AzureManagedIdentity => "azure_managed_identity",
            OauthGrant::GithubApp => "github_app",
        }
    }
}
