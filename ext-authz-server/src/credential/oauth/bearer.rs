//! RFC 7523, 2.1: an access token for an assertion that is signed here.

use std::time::SystemTime;

use super::assertion::{Claims, LIFETIME, SigningKey};
use super::request::TokenRequest;
use super::response::Expected;
use super::{Asking, Issued, client};
use crate::freshness::MintError;

/// The grant type of RFC 7523.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The assertion's issuer and subject are those of the configuration; the subject may name the caller.
pub(super) async fn jwt_bearer(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let own = asking.own;
    let assertion = own.assertion.as_ref().ok_or_else(|| client::missing("the assertion"))?;
    let pem = asking.secret(Some(&assertion.key), "the assertion's key").await?;
    let algorithm = client::algorithm(assertion.algorithm);
    let key = SigningKey::read(pem.value.expose(), algorithm, assertion.key_id.as_deref())?;
    let mut claims = Claims::new(SystemTime::now(), LIFETIME);
    claims.set("iss", assertion.issuer.as_str());
    claims.set("sub", asking.subject(assertion.subject.as_deref().unwrap_or(&assertion.issuer))?);
    let endpoint = asking.endpoint().await?;
    claims.set("aud", assertion.audience.as_deref().unwrap_or(endpoint.audience()));
    let mut request = TokenRequest::new(JWT_BEARER);
    request.secret("assertion", &key.sign("JWT", &claims)?);
    asking.target(&mut request, &own.scopes);
    asking.ask(request, Expected { issued: None, bound: own.dpop }).await
}
