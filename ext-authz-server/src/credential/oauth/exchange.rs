//! Tokens for other tokens: token exchange (RFC 8693), on behalf of (Microsoft Entra), and the identity assertion of
//! cross-app access (ID-JAG).
//!
//! Where an exchange is refused, that is the end: nothing falls back to the caller's token or to the client's own.

use super::request::TokenRequest;
use super::response::{ACCESS_TOKEN, Expected, ID_JAG};
use super::source::{self, Token};
use super::{Asking, Issued, bearer};
use crate::config::TokenFrom;
use crate::freshness::MintError;

/// The grant type of RFC 8693.
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// RFC 8693, 2.1: an access token for the target, on behalf of the subject, through the actor.
pub(super) async fn token_exchange(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let own = asking.own;
    let subject = source::token(own.subject.as_ref().unwrap_or(&source::CALLERS), asking).await?;
    let mut request = exchange(&subject, ACCESS_TOKEN);
    if let Some(actor) = &own.actor {
        let actor = source::token(actor, asking).await?;
        request.secret("actor_token", &actor.value);
        request.field("actor_token_type", actor.kind);
    }
    asking.target(&mut request, super::google::scopes_before_impersonation(own));
    let expected = Expected { issued: Some(ACCESS_TOKEN), bound: own.dpop };
    Ok(asking.ask(request, expected).await?.before(subject.expires))
}

/// As Microsoft Entra does it: RFC 7523 with the caller's token as the assertion. That token was made for this client, and
/// goes to the authorization server only.
pub(super) async fn on_behalf_of(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let own = asking.own;
    let subject = own.subject.as_ref().unwrap_or(&source::CALLERS);
    let token = if subject.from == TokenFrom::Caller {
        let id = own.client.as_ref().map(|client| client.id.as_str()).unwrap_or_default();
        let audiences = match &subject.audience {
            Some(audience) => vec![audience.clone()],
            None => vec![id.to_owned(), format!("api://{id}")],
        };
        source::callers(subject, &audiences, asking)?
    } else {
        source::token(subject, asking).await?
    };
    let mut request = TokenRequest::new(bearer::JWT_BEARER);
    request.secret("assertion", &token.value);
    request.field("requested_token_use", "on_behalf_of");
    asking.target(&mut request, &own.scopes);
    Ok(asking.ask(request, Expected { issued: None, bound: own.dpop }).await?.before(token.expires))
}

/// The identity assertion authorization grant: the user's identity provider vouches for the user at the authorization
/// server of the resource, which gives the access token. Each leg has its client and its scopes.
pub(super) async fn id_jag(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let own = asking.own;
    let server = own.resource_server.as_ref().ok_or_else(|| super::client::missing("the resource server"))?;
    let wanted = own.subject.as_ref().unwrap_or(&source::CALLERS);
    let subject = source::token(wanted, asking).await?;
    let mut request = exchange(&subject, ID_JAG);
    request.field("audience", &server.issuer);
    request.optional("resource", own.resource.as_deref());
    request.optional("scope", super::joined(&own.scopes).as_deref());
    // The assertion itself is bound to nothing: it is redeemed by the client below.
    let assertion = asking.ask_plain(request, Expected { issued: Some(ID_JAG), bound: false }).await?;
    let mut request = TokenRequest::new(bearer::JWT_BEARER);
    request.secret("assertion", &assertion.tokens.access_token);
    request.optional("scope", super::joined(&server.scopes).as_deref());
    let at = asking.at(Some(&server.issuer), server.token_endpoint.as_deref(), Some(&server.client));
    let mut issued = at.ask(request, Expected { issued: None, bound: own.dpop }).await?.before(subject.expires);
    issued.narrowed_from(&server.scopes);
    issued.spent.extend(assertion.spent);
    Ok(issued)
}

fn exchange(subject: &Token, requested: &'static str) -> TokenRequest {
    let mut request = TokenRequest::new(TOKEN_EXCHANGE);
    request.secret("subject_token", &subject.value);
    request.field("subject_token_type", subject.kind);
    request.field("requested_token_type", requested);
    request
}
