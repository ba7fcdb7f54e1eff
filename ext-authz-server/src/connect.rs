//! How a person lets an agent use an account without the agent ever holding it: the address that a denial names, the
//! pages behind it, and what is stored at the end.
//!
//! The way of a person: the ticket of the address → login at the identity issuer, which has to vouch for the very person
//! for whom the agent asked → consent on our page → the provider's own consent → the grant. Each step lasts 600 s, is
//! taken once, and is bound to one browser.

mod browser;
mod client;
mod form;
mod halt;
mod invitation;
mod page;
mod routes;
mod steps;
pub mod ticket;

pub use invitation::{Attempt, AttemptError, Invitations, Invited, request_digest};
pub use routes::{Pages, serve};

use crate::config::OauthProvider;
use crate::secret::SecretBytes;
use crate::sources::Sources;
use client::{Client, ClientError, Metadata};

/// Tells a provider that a refresh token is no longer wanted (RFC 7009). True where it took it, false where it has no way to
/// be told.
///
/// # Errors
/// It cannot be reached.
pub(crate) async fn revoke_at_provider(
    provider: &OauthProvider,
    token: &SecretBytes,
    sources: &Sources,
) -> Result<bool, ClientError> {
    Client::provider(provider).revoke(token, &sources.outbound, &sources.secrets, &Metadata::default()).await
}
