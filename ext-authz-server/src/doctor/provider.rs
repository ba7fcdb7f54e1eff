//! A provider: its authorization server can be reached, says who it is, and knows Keyward's client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Seen, Wrong};
use crate::config::{ClientAuthenticationMethod, OauthProvider};
use crate::outbound::{Answer, Ask};
use crate::sources::Sources;

/// A refresh token that no server ever gave: with it a server says whether it knows the client, and nothing comes of it.
const NO_TOKEN: &str = "keyward-doctor-asks-whether-this-client-is-known";

/// Looks at metadata and client.
pub(super) async fn examine(provider: &OauthProvider, sources: &Sources) -> Seen {
    let (token, source) = match (&provider.token_endpoint, &provider.issuer) {
        (Some(token), None) => (token.clone(), "the configured endpoints"),
        (configured, Some(issuer)) => {
            let document = metadata(issuer, sources).await?;
            let said = document.get("token_endpoint").and_then(Value::as_str).map(str::to_owned);
            let missing = || {
                let seen = format!("the metadata of `{issuer}` names no token endpoint");
                Wrong::failed(seen, "write `token_endpoint` and `authorization_endpoint`")
            };
            (configured.clone().or(said).ok_or_else(missing)?, "its metadata")
        }
        (None, None) => return Err(Wrong::failed("it has neither an issuer nor a token endpoint", "write `issuer`")),
    };
    let answer = ask(provider, &token, sources).await?;
    let error = answer.json().and_then(|document| Some(document.get("error")?.as_str()?.to_owned()));
    match (answer.status, error.as_deref()) {
        // What is said of a token that is none, or of a client that may not refresh, is said to a client that is known.
        (400..=403, Some("invalid_grant" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope")) => {
            Ok(format!("{source} can be used; client `{}` is known at `{token}`", provider.client_id))
        }
        (_, Some("invalid_client")) => {
            let seen = format!("`{token}` does not know client `{}`, or refuses its secret", provider.client_id);
            let remedy = "compare `client_id`, `client_secret` and `client_authentication` with the registration there";
            Err(Wrong::failed(seen, remedy))
        }
        (404 | 405, _) => {
            let seen = format!("`{token}` answers {}", answer.status);
            Err(Wrong::failed(seen, "correct `token_endpoint`"))
        }
        (status, _) => Err(Wrong::Unknown(format!(
            "{source} can be used; `{token}` answers {status}, which says nothing of the client"
        ))),
    }
}

/// The metadata of an issuer (RFC 8414, OpenID Connect Discovery).
async fn metadata(issuer: &str, sources: &Sources) -> Result<Value, Wrong> {
    let bare = issuer.trim_end_matches('/');
    let start = bare.find("://").map_or(0, |at| at + 3);
    let split = bare.get(start..).and_then(|rest| rest.find('/')).map_or(bare.len(), |at| start + at);
    let (origin, path) = bare.split_at_checked(split).unwrap_or((bare, ""));
    let mut seen = format!("`{issuer}` has no metadata");
    for address in [
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{bare}/.well-known/openid-configuration"),
    ] {
        match sources.outbound.send(Ask::get(address)).await {
            Ok(answer) if answer.status == 200 => {
                let document = answer.json().unwrap_or_default();
                if document.get("issuer").and_then(Value::as_str) == Some(issuer) {
                    return Ok(document);
                }
                let seen = format!("the metadata of `{issuer}` is another issuer's");
                return Err(Wrong::failed(seen, "write `issuer` exactly as its metadata does, to the last slash"));
            }
            Ok(answer) => seen = format!("`{issuer}` has no metadata: it answers {}", answer.status),
            Err(error) => seen = error.to_string(),
        }
    }
    Err(Wrong::failed(seen, "check `issuer`, the network from here, and the certificate there"))
}

/// Asks the token endpoint as this client.
async fn ask(provider: &OauthProvider, token: &str, sources: &Sources) -> Result<Answer, Wrong> {
    let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", NO_TOKEN)];
    let mut secret = Zeroizing::new(String::new());
    if let Some(source) = &provider.client_secret {
        let found = sources.secrets.resolve(source).await.map_err(|error| Wrong::said(&error.to_string()))?;
        let text = std::str::from_utf8(found.expose()).map_err(|_| Wrong::said("`client_secret` is no text"))?;
        secret.push_str(text);
    }
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let ask = match (provider.client_authentication, &provider.client_secret) {
        (ClientAuthenticationMethod::ClientSecretBasic, Some(_)) => {
            let pair = Zeroizing::new(format!("{}:{}", encoded(&provider.client_id), encoded(&secret)));
            let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            Ask::form(token, &fields).header("authorization", &value)
        }
        (ClientAuthenticationMethod::ClientSecretPost, Some(_)) => {
            fields.extend([("client_id", provider.client_id.as_str()), ("client_secret", secret.as_str())]);
            Ask::form(token, &fields)
        }
        _ => {
            fields.push(("client_id", &provider.client_id));
            Ask::form(token, &fields)
        }
    };
    let remedy = "check `token_endpoint`, the network from here, and the certificate there";
    sources.outbound.send(ask).await.map_err(|error| Wrong::failed(error.to_string(), remedy))
}
