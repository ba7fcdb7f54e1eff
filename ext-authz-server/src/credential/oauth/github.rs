//! GitHub Apps: a JWT of the app, for a token of one installation (GitHub REST API, 2022-11-28).

use std::time::{Duration, SystemTime};

use jsonwebtoken::Algorithm;
use zeroize::Zeroizing;

use super::assertion::{Claims, SigningKey};
use super::error::TokenError;
use super::response::{self, TokenType, Tokens, is_json, parse, text};
use super::{Asking, Issued, client, endpoint, moment};
use crate::freshness::MintError;
use crate::outbound::Ask;

/// Where the API is.
const API: &str = "https://api.github.com";
/// How long the app's JWT may be used; GitHub accepts ten minutes.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(120);

/// A token for what the installation may do, or for the repositories and permissions of it that are named.
pub(super) async fn installation(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let app = asking.own.app.as_ref().ok_or_else(|| client::missing("the app"))?;
    let pem = asking.secret(Some(&app.key), "the app's key").await?;
    let key = SigningKey::read(pem.value.expose(), Some(Algorithm::RS256), None)?;
    let mut claims = Claims::new(SystemTime::now() - Duration::from_secs(30), ASSERTION_LIFETIME);
    claims.set("iss", app.id.as_str());
    claims.remove("jti");
    let assertion = key.sign("JWT", &claims)?;
    let base = app.api.as_deref().unwrap_or(API).trim_end_matches('/');
    let url = format!("{base}/app/installations/{}/access_tokens", app.installation);
    let mut document = serde_json::Map::new();
    if !app.repositories.is_empty() {
        document.insert("repositories".to_owned(), app.repositories.clone().into());
    }
    if !app.permissions.is_empty() {
        let permissions = app.permissions.iter().map(|(name, level)| (name.clone(), level.clone().into()));
        document.insert("permissions".to_owned(), serde_json::Value::Object(permissions.collect()));
    }
    let bearer = Zeroizing::new(format!("Bearer {}", assertion.as_str()));
    let ask = Ask::new(reqwest::Method::POST, url)
        .header("content-type", "application/json")
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
        .header("authorization", &bearer)
        .body(serde_json::Value::Object(document).to_string().into_bytes());
    let answer = asking.sources.outbound.send(ask).await.map_err(endpoint::unreachable)?;
    let content_type = answer.header("content-type").unwrap_or_default();
    let tokens = read(answer.status, content_type, answer.body())?;
    let mut issued = Issued::new(tokens);
    issued.spent.push(("client_assertion", Zeroizing::new(assertion.as_bytes().to_vec())));
    Ok(issued)
}

fn read(status: u16, content_type: &str, body: &[u8]) -> Result<Tokens, TokenError> {
    if status != 201 {
        return Err(TokenError::Status(status));
    }
    if !is_json(content_type) {
        return Err(TokenError::ContentType);
    }
    let document = parse(body).ok_or(TokenError::Malformed("it is not a JSON object"))?;
    let object = document.as_object().ok_or(TokenError::Malformed("it is not a JSON object"))?;
    let token = text(object, "token")?.ok_or(TokenError::Malformed("there is no `token`"))?;
    response::check_token(token)?;
    let end = text(object, "expires_at")?.and_then(moment::parse);
    let end = end.ok_or(TokenError::Malformed("`expires_at` is not a moment"))?;
    Ok(Tokens {
        access_token: Zeroizing::new(token.to_owned()),
        token_type: TokenType::Bearer,
        good_for: end.duration_since(SystemTime::now()).unwrap_or_default().min(response::MAX_LIFETIME),
        scope: None,
        refresh_token: None,
        id_token: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_token_is_read_and_nothing_else() {
        let good = br#"{"token":"ghs_16C7e42F292c6912E7710c838347Ae178B4a","expires_at":"2099-07-11T22:14:10Z",
            "permissions":{"contents":"read"},"repository_selection":"selected"}"#;
        let tokens = read(201, "application/json; charset=utf-8", good).ok().unwrap();
        assert!(tokens.access_token.starts_with("ghs_"));
        assert_eq!(tokens.good_for, response::MAX_LIFETIME);
        assert_eq!(read(404, "application/json", good).err(), Some(TokenError::Status(404)));
        assert!(read(201, "text/html", good).is_err());
        assert!(read(201, "application/json", br#"{"token":"ghs_16C7e42F292c6912E771"}"#).is_err());
        assert!(read(201, "application/json", br#"{"expires_at":"2099-07-11T22:14:10Z"}"#).is_err());
    }
}
