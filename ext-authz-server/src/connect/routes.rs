//! The pages, one handler a step. A handler returns the page of success, or a [`Halt`], which becomes a page and a record.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Router, routing::get};
use serde::Deserialize;
use tokio::net::TcpListener;

use super::browser::{self, Browser};
use super::client::{Client, ClientError, Metadata, Request, shown};
use super::form::{Decision, check_key, form, key_fields};
use super::halt::Halt;
use super::page::{Page, redirect};
use super::steps::{ConsentStep, LoginStep, ProviderStep, Step};
use super::ticket::{LIFETIME, Ticket, TicketError};
use crate::audit::record::GrantRecord;
use crate::audit::{Event, Record};
use crate::check::Engine;
use crate::config::{ApiKeyProvider, Connect, OauthProvider, Provider};
use crate::database::{Topic, digest, random_name};
use crate::grants::{Grant, GrantKey, Replaced};
use crate::secret::SecretBytes;
use crate::serve::ServeError;
use crate::snapshot::{Snapshot, Snapshots};
use crate::state::State;

/// The largest form, in bytes.
const MAX_FORM_BYTES: usize = 16 * 1024;
/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that the pages need.
pub struct Pages {
    engine: Arc<Engine>,
    snapshots: Arc<Snapshots>,
    state: Arc<State>,
    metadata: Metadata,
}

/// What an authorization server sends back in the address (RFC 6749, 4.1.2; RFC 9207).
#[derive(Deserialize)]
struct Callback {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// A result that keeps, for the record, whose ticket it was.
struct Failed {
    halt: Halt,
    ticket: Option<Box<Ticket>>,
}

type Outcome = Result<Response, Failed>;

// === impl Pages ===

impl Pages {
    /// The pages of this service.
    #[must_use]
    pub fn new(engine: Arc<Engine>, snapshots: Arc<Snapshots>, state: Arc<State>) -> Pages {
        Pages { engine, snapshots, state, metadata: Metadata::default() }
    }
}

/// Serves the pages until `end`.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    pages: Arc<Pages>,
    listener: TcpListener,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    axum::serve(listener, router(pages))
        .with_graceful_shutdown(end)
        .await
        .map_err(|error| ServeError::Transport(error.to_string()))
}

fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/connect/{ticket}", get(begin))
        .route("/callback/login", get(logged_in))
        .route("/consent/{step}", get(ask).post(decided))
        .route("/callback/provider", get(returned))
        .fallback(|| async { Page::new(StatusCode::NOT_FOUND, "There is no such page").into_response() })
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(pages)
}

// === the handlers ===

/// The person opened the address that the agent showed.
async fn begin(Extract(pages): Extract<Arc<Pages>>, Path(text): Path<String>, headers: HeaderMap) -> Response {
    pages.bounded(pages.begin(&text, &headers)).await
}

/// The person comes back from the identity issuer.
async fn logged_in(
    Extract(pages): Extract<Arc<Pages>>,
    callback: Result<Query<Callback>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    pages.bounded(pages.logged_in(callback.ok(), &headers)).await
}

/// The person is asked.
async fn ask(Extract(pages): Extract<Arc<Pages>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    pages.bounded(pages.ask(&name, &headers)).await
}

/// The person has decided.
async fn decided(
    Extract(pages): Extract<Arc<Pages>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    decision: Result<Form<Decision>, FormRejection>,
) -> Response {
    pages.bounded(pages.decided(&name, &headers, decision.ok())).await
}

/// The person comes back from the provider.
async fn returned(
    Extract(pages): Extract<Arc<Pages>>,
    callback: Result<Query<Callback>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    pages.bounded(pages.returned(callback.ok(), &headers)).await
}

impl Pages {
    async fn begin(&self, text: &str, headers: &HeaderMap) -> Outcome {
        let snapshot = self.snapshots.current();
        let ticket = Ticket::open(text, &self.state.sealer).await.map_err(|error| match error {
            TicketError::Expired => Halt::TicketExpired,
            TicketError::Seal(error) => Halt::Unavailable(error.to_string()),
            _ => Halt::TicketForged,
        })?;
        let work = async {
            if self.state.states.is_used(&ticket.id).await.map_err(unavailable)? {
                return Err(Halt::TicketUsed);
            }
            provider(&snapshot, &ticket)?;
            let (connect, login) = login(&snapshot, &ticket)?;
            let client = login_client(&snapshot, login, &ticket)?;
            let endpoints = client.endpoints(&snapshot.sources.outbound, &self.metadata).await.map_err(login_failed)?;
            let browser = Browser::seen_or_new(headers, is_https(connect)).map_err(unavailable)?;
            let (nonce, verifier) = (random_name().map_err(unavailable)?, random_name().map_err(unavailable)?);
            let challenge = digest(&verifier);
            let step = LoginStep { ticket: ticket.clone(), browser: browser.digest(), nonce: nonce.clone(), verifier };
            let name = self.remember(&step).await?;
            let request = Request {
                redirect_uri: &login_callback(connect),
                scopes: &login.scopes,
                state: &name,
                nonce: Some(&nonce),
                challenge: &challenge,
                further: &std::collections::BTreeMap::new(),
            };
            let url = client.authorization_url(&endpoints, &request);
            let url = url.ok_or(Halt::NotConfigured("the authorization endpoint is no address"))?;
            Ok(browser.remember(redirect(&url), is_https(connect)))
        };
        work.await.map_err(of(&ticket))
    }

    async fn logged_in(&self, callback: Option<Query<Callback>>, headers: &HeaderMap) -> Outcome {
        let snapshot = self.snapshots.current();
        let Query(callback) = callback.ok_or(Halt::StateUnknown)?;
        let step: LoginStep = self.take(callback.state.as_deref(), headers, &snapshot).await?;
        let ticket = step.ticket.clone();
        let work = async {
            let (connect, login) = login(&snapshot, &ticket)?;
            let client = login_client(&snapshot, login, &ticket)?;
            let outbound = &snapshot.sources.outbound;
            let endpoints = client.endpoints(outbound, &self.metadata).await.map_err(login_failed)?;
            if !endpoints.is_from(callback.iss.as_deref()) {
                return Err(Halt::OtherIssuer);
            }
            let code = match (&callback.code, &callback.error) {
                (Some(code), None) => code,
                (_, error) => return Err(Halt::Login(shown(error.as_deref().unwrap_or("no code")))),
            };
            let redirect_uri = login_callback(connect);
            let secrets = &snapshot.sources.secrets;
            let exchange = client.exchange(&endpoints, outbound, secrets, (code, &step.verifier, &redirect_uri));
            let tokens = exchange.await.map_err(login_failed)?;
            let id_token = tokens.id.ok_or_else(|| Halt::Login("there is no id token".to_owned()))?;
            let verified =
                snapshot.identity.verify_login(&ticket.issuer, &id_token, &login.client_id, &step.nonce).await;
            let person = verified.map_err(|error| Halt::Login(error.to_string()))?;
            // The account-swap guard: whoever opened the address has to be the one for whom the agent asked.
            if !ticket.is_for(&person) {
                return Err(Halt::OtherPerson);
            }
            let consent = ConsentStep { ticket: ticket.clone(), browser: step.browser.clone() };
            let name = self.remember(&consent).await?;
            Ok(redirect(&format!("{}/consent/{name}", connect.public_url)))
        };
        work.await.map_err(of(&ticket))
    }

    async fn ask(&self, name: &str, headers: &HeaderMap) -> Outcome {
        let snapshot = self.snapshots.current();
        let step: ConsentStep = self.look(name, headers, &snapshot).await?;
        let ticket = &step.ticket;
        let provider = provider(&snapshot, ticket).map_err(of(ticket))?;
        let title = provider.title(&ticket.provider);
        let agent = ticket.agent.clone().unwrap_or_else(|| "your agent".to_owned());
        let mut facts = vec![("You", ticket.subject.clone()), ("Agent", agent), ("Service", title.to_owned())];
        let page = Page::new(StatusCode::OK, &format!("Connect {title}?"));
        Ok(match provider {
            Provider::Oauth(own) => {
                facts.push((
                    "May use",
                    if own.scopes.is_empty() { "the account".into() } else { own.scopes.join(", ") },
                ));
                let page = page.facts(&facts).text(
                    "Next you sign in at the service and agree there. Your agent can then use the account through this \
                     gateway, as far as policy allows. It never sees a password or a token.",
                );
                page.raw(&form(name, "")).into_response()
            }
            Provider::ApiKey(own) => {
                let page = page.facts(&facts).text(
                    "Enter a key of yours. It is kept encrypted until the time you choose and is never shown again. Your \
                     agent can use it through this gateway, as far as policy allows, and never sees it.",
                );
                let page = match &own.help_url {
                    Some(url) => page.link(url, "Where to make a key"),
                    None => page,
                };
                page.raw(&form(name, &key_fields(own))).into_response()
            }
        })
    }

    async fn decided(&self, name: &str, headers: &HeaderMap, decision: Option<Form<Decision>>) -> Outcome {
        let snapshot = self.snapshots.current();
        let looked: ConsentStep = self.look(name, headers, &snapshot).await?;
        let ticket = looked.ticket.clone();
        let work = async {
            if !browser::is_own_form(headers) {
                return Err(Halt::ForeignForm);
            }
            let Form(decision) = decision.ok_or(Halt::BadKey("the form is incomplete"))?;
            let provider: &Provider = provider(&snapshot, &ticket)?;
            if let (Provider::ApiKey(own), "connect") = (provider, decision.decision.as_str()) {
                check_key(own, &decision)?;
            }
            let step: ConsentStep = self.take(Some(name), headers, &snapshot).await.map_err(|failed| failed.halt)?;
            if !self.state.states.use_once(&ticket.id, ticket.expires()).await.map_err(unavailable)? {
                return Err(Halt::TicketUsed);
            }
            match (provider, decision.decision.as_str()) {
                (Provider::Oauth(own), "connect") => self.send_to_provider(&snapshot, own, step).await,
                (Provider::ApiKey(own), "connect") => self.keep_key(&snapshot, own, &ticket, &decision).await,
                _ => {
                    self.record(Event::ConnectDeclined, &snapshot, Some(&ticket), &[], "declined on our page");
                    let page = Page::new(StatusCode::OK, "Not connected");
                    Ok(page.text("You declined. Your agent cannot use this account.").into_response())
                }
            }
        };
        work.await.map_err(of(&ticket))
    }

    async fn send_to_provider(
        &self,
        snapshot: &Snapshot,
        own: &OauthProvider,
        step: ConsentStep,
    ) -> Result<Response, Halt> {
        let connect = connect(snapshot)?;
        let client = Client::provider(own);
        let endpoints = client.endpoints(&snapshot.sources.outbound, &self.metadata).await.map_err(provider_failed)?;
        let verifier = random_name().map_err(unavailable)?;
        let challenge = digest(&verifier);
        let title = snapshot.config.providers.get(&step.ticket.provider);
        let title = title.map_or("the service", |provider| provider.title(&step.ticket.provider)).to_owned();
        let ConsentStep { ticket, browser } = step;
        let name = self.remember(&ProviderStep { ticket, browser, verifier, scopes: own.scopes.clone() }).await?;
        let request = Request {
            redirect_uri: &provider_callback(connect),
            scopes: &own.scopes,
            state: &name,
            nonce: None,
            challenge: &challenge,
            further: &own.authorization_parameters,
        };
        let url = client.authorization_url(&endpoints, &request);
        let url = url.ok_or(Halt::NotConfigured("the authorization endpoint is no address"))?;
        // Not a redirect: `form-action` would have to name every address to which the provider may redirect in turn.
        let page = Page::new(StatusCode::OK, &format!("Going on to {title}"));
        Ok(page.onward(&url, &format!("Go on to {title}")).into_response())
    }

    async fn keep_key(
        &self,
        snapshot: &Snapshot,
        own: &ApiKeyProvider,
        ticket: &Ticket,
        decision: &Decision,
    ) -> Result<Response, Halt> {
        let days = decision.days.unwrap_or(own.max_ttl_days).min(own.max_ttl_days);
        let grant = Grant {
            secret: Arc::new(SecretBytes::new(decision.key.trim().as_bytes().to_vec())),
            scopes: Vec::new(),
            account: None,
            given: SystemTime::now(),
            expires: Some(SystemTime::now() + Duration::from_secs(days * 86_400)),
        };
        self.store(snapshot, ticket, &grant).await
    }

    async fn returned(&self, callback: Option<Query<Callback>>, headers: &HeaderMap) -> Outcome {
        let snapshot = self.snapshots.current();
        let Query(callback) = callback.ok_or(Halt::StateUnknown)?;
        let step: ProviderStep = self.take(callback.state.as_deref(), headers, &snapshot).await?;
        let ticket = step.ticket.clone();
        let work = async {
            let Provider::Oauth(own) = provider(&snapshot, &ticket)? else {
                return Err(Halt::NotConfigured("the provider has no authorization server any more"));
            };
            let client = Client::provider(own);
            let outbound = &snapshot.sources.outbound;
            let endpoints = client.endpoints(outbound, &self.metadata).await.map_err(provider_failed)?;
            // Before anything else is believed, errors included.
            if !endpoints.is_from(callback.iss.as_deref()) {
                return Err(Halt::OtherIssuer);
            }
            let code = match (&callback.code, callback.error.as_deref()) {
                (Some(code), None) => code,
                (_, Some("access_denied")) => return Err(Halt::ProviderDeclined("access_denied".to_owned())),
                (_, error) => return Err(Halt::Provider(shown(error.unwrap_or("no code")))),
            };
            let redirect_uri = provider_callback(connect(&snapshot)?);
            let secrets = &snapshot.sources.secrets;
            let exchange = client.exchange(&endpoints, outbound, secrets, (code, &step.verifier, &redirect_uri));
            let tokens = exchange.await.map_err(provider_failed)?;
            let grant = Grant {
                scopes: tokens.granted(&step.scopes),
                account: tokens.account(),
                secret: tokens.refresh.ok_or(Halt::NoRefreshToken)?,
                given: SystemTime::now(),
                expires: None,
            };
            self.store(&snapshot, &ticket, &grant).await
        };
        work.await.map_err(of(&ticket))
    }

    /// Stores what a person gave in place of what they gave before, and drops what was made of that.
    async fn store(&self, snapshot: &Snapshot, ticket: &Ticket, grant: &Grant) -> Result<Response, Halt> {
        let key = GrantKey::new(&ticket.tenant, &ticket.principal, &ticket.provider);
        let mut stored = Replaced::Lost;
        for _ in 0..3 {
            let before = self.state.grants.load(&key).await.map_err(unavailable)?;
            let version = before.map(|(_, version)| version);
            stored = self.state.grants.replace(&key, version, grant).await.map_err(unavailable)?;
            if stored != Replaced::Lost {
                break;
            }
        }
        if stored == Replaced::Lost {
            return Err(Halt::Unavailable("the grant was replaced by others meanwhile".to_owned()));
        }
        if let Err(error) = self.state.invalidate(&Topic::of_grant(&key), snapshot.sources.freshness()).await {
            // The grant is there; what others made of the one before ends by itself.
            tracing::error!(%error, "the other replicas could not be told of a new grant");
        }
        self.record(Event::Connected, snapshot, Some(ticket), &grant.scopes, "");
        let title = snapshot.config.providers.get(&ticket.provider);
        let title = title.map_or("The service", |provider| provider.title(&ticket.provider));
        let mut facts = vec![("Service", title.to_owned())];
        facts.extend(grant.account.clone().map(|account| ("Account", account)));
        if !grant.scopes.is_empty() {
            facts.push(("May use", grant.scopes.join(", ")));
        }
        let page = Page::new(StatusCode::OK, "Connected").facts(&facts);
        Ok(page.text("Return to your agent and let it go on. You can close this page.").into_response())
    }

    // === steps ===

    async fn remember<T: Step>(&self, step: &T) -> Result<String, Halt> {
        let Ticket { tenant, principal, .. } = step.ticket();
        let owner = format!("{}:{tenant}{principal}", tenant.len());
        self.state.states.put(T::KIND, &owner, step, LIFETIME).await.map_err(unavailable)
    }

    /// A step of this browser; it stays.
    async fn look<T: Step>(&self, name: &str, headers: &HeaderMap, snapshot: &Snapshot) -> Result<T, Failed> {
        let step: Option<T> = self.state.states.look(T::KIND, name).await.map_err(unavailable)?;
        let step = step.ok_or(Halt::StateUnknown)?;
        let is_https = connect(snapshot).is_ok_and(is_https);
        if browser::is_same(headers, is_https, step.browser()) {
            return Ok(step);
        }
        Err(of(step.ticket())(Halt::OtherBrowser))
    }

    /// A step of this browser, taken. In another browser it stays for its own.
    async fn take<T: Step>(&self, name: Option<&str>, headers: &HeaderMap, snapshot: &Snapshot) -> Result<T, Failed> {
        let name = name.ok_or(Halt::StateUnknown)?;
        self.look::<T>(name, headers, snapshot).await?;
        let step: Option<T> = self.state.states.take(T::KIND, name).await.map_err(unavailable)?;
        Ok(step.ok_or(Halt::StateUnknown)?)
    }

    // === the end of every page ===

    /// The page, within its time; what halts a person is recorded.
    async fn bounded(&self, work: impl Future<Output = Outcome>) -> Response {
        let timeout = || Err(Failed::from(Halt::Unavailable("the page took too long".to_owned())));
        match tokio::time::timeout(PAGE_TIMEOUT, work).await.unwrap_or_else(|_| timeout()) {
            Ok(response) => response,
            Err(Failed { halt, ticket }) => {
                let event = if halt.is_decline() { Event::ConnectDeclined } else { Event::ConnectRefused };
                tracing::info!(%halt, "a person could not connect");
                self.record(event, &self.snapshots.current(), ticket.as_deref(), &[], &halt.to_string());
                halt.page()
            }
        }
    }

    fn record(&self, event: Event, snapshot: &Snapshot, ticket: Option<&Ticket>, scopes: &[String], detail: &str) {
        let mut record = Record::new(event, &snapshot.config.environment, &snapshot.revision);
        record.grant = ticket.map(|ticket| GrantRecord {
            tenant: ticket.tenant.clone(),
            principal: ticket.principal.clone(),
            provider: ticket.provider.clone(),
            scopes: scopes.to_vec(),
        });
        record.detail = crate::audit::record::bounded(detail);
        self.engine.record(record);
    }
}

// === configuration ===

fn connect(snapshot: &Snapshot) -> Result<&Connect, Halt> {
    snapshot.config.connect.as_ref().ok_or(Halt::NotConfigured("there is no section `connect` any more"))
}

fn login<'s>(snapshot: &'s Snapshot, ticket: &Ticket) -> Result<(&'s Connect, &'s crate::config::Login), Halt> {
    let connect = connect(snapshot)?;
    let login = connect.login.get(&ticket.issuer).ok_or(Halt::NotConfigured("nobody of this issuer can log in"))?;
    Ok((connect, login))
}

fn login_client<'s>(
    snapshot: &'s Snapshot,
    login: &'s crate::config::Login,
    ticket: &Ticket,
) -> Result<Client<'s>, Halt> {
    let issuer = snapshot.config.identity.issuers.iter().find(|issuer| issuer.name == ticket.issuer);
    let issuer = issuer.ok_or(Halt::NotConfigured("the identity issuer is gone"))?;
    Ok(Client::login(login, &issuer.issuer))
}

fn provider<'s>(snapshot: &'s Snapshot, ticket: &Ticket) -> Result<&'s Provider, Halt> {
    let provider = snapshot.config.providers.get(&ticket.provider);
    provider.ok_or(Halt::NotConfigured("the provider is gone"))
}

fn is_https(connect: &Connect) -> bool {
    connect.public_url.starts_with("https://")
}

fn login_callback(connect: &Connect) -> String {
    format!("{}/callback/login", connect.public_url)
}

fn provider_callback(connect: &Connect) -> String {
    format!("{}/callback/provider", connect.public_url)
}

// === errors ===

fn unavailable(error: impl ToString) -> Halt {
    Halt::Unavailable(error.to_string())
}

fn login_failed(error: ClientError) -> Halt {
    Halt::Login(error.to_string())
}

fn provider_failed(error: ClientError) -> Halt {
    Halt::Provider(error.to_string())
}

fn of(ticket: &Ticket) -> impl Fn(Halt) -> Failed + use<> {
    let ticket = Box::new(ticket.clone());
    move |halt| Failed { halt, ticket: Some(ticket.clone()) }
}

impl From<Halt> for Failed {
    fn from(halt: Halt) -> Failed {
        Failed { halt, ticket: None }
    }
}
