//! The only way to stores, token endpoints and other servers that Keyward asks: no redirects, bounded time and size, and
//! only to addresses that may be asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};
use zeroize::Zeroizing;

use crate::perimeter::address::{self, AddressError, Allowance};
use crate::perimeter::authority::Authority;

/// How long one request may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The metadata servers of clouds: plain HTTP on the machine's own link, for requests that say so.
pub const METADATA_SERVERS: [&str; 2] = ["http://169.254.169.254", "http://metadata.google.internal"];

/// A way out, shared by clones.
#[derive(Clone)]
pub struct Outbound(Arc<Ways>);

/// One client for each way in which names may resolve; made at its first use.
struct Ways {
    tls: Tls,
    allowance: Arc<Allowance>,
    /// To names that are not listed.
    guarded: OnceLock<Result<Client, String>>,
    /// To names that the operator listed: they may be private.
    listed: OnceLock<Result<Client, String>>,
    /// To the metadata servers alone.
    metadata: OnceLock<Result<Client, String>>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("allowance", &self.0.allowance).finish_non_exhaustive()
    }
}

/// What the addresses of a name must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Guarded,
    Listed,
    Metadata,
}

/// Resolves names, and refuses the addresses that may not be asked: one of them refuses all.
struct Resolver {
    allowance: Arc<Allowance>,
    guard: Guard,
}

/// TLS of one peer, beyond the roots that the system trusts. PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Certificates that are trusted instead of the system's.
    pub trusted: Option<Vec<u8>>,
    /// A client certificate with its chain and its key, one after the other.
    pub identity: Option<Zeroizing<Vec<u8>>>,
}

/// A request. No `Debug`: it holds secrets.
pub struct Ask {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Zeroizing<Vec<u8>>,
    metadata: bool,
}

/// What came back. No `Debug`: it holds secrets.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer. The text holds no value and no query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The address is none, or must not be asked.
    #[error("`{url}` must not be asked: {cause}")]
    Refused {
        /// The address, without its query.
        url: String,
        /// Why, and what to do.
        cause: String,
    },
    /// No answer, or one that breaks off.
    #[error("`{url}` does not answer: {cause}")]
    Send {
        /// The address, without its query.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// The answer is larger than [`MAX_ANSWER_BYTES`].
    #[error("`{url}` answers with more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge {
        /// The address, without its query.
        url: String,
    },
    /// There is no client: the TLS files or the system's roots cannot be used.
    #[error("no connection can be made: {0}")]
    Client(String),
}

// === impl OutboundError ===

impl OutboundError {
    /// What is wrong, without the address.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            OutboundError::Refused { cause, .. } | OutboundError::Send { cause, .. } | OutboundError::Client(cause) => {
                cause.clone()
            }
            OutboundError::TooLarge { .. } => format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"),
        }
    }
}

// === impl Outbound ===

impl Default for Outbound {
    /// A way to the public Internet and to this machine, for tests and tools. A configuration's own says what it allows.
    fn default() -> Outbound {
        let allowance = Allowance::parse(&["127.0.0.0/8", "::1/128", "localhost"]).unwrap_or_default();
        Outbound::new(Tls::default(), allowance)
    }
}

impl Outbound {
    /// A way with this TLS to the public Internet, and to what is allowed beyond. What cannot be used is said at the first
    /// request.
    #[must_use]
    pub fn new(tls: Tls, allowance: Allowance) -> Outbound {
        Outbound::with(tls, Arc::new(allowance))
    }

    /// The same way with another TLS.
    #[must_use]
    pub fn with_tls(&self, tls: Tls) -> Outbound {
        Outbound::with(tls, self.0.allowance.clone())
    }

    fn with(tls: Tls, allowance: Arc<Allowance>) -> Outbound {
        let (guarded, listed, metadata) = Default::default();
        Outbound(Arc::new(Ways { tls, allowance, guarded, listed, metadata }))
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Errors
    /// No usable answer within the bounds. Any status is an answer.
    pub async fn send(&self, ask: Ask) -> Result<Answer, OutboundError> {
        let Ask { method, url, headers, body, metadata } = ask;
        let (url, shown) = admitted(&url, metadata)?;
        let client = self.client(&url, &shown, metadata)?;
        let send = |error: reqwest::Error| OutboundError::Send { url: shown.clone(), cause: innermost(&error) };
        let mut request = client.request(method, url).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(send)?;
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        while let Some(chunk) = response.chunk().await.map_err(send)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(OutboundError::TooLarge { url: shown });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
    }

    /// The client that may ask this address.
    fn client(&self, url: &Url, shown: &str, metadata: bool) -> Result<&Client, OutboundError> {
        let ways = &*self.0;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let is_metadata = metadata && METADATA_SERVERS.contains(&url.origin().ascii_serialization().as_str());
        let guard = if is_metadata {
            Guard::Metadata
        } else {
            ways.allowance.check_host(host, port).map_err(|error| OutboundError::Refused {
                url: shown.to_owned(),
                cause: format!("{error}; `outbound.allow` lists what may be asked although it is not public"),
            })?;
            if ways.allowance.names(host, port) { Guard::Listed } else { Guard::Guarded }
        };
        let slot = match guard {
            Guard::Guarded => &ways.guarded,
            Guard::Listed => &ways.listed,
            Guard::Metadata => &ways.metadata,
        };
        let resolver = Resolver { allowance: ways.allowance.clone(), guard };
        let client = slot.get_or_init(|| client(&ways.tls, resolver).map_err(|error| innermost(&error)));
        client.as_ref().map_err(|cause| OutboundError::Client(cause.clone()))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (allowance, guard) = (self.allowance.clone(), self.guard);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
            match guard {
                // Port 0 is nobody's: only networks allow what is private here.
                Guard::Guarded => allowance.check_resolved(name.as_str(), 0, &addresses)?,
                Guard::Listed => check_never(&addresses)?,
                Guard::Metadata => {}
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Refuses what nothing can allow.
fn check_never(addresses: &[IpAddr]) -> Result<(), AddressError> {
    let mut classes = addresses.iter().filter_map(|address| address::class_of(*address));
    match classes.find(|class| class.is_never_allowed()) {
        Some(class) => Err(AddressError::Class(class)),
        None => Ok(()),
    }
}

fn client(tls: &Tls, resolver: Resolver) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent("keyward")
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .dns_resolver(resolver);
    if let Some(trusted) = &tls.trusted {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(trusted)?);
    }
    if let Some(identity) = &tls.identity {
        builder = builder.identity(reqwest::Identity::from_pem(identity)?);
    }
    builder.build()
}

/// The addresses on loopback that a configuration names itself, as `host:port`: whoever wrote them there means them.
#[must_use]
pub fn named_on_loopback(configuration: &str) -> Vec<String> {
    let mut named = Vec::new();
    // What stands in a comment is not meant.
    for line in configuration.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let line = [" #", "\t#"].iter().fold(line, |line, comment| line.split(comment).next().unwrap_or_default());
        for (at, _) in line.match_indices("://") {
            let (before, rest) = (line.get(..at).unwrap_or_default(), line.get(at + 3..).unwrap_or_default());
            let end = rest.find(|c: char| c.is_whitespace() || "/\"'?#,}".contains(c)).unwrap_or(rest.len());
            let authority = rest.get(..end).unwrap_or_default();
            let scheme = if before.ends_with("https") { "https" } else { "http" };
            let Ok(url) = Url::parse(&format!("{scheme}://{authority}/")) else { continue };
            if is_loopback(&url) {
                let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
                named.push(format!("{host}:{port}"));
            }
        }
    }
    named
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The authority of an address that may be asked, with its port.
///
/// # Errors
/// [`OutboundError::Refused`].
pub fn authority(text: &str) -> Result<Authority, OutboundError> {
    let (url, shown) = admitted(text, false)?;
    let cause = "its host cannot be read".to_owned();
    let authority = Authority::parse(url.authority()).map_err(|_| OutboundError::Refused { url: shown, cause })?;
    Ok(authority.with_default_port(url.scheme()))
}

/// An address that may be asked, and how it is shown. `metadata`: the request is one to a metadata server.
fn admitted(text: &str, metadata: bool) -> Result<(Url, String), OutboundError> {
    let shown = text.split(['?', '#']).next().unwrap_or_default().to_owned();
    let refused = |cause: &str| OutboundError::Refused { url: shown.clone(), cause: cause.to_owned() };
    let url = Url::parse(text).map_err(|_| refused("it is not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(OutboundError::Refused { url: "(not shown)".to_owned(), cause: "it holds a user name".to_owned() });
    }
    let is_loopback = is_loopback(&url);
    let is_metadata = metadata && METADATA_SERVERS.contains(&url.origin().ascii_serialization().as_str());
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) && !is_metadata {
        return Err(refused("it is not https; http is for loopback only"));
    }
    Ok((url, shown))
}

/// The cause at the bottom, which says more than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

// === impl Ask ===

impl Ask {
    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, url: impl Into<String>) -> Ask {
        Ask { method, url: url.into(), headers: Vec::new(), body: Zeroizing::default(), metadata: false }
    }

    /// GET.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Ask {
        Ask::new(Method::GET, url).header("accept", "application/json")
    }

    /// POST of a form (`application/x-www-form-urlencoded`).
    #[must_use]
    pub fn form(url: impl Into<String>, fields: &[(&str, &str)]) -> Ask {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(fields);
        let ask = Ask::new(Method::POST, url).header("content-type", "application/x-www-form-urlencoded");
        ask.header("accept", "application/json").body(text.finish().into_bytes())
    }

    /// POST of a JSON document.
    #[must_use]
    pub fn json(url: impl Into<String>, document: &serde_json::Value) -> Ask {
        let ask = Ask::new(Method::POST, url).header("content-type", "application/json");
        ask.header("accept", "application/json").body(document.to_string().into_bytes())
    }

    /// Adds a header; one whose value cannot be a header value is left out, and the other side says what is missing.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Ask {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Adds a header that is not known beforehand; `None` where its name or value cannot be sent.
    #[must_use]
    pub fn named(mut self, name: &str, value: &str) -> Option<Ask> {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        self.headers.push((HeaderName::from_bytes(name.as_bytes()).ok()?, value));
        Some(self)
    }

    /// Lets it go to one of [`METADATA_SERVERS`], which have no TLS.
    #[must_use]
    pub fn of_metadata_server(mut self) -> Ask {
        self.metadata = true;
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Vec<u8>) -> Ask {
        self.body = Zeroizing::new(body);
        self
    }
}

// === impl Answer ===

impl Answer {
    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// A header, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as a JSON document.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_asked_and_queries_are_not_shown() {
        for url in ["https://vault.example:8200/v1", "http://127.0.0.1:8200/", "http://[::1]:1/", "http://localhost:1/"]
        {
            assert!(admitted(url, false).is_ok(), "{url}");
        }
        for url in
            ["http://vault.example/", "file:///etc/passwd", "vault.example", "https://", "http://127.0.0.1.example/"]
        {
            assert!(admitted(url, false).is_err(), "{url}");
        }
        for url in ["http://169.254.169.254/metadata", "http://metadata.google.internal/computeMetadata"] {
            assert!(admitted(url, false).is_err() && admitted(url, true).is_ok(), "{url}");
        }
        for url in ["http://169.254.169.254.example/", "http://169.254.169.253/", "http://169.254.169.254:81/"] {
            assert!(admitted(url, true).is_err(), "{url}");
        }
        let error = admitted("http://x.example/a?token=canary", false).err().unwrap().to_string();
        assert!(error.contains("x.example/a") && !error.contains("canary"), "{error}");
        let error = admitted("https://canary:canary@x.example/", false).err().unwrap().to_string();
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn the_metadata_service_is_asked_only_by_who_means_it() {
        let url = "http://169.254.169.254/metadata/identity/oauth2/token";
        assert!(admitted(url, true).is_ok() && admitted(url, false).is_err());
        assert!(admitted("http://169.254.169.253/", true).is_err() && admitted("http://x.example/", true).is_err());
    }

    async fn refusal(outbound: &Outbound, url: &str) -> String {
        outbound.send(Ask::get(url)).await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_not_public_is_asked_only_where_it_is_allowed() {
        let strict = Outbound::new(Tls::default(), Allowance::default());
        for url in [
            "https://127.0.0.1:1/",
            "https://10.0.0.1/",
            "https://[::1]:1/",
            "https://169.254.169.254/latest",
            "https://vault.internal/",
            "https://[::ffff:10.0.0.1]/",
            "https://100.64.0.1/",
        ] {
            let error = refusal(&strict, url).await;
            assert!(error.contains("must not be asked"), "{url}: {error}");
        }
        // A name that leads inside, whoever answers for it (rebinding).
        let error = refusal(&strict, "https://localhost.localdomain:1/").await;
        assert!(!error.is_empty(), "{error}");
        let listed = Outbound::new(Tls::default(), Allowance::parse(&["127.0.0.1:1"]).unwrap());
        assert!(refusal(&listed, "https://127.0.0.1:1/").await.contains("does not answer"));
        assert!(refusal(&listed, "https://127.0.0.1:2/").await.contains("must not be asked"));
    }

    #[tokio::test]
    async fn a_name_that_resolves_inside_is_refused_when_it_is_resolved() {
        let guarded = Resolver { allowance: Arc::default(), guard: Guard::Guarded };
        let resolved = guarded.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.err().is_some_and(|error| error.to_string().contains("it is")));
        let listed = Resolver { allowance: Arc::default(), guard: Guard::Listed };
        assert!(listed.resolve("localhost".parse().unwrap()).await.is_ok());
    }

    #[test]
    fn a_configuration_names_loopback_addresses_by_itself() {
        let text = "a: http://127.0.0.1:8200/v1\nb: {u: \"https://[::1]:9/\", r: env://HOME}\nc: https://vault.example\nd: http://localhost:7";
        assert_eq!(named_on_loopback(text), ["127.0.0.1:8200", "[::1]:9", "localhost:7"]);
    }
}
