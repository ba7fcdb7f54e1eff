//! Google's own ways: the key of a service account, the metadata server, and acting as another service account.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use zeroize::Zeroizing;

use super::assertion::{Claims, SigningKey};
use super::bearer::JWT_BEARER;
use super::error::TokenError;
use super::request::TokenRequest;
use super::response::{self, Expected, Received, TokenType, Tokens, is_json, parse, text};
use super::{Asking, Issued, client, endpoint, moment};
use crate::config::{Impersonation, OauthCredential};
use crate::credential::query::encode;
use crate::freshness::MintError;
use crate::identity::jwks::check_url;
use crate::outbound::Ask;

/// Where the metadata server is on every machine.
const METADATA: &str = "http://169.254.169.254";
/// Where one service account acts as another.
const IAM_CREDENTIALS: &str = "https://iamcredentials.googleapis.com";
/// What is asked for where the token only serves to act as another service account.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long an assertion may be used; Google accepts an hour.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(300);

/// The scopes of the first token.
pub(super) fn scopes_before_impersonation(own: &OauthCredential) -> &[String] {
    static PLATFORM: std::sync::LazyLock<[String; 1]> = std::sync::LazyLock::new(|| [CLOUD_PLATFORM.to_owned()]);
    if own.impersonate.is_some() { PLATFORM.as_slice() } else { &own.scopes }
}

/// The key of a service account: an access token for scopes, or an ID token for an audience.
pub(super) async fn service_account(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let own = asking.own;
    let account = own.service_account.as_ref().ok_or_else(|| client::missing("the service account"))?;
    let json = asking.secret(Some(&account.key), "the key of the service account").await?;
    let key = AccountKey::read(json.value.expose())?;
    let url = own.token_endpoint.clone().unwrap_or(key.token_uri);
    let signing = SigningKey::read(key.private_key.as_bytes(), Some(Algorithm::RS256), key.private_key_id.as_deref())?;
    let mut claims = Claims::new(SystemTime::now(), ASSERTION_LIFETIME);
    claims.set("iss", key.client_email.as_str());
    claims.set("aud", url.as_str());
    match &account.subject {
        Some(subject) => claims.set("sub", asking.subject(subject)?),
        None => claims.set("sub", key.client_email.as_str()),
    }
    let wants_id_token = own.audience.is_some() && own.impersonate.is_none();
    if wants_id_token {
        claims.set_optional("target_audience", own.audience.as_deref());
    } else {
        claims.set_optional("scope", super::joined(scopes_before_impersonation(own)).as_deref());
    }
    let mut request = TokenRequest::new(JWT_BEARER);
    request.secret("assertion", &signing.sign("JWT", &claims)?);
    let at = asking.at(None, Some(&url), None);
    if !wants_id_token {
        return at.ask(request, Expected::default()).await;
    }
    let body = request.body().as_bytes().to_vec();
    let ask = Ask::new(reqwest::Method::POST, &url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(body);
    let answer = asking.sources.outbound.send(ask).await.map_err(endpoint::unreachable)?;
    let content_type = answer.header("content-type").unwrap_or_default();
    let received = Received { status: answer.status, content_type, body: answer.body() };
    let sent: Vec<&[u8]> = request.secrets().map(|(_, secret)| secret).collect();
    let mut issued = Issued::new(id_token(received, "id_token", &sent)?);
    issued.spend(&request);
    Ok(issued)
}

/// The service account of this machine: an access token for scopes, or an ID token for an audience.
pub(super) async fn metadata(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let own = asking.own;
    if let Some(audience) = own.audience.as_deref().filter(|_| own.impersonate.is_none()) {
        let (value, expires) = metadata_id_token(audience, asking).await?;
        return Ok(Issued::new(bearer(value, expires)));
    }
    let scopes = scopes_before_impersonation(own).join(",");
    let path = format!("token?scopes={}", encode(scopes.as_bytes()).as_str());
    let answer = ask_metadata(&path, asking).await?;
    let content_type = answer.header("content-type").unwrap_or_default();
    let received = Received { status: answer.status, content_type, body: answer.body() };
    Ok(Issued::new(response::read(received, Expected::default(), &[])?))
}

/// An ID token of this machine's service account for an audience, and when it ends.
pub(super) async fn metadata_id_token(
    audience: &str,
    asking: &Asking<'_>,
) -> Result<(Zeroizing<String>, Option<SystemTime>), TokenError> {
    let path = format!("identity?audience={}&format=full", encode(audience.as_bytes()).as_str());
    let answer = ask_metadata(&path, asking).await?;
    if answer.status != 200 {
        return Err(TokenError::Status(answer.status));
    }
    let token = std::str::from_utf8(answer.body()).map_err(|_| TokenError::Malformed("it is not text"))?.trim();
    response::check_token(token)?;
    Ok((Zeroizing::new(token.to_owned()), Some(end_of(token)?)))
}

/// Acts as another service account with the token at hand: an access token for scopes, or an ID token for an audience.
pub(super) async fn impersonated(
    wanted: &Impersonation,
    issued: Issued,
    asking: &Asking<'_>,
) -> Result<Issued, MintError> {
    let base = wanted.api.as_deref().unwrap_or(IAM_CREDENTIALS).trim_end_matches('/');
    let account = encode(wanted.account.as_bytes());
    let (method, document) = match &wanted.audience {
        Some(audience) => ("generateIdToken", serde_json::json!({"audience": audience, "includeEmail": true})),
        None => ("generateAccessToken", serde_json::json!({"scope": asking.own.scopes, "lifetime": "3600s"})),
    };
    let url = format!("{base}/v1/projects/-/serviceAccounts/{}:{method}", account.as_str());
    let first = Zeroizing::new(format!("Bearer {}", issued.tokens.access_token.as_str()));
    let ask = Ask::json(url, &document).header("authorization", &first);
    let answer = asking.sources.outbound.send(ask).await.map_err(endpoint::unreachable)?;
    let content_type = answer.header("content-type").unwrap_or_default();
    let received = Received { status: answer.status, content_type, body: answer.body() };
    let tokens = match &wanted.audience {
        Some(_) => id_token(received, "token", &[])?,
        None => access_token(received)?,
    };
    let mut impersonated = Issued::new(tokens);
    impersonated.spent = issued.spent;
    impersonated.spent.push(("first_token", Zeroizing::new(issued.tokens.access_token.as_bytes().to_vec())));
    Ok(impersonated)
}

async fn ask_metadata(path: &str, asking: &Asking<'_>) -> Result<crate::outbound::Answer, TokenError> {
    let metadata = asking.own.google_metadata.as_ref();
    let base = metadata.and_then(|own| own.url.as_deref()).unwrap_or(METADATA).trim_end_matches('/');
    let account = metadata.and_then(|own| own.account.as_deref()).unwrap_or("default");
    let account = encode(account.as_bytes());
    let url = format!("{base}/computeMetadata/v1/instance/service-accounts/{}/{path}", account.as_str());
    let ask = Ask::get(url).header("metadata-flavor", "Google").of_metadata_server();
    let answer = asking.sources.outbound.send(ask).await.map_err(endpoint::unreachable)?;
    if answer.header("metadata-flavor") != Some("Google") {
        return Err(TokenError::Malformed("it is not by Google's metadata server"));
    }
    Ok(answer)
}

/// `generateAccessToken`: names of its own.
fn access_token(received: Received<'_>) -> Result<Tokens, TokenError> {
    let object = object_of(received)?;
    let object = object.as_object().ok_or(TokenError::Malformed("it is not a JSON object"))?;
    let token = text(object, "accessToken")?.ok_or(TokenError::Malformed("there is no `accessToken`"))?;
    response::check_token(token)?;
    let end = text(object, "expireTime")?.and_then(moment::parse);
    let end = end.ok_or(TokenError::Malformed("`expireTime` is not a moment"))?;
    Ok(bearer(Zeroizing::new(token.to_owned()), Some(end)))
}

/// An ID token, sent as a bearer token; it says itself when it ends.
fn id_token(received: Received<'_>, name: &str, sent: &[&[u8]]) -> Result<Tokens, TokenError> {
    if received.status != 200 {
        // The token endpoint says why in the usual form.
        return Err(response::read(received, Expected::default(), sent)
            .err()
            .unwrap_or(TokenError::Status(received.status)));
    }
    let object = object_of(received)?;
    let object = object.as_object().ok_or(TokenError::Malformed("it is not a JSON object"))?;
    let token = text(object, name)?.ok_or(TokenError::Malformed("there is no ID token"))?;
    response::check_token(token)?;
    Ok(bearer(Zeroizing::new(token.to_owned()), Some(end_of(token)?)))
}

fn object_of(received: Received<'_>) -> Result<keyward_contract::json::Value<'_>, TokenError> {
    if received.status != 200 {
        return Err(TokenError::Status(received.status));
    }
    if !is_json(received.content_type) {
        return Err(TokenError::ContentType);
    }
    parse(received.body).ok_or(TokenError::Malformed("it is not JSON"))
}

/// The `exp` of a JWT that its issuer gave to us; its signature is for the upstream to check.
fn end_of(token: &str) -> Result<SystemTime, TokenError> {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
    let claims = parse(&claims).ok_or(TokenError::Malformed("the ID token is no JWT"))?;
    let end = claims.as_object().and_then(|object| object.get("exp")?.as_number()?.as_u64());
    let end = end.ok_or(TokenError::Malformed("the ID token does not say when it ends"))?;
    UNIX_EPOCH.checked_add(Duration::from_secs(end)).ok_or(TokenError::Malformed("the ID token never ends"))
}

fn bearer(access_token: Zeroizing<String>, expires: Option<SystemTime>) -> Tokens {
    let left = expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    Tokens {
        access_token,
        token_type: TokenType::Bearer,
        good_for: left.unwrap_or(response::UNSAID_LIFETIME).min(response::MAX_LIFETIME),
        scope: None,
        refresh_token: None,
        id_token: None,
    }
}

/// What is read of a service account's JSON file. No `Debug`: it holds a private key.
struct AccountKey {
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    token_uri: String,
}

// === impl AccountKey ===

impl AccountKey {
    fn read(bytes: &[u8]) -> Result<AccountKey, TokenError> {
        let unusable =
            |cause: &str| TokenError::Unusable { what: "the key of the service account", cause: cause.to_owned() };
        let document = parse(bytes).ok_or_else(|| unusable("it is not JSON"))?;
        let object = document.as_object().ok_or_else(|| unusable("it is not a JSON object"))?;
        let member = |name: &'static str| object.get(name).and_then(|value| value.as_str());
        let needed = |name: &'static str| member(name).ok_or_else(|| unusable(&format!("there is no `{name}`")));
        if needed("type")? != "service_account" {
            return Err(unusable("its `type` is not `service_account`"));
        }
        let token_uri = needed("token_uri")?;
        check_url(token_uri).map_err(|cause| unusable(&format!("its `token_uri`: {cause}")))?;
        Ok(AccountKey {
            client_email: needed("client_email")?.to_owned(),
            private_key: Zeroizing::new(needed("private_key")?.to_owned()),
            private_key_id: member("private_key_id").map(str::to_owned),
            token_uri: token_uri.to_owned(),
        })
    }
}
