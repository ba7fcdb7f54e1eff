//! An OAuth access token, minted from an authorization server by one of several grants and put on the request.
//!
//! The token of one caller is never another's: the key of the cache holds whatever the grant depends on. A token that the
//! server bound to a key (RFC 9449) goes out with a proof, or not at all.

pub mod assertion;
mod azure;
mod bearer;
mod client;
pub mod dpop;
pub mod endpoint;
pub mod error;
mod exchange;
mod github;
mod google;
mod moment;
mod refresh;
pub mod request;
pub mod response;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, Turn, query};
use crate::caller::{self, Caller};
use crate::config::{OauthClient, OauthCredential, OauthGrant, TOKEN, UpstreamScheme};
use crate::freshness::{Key, MintError};
use crate::hex::hex;
use crate::sources::Sources;
use dpop::DpopKey;
use endpoint::Endpoint;
use error::{Outcome, TokenError};
use request::TokenRequest;
use response::{Expected, TokenType, Tokens};

/// The header that carries a token unless configuration names another place.
const HEADER: &str = "authorization";
/// The fields of the material.
const ACCESS_TOKEN: &str = "access_token";
const DPOP_KEY: &str = "dpop_key";

/// An access token out of configuration.
#[derive(Clone, Debug)]
pub struct Oauth(pub OauthCredential);

/// One mint: what is wanted, for whom, and what may be asked.
pub(super) struct Asking<'a> {
    own: &'a OauthCredential,
    caller: &'a Caller,
    sources: &'a Sources,
    dpop: Option<&'a DpopKey>,
    issuer: Option<&'a str>,
    token_endpoint: Option<&'a str>,
    client: Option<&'a OauthClient>,
}

/// What came of it.
pub(super) struct Issued {
    tokens: Tokens,
    /// When what it was made of ends.
    before: Option<SystemTime>,
    /// Every secret that was sent for it.
    spent: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
}

// === impl Oauth ===

impl Credential for Oauth {
    fn kind(&self) -> &'static str {
        "oauth"
    }

    fn places(&self) -> Vec<SlotName> {
        let own = &self.0;
        match &own.query {
            Some(name) => vec![SlotName::Query(query::encode(name.as_bytes()).to_string())],
            None => {
                let mut places = vec![SlotName::Header(own.header.clone().unwrap_or_else(|| HEADER.to_owned()))];
                places.extend(own.dpop.then(|| SlotName::Header(dpop::HEADER.to_owned())));
                places
            }
        }
    }

    fn provider(&self) -> Option<String> {
        self.0.provider.clone()
    }

    fn references(&self) -> Vec<String> {
        let own = &self.0;
        let at = own.issuer.iter().chain(&own.token_endpoint).take(1).cloned();
        let there = own.resource_server.iter().map(|server| server.issuer.clone());
        let clients = own.client.iter().chain(own.resource_server.iter().map(|server| &server.client));
        let clients = clients.map(|client| format!("client {}", client.id));
        let account = own.impersonate.iter().map(|other| other.account.clone());
        let secrets = own.sources().into_iter().map(|source| source.reference.clone());
        at.chain(there).chain(clients).chain(account).chain(secrets).collect()
    }

    fn key(&self, caller: &Caller) -> Option<Key> {
        let own = &self.0;
        let client = own.client.as_ref().map(|client| client.id.clone()).unwrap_or_default();
        let mut key = Key::new("oauth", caller.tenant())
            .with("grant", own.grant.as_str())
            .with("issuer", own.issuer.clone().or_else(|| own.token_endpoint.clone()).unwrap_or_default())
            .with("client", client)
            .with("scopes", own.scopes.join(" "))
            .with("audience", own.audience.clone().unwrap_or_default())
            .with("resource", own.resource.clone().unwrap_or_default())
            .with("provider", own.provider.clone().unwrap_or_default())
            .with("configuration", hex(&Sha256::digest(format!("{own:?}"))));
        if self.depends_on_caller() {
            key = key
                .with("principal", caller.principal.key.clone())
                .with("environment", caller.environment.clone())
                .with("server", caller.server.clone());
        }
        if self.depends_on_token() {
            // What a token allows is not only whose it is: another token of the same caller makes another one.
            let token = caller.token.as_ref().map(|token| hex(&Sha256::digest(token.expose())));
            key = key.with("token", token.unwrap_or_default());
        }
        Some(key)
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        let uses_up = self.0.grant == OauthGrant::RefreshToken;
        let minting: Minting = Box::pin(async move {
            let own = &self.0;
            let began = SystemTime::now();
            let key = if own.dpop { Some(DpopKey::generate()?) } else { None };
            let asking = Asking {
                own,
                caller: &caller,
                sources: &sources,
                dpop: key.as_ref(),
                issuer: own.issuer.as_deref(),
                token_endpoint: own.token_endpoint.as_deref(),
                client: own.client.as_ref(),
            };
            let mut issued = match own.grant {
                OauthGrant::ClientCredentials => client_credentials(&asking).await,
                OauthGrant::RefreshToken => refresh::refresh_token(&asking).await,
                OauthGrant::TokenExchange => exchange::token_exchange(&asking).await,
                OauthGrant::OnBehalfOf => exchange::on_behalf_of(&asking).await,
                OauthGrant::IdJag => exchange::id_jag(&asking).await,
                OauthGrant::JwtBearer => bearer::jwt_bearer(&asking).await,
                OauthGrant::GoogleServiceAccount => google::service_account(&asking).await,
                OauthGrant::GoogleMetadata => google::metadata(&asking).await,
                OauthGrant::AzureManagedIdentity => azure::grant(&asking).await,
                OauthGrant::GithubApp => github::installation(&asking).await,
            }?;
            // Those two look at other scopes, each where it asks for them.
            if own.grant != OauthGrant::IdJag && own.impersonate.is_none() {
                issued.narrowed_from(&own.scopes);
            }
            if let Some(wanted) = &own.impersonate {
                issued = google::impersonated(wanted, issued, &asking).await?;
            }
            Ok(issued.into_material(began, key.as_ref()))
        });
        if uses_up { refresh::to_the_end(minting) } else { minting }
    }

    /// A proof names the path, which a placeholder may change; a signature may cover the proof.
    fn turn(&self) -> Turn {
        if self.0.dpop { Turn::Name } else { Turn::Fill }
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let own = &self.0;
        let token = material.text(ACCESS_TOKEN).ok_or(CredentialError::Missing("access token"))?;
        if let Some(key) = material.get(DPOP_KEY) {
            return bound(own.upstream_scheme, token, key, outgoing);
        }
        match &own.query {
            Some(name) => {
                let value = fill(own.template.as_deref().unwrap_or(TOKEN), token)?;
                outgoing.set_query(&query::encode(name.as_bytes()), &query::encode(value.as_bytes()));
                Ok(())
            }
            None => {
                let value = fill(own.template.as_deref().unwrap_or("Bearer {token}"), token)?;
                outgoing.set_header(own.header.as_deref().unwrap_or(HEADER), &value)
            }
        }
    }
}

impl Oauth {
    /// Whether two callers may get different tokens.
    fn depends_on_caller(&self) -> bool {
        let own = &self.0;
        let templates = own.sources().into_iter().map(|source| source.reference.as_str());
        let subjects = [
            own.assertion.as_ref().and_then(|assertion| assertion.subject.as_deref()),
            own.service_account.as_ref().and_then(|account| account.subject.as_deref()),
        ];
        own.provider.is_some()
            || self.depends_on_token()
            || templates.chain(subjects.into_iter().flatten()).any(caller::is_template)
    }

    /// Whether the token is made of the caller's own.
    fn depends_on_token(&self) -> bool {
        let own = &self.0;
        let is_callers = |source: &crate::config::TokenSource| source.from == crate::config::TokenFrom::Caller;
        match own.grant {
            OauthGrant::TokenExchange | OauthGrant::OnBehalfOf | OauthGrant::IdJag => {
                own.subject.as_ref().is_none_or(is_callers) || own.actor.as_ref().is_some_and(is_callers)
            }
            _ => false,
        }
    }
}

/// RFC 6749, 4.4.
async fn client_credentials(asking: &Asking<'_>) -> Result<Issued, MintError> {
    let mut request = TokenRequest::new("client_credentials");
    asking.target(&mut request, &asking.own.scopes);
    asking.ask(request, Expected { issued: None, bound: asking.own.dpop }).await
}

/// Sends a bound token with the proof that belongs to this request (RFC 9449, 7.1).
fn bound(scheme: UpstreamScheme, token: &str, key: &[u8], outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
    let scheme = match scheme {
        UpstreamScheme::Https => "https",
        UpstreamScheme::Http => "http",
    };
    let url = format!("{scheme}://{}{}", outgoing.authority(), outgoing.path());
    let unusable = |_: TokenError| CredentialError::Missing("key of the proof");
    let key = DpopKey::from_pkcs8(key).map_err(unusable)?;
    let proof = key.proof(outgoing.method(), &url, None, Some(token)).map_err(unusable)?;
    outgoing.scrub(proof.as_bytes());
    outgoing.set_header(HEADER, &Zeroizing::new(format!("DPoP {token}")))?;
    outgoing.set_header(dpop::HEADER, &proof)
}

/// The template with the token in its place.
fn fill(template: &str, token: &str) -> Result<Zeroizing<String>, CredentialError> {
    let (before, after) = template.split_once(TOKEN).ok_or(CredentialError::Template)?;
    let mut value = Zeroizing::new(String::with_capacity(template.len() + token.len()));
    value.push_str(before);
    value.push_str(token);
    value.push_str(after);
    Ok(value)
}

/// Scopes as a request has them; none for none.
fn joined(scopes: &[String]) -> Option<String> {
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

// === impl Asking ===

impl<'a> Asking<'a> {
    /// The same at another server.
    fn at(
        &self,
        issuer: Option<&'a str>,
        token_endpoint: Option<&'a str>,
        client: Option<&'a OauthClient>,
    ) -> Asking<'a> {
        Asking { issuer, token_endpoint, client, ..*self }
    }

    /// Where to ask.
    async fn endpoint(&self) -> Result<Endpoint, MintError> {
        Endpoint::of(self.issuer, self.token_endpoint, self.sources).await
    }

    fn client_id(&self) -> &str {
        self.client.map(|client| client.id.as_str()).unwrap_or_default()
    }

    /// Adds what the token is to be for.
    fn target(&self, request: &mut TokenRequest, scopes: &[String]) {
        request.optional("scope", joined(scopes).as_deref());
        request.optional("audience", self.own.audience.as_deref());
        request.optional("resource", self.own.resource.as_deref());
    }

    /// Whom an assertion is about: a placeholder alone stands for the value as it is, within other text it is encoded.
    fn subject(&self, template: &str) -> Result<String, MintError> {
        match template.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if !name.contains(['{', '}']) => {
                self.caller.property(name).map(str::to_owned).map_err(MintError::needs_caller)
            }
            _ => self.caller.fill(template).map_err(MintError::needs_caller),
        }
    }

    /// Proves the client and asks.
    async fn ask(&self, request: TokenRequest, expected: Expected) -> Result<Issued, MintError> {
        Ok(self.ask_typed(request, expected).await??)
    }

    /// The same without a proof of possession.
    async fn ask_plain(&self, request: TokenRequest, expected: Expected) -> Result<Issued, MintError> {
        Asking { dpop: None, ..*self }.ask(request, expected).await
    }

    /// The same, with the refusal as it is.
    async fn ask_typed(
        &self,
        mut request: TokenRequest,
        expected: Expected,
    ) -> Result<Result<Issued, TokenError>, MintError> {
        let endpoint = self.endpoint().await?;
        if let Some(client) = self.client {
            client::authenticate(client, &endpoint, &mut request, self).await?;
        }
        let asked = endpoint.ask(&request, expected, self.dpop, &self.sources.outbound).await;
        Ok(asked.map(|tokens| {
            let mut issued = Issued::new(tokens);
            issued.spend(&request);
            issued
        }))
    }
}

// === impl Issued ===

impl Issued {
    fn new(tokens: Tokens) -> Issued {
        Issued { tokens, before: None, spent: Vec::new() }
    }

    /// The same, ending no later than what it was made of.
    fn before(mut self, end: Option<SystemTime>) -> Issued {
        self.before = end;
        self
    }

    /// Remembers the secrets of the request.
    fn spend(&mut self, request: &TokenRequest) {
        self.spent.extend(request.secrets().map(|(name, secret)| (name, Zeroizing::new(secret.to_vec()))));
    }

    /// Leaves a trace where fewer scopes were given than asked for.
    fn narrowed_from(&self, asked: &[String]) {
        let missing = response::narrowed(asked, &self.tokens);
        if !missing.is_empty() {
            tracing::warn!(missing = missing.join(" "), "the access token has fewer scopes than were asked for");
        }
    }

    fn into_material(self, began: SystemTime, key: Option<&DpopKey>) -> Material {
        let Issued { tokens, before, spent } = self;
        let access_token = tokens.access_token.as_bytes().to_vec();
        let mut material = Material::new().secret(ACCESS_TOKEN, access_token).until(began + tokens.good_for);
        if let Some(end) = before {
            material = material.until(end);
        }
        if let Some(scope) = &tokens.scope {
            material = material.plain("scope", scope.clone());
        }
        if let (TokenType::Dpop, Some(key)) = (tokens.token_type, key) {
            material = material.secret(DPOP_KEY, key.pkcs8().to_vec());
        }
        let beside = [("refresh_token", &tokens.refresh_token), ("id_token", &tokens.id_token)];
        for (name, token) in beside {
            if let Some(token) = token.as_ref().filter(|token| super::check_secret(token.as_bytes()).is_ok()) {
                material = material.secret(name, token.as_bytes().to_vec());
            }
        }
        for (name, value) in spent {
            // What is too short to be found without false alarms is not looked for.
            if super::check_secret(&value).is_ok() {
                material = material.secret(&format!("sent_{name}"), value.to_vec());
            }
        }
        material
    }
}

// === impl TokenError ===

impl From<TokenError> for MintError {
    fn from(error: TokenError) -> MintError {
        match error.outcome() {
            Outcome::Transient => MintError::transient(error),
            Outcome::Rejected => MintError::rejected(error),
            Outcome::Consent => MintError::consent(error),
        }
    }
}
