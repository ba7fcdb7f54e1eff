//! Keyward as a client of an authorization server, in the name of a person: where its endpoints are, the address to which
//! a browser goes, and the exchange of what it comes back with (RFC 6749, 7636, 8414, 9207, 7009).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::{ClientAuthenticationMethod, Login, OauthProvider, SecretSource};
use crate::outbound::{Ask, Outbound};
use crate::secret::{SecretBytes, Secrets};

/// How long metadata is used.
const METADATA_SERVES: Duration = Duration::from_secs(600);
/// The longest token that is taken, in bytes.
const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// One client at one authorization server.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(super) id: &'a str,
    method: ClientAuthenticationMethod,
    secret: Option<&'a SecretSource>,
    issuer: Option<&'a str>,
    authorization: Option<&'a str>,
    token: Option<&'a str>,
    revocation: Option<&'a str>,
}

/// Where an authorization server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) authorization: String,
    pub(super) token: String,
    pub(super) revocation: Option<String>,
    pub(super) issuer: Option<String>,
    /// Whether the server says who it is in each authorization response (RFC 9207).
    pub(super) says_issuer: bool,
}

/// What an authorization request says beside the client and the redirect.
pub(super) struct Request<'a> {
    pub(super) redirect_uri: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) state: &'a str,
    pub(super) nonce: Option<&'a str>,
    pub(super) challenge: &'a str,
    pub(super) further: &'a BTreeMap<String, String>,
}

/// What a code was exchanged for. No `Debug`: it holds secrets.
pub(super) struct Tokens {
    pub(super) refresh: Option<Arc<SecretBytes>>,
    pub(super) id: Option<Zeroizing<String>>,
    /// The scopes that were granted, where they are not all that were asked for (RFC 6749, 5.1).
    pub(super) scopes: Option<Vec<String>>,
}

/// Why an authorization server is of no use now. Holds no value that came from it, except its error code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// It does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// Its metadata does not say where its endpoints are, or is another issuer's.
    #[error("the metadata of `{issuer}`: {cause}")]
    Metadata {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        cause: &'static str,
    },
    /// The client's secret cannot be had.
    #[error("client_secret: {0}")]
    Secret(String),
    /// It refuses.
    #[error("the token endpoint answers {status} `{error}`")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its error code.
        error: String,
    },
    /// Its answer is not one.
    #[error("the token endpoint's answer: {0}")]
    Answer(&'static str),
}

/// Metadata that was read a short while ago.
#[derive(Default)]
pub(crate) struct Metadata(Mutex<HashMap<String, (Instant, Arc<Value>)>>);

// === impl Client ===

impl<'a> Client<'a> {
    /// The client with which people log in at this issuer.
    pub(super) fn login(login: &'a Login, issuer: &'a str) -> Client<'a> {
        Client {
            id: &login.client_id,
            method: login.client_authentication,
            secret: login.client_secret.as_ref(),
            issuer: Some(issuer),
            authorization: login.authorization_endpoint.as_deref(),
            token: login.token_endpoint.as_deref(),
            revocation: None,
        }
    }

    /// The client at a provider.
    pub(crate) fn provider(provider: &'a OauthProvider) -> Client<'a> {
        Client {
            id: &provider.client_id,
            method: provider.client_authentication,
            secret: provider.client_secret.as_ref(),
            issuer: provider.issuer.as_deref(),
            authorization: provider.authorization_endpoint.as_deref(),
            token: provider.token_endpoint.as_deref(),
            revocation: provider.revocation_endpoint.as_deref(),
        }
    }

    /// Where the server is reached: as configured, and for the rest as its metadata says.
    pub(super) async fn endpoints(&self, outbound: &Outbound, metadata: &Metadata) -> Result<Endpoints, ClientError> {
        let read = match self.issuer {
            Some(issuer) => metadata.read(issuer, outbound).await,
            None => Ok(Arc::new(Value::Null)),
        };
        let said = match (read, self.authorization, self.token) {
            (Ok(said), ..) => said,
            // Both are configured: the metadata would only have added to them.
            (Err(_), Some(_), Some(_)) => Arc::new(Value::Null),
            (Err(error), ..) => return Err(error),
        };
        let text = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
        let of = |configured: Option<&str>, name: &str| configured.map(str::to_owned).or_else(|| text(name));
        let missing = || ClientError::Metadata {
            issuer: self.issuer.unwrap_or_default().to_owned(),
            cause: "an endpoint is missing",
        };
        Ok(Endpoints {
            authorization: of(self.authorization, "authorization_endpoint").ok_or_else(missing)?,
            token: of(self.token, "token_endpoint").ok_or_else(missing)?,
            revocation: of(self.revocation, "revocation_endpoint"),
            issuer: self.issuer.map(str::to_owned),
            says_issuer: said.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
        })
    }

    /// The address to which the browser goes.
    pub(super) fn authorization_url(&self, endpoints: &Endpoints, request: &Request<'_>) -> Option<String> {
        let mut url = reqwest::Url::parse(&endpoints.authorization).ok()?;
        let scopes = request.scopes.join(" ");
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", self.id);
            query.append_pair("redirect_uri", request.redirect_uri);
            if !scopes.is_empty() {
                query.append_pair("scope", &scopes);
            }
            query.append_pair("state", request.state);
            query.append_pair("code_challenge", request.challenge);
            query.append_pair("code_challenge_method", "S256");
            if let Some(nonce) = request.nonce {
                query.append_pair("nonce", nonce);
            }
            query.extend_pairs(request.further);
        }
        Some(url.into())
    }

    /// Exchanges a code.
    pub(super) async fn exchange(
        &self,
        endpoints: &Endpoints,
        outbound: &Outbound,
        secrets: &Secrets,
        (code, verifier, redirect_uri): (&str, &str, &str),
    ) -> Result<Tokens, ClientError> {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let ask = self.ask(&endpoints.token, &fields, secrets).await?;
        let answer = outbound.send(ask).await.map_err(|error| ClientError::Unreachable(error.to_string()))?;
        let document = answer.json().unwrap_or_default();
        if answer.status != 200 {
            let error = document.get("error").and_then(Value::as_str).map(shown).unwrap_or_default();
            return Err(ClientError::Refused { status: answer.status, error });
        }
        Tokens::read(document)
    }

    /// Tells the server that a refresh token is no longer wanted. True where it has an endpoint for that and took it.
    pub(crate) async fn revoke(
        &self,
        token: &SecretBytes,
        outbound: &Outbound,
        secrets: &Secrets,
        metadata: &Metadata,
    ) -> Result<bool, ClientError> {
        let endpoints = self.endpoints(outbound, metadata).await?;
        let Some(revocation) = endpoints.revocation else { return Ok(false) };
        let token = std::str::from_utf8(token.expose()).map_err(|_| ClientError::Answer("the token is no text"))?;
        let fields = [("token", token), ("token_type_hint", "refresh_token")];
        let ask = self.ask(&revocation, &fields, secrets).await?;
        let answer = outbound.send(ask).await.map_err(|error| ClientError::Unreachable(error.to_string()))?;
        Ok(answer.status == 200)
    }

    /// A form with the client's authentication (RFC 6749, 2.3.1).
    async fn ask(&self, url: &str, fields: &[(&str, &str)], secrets: &Secrets) -> Result<Ask, ClientError> {
        let secret = match self.secret {
            Some(source) => {
                let secret = secrets.resolve(source).await.map_err(|error| ClientError::Secret(error.to_string()))?;
                let text = String::from_utf8(secret.expose().to_vec());
                Some(Zeroizing::new(text.map_err(|_| ClientError::Secret("it is no text".to_owned()))?))
            }
            None => None,
        };
        let mut fields = fields.to_vec();
        match (self.method, &secret) {
            (ClientAuthenticationMethod::ClientSecretBasic, Some(secret)) => {
                let pair = Zeroizing::new(format!("{}:{}", encoded(self.id), encoded(secret)));
                let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
                Ok(Ask::form(url, &fields).header("authorization", &value))
            }
            (ClientAuthenticationMethod::ClientSecretPost, Some(secret)) => {
                fields.extend([("client_id", self.id), ("client_secret", secret.as_str())]);
                Ok(Ask::form(url, &fields))
            }
            _ => {
                fields.push(("client_id", self.id));
                Ok(Ask::form(url, &fields))
            }
        }
    }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// An error code of the other side, as RFC 6749 lets it be and no longer than needed.
pub(super) fn shown(error: &str) -> String {
    error.chars().filter(|char| char.is_ascii_graphic() && !"\"\\".contains(*char)).take(64).collect()
}

// === impl Endpoints ===

impl Endpoints {
    /// Whether an authorization response comes from this server: what it says it is, it must be, and where the server is known
    /// to say it, it must (RFC 9207, 2.4).
    pub(super) fn is_from(&self, said: Option<&str>) -> bool {
        match said {
            Some(said) => self.issuer.as_deref().is_none_or(|issuer| issuer == said),
            None => !self.says_issuer,
        }
    }
}

// === impl Tokens ===

impl Tokens {
    fn read(mut document: Value) -> Result<Tokens, ClientError> {
        let bearer = document.get("token_type").and_then(Value::as_str);
        if !bearer.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case("dpop")) {
            return Err(ClientError::Answer("its token type is neither Bearer nor DPoP"));
        }
        let mut take = |name: &str| match document.get_mut(name).map(Value::take) {
            Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_TOKEN_BYTES => Some(text),
            _ => None,
        };
        // Nobody uses this one: the credential gets its own with the refresh token.
        drop(take("access_token").map(Zeroizing::new).ok_or(ClientError::Answer("there is no access token"))?);
        let refresh = take("refresh_token").map(|text| Arc::new(SecretBytes::new(text.into_bytes())));
        let id = take("id_token").map(Zeroizing::new);
        let scopes = take("scope").map(|text| text.split_ascii_whitespace().map(str::to_owned).collect());
        Ok(Tokens { refresh, id, scopes })
    }

    /// What of the scopes that were asked for was granted; nothing else.
    pub(super) fn granted(&self, asked: &[String]) -> Vec<String> {
        let is_granted = |scope: &&String| self.scopes.as_ref().is_none_or(|granted| granted.contains(scope));
        asked.iter().filter(is_granted).cloned().collect()
    }

    /// How the provider names the account, from its id token, which came from the token endpoint itself (OpenID Connect
    /// Core, 3.1.3.7). For people to read only.
    pub(super) fn account(&self) -> Option<String> {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let payload = URL_SAFE_NO_PAD.decode(self.id.as_ref()?.split('.').nth(1)?).ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let account = text("email").or_else(|| text("preferred_username")).or_else(|| text("sub"))?;
        Some(crate::audit::record::bounded(account))
    }
}

// === impl Metadata ===

impl Metadata {
    /// The metadata of an issuer: RFC 8414 first, then OpenID Connect Discovery.
    async fn read(&self, issuer: &str, outbound: &Outbound) -> Result<Arc<Value>, ClientError> {
        if let Some((read, found)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(issuer)
            && read.elapsed() < METADATA_SERVES
        {
            return Ok(found.clone());
        }
        let mut failure = None;
        for address in addresses(issuer) {
            match outbound.send(Ask::get(address)).await {
                Ok(answer) if answer.status == 200 => {
                    let document = answer.json().unwrap_or_default();
                    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
                        let cause = "it is another issuer's";
                        return Err(ClientError::Metadata { issuer: issuer.to_owned(), cause });
                    }
                    let found = Arc::new(document);
                    let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(issuer.to_owned(), (Instant::now(), found.clone()));
                    return Ok(found);
                }
                Ok(_) => {}
                Err(error) => failure = Some(ClientError::Unreachable(error.to_string())),
            }
        }
        let none = ClientError::Metadata { issuer: issuer.to_owned(), cause: "there is none" };
        Err(failure.unwrap_or(none))
    }
}

/// Where an issuer's metadata can be.
fn addresses(issuer: &str) -> [String; 2] {
    let bare = issuer.trim_end_matches('/');
    let (origin, path) = match bare.split_once("://").and_then(|(_, rest)| rest.find('/')) {
        Some(at) => bare.split_at(at + bare.find("://").unwrap_or(0) + 3),
        None => (bare, ""),
    };
    let oauth = format!("{origin}/.well-known/oauth-authorization-server{path}");
    [oauth, format!("{bare}/.well-known/openid-configuration")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_lies_where_the_specifications_say() {
        assert_eq!(
            addresses("https://a.example"),
            [
                "https://a.example/.well-known/oauth-authorization-server",
                "https://a.example/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            addresses("https://a.example/tenant/x/"),
            [
                "https://a.example/.well-known/oauth-authorization-server/tenant/x",
                "https://a.example/tenant/x/.well-known/openid-configuration",
            ]
        );
    }

    fn endpoints(issuer: Option<&str>, says_issuer: bool) -> Endpoints {
        let issuer = issuer.map(str::to_owned);
        Endpoints {
            authorization: "https://a.example/auth?tenant=1".into(),
            token: "https://a.example/token".into(),
            revocation: None,
            issuer,
            says_issuer,
        }
    }

    #[test]
    fn a_response_of_another_server_is_not_taken() {
        let of = |issuer, says, said| endpoints(issuer, says).is_from(said);
        assert!(of(Some("https://a.example"), true, Some("https://a.example")));
        assert!(!of(Some("https://a.example"), true, Some("https://b.example")));
        assert!(!of(Some("https://a.example"), false, Some("https://b.example")));
        assert!(!of(Some("https://a.example"), true, None));
        assert!(of(Some("https://a.example"), false, None));
        assert!(of(None, false, Some("https://a.example")));
    }

    #[test]
    fn the_address_says_everything_once_and_encoded() {
        let provider: OauthProvider = serde_json::from_value(json!({
            "client_id": "k&d", "client_authentication": "none",
            "authorization_parameters": {"access_type": "offline"},
        }))
        .unwrap();
        let request = Request {
            redirect_uri: "https://k.example/callback/provider",
            scopes: &["read".to_owned(), "a b".to_owned()],
            state: "s",
            nonce: None,
            challenge: "c",
            further: &provider.authorization_parameters,
        };
        let url = Client::provider(&provider).authorization_url(&endpoints(None, false), &request).unwrap();
        assert_eq!(
            url,
            "https://a.example/auth?tenant=1&response_type=code&client_id=k%26d&redirect_uri=\
             https%3A%2F%2Fk.example%2Fcallback%2Fprovider&scope=read+a+b&state=s&code_challenge=c&\
             code_challenge_method=S256&access_type=offline"
        );
    }

    #[test]
    fn only_scopes_that_were_asked_for_are_kept() {
        let asked = ["read".to_owned(), "write".to_owned()];
        let tokens = |scope: Value| {
            let mut answer = json!({"access_token": "a", "token_type": "bearer", "refresh_token": "r"});
            answer["scope"] = scope;
            Tokens::read(answer).unwrap_or_else(|error| panic!("{error}")).granted(&asked)
        };
        assert_eq!(tokens(Value::Null), asked);
        assert_eq!(tokens(json!("read admin")), ["read"]);
        for bad in [json!({}), json!({"access_token": "", "token_type": "bearer"}), json!({"access_token": "a"})] {
            assert!(Tokens::read(bad).is_err());
        }
    }

    #[test]
    fn an_error_code_cannot_bring_anything_else() {
        assert_eq!(shown("invalid_grant"), "invalid_grant");
        assert_eq!(shown("<a \"b\"\n>"), "<ab>");
        assert_eq!(shown(&"x".repeat(100)).len(), 64);
    }
}
