//! An issuer's public keys (RFC 7517): from a file or a URL, bounded in number, size and time.
//!
//! Keys at a URL are fetched in the background; a request waits for a fetch only when its key id is unknown, and all
//! requests together cause at most one fetch per [`MIN_FETCH_INTERVAL`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use reqwest::Url;
use tokio::sync::Mutex;

use super::key::{KeySet, KeySetError};
use crate::config::{Algorithm, JwksSource};
use crate::outbound::{Ask, Outbound, OutboundError};

/// The longest fetch, from the look-up of the name to the last byte.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest time between two fetches from one issuer, however many tokens with unknown key ids arrive.
pub const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// The keys of one issuer and where they come from.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    source: JwksSource,
    algorithms: Vec<Algorithm>,
    outbound: Outbound,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: ArcSwap<State>,
    /// When a fetch was last begun. Holding it is the right to fetch.
    attempted: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    fetched: Option<Instant>,
    problem: Option<String>,
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file cannot be read.
    #[error("read key file `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not a usable JWK Set.
    #[error("key file `{}`: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: KeySetError,
    },
}

/// Why a fetch gave no keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Send(#[from] OutboundError),
    #[error("no answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    #[error("status {0}")]
    Status(u16),
    #[error(transparent)]
    Set(#[from] KeySetError),
}

/// What is wrong with the address of a JWK Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("it is not an absolute address")]
    Malformed,
    /// Neither `https` nor loopback.
    #[error("it is not https")]
    Plaintext,
    /// A user name, a password or a fragment.
    #[error("it holds a user name, a password or a fragment")]
    Extra,
}

/// Whether keys may be fetched from this address: `https`, or `http` on loopback.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), UrlError> {
    let url = Url::parse(url).map_err(|_| UrlError::Malformed)?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(UrlError::Extra);
    }
    let host = url.host_str().ok_or(UrlError::Malformed)?.trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        _ => Err(UrlError::Plaintext),
    }
}

// === impl Keys ===

impl Keys {
    /// Reads a key file, or prepares to fetch. Keys that `previous` fetched from the same address are kept.
    pub(super) fn new(
        source: &JwksSource,
        algorithms: &[Algorithm],
        previous: Option<&Keys>,
        outbound: &Outbound,
    ) -> Result<Keys, JwksError> {
        if let Some(previous) = previous
            && source.file.is_none()
            && previous.source == *source
            && previous.algorithms == algorithms
        {
            return Ok(Keys { outbound: outbound.clone(), ..previous.clone() });
        }
        let mut state = State::default();
        if let Some(path) = &source.file {
            let bytes = std::fs::read(path).map_err(|cause| JwksError::Read { path: path.clone(), cause })?;
            let keys = KeySet::parse(&bytes, algorithms);
            state.keys = Arc::new(keys.map_err(|cause| JwksError::File { path: path.clone(), cause })?);
        } else {
            state.problem = Some("not fetched yet".to_owned());
        }
        let shared = Shared { state: ArcSwap::from_pointee(state), attempted: Mutex::default() };
        Ok(Keys {
            source: source.clone(),
            algorithms: algorithms.to_vec(),
            outbound: outbound.clone(),
            shared: Arc::new(shared),
        })
    }

    /// The keys for a token with this key id; fetched once more if none of those at hand fits.
    ///
    /// # Errors
    /// No keys, or none fresh enough.
    pub(super) async fn lookup(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<KeySet>, String> {
        let state = self.shared.state.load_full();
        let usable = self.usable(&state);
        if usable && !state.keys.select(kid, algorithm).is_empty() {
            return Ok(state.keys.clone());
        }
        if self.source.url.is_some() {
            self.fetch(MIN_FETCH_INTERVAL).await;
        }
        let state = self.shared.state.load_full();
        if self.usable(&state) {
            return Ok(state.keys.clone());
        }
        Err(state.problem.clone().unwrap_or_else(|| "the keys are too old".to_owned()))
    }

    /// Fetches if the refresh interval has passed.
    pub(super) async fn refresh(&self) {
        if self.source.url.is_none() {
            return;
        }
        let state = self.shared.state.load_full();
        let interval = Duration::from_secs(self.source.refresh_secs());
        if state.problem.is_some() || state.fetched.is_none_or(|fetched| fetched.elapsed() >= interval) {
            self.fetch(MIN_FETCH_INTERVAL).await;
        }
    }

    /// Why no token can be verified now.
    pub(super) fn problem(&self) -> Option<String> {
        let state = self.shared.state.load();
        if self.usable(&state) {
            return None;
        }
        Some(state.problem.clone().unwrap_or_else(|| "the keys are too old".to_owned()))
    }

    /// The key file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.source.file.as_deref()
    }

    fn usable(&self, state: &State) -> bool {
        let max_stale = Duration::from_secs(self.source.max_stale_secs());
        self.source.file.is_some() || state.fetched.is_some_and(|fetched| fetched.elapsed() <= max_stale)
    }

    /// One fetch, unless one was begun less than `interval` ago. Whoever comes meanwhile waits for it. The fetch goes on when
    /// the request that caused it is gone.
    async fn fetch(&self, interval: Duration) {
        let mut attempted = self.shared.attempted.lock().await;
        if attempted.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        *attempted = Some(Instant::now());
        let keys = self.clone();
        let fetching = tokio::spawn(async move { keys.fetch_now().await });
        if let Err(error) = fetching.await {
            tracing::error!(%error, "the fetch of keys ended early");
        }
    }

    async fn fetch_now(&self) {
        let Some(url) = &self.source.url else { return };
        let result = match tokio::time::timeout(FETCH_TIMEOUT, download(&self.outbound, url)).await {
            Ok(Ok(bytes)) => KeySet::parse(&bytes, &self.algorithms).map_err(FetchError::Set),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(FetchError::Timeout),
        };
        let state = match result {
            Ok(keys) => {
                tracing::debug!(url, keys = keys.len(), "fetched keys");
                State { keys: Arc::new(keys), fetched: Some(Instant::now()), problem: None }
            }
            Err(error) => {
                tracing::warn!(url, %error, "keys cannot be fetched; the ones at hand stay in use while they are fresh");
                State { problem: Some(error.to_string()), ..State::clone(&self.shared.state.load()) }
            }
        };
        self.shared.state.store(Arc::new(state));
    }
}

async fn download(outbound: &Outbound, url: &str) -> Result<Vec<u8>, FetchError> {
    let answer = outbound.send(Ask::get(url)).await?;
    if answer.status != 200 {
        return Err(FetchError::Status(answer.status));
    }
    Ok(answer.body().to_vec())
}
