//! How a client proves who it is at a token endpoint (RFC 6749, 2.3; RFC 7523, 2.2; RFC 8705).

use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use zeroize::Zeroizing;

use super::Asking;
use super::assertion::{Claims, LIFETIME, SigningKey};
use super::endpoint::Endpoint;
use super::error::TokenError;
use super::request::{Certificate, TokenRequest};
use super::source;
use crate::config::{ClientAuthentication, OauthClient, SecretSource, SigningAlgorithm};
use crate::freshness::MintError;

/// What `client_assertion_type` says of every assertion (RFC 7523, 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Adds the client's id and its proof to a request.
///
/// # Errors
/// A secret, key, certificate or token cannot be had or used.
pub(super) async fn authenticate(
    client: &OauthClient,
    endpoint: &Endpoint,
    request: &mut TokenRequest,
    asking: &Asking<'_>,
) -> Result<(), MintError> {
    match client.authentication {
        ClientAuthentication::ClientSecretBasic => {
            let secret = asking.text(client.secret.as_ref(), "the client's secret").await?;
            request.basic(&client.id, &secret);
        }
        ClientAuthentication::ClientSecretPost => {
            let secret = asking.text(client.secret.as_ref(), "the client's secret").await?;
            request.field("client_id", &client.id);
            request.secret("client_secret", &secret);
        }
        ClientAuthentication::PrivateKeyJwt => {
            let key = signing_key(client, asking).await?;
            let mut claims = Claims::new(SystemTime::now(), LIFETIME);
            claims.set("iss", client.id.as_str());
            claims.set("sub", client.id.as_str());
            claims.set("aud", client.audience.as_deref().unwrap_or(endpoint.audience()));
            assertion(client, request, &key.sign("JWT", &claims)?);
        }
        ClientAuthentication::FederatedToken => {
            let wanted = client.token.as_ref().ok_or_else(|| missing("the client's token"))?;
            let token = source::token(wanted, asking).await?;
            assertion(client, request, &token.value);
        }
        ClientAuthentication::TlsClientAuth => {
            let chain = asking.secret(client.certificate.as_ref(), "the client's certificate").await?;
            let key = asking.secret(client.key.as_ref(), "the client's key").await?;
            request.field("client_id", &client.id);
            request.certificate(Certificate { chain: chain.value, key: key.value });
        }
        ClientAuthentication::None => request.field("client_id", &client.id),
    }
    Ok(())
}

/// The algorithm that configuration names.
#[must_use]
pub(super) fn algorithm(named: Option<SigningAlgorithm>) -> Option<Algorithm> {
    named.map(|algorithm| match algorithm {
        SigningAlgorithm::RS256 => Algorithm::RS256,
        SigningAlgorithm::PS256 => Algorithm::PS256,
        SigningAlgorithm::ES256 => Algorithm::ES256,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    })
}

/// The error of a field that the check of the configuration should have demanded.
pub(super) fn missing(what: &'static str) -> MintError {
    TokenError::Unusable { what, cause: "it is not configured".to_owned() }.into()
}

fn assertion(client: &OauthClient, request: &mut TokenRequest, assertion: &str) {
    request.field("client_id", &client.id);
    request.field("client_assertion_type", ASSERTION_TYPE);
    request.secret("client_assertion", assertion);
}

async fn signing_key(client: &OauthClient, asking: &Asking<'_>) -> Result<SigningKey, MintError> {
    let pem = asking.secret(client.key.as_ref(), "the client's key").await?;
    let key = SigningKey::read(pem.value.expose(), algorithm(client.algorithm), client.key_id.as_deref())?;
    match &client.certificate {
        None => Ok(key),
        some => {
            let certificate = asking.secret(some.as_ref(), "the client's certificate").await?;
            Ok(key.with_certificate(certificate.value.expose())?)
        }
    }
}

// === impl Asking ===

impl Asking<'_> {
    /// A secret that configuration names.
    pub(super) async fn secret(
        &self,
        source: Option<&SecretSource>,
        what: &'static str,
    ) -> Result<crate::secret::Secret, MintError> {
        let source = source.ok_or_else(|| missing(what))?;
        self.sources.secrets.get(source, self.caller).await
    }

    /// The same, as text.
    pub(super) async fn text(
        &self,
        source: Option<&SecretSource>,
        what: &'static str,
    ) -> Result<Zeroizing<String>, MintError> {
        let secret = self.secret(source, what).await?;
        let text = std::str::from_utf8(secret.value.expose());
        let text = text.map_err(|_| TokenError::Unusable { what, cause: "it is not UTF-8".to_owned() })?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}
