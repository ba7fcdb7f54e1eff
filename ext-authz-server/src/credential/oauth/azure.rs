//! Azure's instance metadata service: access tokens of a managed identity.

use super::error::TokenError;
use super::response::{self, Expected, Received, Tokens};
use super::{Asking, Issued, endpoint};
use crate::credential::query::encode;
use crate::freshness::MintError;
use crate::outbound::Ask;

/// Where it is on every machine.
const METADATA: &str = "http://169.254.169.254";
/// The version of the published interface.
const VERSION: &str = "2018-02-01";

/// The grant: a token for `resource`.
pub(super) async fn grant(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let resource = asking.own.resource.as_deref().unwrap_or_default();
    Ok(Issued::new(managed_identity(resource, asking).await?))
}

/// A token of the machine's identity, or of a user-assigned one, for this resource.
pub(super) async fn managed_identity(resource: &str, asking: &Asking<'_>) -> Result<Tokens, TokenError> {
    let identity = asking.own.managed_identity.as_ref();
    let base = identity.and_then(|identity| identity.url.as_deref()).unwrap_or(METADATA).trim_end_matches('/');
    let mut url = format!(
        "{base}/metadata/identity/oauth2/token?api-version={VERSION}&resource={}",
        encode(resource.as_bytes()).as_str()
    );
    if let Some(id) = identity.and_then(|identity| identity.client_id.as_deref()) {
        url = format!("{url}&client_id={}", encode(id.as_bytes()).as_str());
    }
    // The header keeps a request that somebody else made us send from being answered.
    let ask = Ask::get(url).header("metadata", "true").of_metadata_server();
    let answer = asking.sources.outbound.send(ask).await.map_err(endpoint::unreachable)?;
    let content_type = answer.header("content-type").unwrap_or_default();
    let received = Received { status: answer.status, content_type, body: answer.body() };
    response::read(received, Expected::default(), &[])
}
