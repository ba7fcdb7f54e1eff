//! Where a token is to be had, configured or discovered (RFC 8414, OpenID Connect Discovery), and the asking itself.

use std::time::Duration;

use reqwest::{Method, Url};
use zeroize::Zeroizing;

use super::dpop::{self, DpopKey};
use super::error::TokenError;
use super::request::TokenRequest;
use super::response::{self, Expected, Received, Tokens, is_json, parse, text};
use crate::credential::Material;
use crate::freshness::{Key, MintError, Terms};
use crate::identity::jwks::check_url;
use crate::outbound::{Ask, Outbound, OutboundError, Tls};
use crate::sources::Sources;

/// How long an issuer's metadata is used before it is looked at again, and while it cannot be had.
const METADATA: Terms = Terms::Stored { refresh: Duration::from_secs(3600), max_stale: Duration::from_secs(24 * 3600) };
/// The field of the kept metadata.
const TOKEN_ENDPOINT: &str = "token_endpoint";

/// A token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub url: String,
    /// The issuer, where configuration names it.
    pub issuer: Option<String>,
}

// === impl Endpoint ===

impl Endpoint {
    /// The configured endpoint, or the one that the issuer's metadata names.
    ///
    /// # Errors
    /// The metadata cannot be had, or is not that of the issuer.
    pub async fn of(
        issuer: Option<&str>,
        token_endpoint: Option<&str>,
        sources: &Sources,
    ) -> Result<Endpoint, MintError> {
        let named = issuer.map(str::to_owned);
        match (token_endpoint, issuer) {
            (Some(url), _) => Ok(Endpoint { url: url.to_owned(), issuer: named }),
            (None, Some(issuer)) => {
                let key = Key::new("oauth_metadata", "").with("issuer", issuer);
                let (owned, outbound) = (issuer.to_owned(), sources.outbound.clone());
                let mint = move || -> crate::freshness::Minting {
                    Box::pin(async move {
                        let url = discover(&owned, &outbound).await?;
                        Ok(Material::new().plain(TOKEN_ENDPOINT, url))
                    })
                };
                let found = sources.freshness().get(key, METADATA, mint).await?;
                let url = found.text(TOKEN_ENDPOINT).unwrap_or_default().to_owned();
                Ok(Endpoint { url, issuer: named })
            }
            (None, None) => Err(super::client::missing("the token endpoint")),
        }
    }

    /// What an assertion for this server has as its `aud`: the issuer where it is known (RFC 7523bis), else the endpoint.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.issuer.as_deref().unwrap_or(&self.url)
    }

    /// Sends a request and reads the tokens; with a key, a proof goes along, and once more where the server wants a nonce
    /// (RFC 9449, 8).
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is none.
    pub async fn ask(
        &self,
        request: &TokenRequest,
        expected: Expected,
        key: Option<&DpopKey>,
        outbound: &Outbound,
    ) -> Result<Tokens, TokenError> {
        let own = request.shown_certificate().map(|certificate| {
            let (chain, key) = (certificate.chain.expose(), certificate.key.expose());
            let mut both = Zeroizing::new(Vec::with_capacity(chain.len() + key.len() + 1));
            both.extend_from_slice(chain);
            both.push(b'\n');
            both.extend_from_slice(key);
            outbound.with_tls(Tls { identity: Some(both), ..Tls::default() })
        });
        let outbound = own.as_ref().unwrap_or(outbound);
        let sent: Vec<&[u8]> = request.secrets().map(|(_, secret)| secret).collect();
        let mut nonce: Option<String> = None;
        loop {
            let mut ask = Ask::new(Method::POST, &self.url)
                .header("content-type", "application/x-www-form-urlencoded")
                .header("accept", "application/json")
                .body(request.body().as_bytes().to_vec());
            for (name, value) in request.headers() {
                ask = ask.header(name, value);
            }
            if let Some(key) = key {
                ask = ask.header(dpop::HEADER, &key.proof("POST", &self.url, nonce.as_deref(), None)?);
            }
            let answer = outbound.send(ask).await.map_err(unreachable)?;
            let content_type = answer.header("content-type").unwrap_or_default();
            let received = Received { status: answer.status, content_type, body: answer.body() };
            let tokens = response::read(received, expected, &sent);
            let given = answer.header(dpop::NONCE_HEADER).and_then(dpop::nonce);
            match (tokens, given) {
                (Err(error), Some(given))
                    if key.is_some() && nonce.is_none() && error.code() == Some("use_dpop_nonce") =>
                {
                    nonce = Some(given.to_owned());
                }
                (tokens, _) => return tokens,
            }
        }
    }
}

/// No answer, as an error of ours.
pub(super) fn unreachable(error: OutboundError) -> TokenError {
    let (what, cause) = ("the token service", error.to_string());
    match error {
        OutboundError::Send { .. } => TokenError::Unreachable { what, cause },
        _ => TokenError::Unusable { what, cause },
    }
}

async fn discover(issuer: &str, outbound: &Outbound) -> Result<String, TokenError> {
    let mut last = failed(issuer, "it has no well-known address");
    for url in well_known(issuer) {
        let answer = outbound.send(Ask::get(&url)).await.map_err(unreachable)?;
        if answer.status == 404 {
            last = failed(issuer, "there is none");
            continue;
        }
        let content_type = answer.header("content-type").unwrap_or_default();
        return token_endpoint(issuer, answer.status, content_type, answer.body());
    }
    Err(last)
}

/// RFC 8414, 3.1, then OpenID Connect Discovery, 4.
fn well_known(issuer: &str) -> Vec<String> {
    let Ok(url) = Url::parse(issuer) else { return Vec::new() };
    let path = url.path().trim_end_matches('/').to_owned();
    let with = |path: String| {
        let mut url = url.clone();
        url.set_path(&path);
        url.set_query(None);
        url.to_string()
    };
    vec![
        with(format!("/.well-known/oauth-authorization-server{path}")),
        with(format!("{path}/.well-known/openid-configuration")),
    ]
}

/// The token endpoint that metadata names, where it is the metadata of this issuer (RFC 8414, 3.3).
fn token_endpoint(issuer: &str, status: u16, content_type: &str, body: &[u8]) -> Result<String, TokenError> {
    if status != 200 || !is_json(content_type) {
        return Err(failed(issuer, "the answer is not JSON with status 200"));
    }
    let document = parse(body).ok_or_else(|| failed(issuer, "it is not JSON"))?;
    let object = document.as_object().ok_or_else(|| failed(issuer, "it is not a JSON object"))?;
    if text(object, "issuer")? != Some(issuer) {
        return Err(failed(issuer, "it is that of another issuer"));
    }
    let url = text(object, "token_endpoint")?.ok_or_else(|| failed(issuer, "it names no token endpoint"))?;
    check_url(url).map_err(|cause| failed(issuer, &format!("its token endpoint: {cause}")))?;
    Ok(url.to_owned())
}

fn failed(issuer: &str, cause: &str) -> TokenError {
    TokenError::Metadata { issuer: issuer.to_owned(), cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_lies_where_the_standards_say() {
        assert_eq!(
            well_known("https://as.example"),
            [
                "https://as.example/.well-known/oauth-authorization-server",
                "https://as.example/.well-known/openid-configuration"
            ]
        );
        assert_eq!(
            well_known("https://as.example/tenant/1/"),
            [
                "https://as.example/.well-known/oauth-authorization-server/tenant/1",
                "https://as.example/tenant/1/.well-known/openid-configuration"
            ]
        );
    }

    #[test]
    fn metadata_of_another_issuer_is_refused() {
        let json = "application/json; charset=utf-8";
        let read = |body: &str| token_endpoint("https://as.example", 200, json, body.as_bytes());
        let good = r#"{"issuer":"https://as.example","token_endpoint":"https://as.example/token"}"#;
        assert_eq!(read(good).ok().as_deref(), Some("https://as.example/token"));
        for bad in [
            r#"{"issuer":"https://as.example/","token_endpoint":"https://as.example/token"}"#,
            r#"{"issuer":"https://evil.example","token_endpoint":"https://as.example/token"}"#,
            r#"{"token_endpoint":"https://as.example/token"}"#,
            r#"{"issuer":"https://as.example"}"#,
            r#"{"issuer":"https://as.example","token_endpoint":"http://as.example/token"}"#,
            r#"{"issuer":"https://as.example","token_endpoint":"https://user@as.example/token"}"#,
            r#"{"issuer":"https://as.example","issuer":"https://as.example","token_endpoint":"https://as.example/t"}"#,
            "[]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(token_endpoint("https://as.example", 500, json, good.as_bytes()).is_err());
        assert!(token_endpoint("https://as.example", 200, "text/html", good.as_bytes()).is_err());
    }
}
